"""Averages of parameters over the steps of a run."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnn.ops.checks import check_range
from fnn.ops.dtypes import widen
from fnn.training.optimizer import check_optimizer
from fnn.training.step import TrainState


class EmaState(NamedTuple):
    """State of an optimizer that `ema` wraps.

    Attributes:
        inner: The state of the wrapped optimizer.
        average: The average of the parameters, in float32 or wider.
        steps: Number of updates, an int32 scalar.
    """

    inner: Any
    average: Any
    steps: jax.Array


def ema(optimizer: optax.GradientTransformation, decay: Any = 0.999) -> optax.GradientTransformationExtraArgs:
    """Exponential moving average of parameters, kept beside an optimizer.

    The parameters are trained as without it. After each update their average moves,
    ``average = decay * average + (1 - decay) * params``, corrected for the bias of its start as the moments of Adam
    are: after the first update the average is the parameters, and early steps are averaged evenly. `ema_params` reads
    it, and ``fit(..., evaluate_with=fnn.ema_params)`` validates with it.

    Args:
        optimizer: From optax. Wrap the whole optimizer; under ``optax.MultiSteps`` wrap the one within, so that only
            real updates are averaged.
        decay: How much of the average an update keeps, in [0, 1); may be traced. The average covers about the last
            ``1 / (1 - decay)`` updates.

    Returns:
        An optimizer whose state is an `EmaState`: one more copy of the parameters, in float32.

    Raises:
        ValueError: when ``decay`` is not in [0, 1).

    Note:
        The network's state is not averaged. The running statistics of batch normalisation stay those that the trained
        parameters saw: usually close enough, since they are averages themselves.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net, optimizer = fnn.dense(1), fnn.ema(optax.sgd(0.1), decay=0.9)
        >>> x, y = jnp.ones((8, 2)), jnp.ones((8, 1))
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), x)
        >>> objective = fnn.supervised(net, optax.losses.squared_error)
        >>> run, history = fnn.fit(
        ...     objective, optimizer, run, (x, y), validation=(x, y), batch_size=4, progress=False,
        ...     evaluate_with=fnn.ema_params,
        ... )
        >>> fnn.ema_params(run)["kernel"].shape
        (2, 1)

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; the bias correction is that
        of Kingma and Ba, Adam, 2014, arXiv:1412.6980.
    """
    check_optimizer(optimizer)
    check_range("decay", decay, 0.0, 1.0)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> EmaState:
        average = jax.tree.map(lambda leaf: jnp.array(widen(leaf)), params)
        return EmaState(inner.init(params), average, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, EmaState]:
        if params is None:
            raise ValueError("ema averages parameters; call optimizer.update(grads, opt_state, params)")
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        steps = state.steps + 1
        log = jnp.log(jnp.float32(decay))
        # (1 - decay) / (1 - decay**steps): exactly 1 at first, and an even average where decay rounds to 1.
        rate = jnp.where(log == 0, 1 / steps, jnp.expm1(log) / jnp.expm1(steps * log))

        def move(average: jax.Array, new: jax.Array) -> jax.Array:
            return average + (rate * (new.astype(average.dtype) - average)).astype(average.dtype)

        average = jax.tree.map(move, state.average, optax.apply_updates(params, updates))
        return updates, EmaState(inner_state, average, steps)

    return optax.GradientTransformationExtraArgs(init, update)


def ema_params(run: TrainState) -> Any:
    """Averaged parameters of a run whose optimizer is wrapped by `ema`.

    Args:
        run: From `fit` or `train_step`; also many runs side by side.

    Returns:
        Parameters in the dtypes of ``run.params``; these themselves before the first update.

    Raises:
        ValueError: when the optimizer keeps no average, or several.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> run = fnn.train_init(fnn.dense(3), fnn.ema(optax.adam(1e-3)), jax.random.key(0), jnp.ones((8, 5)))
        >>> bool((fnn.ema_params(run)["kernel"] == run.params["kernel"]).all())
        True
    """
    is_average = lambda part: isinstance(part, EmaState)
    found = [part for part in jax.tree.leaves(run.opt_state, is_leaf=is_average) if is_average(part)]
    if len(found) != 1:
        raise ValueError(
            f"the optimizer keeps {len(found) or 'no'} average{'s' if len(found) > 1 else ''} of the parameters; "
            "make it by fnn.ema(optax.adam(1e-3))"
        )
    if jax.tree.structure(found[0].average) != jax.tree.structure(run.params):
        raise ValueError("the optimizer averages a part of the parameters; wrap the whole optimizer by fnn.ema")
    return jax.tree.map(lambda average, leaf: average.astype(leaf.dtype), found[0].average, run.params)
