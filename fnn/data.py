"""Arrays as batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.arrays import as_arrays
from fnn.core.keys import check_key, fold
from fnn.ops.checks import check_choice, check_counts
from fnn.ops.shuffle import ROUNDS, shuffled


@dataclass(frozen=True, eq=False)
class Batches:
    """Shuffled batches of arrays that lie on the device; made by `batches`.

    Attributes:
        data: A pytree of arrays with a common leading axis.
        batch_size: Rows of a batch.
        key: Decides the permutation of every epoch; None keeps the order.
        start: Number of the first step, counted from the first epoch; a run goes on where it stopped.
        stop: Number of the step after the last.
        pads: Whether the last batch of an epoch is padded: by rows of weight 0. Otherwise what is left is dropped.
    """

    data: Any
    batch_size: int
    key: jax.Array | None
    start: int
    stop: int
    pads: bool = False

    @property
    def steps_per_epoch(self) -> int:
        return _steps_per_epoch(rows(self.data), self.batch_size, self.pads)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Any]:
        words = self.words()
        for step in range(self.start, self.stop):
            yield _batch(self.data, words, step, batch_size=self.batch_size, pads=self.pads)

    def __getitem__(self, step: int) -> Any:
        """The batch of step ``step``, whichever epoch that falls in."""
        return _batch(self.data, self.words(), step, batch_size=self.batch_size, pads=self.pads)

    def after(self, step: int) -> "Batches":
        """Those from step ``step`` on: what is left for a run that did so many."""
        return replace(self, start=min(max(self.start, step), self.stop))

    def indices(self, step: int) -> jax.Array:
        """Which rows are the batch of step ``step``, int32, without those that pad it."""
        size = rows(self.data)
        found = _indices(self.words(), step, size=size, batch_size=self.batch_size, pads=self.pads)
        return found[: size - step % self.steps_per_epoch * self.batch_size]

    def words(self) -> jax.Array | None:
        """Random bits that decide the order of the rows; None where the order is that of the data."""
        return None if self.key is None else _words(self.key)


def batches(
    data: Any,
    batch_size: int,
    *,
    key: jax.Array | None = None,
    epochs: int = 1,
    start: int = 0,
    remainder: Literal["drop", "pad"] = "drop",
) -> Batches:
    """Cut arrays into shuffled batches.

    Each epoch has another permutation, so a remainder that is dropped leaves no row out for good.

    Args:
        data: Arrays with a common leading axis: a tuple, a dict, any pytree. Tensors of PyTorch and tables of pandas
            are arrays too.
        batch_size: Rows of a batch.
        key: Decides the permutations, through ``fold(key, "shuffle")``. None keeps the order.
        epochs: How many passes.
        start: Number of the first step; a multiple of the steps of an epoch starts a later epoch.
        remainder: The rows of an epoch that fill no batch: ``"drop"`` them, or ``"pad"`` them to a last batch, where
            data is ``(x, target)``, ``(x, target, weight)`` or a dict with these keys. All batches then have a weight,
            and rows that pad are other rows of the epoch with weight 0.

    Returns:
        An iterable of pytrees like ``data`` with ``batch_size`` rows.

    Raises:
        ValueError: if the arrays differ in length, are empty, or have fewer rows than a batch.
        TypeError: if a part of the data is not an array, or one of strings or objects.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> for x, y in fnn.batches((jnp.arange(6.0), jnp.arange(6)), 4, key=jax.random.key(0)):
        ...     print(x.shape, y.shape)
        (4,) (4,)
    """
    check_counts(batch_size=(batch_size, 1), epochs=(epochs, 0), start=(start, 0))
    check_choice("remainder", remainder, "drop", "pad")
    data = on_device(data)
    size = rows(data)
    pads = remainder == "pad"
    if pads:
        data = _weighted(data)
    elif batch_size > size:
        raise ValueError(f"batch_size is {batch_size}, the data has {size} rows; choose batch_size={size} or smaller")
    if key is not None:
        check_key(key)
    return Batches(data, batch_size, key, start, start + epochs * _steps_per_epoch(size, batch_size, pads), pads)


def _weighted(data: Any) -> Any:
    """The same data with a weight of 1 for each row, where it has none."""
    if isinstance(data, dict) and {"x", "target"} <= set(data) <= {"x", "target", "weight"}:
        return data if "weight" in data else data | {"weight": jnp.ones(rows(data))}
    if isinstance(data, tuple) and len(data) in (2, 3):
        return data if len(data) == 3 else (*data, jnp.ones(rows(data)))
    size = f" of {len(data)}" if isinstance(data, tuple) else ""
    raise ValueError(
        f'remainder="pad" gives some rows the weight 0: data is (x, target) or (x, target, weight), got a '
        f"{type(data).__name__}{size}"
    )


def is_arrays(data: Any, name: str = "data") -> bool:
    """Whether ``data`` is arrays to be cut into batches, rather than an iterable of batches.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(data, tuple | dict) or hasattr(data, "shape") or hasattr(data, "__array__"):
        return True
    if hasattr(data, "__iter__") and not isinstance(data, str | bytes | type):
        return False
    if callable(data) and not isinstance(data, type):
        fix = "wrap it so that iter() starts it again: a class whose __iter__ calls it"
        raise TypeError(f"{name} is a function; {fix}, or for one epoch {name}=function()")
    is_dataset = hasattr(data, "__getitem__") and not isinstance(data, str | bytes)
    fix = "a Dataset of PyTorch goes into a DataLoader" if is_dataset else "pass (x, target)"
    raise TypeError(f"{name} is of type {type(data).__name__}, neither arrays nor an iterable of batches; {fix}")


