"""Arithmetic that several layers need: pure functions of arrays. They import nothing else of fnn."""
