"""The campaign of `make test-kill`: runs killed, told to stop or without space at any moment end like the unbroken one.

trial.py     the run that is broken, and how an attempt of it is started
moments.py   where in a run it is broken: planned from a seed
witness.py   what must hold right after a break, and at the end
breaking.py  one broken run from its break to its end, as a record
campaign.py  hundreds of them, in a log that can be gone on with
disk.py      the volume that is full at one kind of write
"""
