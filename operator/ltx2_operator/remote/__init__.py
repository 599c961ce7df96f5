"""What a user's own commands ask of a cluster: a training, a pod for a copy, and a pipe into it."""
