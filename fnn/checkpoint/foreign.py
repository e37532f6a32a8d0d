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

    @property
    def is_plain(self) -> bool:
        """Whether it is one array as it is."""
        return self.by is None and not self._numbered

    @property
    def _numbered(self) -> list[str]:
        return [name for name in self.names if "{}" in name]

    def places(self, known: Iterable[str]) -> list[tuple[str, ...]]:
        """The names to read: once, or once for each number."""
        if not self._numbered:
            return [self.names]
        known, count = set(known), 0
        while self._numbered[0].replace("{}", str(count)) in known:
            count += 1
        return [tuple(name.replace("{}", str(number)) for name in self.names) for number in range(max(count, 1))]

    def make(self, groups: list[list[np.ndarray]]) -> np.ndarray:
        """The array, from what was read at each of its places."""
        made = [np.asarray(arrays[0] if self.by is None else self.by(*arrays)) for arrays in groups]
        return np.stack(made) if self._numbered else made[0]
