"""What fnn is measured against: ``python -m benchmarks --help``."""
