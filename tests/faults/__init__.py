"""What becomes of checkpoints under faults, for fnn and its peers: a program, ``python -m tests.faults``."""
