"""What training makes small: a loss of parameters, state and a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnn.core.caches import cached_on_first
from fnn.core.errors import LayerError, is_of_fnn
from fnn.core.layer import Layer
from fnn.core.specs import show
from fnn.data import is_arrays
from fnn.metrics.classification import auroc, confusion_matrix, f1, precision, recall
from fnn.metrics.per_example import top_k
from fnn.metrics.regression import r2
from fnn.metrics.streaming import Metric, mean
from fnn.ops.targets import is_class, namespace
from fnn.training.mapped import AxisName, mean_over

PerExample = Callable[[Any, Any], jax.Array]

LOOKED_AT_ON_HOST = 2**26  # bytes
RESERVED = ("step", "skipped", "loss_scale")  # names that the step and the history use
INTEGER_CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels
UNCALLED = {
    f1: "fnn.f1(10)",
    precision: "fnn.precision(10)",
    recall: "fnn.recall(10)",
    confusion_matrix: "fnn.confusion_matrix(10)",
    auroc: "fnn.auroc()",
    r2: "fnn.r2()",
    top_k: "fnn.top_k(3)",
    mean: "fnn.mean(fnn.accuracy)",
}


@dataclass(frozen=True, eq=False)
class Supervised:
    """The objective of predicting a target from an input; made by `supervised`."""

    net: Layer
    loss: PerExample
    metrics: Mapping[str, PerExample | Metric] = field(default_factory=dict)
    penalty: Callable[[Any], jax.Array] | None = None
    inputs: Callable[[Any], tuple[Any, ...]] | None = None
    axis_name: AxisName | None = None

    def __call__(
        self, params: Any, state: Any, batch: Any, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        y, target, weight, state = self._run(params, state, batch, key, train)
        of = lambda name, metric: weighted_mean(self._values(name, metric, y, target), weight, name, self.axis_name)
        loss = of("loss", self.loss)
        metrics = {"loss": loss}
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric):
                metrics[name] = of(name, metric)
        extra = [] if self.penalty is None else [jnp.asarray(self.penalty(params))]
        extra += [jnp.sum(leaf) for leaf in _auxiliary_losses(state)]
        if extra:
            metrics["penalty"] = jnp.sum(jnp.stack([term.astype(jnp.float32) for term in extra]))
            loss = loss + metrics["penalty"]
        return loss, (state, metrics)

    def statistics(self, params: Any, state: Any, batch: Any, seen: jax.Array) -> dict[str, Any]:
        """What each metric keeps of one batch; rows where ``seen`` is 0 are padding and do not count."""
        y, target, weight, _ = self._run(params, state, batch, None, False)
        weight = seen if weight is None else weight * seen.reshape(seen.shape + (1,) * (weight.ndim - seen.ndim))
        return {
            name: metric.update(metric.init(), y, target, weight) for name, metric in self.streaming_metrics().items()
        }

    def streaming_metrics(self) -> dict[str, Metric]:
        """Every metric as a streaming one: exact over a data set whatever the size of its batches."""
        table = {"loss": self.loss, **self.metrics}
        return {name: self._streaming(name, metric) for name, metric in table.items()}

    def _streaming(self, name: str, metric: Any) -> Metric:
        return metric if isinstance(metric, Metric) else mean(lambda y, target: self._values(name, metric, y, target))

    def _run(self, params: Any, state: Any, batch: Any, key: Any, train: bool) -> tuple[Any, Any, Any, Any]:
        x, target, weight = split_batch(batch)
        y, state = self.output(params, state, x, key, train)
        return y, target, weight, state

    def output(self, params: Any, state: Any, x: Any, key: Any = None, train: bool = False) -> tuple[Any, Any]:
        """The network's output for the x of a batch, and the new state."""
        xs = (x,) if self.inputs is None else self.inputs(x)
        return self.net.apply(params, state, *xs, key=key, train=train)

    def losses(self, y: Any, target: Any) -> jax.Array:
        """The loss of each example."""
        return self._values("loss", self.loss, y, target)

    def _values(self, name: str, function: PerExample, y: Any, target: Any) -> jax.Array:
        """One value per example; anything else is the mistake that broadcasting hides."""
        shapes = f"output and target are {show(y)} and {show(target)}"
        wanted = f"wanted one value per example; {shapes}"
        if fix := _fix_of_target(function, y, target):
            raise LayerError(f"{fix}; {shapes}", path=(name,))
        try:
            values = jnp.asarray(function(y, target))
        except (TypeError, ValueError, AssertionError) as error:
            if not is_of_fnn(error):  # the user's function itself, rather than one of optax
                error.add_note(f"raised in {name}; {wanted}")
                raise
            raise LayerError(f"{str(error).rstrip('.')}; {wanted}", path=(name,)) from None
        leaves = jax.tree.leaves(y)
        prefix = leaves[0].shape if len(leaves) == 1 else leaves[0].shape[:1]
        if not values.shape:
            raise LayerError(f"gave a scalar, {wanted}; leave out the mean", path=(name,))
        if values.shape[0] != prefix[0] or (len(leaves) == 1 and values.shape != prefix[: values.ndim]):
            raise LayerError(f"gave {show(values)}, {wanted}; give the target the output's shape", path=(name,))
        if is_integer_cross_entropy(function):  # which takes -1 for the last class
            values = jnp.where(is_class(target, y.shape[-1]), values, jnp.nan)
        return values


