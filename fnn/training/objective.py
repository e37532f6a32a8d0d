"""What training makes small: a loss of parameters, state and a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.errors import LayerError, is_of_fnn
from fnn.core.layer import Layer
from fnn.core.specs import show
from fnn.metrics.streaming import Metric, mean

PerExample = Callable[[Any, Any], jax.Array]


@dataclass(frozen=True, eq=False)
class Supervised:
    """The objective of predicting a target from an input; made by `supervised`."""

    net: Layer
    loss: PerExample
    metrics: Mapping[str, PerExample | Metric] = field(default_factory=dict)
    penalty: Callable[[Any], jax.Array] | None = None
    inputs: Callable[[Any], tuple[Any, ...]] | None = None

    def __call__(
        self, params: Any, state: Any, batch: Any, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        y, target, weight, state = self._run(params, state, batch, key, train)
        loss = weighted_mean(self._values("loss", self.loss, y, target), weight, "loss")
        metrics = {"loss": loss}
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric):
                metrics[name] = weighted_mean(self._values(name, metric, y, target), weight, name)
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
        xs = (x,) if self.inputs is None else self.inputs(x)
        y, state = self.net.apply(params, state, *xs, key=key, train=train)
        return y, target, weight, state

    def _values(self, name: str, function: PerExample, y: Any, target: Any) -> jax.Array:
        """One value per example; anything else is the mistake that broadcasting hides."""
        wanted = f"wanted one value per example; output and target are {show(y)} and {show(target)}"
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
        return values


def supervised(
    net: Layer,
    loss: PerExample,
    *,
    metrics: Mapping[str, PerExample | Metric] | None = None,
    penalty: Callable[[Any], jax.Array] | None = None,
    inputs: Callable[[Any], tuple[Any, ...]] | None = None,
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

    Returns:
        An objective: ``objective(params, state, batch, *, key, train) -> (loss, (state, metrics))``.

    Raises:
        LayerError: when traced, if the loss or a metric gives anything but one value per example.

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
    metrics = dict(metrics or {})
    if taken := {"loss", "penalty"} & set(metrics):
        raise ValueError(f"metrics may not be called {', '.join(sorted(taken))}; these names are reported already")
    return Supervised(net, loss, metrics, penalty, inputs)


def split_batch(batch: Any) -> tuple[Any, Any, Any]:
    """Take a batch apart into x, target and weight (None where it has none)."""
    if isinstance(batch, dict):
        if not {"x", "target"} <= set(batch) <= {"x", "target", "weight"}:
            raise ValueError(f"a batch that is a dict has keys x, target and at times weight, got {sorted(batch)}")
        return batch["x"], batch["target"], batch.get("weight")
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise ValueError(f"a batch is (x, target) or (x, target, weight), got a {type(batch).__name__}{size}")
    return batch if len(batch) == 3 else (*batch, None)


def weighted_mean(values: jax.Array, weight: jax.Array | None, name: str) -> jax.Array:
    """The mean over all axes in float32; rows of weight 0 do not count, not even if they are not finite."""
    values = values.astype(jnp.float32)
    if weight is None:
        return jnp.mean(values)
    if weight.shape != values.shape[: weight.ndim]:
        raise LayerError(f"weight has shape {weight.shape}, wanted the leading axes of {values.shape}", path=(name,))
    weight = jnp.broadcast_to(weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim)), values.shape)
    weight = weight.astype(jnp.float32)
    total = jnp.sum(weight)
    return jnp.sum(jnp.where(weight == 0, 0, values) * weight) / jnp.where(total == 0, 1, total)


def _auxiliary_losses(state: Any) -> list[jax.Array]:
    named = jax.tree.leaves_with_path(state)
    return [leaf for path, leaf in named if path and getattr(path[-1], "key", None) == "auxiliary_loss"]
