"""Sequences from networks that predict the next step."""
