"""The only rooms that talk to an API server: caches filled by watches, a keyed queue, a lease, a writer of what
reconcile decides.

`operator.py` puts them together; each of the others does one thing and is tested without a server where it can be.
"""
