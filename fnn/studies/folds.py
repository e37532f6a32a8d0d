"""Ways to split rows into those to train on and those to validate on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fnn.ops.checks import check_counts

Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Folds:
    """A rule that splits rows; made by `k_fold` and its like.

    Attributes:
        name: The rule and its settings, as they were written.
        split: ``split(rows, target, random)``, pairs of the rows to train on and those to validate on; ``target`` is
            that of the data, ``random`` a NumPy generator.
    """

    name: str
    split: Callable[[int, Any, np.random.Generator], list[Split]] = field(repr=False)


class IndexSets(NamedTuple):
    """Folds as arrays of one size.

    Attributes:
        train: Rows of each fold to train on, ``(folds, rows)`` int32; row 0 where a fold has fewer.
        train_sizes: How many of them count, ``(folds,)`` int32.
        held_out: Rows to validate on, likewise.
        held_out_sizes: How many of them count.
    """

    train: np.ndarray
    train_sizes: np.ndarray
    held_out: np.ndarray
    held_out_sizes: np.ndarray


def k_fold(folds: int, *, stratified: bool = False, groups: Any = None, repeats: int = 1) -> Folds:
    """Cut the shuffled rows into parts, each of which is held out once.

    Args:
        folds: How many parts; their sizes differ by at most one row (or group).
        stratified: Whether each part has the classes of the data's target in their proportions.
        groups: Rows of the same group stay together, ``(rows,)``: patients, speakers.
        repeats: How many times, each with another shuffle.

    Returns:
        A rule for ``folds`` of `fnn.study`, with ``folds * repeats`` folds.

    Raises:
        TypeError: when folds or repeats is no int.
        ValueError: when folds is below 2 or repeats below 1, or both stratified and groups are given; when the data
            has fewer rows or groups than folds, or a class has fewer rows.

    Example:
        >>> import fnn, numpy as np
        >>> [(train.size, held.size) for train, held in fnn.k_fold(3).split(10, None, np.random.default_rng(0))]
        [(6, 4), (7, 3), (7, 3)]

    References:
        Stone, Cross-validatory choice and assessment of statistical predictions, JRSS B 36, 1974.
    """
    check_counts(folds=(folds, 1), repeats=(repeats, 1))
    if folds < 2:
        raise ValueError(f"k_fold needs at least 2 folds, got {folds}; for one held-out part use fnn.shuffle_split(1)")
    if stratified and groups is not None:
        raise ValueError("k_fold keeps groups together or classes in proportion, not both; a scikit-learn splitter can")

    def split(rows: int, target: Any, random: np.random.Generator) -> list[Split]:
        if groups is None and folds > rows:
            raise ValueError(f"{folds} folds of {rows} rows; use at most {rows}, or fnn.leave_one_out()")
        found = []
        for _ in range(repeats):
            if groups is not None:
                part = _part_of_groups(groups, rows, folds, random)
            elif stratified:
                part = _part_by_class(target, rows, folds, random)
            else:
                part = random.permutation(rows) % folds
            found += [(np.flatnonzero(part != fold), np.flatnonzero(part == fold)) for fold in range(folds)]
        return found

    settings = {"stratified": stratified, "groups": groups is not None, "repeats": repeats if repeats > 1 else 0}
    return Folds(f"k_fold({folds}{''.join(f', {name}={value}' for name, value in settings.items() if value)})", split)


def leave_one_out() -> Folds:
    """Hold out each row once: as many folds as rows.

    Returns:
        A rule for ``folds`` of `fnn.study`.

    Example:
        >>> import fnn, numpy as np
        >>> [held.tolist() for train, held in fnn.leave_one_out().split(3, None, np.random.default_rng(0))]
        [[0], [1], [2]]
    """

    def split(rows: int, target: Any, random: np.random.Generator) -> list[Split]:
        if rows < 2:
            raise ValueError(f"leave_one_out needs at least 2 rows, got {rows}")
        every = np.arange(rows)
        return [(np.delete(every, row), every[row : row + 1]) for row in every]

    return Folds("leave_one_out()", split)


def shuffle_split(splits: int = 1, *, held_out: float = 0.2) -> Folds:
    """Hold out a random part of the rows, several times independently of each other.

    Args:
        splits: How many times.
        held_out: The part of the rows to hold out, between 0 and 1.

    Returns:
        A rule for ``folds`` of `fnn.study`.

    Raises:
        TypeError: when splits is no int.
        ValueError: when splits is below 1 or held_out not between 0 and 1; when a side would have no row.

    Example:
        >>> import fnn, numpy as np
        >>> [(train.size, held.size) for train, held in fnn.shuffle_split(2).split(10, None, np.random.default_rng(0))]
        [(8, 2), (8, 2)]
    """
    check_counts(splits=(splits, 1))
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is the part of the rows to hold out, between 0 and 1, got {held_out}")

    def split(rows: int, target: Any, random: np.random.Generator) -> list[Split]:
        size = round(held_out * rows)
        if not 0 < size < rows:
            raise ValueError(f"holding out {held_out} of {rows} rows leaves a side without a row")
        orders = [random.permutation(rows) for _ in range(splits)]
        return [(np.sort(order[size:]), np.sort(order[:size])) for order in orders]

    return Folds(f"shuffle_split({splits}, held_out={held_out})", split)


def time_series(splits: int, *, held_out: int | None = None, train: int | None = None, gap: int = 0) -> Folds:
    """Train on what came before, validate on what comes after; later folds begin later.

    Args:
        splits: How many folds.
        held_out: Rows of each validation set. None: ``rows // (splits + 1)``.
        train: At most so many rows to train on, the latest. None: all before.
        gap: Rows left out between the two.

    Returns:
        A rule for ``folds`` of `fnn.study`.

    Raises:
        TypeError: when an argument is no int.
        ValueError: when splits, held_out or train is below 1 or gap below 0; when the data has too few rows.

    Example:
        >>> import fnn, numpy as np
        >>> rule = fnn.time_series(3)
        >>> [(train.tolist(), held.tolist()) for train, held in rule.split(4, None, np.random.default_rng(0))]
        [([0], [1]), ([0, 1], [2]), ([0, 1, 2], [3])]
    """
    check_counts(splits=(splits, 1), held_out=(held_out, 1), train=(train, 1), gap=(gap, 0))

    def split(rows: int, target: Any, random: np.random.Generator) -> list[Split]:
        size = rows // (splits + 1) if held_out is None else held_out
        first = rows - splits * size
        if size < 1 or first - gap < 1:
            raise ValueError(
                f"{splits} splits that hold out {size} rows with a gap of {gap} need more than {rows} rows"
            )
        starts = range(first, rows, size)
        lows = [0 if train is None else max(0, start - gap - train) for start in starts]
        return [(np.arange(low, start - gap), np.arange(start, start + size)) for low, start in zip(lows, starts)]

    return Folds(f"time_series({splits}, held_out={held_out}, train={train}, gap={gap})", split)


def as_folds(folds: Any, groups: Any = None) -> Folds:
    """What a caller may write as folds, as a rule.

    An int is `k_fold`; an object with ``split`` is a splitter of scikit-learn; a list is pairs of rows.
    """
    if isinstance(folds, Folds):
        return folds
    if hasattr(folds, "__index__"):
        return k_fold(folds)
    if hasattr(folds, "split"):
        return Folds(repr(folds), lambda rows, target, random: list(folds.split(np.zeros((rows, 1)), target)))
    if isinstance(folds, Sequence):
        return Folds(f"{len(folds)} pairs of rows", lambda rows, target, random: [_checked(pair) for pair in folds])
    raise TypeError(f"folds is a rule such as fnn.k_fold(5), a splitter or pairs of rows, got {type(folds).__name__}")


def index_sets(folds: Folds, rows: int, target: Any, seed: Sequence[int]) -> IndexSets:
    """The folds of a data set as arrays."""
    pairs = folds.split(rows, None if target is None else np.asarray(target), np.random.default_rng(seed))
    if not pairs:
        raise ValueError(f"{folds.name} gave no fold")
    for number, pair in enumerate(pairs):
        for side, name in zip(pair, ("train", "validate")):
            if not len(side):
                raise ValueError(f"fold {number} of {folds.name} has no row to {name} on")
            side = np.asarray(side)
            if side.ndim != 1 or not np.issubdtype(side.dtype, np.integer):
                hint = "; of a mask, pass np.flatnonzero(mask)" if side.dtype == bool else ""
                raise TypeError(
                    f"fold {number} of {folds.name} has rows to {name} on of {side.dtype}{list(side.shape)}, wanted "
                    f"row numbers, ints (rows,){hint}"
                )
            if wrong := side[(side < 0) | (side >= rows)].tolist():
                raise ValueError(f"fold {number} of {folds.name} has row {wrong[0]}, the data has rows 0 to {rows - 1}")
        if common := np.intersect1d(*pair).size:
            raise ValueError(f"fold {number} of {folds.name} would validate on {common} rows that it trains on")
    train, held_out = zip(*pairs)
    return IndexSets(*_padded(train), *_padded(held_out))


def _padded(sets: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    sizes = np.array([len(rows) for rows in sets], np.int32)
    full = np.zeros((len(sets), sizes.max()), np.int32)
    for row, rows in zip(full, sets):
        row[: len(rows)] = rows
    return iter((full, sizes))


def _checked(pair: Any) -> Split:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"a fold is a pair (rows to train on, rows to validate on), got {type(pair).__name__}")
    return np.asarray(pair[0]), np.asarray(pair[1])


def _part_by_class(target: Any, rows: int, folds: int, random: np.random.Generator) -> np.ndarray:
    """Which part each row is in, so that every class is spread evenly; parts differ by few rows in size."""
    if target is None or np.ndim(target) != 1:
        raise ValueError("stratified folds need a target of one class for each row, (rows,)")
    classes, labels, counts = np.unique(target, return_inverse=True, return_counts=True)
    if counts.min() < folds:
        rare = classes[counts.argmin()]
        raise ValueError(f"class {rare} has {counts.min()} rows, fewer than {folds} folds; use at most {counts.min()}")
    part = np.empty(rows, int)
    shuffled = random.permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    part[by_class] = np.arange(rows) % folds  # dealt in turn, going on from class to class
    return part


def _part_of_groups(groups: Any, rows: int, folds: int, random: np.random.Generator) -> np.ndarray:
    """Which part each row is in: the largest group goes to the smallest part, ties in random order."""
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(f"groups has shape {groups.shape}, wanted one group for each of {rows} rows")
    names, labels, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise ValueError(f"{folds} folds of {len(names)} groups; use at most {len(names)}")
    part, sizes = np.empty(len(names), int), np.zeros(folds, int)
    shuffled = random.permutation(len(names))
    for group in shuffled[np.argsort(-counts[shuffled], kind="stable")]:
        part[group] = sizes.argmin()
        sizes[part[group]] += counts[group]
    return part[labels]
