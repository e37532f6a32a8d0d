"""Texts for the examples, and characters as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import files
import numpy as np

SONNETS = Path(__file__).with_name("sonnets.txt")
_SHAKESPEARE = files.File(
    "input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
)


def load(name: str) -> str:
    """Read a text.

    Args:
        name: ``"sonnets"``: twenty of Shakespeare's, which lie beside this file; ``"tinyshakespeare"``: a million
            characters of his plays, from ``$FNN_DATA``, the cache folder, or the official address; or the path of a
            file in UTF-8.

    Raises:
        DatasetError: when the file is not there, or is not UTF-8.
    """
    if name == "tinyshakespeare":
        path = files.fetch("tinyshakespeare", [_SHAKESPEARE])[0]
    else:
        path = SONNETS if name == "sonnets" else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise files.DatasetError(f"{path} cannot be read as text: {error}") from error


@dataclass(frozen=True)
class Characters:
    """The characters of a text as ids, in the order of their code points.

    Attributes:
        known: One string of all of them.
    """

    known: str

    @classmethod
    def of(cls, text: str) -> "Characters":
        """Those that occur in a text."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.known)

    def encode(self, text: str) -> np.ndarray:
        """Ids, int32.

        Raises:
            ValueError: when a character is not known; it names them.
        """
        if unknown := sorted(set(text) - set(self.known)):
            raise ValueError(f"the text that was trained on has no {', '.join(map(repr, unknown))}; leave that out")
        return np.array([self.known.index(character) for character in text], np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids."""
        return "".join(self.known[number] for number in ids)


def windows(ids: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a text into pieces of ``length``, one after the other, and the same moved on by one: what comes next."""
    count = (len(ids) - 1) // length
    if not count:
        raise ValueError(f"a text of {len(ids)} characters is shorter than a window of {length}; take a longer one")
    cut = lambda array: array[: count * length].reshape(count, length)
    return cut(ids), cut(ids[1:])