def supervised(
    net: Layer,
    loss: PerExample,
    *,
    metrics: Mapping[str, PerExample | Metric] | None = None,
    penalty: Callable[[Any], jax.Array] | None = None,
    inputs: Callable[[Any], tuple[Any, ...]] | None = None,
    axis_name: AxisName | None = None,
) -> Supervised:
    """Make the objective of predicting a target from an input.

    A batch is ``(x, target)``, ``(x, target, weight)`` or a dict with these keys. Losses and metrics give one value per
    example, as those of `optax.losses` do; means over examples are weighted and exact. Values with further axes, such
    as a loss per token, are averaged over them too, where ``weight`` may have these axes. State leaves that are named
    ``auxiliary_loss`` are added to the loss.

    Args:
        net: The network.
        loss: ``loss(y, target)``, one value per example, such as
            ``optax.losses.softmax_cross_entropy_with_integer_labels``.
        metrics: By name: functions like ``loss``, measured in training and evaluation; or streaming metrics, such as
            ``fnn.f1(10)``, measured in evaluation only.
        penalty: ``penalty(params)``, a scalar added to the loss in training, such as
            ``lambda params: 1e-4 * fnn.l2(params, "*kernel")``. It is reported by itself as ``"penalty"``, so that
            ``"loss"`` can be compared with the validation loss.
        inputs: Picks the inputs of a network that takes several, ``inputs(x) -> (x_0, x_1, ...)``.
        axis_name: Name of a mapped axis (`jax.vmap`, `jax.shard_map`) over which batches are spread: weights are then
            relative to the mean weight of all devices, so that the mean of the devices' losses is the weighted mean
            of all rows. `train_step` with an ``axis_name`` sets it; a custom objective that calls this one needs it.

    Returns:
        An objective: ``objective(params, state, batch, *, key, train) -> (loss, (state, metrics))``.

    Raises:
        TypeError: if ``net`` is not a layer, or the loss or a metric is not a function, such as ``fnn.f1`` uncalled.
        ValueError: if a metric has a name that is reported already.
        LayerError: when traced, if the loss or a metric gives anything but one value per example, or the target does
            not fit the loss, such as one-hot targets for integer labels.

    Note:
        The loss of a label outside ``[0, classes)`` is NaN under
        ``optax.losses.softmax_cross_entropy_with_integer_labels``, unless its weight is 0; by itself, optax takes -1
        for the last class. A batch whose weights are all 0 has the loss 0. `fit` and `evaluate` raise for such labels,
        for negative weights and for weights that are all 0, if the data is arrays.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net = fnn.dense(3)
        >>> loss = optax.losses.softmax_cross_entropy_with_integer_labels
        >>> objective = fnn.supervised(net, loss, metrics={"accuracy": fnn.accuracy})
        >>> x, y = jnp.ones((4, 2)), jnp.zeros(4, int)
        >>> params, state = net.init(jax.random.key(0), x)
        >>> value, (state, metrics) = objective(params, state, (x, y), key=None, train=False)
        >>> sorted(metrics)
        ['accuracy', 'loss']
    """
    check_net(net, "swap the arguments: fnn.supervised(net, loss)" if isinstance(loss, Layer) else "")
    if isinstance(loss, Metric):
        raise TypeError("loss is a streaming metric, wanted a function of (predictions, targets); pass that in metrics")
    metrics = dict(metrics or {})
    _check_metric("loss", loss)
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            _check_metric(f"metric {name!r}", metric)
    if taken := {"loss", "penalty", *RESERVED} & set(metrics):
        raise ValueError(f"metrics may not be called {', '.join(sorted(taken))}; these names are reported already")
    return Supervised(net, loss, metrics, penalty, inputs, axis_name)


