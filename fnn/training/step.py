"""One step of training, and the state that it carries."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnn.core.errors import short_tracebacks
from fnn.core.keys import check_key, fold
from fnn.core.layer import Layer
from fnn.training.retrace import traces_of
from fnn.training.watch import Watch

Objective = Callable[..., tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]
Augment = Callable[[jax.Array, Any], Any]


class TrainState(NamedTuple):
    """All that changes while a network is trained, and nothing else: arrays only.

    Attributes:
        params: The network's parameters.
        state: The network's state.
        opt_state: The optimizer's state.
        key: The run's random key; it stays, the step's number is folded in.
        step: Number of steps done, an int32 scalar.
    """

    params: Any
    state: Any
    opt_state: Any
    key: jax.Array
    step: jax.Array


@short_tracebacks
def train_init(net: Layer, optimizer: optax.GradientTransformation, key: jax.Array, *xs: Any) -> TrainState:
    """Make the state that training starts from.

    Args:
        net: The network.
        optimizer: From optax.
        key: A typed key; it decides the parameters, the order of the data and all that is random in training.
        *xs: Inputs of the network, or specs of them. Only shapes and dtypes are read: the whole data set will do.

    Returns:
        A `TrainState` at step 0.

    Raises:
        LayerError: when the network does not fit the inputs.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> run = fnn.train_init(fnn.dense(3), optax.adam(1e-3), jax.random.key(0), jnp.ones((8, 5)))
        >>> int(run.step), run.params["kernel"].shape
        (0, (5, 3))
    """
    check_key(key)
    params, state = net.init(fold(key, "init"), *xs)
    return TrainState(params, state, optimizer.init(params), key, jnp.zeros((), jnp.int32))


def train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    watch: Watch | None = None,
    skip_non_finite: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Make one step of gradient descent, ``step(run, batch) -> (run, metrics)``: pure, and not compiled.

    Args:
        objective: ``objective(params, state, batch, *, key, train) -> (loss, (state, metrics))``, such as
            `supervised` makes.
        optimizer: From optax. Those that ask for the loss or its function (``optax.lbfgs``,
            ``optax.contrib.reduce_on_plateau``) get them.
        augment: ``augment(key, batch) -> batch``, applied within the step.
        watch: ``watch(params, grads, updates, opt_state) -> metrics``: more to measure, such as `norms`.
        skip_non_finite: Whether a step whose loss or gradients are not finite changes nothing but the step's number;
            its metric ``"skipped"`` is then 1.
        axis_name: Name of a mapped axis (`jax.vmap`, `jax.shard_map`) over which batches are spread: its index is
            folded into the key, gradients and metrics are averaged.

    Returns:
        The step. Its metrics are the objective's, and its ``"loss"`` where these have none. Where it is compiled again
        and again, a `RetraceWarning` says what changed.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net, optimizer = fnn.dense(1), optax.sgd(0.1)
        >>> step = jax.jit(fnn.train_step(fnn.supervised(net, optax.losses.squared_error), optimizer))
        >>> x, y = jnp.ones((4, 2)), jnp.ones((4, 1))
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), x)
        >>> for _ in range(20):
        ...     run, metrics = step(run, (x, y))
        >>> bool(metrics["loss"] < 1e-6)
        True
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(run: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        traces_of(step).note(objective, run, batch)
        key = jax.random.fold_in(fold(run.key, "step"), run.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if augment is not None:
            batch = augment(fold(key, "augment"), batch)
        objective_key = fold(key, "objective")

        def loss_of(params: Any) -> Any:
            return objective(params, run.state, batch, key=objective_key, train=True)

        (loss, (state, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(run.params)
        metrics = {"loss": loss, **metrics}
        if axis_name is not None:
            loss, grads, metrics = jax.lax.pmean((loss, grads, metrics), axis_name)
        updates, opt_state = optimizer.update(
            grads, run.opt_state, run.params, value=loss, grad=grads, value_fn=lambda params: loss_of(params)[0]
        )
        params = optax.apply_updates(run.params, updates)
        if watch is not None:
            metrics |= watch(run.params, grads, updates, opt_state)
        if skip_non_finite:
            good = jnp.isfinite(loss) & all_finite(grads)
            new, old = (params, state, opt_state), (run.params, run.state, run.opt_state)
            params, state, opt_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, old)
            metrics["skipped"] = (~good).astype(jnp.float32)
        return TrainState(params, state, opt_state, run.key, run.step + 1), metrics

    return step


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether all numbers of all arrays are."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
