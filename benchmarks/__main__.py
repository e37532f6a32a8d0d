"""The command line: ``python -m benchmarks [SCRIPT] [options]``; SCRIPT is one of `SCRIPTS`, by default ``steps``."""

import importlib
import sys

SCRIPTS = ("steps", "fit", "sequences", "studies", "lstm", "convolutions", "memory", "checkpoints")


def split(arguments: list[str]) -> tuple[str, list[str]]:
    """The script that the arguments ask for, and what is left for it."""
    if arguments and arguments[0] in SCRIPTS:
        return arguments[0], arguments[1:]
    return SCRIPTS[0], arguments


if __name__ == "__main__":
    script, rest = split(sys.argv[1:])
    sys.exit(importlib.import_module(f"benchmarks.{script}").main(rest))
