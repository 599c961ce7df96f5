"""A whole Kubernetes cluster on one machine, for tests and for developing: see docs/development.md."""
