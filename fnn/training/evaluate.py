"""Measuring a network on data, and asking it for predictions."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.arrays import as_arrays
from fnn.core.caches import cached_on_first
from fnn.core.errors import short_tracebacks
from fnn.core.layer import Layer
from fnn.core.specs import show
from fnn.data import is_arrays, on_device, pick, rows
from fnn.metrics.streaming import Metric
from fnn.ops.checks import check_counts
from fnn.training.objective import Supervised, check_data, check_examples, check_weight
from fnn.training.step import Objective


@short_tracebacks
def evaluate(
    objective: Objective,
    params: Any,
    state: Any,
    data: Any,
    *,
    batch_size: int = 256,
    key: jax.Array | None = None,
) -> dict[str, Any]:
    """Measure loss and metrics over a data set, without training.

    With an objective of `supervised` the last batch is padded and the padding masked: every metric is exact whatever
    the batch size, and one executable serves all batches. Other objectives are averaged over batches, weighted by
    their rows.

    Args:
        objective: What to measure.
        params: The network's parameters.
        state: The network's state.
        data: Arrays, as `fit` takes them, or an iterable of batches.
        batch_size: Rows at a time.
        key: For objectives that draw random numbers in evaluation too.

    Returns:
        By name, ``"loss"`` and the metrics: floats, or the arrays that streaming metrics compute.

    Raises:
        ValueError: if the data is empty or its arrays differ in length, if it lacks x or target, or if weights are
            negative or all 0, or labels are not classes of the output, as for `fit`.
        TypeError: if the data is neither arrays nor an iterable of batches.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net = fnn.dense(1)
        >>> x, y = jnp.ones((10, 3)), jnp.zeros((10, 1))
        >>> params, state = net.init(jax.random.key(0), x)
        >>> objective = fnn.supervised(net, optax.losses.squared_error)
        >>> sorted(fnn.evaluate(objective, params, state, (x, y)))
        ['loss']
    """
    check_counts(batch_size=(batch_size, 1))
    check_examples(objective, data, "data")
    if is_arrays(data):
        data = on_device(data)
    parts = _cut(data, batch_size) if is_arrays(data) else map(_counted, data)
    if isinstance(objective, Supervised):
        if is_arrays(data):
            check_weight(data)
        found = _evaluate_supervised(objective, params, state, parts)
        if is_arrays(data) and np.isnan(found["loss"]):
            check_data(objective, params, state, data, batch_size)
        return found
    return _evaluate_any(objective, params, state, parts, key)


def evaluated(objective: Objective, params: Any, state: Any, data: Any, key: jax.Array, batch_size: int) -> list[str]:
    """The names that `evaluate` would measure on arrays; shapes are checked, and nothing is computed."""
    size = min(batch_size, rows(data))
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), data)
    if isinstance(objective, Supervised):
        return list(_compile_statistics(objective).eval_shape(params, state, batch, size))
    return list(_compile_objective(objective).eval_shape(params, state, batch, key))


@short_tracebacks
def predict(net: Layer, params: Any, state: Any, *xs: Any, batch_size: int = 256) -> Any:
    """Apply a network to many examples, a batch at a time.

    Every batch has ``batch_size`` rows: the last one, or the only one, is padded. So one compilation serves any
    sequence of sizes up to ``batch_size``, and one row costs as much as ``batch_size`` rows. A server that gets few
    rows at a time passes the most that it expects.

    Args:
        net: A network whose inputs and outputs have the examples on their leading axis.
        params: Its parameters.
        state: Its state.
        *xs: Its inputs, with any number of rows.
        batch_size: Rows at a time.

    Returns:
        The outputs, with as many rows as the inputs.

    Raises:
        ValueError: if the inputs are empty or differ in length.
        TypeError: if params or state is not a dict, as where the state is forgotten.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.dense(2)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> fnn.predict(net, params, state, jnp.ones((1000, 3))).shape
        (1000, 2)
    """
    check_counts(batch_size=(batch_size, 1))
    fix = "pass run.params, run.state, x"
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, dict):
            kind = show(tree) if hasattr(tree, "shape") else f"of type {type(tree).__name__}"
            raise TypeError(f"predict(net, params, state, *xs): {name} is {kind}; {fix}")
    if not xs:
        raise TypeError(f"predict(net, params, state, *xs): there is no input; {fix}")
    xs = as_arrays(xs, "xs")
    size = rows(xs, "xs")
    run = _compile_predict(net)
    if size == batch_size:
        return run(params, state, *xs)
    if size < batch_size and (padded := _pad(xs, batch_size)) is not None:
        return jax.tree.map(lambda y: _first_rows(y, size), run(params, state, *padded))
    parts = [run(params, state, *part) for part, _ in _cut(xs, batch_size, pad=True)]
    return jax.tree.map(lambda *ys: jnp.concatenate(ys)[:size], *parts)


ON_DEVICE = (TypeError, RuntimeError, jax.errors.TracerArrayConversionError)  # keys, arrays of other hosts, traced ones


def _pad(xs: Any, batch_size: int) -> Any:
    """Repeat the last row on the host, where nothing is compiled for the number of rows; None where that cannot be."""
    try:
        return jax.tree.map(lambda x: np.asarray(x)[np.minimum(np.arange(batch_size), len(x) - 1)], xs)
    except ON_DEVICE:
        return None


def _first_rows(y: Any, size: int) -> Any:
    """Cut off what is padded, on the host too."""
    try:
        return jax.device_put(np.asarray(y)[:size])
    except ON_DEVICE:
        return y[:size]


def _counted(batch: Any) -> tuple[Any, int]:
    batch = as_arrays(batch, "batch")
    return batch, rows(batch, "batch")


def _cut(data: Any, batch_size: int, *, pad: bool = False) -> Iterator[tuple[Any, int]]:
    """Pairs of a batch and how many of its rows count: the last is padded by repeating a row."""
    data = on_device(data)
    size = rows(data)
    batch_size = batch_size if pad else min(batch_size, size)
    for start in range(0, size, batch_size):
        indices = np.arange(start, start + batch_size, dtype=np.int32)
        yield _pick(data, np.minimum(indices, size - 1)), min(batch_size, size - start)


_pick = jax.jit(pick)  # by itself, so that the network compiles for the batch and not for the data's size


def _evaluate_supervised(objective: Supervised, params: Any, state: Any, parts: Iterable[Any]) -> dict[str, Any]:
    compiled = _compile_statistics(objective)
    waiting = [compiled(params, state, batch, count) for batch, count in parts]
    if not waiting:
        raise ValueError("data is empty: it has no batches")
    stats, found = jax.device_get(waiting), {}
    for name, metric in objective.streaming_metrics().items():
        value = np.asarray(metric.compute(_merge(metric, [_wide(part[name]) for part in stats])))
        found[name] = value if value.shape else value.item()
    return found


def _evaluate_any(objective: Objective, params: Any, state: Any, parts: Iterable[Any], key: Any) -> dict[str, Any]:
    compiled = _compile_objective(objective)
    sums: dict[str, Any] = {}
    total = 0
    for number, (batch, count) in enumerate(parts):
        if count < rows(batch):
            batch = jax.tree.map(lambda leaf, count=count: leaf[:count], batch)
        batch_key = None if key is None else jax.random.fold_in(key, number)
        metrics = jax.device_get(compiled(params, state, batch, batch_key))
        total += count
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + np.float64(value) * count
    if not total:
        raise ValueError("data is empty: it has no batches")
    means = {name: np.asarray(value / total) for name, value in sums.items()}
    return {name: value if value.shape else value.item() for name, value in means.items()}


def _merge(metric: Metric, parts: list[Any]) -> Any:
    """Merge in pairs, so that statistics which grow are not copied once for each batch."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2])
        parts = [metric.merge(a, b) for a, b in pairs] + parts[len(parts) // 2 * 2 :]
    return parts[0]


def _wide(stats: Any) -> Any:
    """Statistics of one batch are float32 on the device; the sums over a data set are float64 on the host."""
    return jax.tree.map(lambda a: a.astype(np.float64) if np.issubdtype(a.dtype, np.floating) else a, stats)


@cached_on_first
def _compile_statistics(objective: Supervised) -> Any:
    def run(params: Any, state: Any, batch: Any, count: Any) -> Any:
        return objective.statistics(params, state, batch, jnp.arange(rows(batch)) < count)

    return jax.jit(run)


@cached_on_first
def _compile_objective(objective: Objective) -> Any:
    def run(params: Any, state: Any, batch: Any, key: Any) -> Any:
        loss, (_, metrics) = objective(params, state, batch, key=key, train=False)
        return {"loss": loss, **metrics}

    return jax.jit(run)


@cached_on_first
def _compile_predict(net: Layer) -> Callable[..., Any]:
    return jax.jit(lambda params, state, *xs: net.apply(params, state, *xs)[0])
