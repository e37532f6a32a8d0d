"""Scaling of the loss, so that float16 gradients do not underflow."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnn.ops.checks import check_positive_int, check_range
from fnn.ops.dtypes import widen
from fnn.training.optimizer import check_optimizer

SMALLEST, LARGEST = 1.0, 2.0**24  # as in NVIDIA Apex


class LossScaleState(NamedTuple):
    """State of an optimizer that `loss_scaling` wraps.

    Attributes:
        inner: The state of the wrapped optimizer.
        scale: What the next loss is multiplied by, a float32 scalar.
        good_steps: Number of finite steps since the scale last changed, an int32 scalar.
    """

    inner: Any
    scale: jax.Array
    good_steps: jax.Array


def loss_scaling(
    optimizer: optax.GradientTransformation,
    *,
    initial_scale: Any = 2.0**15,
    growth_interval: int = 2000,
) -> optax.GradientTransformationExtraArgs:
    """Dynamic loss scaling for training in float16.

    `train_step` and `fit` find the scale in the optimizer's state. They multiply the loss by it before they take the
    gradient, and divide the gradient by it in float32: small gradients do not become 0 on the way. Loss and metrics are
    reported without the scale, and ``"loss_scale"`` beside them. Where the gradient overflows, the step changes neither
    the parameters nor the inner state, and the scale is halved. After ``growth_interval`` steps in a row that did not
    overflow, it is doubled.

    An overflow is no failure, and raises no `NonFiniteError`. A loss that is itself not finite is one, and so are
    gradients that are not finite at the scale 1.

    Args:
        optimizer: From optax; it gets gradients without the scale, so clip within it:
            ``fnn.loss_scaling(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)))``.
        initial_scale: Scale of the first step, from 1 to 2**24; may be traced.
        growth_interval: Steps without overflow after which the scale is doubled.

    Returns:
        An optimizer whose state is a `LossScaleState`.

    Raises:
        ValueError: when an argument is out of range.

    Note:
        bfloat16 has the range of float32 and needs no loss scaling.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net = fnn.mixed_precision(fnn.dense(1), compute=jnp.float16)
        >>> optimizer = fnn.loss_scaling(optax.adam(1e-3))
        >>> x, y = jnp.ones((8, 2)), jnp.ones((8, 1))
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), x)
        >>> objective = fnn.supervised(net, optax.losses.squared_error)
        >>> run, metrics = fnn.train_step(objective, optimizer)(run, (x, y))
        >>> float(metrics["loss_scale"])
        32768.0

    References:
        Micikevicius et al., Mixed precision training, 2018, arXiv:1710.03740.
    """
    check_optimizer(optimizer)
    check_range("initial_scale", initial_scale, SMALLEST, LARGEST, closed=True)
    check_positive_int("growth_interval", growth_interval)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> LossScaleState:
        return LossScaleState(inner.init(params), jnp.asarray(initial_scale, jnp.float32), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        overflows = has_overflow(updates, state.scale)
        new, new_inner = inner.update(updates, state.inner, params, **extra_args)
        keep = lambda old, new: jnp.where(overflows, old, new)
        new = jax.tree.map(lambda leaf: jnp.where(overflows, 0, leaf), new)
        good_steps = state.good_steps + 1
        grows = good_steps == growth_interval
        grown = jnp.where(grows, jnp.minimum(2 * state.scale, LARGEST), state.scale)
        scale = jnp.where(overflows, jnp.maximum(state.scale / 2, SMALLEST), grown)
        good_steps = jnp.where(overflows | grows, 0, good_steps)
        return new, LossScaleState(jax.tree.map(keep, state.inner, new_inner), scale, good_steps)

    return optax.GradientTransformationExtraArgs(init, update)


def scale_of(opt_state: Any) -> jax.Array | None:
    """The scale that an optimizer's state keeps; None where it keeps none."""
    is_scaled = lambda part: isinstance(part, LossScaleState)
    found = [part for part in jax.tree.leaves(opt_state, is_leaf=is_scaled) if is_scaled(part)]
    if len(found) > 1:
        raise ValueError("the optimizer scales the loss more than once; call fnn.loss_scaling once")
    return found[0].scale if found else None


def unscale(grads: Any, scale: jax.Array) -> Any:
    """Gradients without the scale, in float32 or wider."""
    return jax.tree.map(lambda grad: widen(grad) / scale, grads)


def has_overflow(grads: Any, scale: jax.Array) -> jax.Array:
    """Whether gradients are not finite, and a smaller scale may help."""
    return ~all_finite(grads) & (scale > SMALLEST)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether all numbers of all arrays are."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
