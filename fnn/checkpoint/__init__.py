"""Checkpoints: trees of arrays in files that are checked when they are read."""