def on_device(data: Any, name: str = "data") -> Any:
    """Put arrays on the device once and check that they have the same rows."""
    data = as_arrays(data, name)
    rows(data, name)
    return jax.tree.map(_put, data)


def _put(leaf: Any) -> jax.Array:
    """A copy of a NumPy array, for which nothing is compiled."""
    return jax.device_put(leaf, may_alias=False) if isinstance(leaf, np.ndarray) else jnp.asarray(leaf)


def rows(data: Any, name: str = "data") -> int:
    """The common length of the leading axes."""
    named = jax.tree.leaves_with_path(data)
    for path, leaf in named:
        if not np.shape(leaf):
            raise _explain_scalar(data, path, name)
    lengths = {np.shape(leaf)[0] for _, leaf in named}
    if len(lengths) > 1:
        listed = ", ".join(f"{name}{jax.tree_util.keystr(path)} has {np.shape(leaf)[0]}" for path, leaf in named)
        raise ValueError(f"the arrays differ in their number of rows: {listed}; cut them to the same length")
    if not lengths or lengths == {0}:
        raise ValueError(f"{name} is empty: it has no rows")
    return lengths.pop()


def _explain_scalar(tree: Any, path: Any, name: str) -> TypeError | ValueError:
    """The error for a number where an array should be: often a list of numbers is, or a dict of class weights."""
    for at, key in enumerate(path):
        here = name + jax.tree_util.keystr(path[:at])
        if isinstance(tree, list):
            return TypeError(f"{here} is a list of numbers; pass an array: np.asarray(...)")
        if isinstance(tree, dict) and all(np.ndim(value) == 0 for value in tree.values()):
            fix = "weights of classes are an array with one for each row: class_weight[y]"
            return TypeError(f"{here} is a dict of numbers; pass an array: {fix}")
        if not isinstance(tree, tuple | dict) or not hasattr(key, "idx" if isinstance(tree, tuple) else "key"):
            break
        tree = tree[key.idx if isinstance(tree, tuple) else key.key]
    return ValueError(f"{name}{jax.tree_util.keystr(path)} has no leading axis of examples")


def pick(data: Any, indices: jax.Array) -> Any:
    """The rows ``indices`` of every array; they must be in bounds."""
    return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="promise_in_bounds"), data)


def batch_of_step(data: Any, words: jax.Array | None, step: jax.Array, batch_size: int, pads: bool = False) -> Any:
    """The batch of a step, which costs its own rows only; for compiled loops.

    Args:
        data: Arrays, as `Batches` holds them.
        words: From `Batches.words`.
        step: Number of the step, counted from the first epoch, an integer that may be traced.
        batch_size: Rows of a batch.
        pads: Whether the last batch of an epoch is padded.
    """
    size = rows(data)
    batch = pick(data, _indices(words, step, size=size, batch_size=batch_size, pads=pads))
    if not pads or size % batch_size == 0:
        return batch
    seen = _positions(jnp.asarray(step, jnp.int32), size, batch_size, pads) < size
    keep = lambda weight: jnp.where(seen.reshape(seen.shape + (1,) * (weight.ndim - 1)), weight, 0)
    return batch | {"weight": keep(batch["weight"])} if isinstance(batch, dict) else (*batch[:2], keep(batch[2]))


@partial(jax.jit, static_argnames=("size", "batch_size", "pads"))
def _indices(words: jax.Array | None, step: jax.Array, size: int, batch_size: int, pads: bool) -> jax.Array:
    step = jnp.asarray(step, jnp.int32)
    places = _positions(step, size, batch_size, pads)
    places = places % size if pads else places
    return places if words is None else shuffled(words, step // _steps_per_epoch(size, batch_size, pads), places, size)


def _positions(step: jax.Array, size: int, batch_size: int, pads: bool) -> jax.Array:
    """Places of a batch's rows in the order of an epoch; those from ``size`` on pad it."""
    index = step % _steps_per_epoch(size, batch_size, pads)
    return index * batch_size + jnp.arange(batch_size, dtype=jnp.int32)


def _steps_per_epoch(size: int, batch_size: int, pads: bool) -> int:
    return -(-size // batch_size) if pads else size // batch_size


_batch = jax.jit(batch_of_step, static_argnames=("batch_size", "pads"))


@jax.jit
def _words(key: jax.Array) -> jax.Array:
    return jax.random.bits(fold(key, "shuffle"), (2 * ROUNDS,), jnp.uint32)
