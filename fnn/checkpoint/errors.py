"""What goes wrong with files."""

from pathlib import Path


class CheckpointError(ValueError):
    """A file could not be written, or does not hold what it should.

    Attributes:
        file: Which file.
    """

    def __init__(self, file: str | Path, reason: str):
        super().__init__(f"{file}: {reason}")
        self.file = Path(file)


class MisfitError(CheckpointError):
    """A file is whole, and holds another tree than is wanted."""


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged and an older one taken, a part of one was left, or the run's code has changed."""