def check_net(net: Any, fix: str = "") -> None:
    """Raise unless ``net`` is a layer."""
    if not isinstance(net, Layer):
        fix = fix or (
            "pass the network itself, not its apply" if callable(net) else "pass a network, such as fnn.dense(10)"
        )
        raise TypeError(f"net must be a layer, got a {type(net).__name__}; {fix}")


def _check_metric(name: str, function: Any) -> None:
    if not callable(function) or isinstance(function, Layer):
        raise TypeError(f"{name} must be a function of (predictions, targets), got {function!r}")
    for maker, call in UNCALLED.items():
        if function is maker:
            raise TypeError(f"{name} is a function that makes the metric; call it: {call}")


def split_batch(batch: Any, name: str = "batch") -> tuple[Any, Any, Any]:
    """Take a batch, or the data, apart into x, target and weight (None where it has none)."""
    wanted = "(x, target) or (x, target, weight)"
    if isinstance(batch, dict):
        if not {"x", "target"} <= set(batch) <= {"x", "target", "weight"}:
            keys = "x, target and at times weight"
            raise ValueError(f"{name} is a dict with the keys {sorted(batch)}, wanted {keys}; or pass {wanted}")
        return batch["x"], batch["target"], batch.get("weight")
    if not isinstance(batch, tuple | list):
        raise ValueError(f"{name} is {show(batch)} alone; pass the tuple {wanted}")
    if len(batch) not in (2, 3):
        raise ValueError(f"{name} is a {type(batch).__name__} of {len(batch)}; pass the tuple {wanted}")
    return batch[0], batch[1], batch[2] if len(batch) == 3 else None


def weighted_mean(
    values: jax.Array, weight: jax.Array | None, name: str, axis_name: AxisName | None = None
) -> jax.Array:
    """The mean over all axes in float32; rows of weight 0 do not count, not even if they are not finite.

    With ``axis_name``, the mean of the results over the mapped axis is the weighted mean over all of its rows.
    """
    values = values.astype(jnp.float32)
    if weight is None:
        return jnp.mean(values)
    if weight.shape != values.shape[: weight.ndim]:
        fix = "; pass weight[..., 0]" if weight.shape == (*values.shape, 1) else ""
        raise LayerError(
            f"weight has shape {weight.shape}, wanted the leading axes of {values.shape}{fix}", path=(name,)
        )
    weight = jnp.broadcast_to(weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim)), values.shape)
    weight = weight.astype(jnp.float32)
    total = mean_over(jnp.sum(weight), axis_name)
    return jnp.sum(jnp.where(weight == 0, 0, values) * weight) / jnp.where(total == 0, 1, total)


def _auxiliary_losses(state: Any) -> list[jax.Array]:
    named = jax.tree.leaves_with_path(state)
    return [leaf for path, leaf in named if path and getattr(path[-1], "key", None) == "auxiliary_loss"]


