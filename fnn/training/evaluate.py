"""Measuring a network on data, and asking it for predictions."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.caches import cached_on_first
from fnn.core.errors import short_tracebacks
from fnn.core.layer import Layer
from fnn.data import is_arrays, on_device, pick, rows
from fnn.metrics.streaming import Metric
from fnn.training.objective import Supervised, check_data, check_form, check_weight
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
        ValueError: when the data is empty or its arrays differ in length, weights are negative or all 0, or labels are
            not classes of the output, as for `fit`.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net = fnn.dense(1)
        >>> x, y = jnp.ones((10, 3)), jnp.zeros((10, 1))
        >>> params, state = net.init(jax.random.key(0), x)
        >>> objective = fnn.supervised(net, optax.losses.squared_error)
        >>> sorted(fnn.evaluate(objective, params, state, (x, y)))
        ['loss']
    """
    if is_arrays(data):
        check_form(data)
        data = on_device(data)
    parts = _cut(data, batch_size) if is_arrays(data) else ((batch, rows(batch)) for batch in data)
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

    Args:
        net: A network whose inputs and outputs have the examples on their leading axis.
        params: Its parameters.
        state: Its state.
        *xs: Its inputs, with any number of rows.
        batch_size: Rows at a time; the last batch is padded, so one executable serves all.

    Returns:
        The outputs, with as many rows as the inputs.

    Raises:
        ValueError: when the inputs are empty or differ in length.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.dense(2)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> fnn.predict(net, params, state, jnp.ones((1000, 3))).shape
        (1000, 2)
    """
    run = _compile_predict(net)
    parts = [run(params, state, *part) for part, _ in _cut(xs, batch_size)]
    return jax.tree.map(lambda *ys: jnp.concatenate(ys)[: rows(xs)], *parts)


def _cut(data: Any, batch_size: int) -> Iterator[tuple[Any, int]]:
    """Pairs of a batch and how many of its rows count: the last is padded by repeating a row."""
    data = on_device(data)
    size = rows(data)
    batch_size = min(batch_size, size)
    for start in range(0, size, batch_size):
        indices = np.arange(start, start + batch_size, dtype=np.int32)
        yield _pick(data, np.minimum(indices, size - 1)), min(batch_size, size - start)


_pick = jax.jit(pick)  # by itself, so that the network compiles for the batch and not for the data's size


def _evaluate_supervised(objective: Supervised, params: Any, state: Any, parts: Iterable[Any]) -> dict[str, Any]:
    compiled = _compile_statistics(objective)
    waiting = [compiled(params, state, batch, count) for batch, count in parts]
    if not waiting:
        raise ValueError("the data is empty: it has no batches")
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
        raise ValueError("the data is empty: it has no batches")
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
