"""How arrays of other libraries become ours."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


class From:
    """An array that is made of arrays with other names, for ``fnn.load(..., names=...)``.

    Args:
        *names: Names in the file. With ``{}`` in them they stand for the numbers 0, 1, ...: what is made of each
            number is stacked on a leading axis, as `fnn.stack` keeps its blocks.
        by: ``by(*arrays) -> array``, such as ``np.transpose``. None: the array itself.

    Example:
        >>> import fnn, numpy as np
        >>> fnn.From("layers.{}.fc.weight", by=np.transpose)
        From('layers.{}.fc.weight', by=transpose)
    """

    def __init__(self, *names: str, by: Callable[..., Any] | None = None):
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"From takes names of arrays in a file, got {names!r}")
        if by is None and len(names) > 1:
            raise TypeError(f"{len(names)} names need by=, which makes one array of them")
        self.names, self.by = names, by

    def __repr__(self) -> str:
        by = "" if self.by is None else f", by={getattr(self.by, '__name__', repr(self.by))}"
        return f"From({', '.join(map(repr, self.names))}{by})"

    def places(self, known: Iterable[str]) -> list[tuple[str, ...]]:
        """The names to read: once, or once for each number."""
        if not any("{}" in name for name in self.names):
            return [self.names]
        known, found = set(known), []
        while (names := tuple(name.replace("{}", str(len(found))) for name in self.names))[0] in known:
            found.append(names)
        return found or [tuple(name.replace("{}", "0") for name in self.names)]

    def make(self, groups: list[list[np.ndarray]]) -> np.ndarray:
        """The array, from what was read at each of its places."""
        made = [np.asarray(arrays[0] if self.by is None else self.by(*arrays)) for arrays in groups]
        return np.stack(made) if any("{}" in name for name in self.names) else made[0]