def is_integer_cross_entropy(function: Any) -> bool:
    """Whether targets must be classes, counted along the last axis of the output: of other losses nothing is known."""
    return function is INTEGER_CROSS_ENTROPY


def check_examples(objective: Any, data: Any, name: str) -> None:
    """Raise where data cannot be x and target, nor batches of these, before anything is traced."""
    if is_arrays(data, name):
        if isinstance(objective, Supervised):
            split_batch(data, name)
            check_form(data)
    elif isinstance(data, list):
        if not data:
            raise ValueError(f"{name} is empty: it has no batches")
        first = data[0]
        if not isinstance(objective, Supervised) or isinstance(first, dict | tuple):
            return
        if not isinstance(first, list) or any(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(first)):
            kind = "a list of numbers" if isinstance(first, list) else show(first)
            arrays = "(np.asarray(X), np.asarray(Y))" if isinstance(first, list) else "(X, Y)"
            raise TypeError(
                f"{name} is a list, which is read as batches, and {name}[0] is {kind}; pass the tuple {arrays}"
            )


def check_form(data: Any) -> None:
    """Raise for class weights by class, which are no array with a row for each example."""
    if isinstance(_weight_of(data), Mapping):
        raise TypeError("weight is a dict; class weights are an array, looked up by class: class_weight[target]")


def check_weight(data: Any, name: str = "") -> None:
    """Raise for weights that are negative, not finite or all 0."""
    weight, of = _weight_of(data), f"{name}: " if name else ""
    if not hasattr(weight, "shape") or not weight.size:
        return
    weight = _to_look_at(weight)
    bad = ~(weight >= 0) | namespace(weight).isinf(weight)
    if bool(bad.any()):
        first = int(bad.argmax())
        value, row = float(weight.ravel()[first]), first // int(np.prod(weight.shape[1:]))
        raise ValueError(f"{of}weight holds {value:g} (row {row}); weights are finite and at least 0")
    if not bool((weight > 0).any()):
        raise ValueError(f"{of}all weights are 0, so that no row counts; give real rows weight 1")


def _to_look_at(leaf: Any) -> Any:
    """Small arrays on the host, where no operation is compiled: a compilation takes longer than a look at them."""
    is_small = isinstance(leaf, jax.Array) and leaf.is_fully_addressable and leaf.nbytes <= LOOKED_AT_ON_HOST
    return np.asarray(leaf) if is_small else leaf


def _weight_of(data: Any) -> Any:
    if isinstance(data, dict):
        return data.get("weight")
    return data[2] if isinstance(data, tuple) and len(data) == 3 else None


def check_data(
    objective: Any,
    params: Any,
    state: Any,
    data: Any,
    batch_size: int,
    name: str = "",
    key: jax.Array | None = None,
) -> None:
    """Raise for weights that are negative or all 0, and for labels that are not classes, before they are trained on.

    Args:
        objective: Only one of `supervised` has targets and weights that are known.
        params: The network's parameters.
        state: The network's state.
        data: Arrays with the same number of rows.
        batch_size: Rows for which the network's output is planned; nothing is computed.
        name: What the error calls the data.
        key: Plans the output in training; None: in evaluation.

    Raises:
        ValueError: if weights or labels are wrong.
    """
    has_target = "target" in data if isinstance(data, dict) else isinstance(data, tuple) and len(data) > 1
    if not isinstance(objective, Supervised) or not has_target:
        return  # an error when traced
    x, target, weight = split_batch(data)
    of = f"{name}: " if name else ""
    check_weight(data, name)
    if not is_integer_cross_entropy(objective.loss) or not _is_integer(target):
        return
    row = lambda leaf: jax.ShapeDtypeStruct((min(batch_size, len(leaf)), *leaf.shape[1:]), leaf.dtype)
    y, _ = _planned(objective).eval_shape(params, state, jax.tree.map(row, x), key)
    if not hasattr(y, "shape") or y.ndim != target.ndim + 1 or y.shape[1:-1] != target.shape[1:]:
        return  # an error when traced
    if wrong := wrong_labels(target, weight, y.shape[-1]):
        raise ValueError(f"{of}{wrong}")


def _is_integer(target: Any) -> bool:
    return hasattr(target, "dtype") and jnp.issubdtype(target.dtype, jnp.integer)


def wrong_labels(target: Any, weight: Any, classes: int, place: Callable[[int], str] = "row {}".format) -> str | None:
    """Say which labels are not in ``[0, classes)`` although their weight is not 0; ``place`` names a row."""
    target, weight = _to_look_at(target), _to_look_at(weight)
    bad = ~is_class(target, classes)
    if weight is not None and weight.shape == target.shape[: weight.ndim]:
        bad &= (weight != 0).reshape(weight.shape + (1,) * (target.ndim - weight.ndim))
    count = int(bad.sum())
    if not count:
        return None
    first = int(bad.argmax())
    value, row = int(target.ravel()[first]), first // int(np.prod(target.shape[1:]))
    fix = "give such rows weight 0"
    if value == classes and int(target.min()) >= 1:
        fix = "classes count from 0: pass target - 1"
    more = f", and {count - 1} more" if count > 1 else ""
    return f"target holds {value} ({place(row)}{more}), the output has {classes} classes, 0 to {classes - 1}; {fix}"


@cached_on_first
def _planned(objective: Supervised) -> Any:
    def plan(params: Any, state: Any, x: Any, key: jax.Array | None) -> Any:
        return objective.output(params, state, x, key, key is not None)

    return jax.jit(plan)


def _fix_of_target(function: Any, y: Any, target: Any) -> str | None:
    """What to do where the target is of the form that another loss takes."""
    if not (hasattr(y, "shape") and hasattr(target, "shape") and hasattr(target, "dtype")) or not y.ndim:
        return None
    is_integer = _is_integer(target)
    if is_integer_cross_entropy(function):
        if target.shape == (*y.shape[:-1], 1):
            return "the target has an axis too many; pass target[..., 0]"
        if target.shape == y.shape:
            return (
                "the loss takes classes, and the target looks one-hot; pass jnp.argmax(target, axis=-1), or use "
                "optax.losses.softmax_cross_entropy"
            )
        if target.shape == y.shape[:-1] and not is_integer:
            return f"the loss takes integer classes, and the target is {target.dtype}; pass target.astype(jnp.int32)"
    if function is optax.losses.softmax_cross_entropy and is_integer:
        column = target.shape == (*y.shape[:-1], 1) and y.shape[-1] > 1
        if column or target.shape == y.shape[:-1]:
            return (
                "the loss takes one-hot targets, and the target holds classes; use "
                f"optax.losses.softmax_cross_entropy_with_integer_labels{' with target[..., 0]' if column else ''}"
            )
    return None


def unpack(out: Any) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """What an objective returned, after a check of its form."""
    wanted = "an objective returns (loss, (state, metrics))"
    is_pair = lambda value: isinstance(value, tuple | list) and len(value) == 2
    if not is_pair(out) or not is_pair(out[1]):
        raise TypeError(f"{wanted}, got {_form(out)}")
    loss, (state, metrics) = out
    if jnp.shape(loss) != ():
        raise TypeError(f"an objective returns a loss that is a scalar, got {_form(loss)}; take its mean")
    if not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(f"an objective returns a loss that is floating, got {_form(loss)}")
    if not isinstance(metrics, dict):
        raise TypeError(f"an objective returns metrics in a dict, such as {{'accuracy': ...}}, got {_form(out)}")
    if taken := set(RESERVED) & set(metrics):
        raise ValueError(f"metrics may not be called {', '.join(sorted(taken))}; these names are reported already")
    return loss, (state, metrics)


def _form(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_form, value))}{',' if len(value) == 1 else ''})"
    return show(value) if hasattr(value, "shape") else f"a {type(value).__name__}"
