"""One step of training, and the state that it carries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnn.checkpoint.structure import leaves_of
from fnn.checkpoint.table import ROWS, show_table
from fnn.core.errors import short_tracebacks
from fnn.core.keys import check_key, fold
from fnn.core.layer import Layer
from fnn.core.specs import show
from fnn.training.loss_scaling import all_finite, has_overflow, scale_of, unscale
from fnn.training.mapped import AxisName, mean_over, mean_value, vary
from fnn.training.objective import Supervised, check_net, unpack
from fnn.training.optimizer import check_opt_state, check_optimizer
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
def train_init(
    net: Layer,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *xs: Any,
    params: Any = None,
    state: Any = None,
) -> TrainState:
    """Make the state that training starts from.

    Args:
        net: The network.
        optimizer: From optax.
        key: A typed key; it decides the parameters, the order of the data and all that is random in training.
        *xs: Inputs of the network, or specs of them. Only shapes and dtypes are read: the whole data set will do.
        params: Parameters to start from instead of random ones, such as `fnn.load` reads from a file. They are copied,
            and floats are cast to the dtypes of the network's own.
        state: The network's state to start from, such as the statistics of batch normalisation. None: the initial one,
            even if ``params`` are given.

    Returns:
        A `TrainState` at step 0.

    Raises:
        TypeError: when ``net`` is not a layer, or ``optimizer`` not an optimizer.
        LayerError: when the network does not fit the inputs.
        ValueError: when ``params`` or ``state`` are not those of the network; a table lists what differs.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net, optimizer = fnn.dense(3), optax.adam(1e-3)
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), jnp.ones((8, 5)))
        >>> int(run.step), run.params["kernel"].shape
        (0, (5, 3))

        Other weights of the same network:

        >>> other = fnn.train_init(net, optimizer, jax.random.key(1), jnp.ones((8, 5)), params=run.params)
        >>> bool((other.params["kernel"] == run.params["kernel"]).all())
        True
    """
    check_net(net)
    check_optimizer(optimizer)
    check_key(key)
    if params is None and state is None:
        params, state = net.init(fold(key, "init"), *xs)
    else:
        plan = jax.eval_shape(net.init, key, *xs)
        made = plan
        if params is None or (state is None and jax.tree.leaves(plan[1])):
            made = net.init(fold(key, "init"), *xs)
        params = made[0] if params is None else _like("params", params, plan[0])
        state = made[1] if state is None else _like("state", state, plan[1])
    return TrainState(params, state, optimizer.init(params), key, jnp.zeros((), jnp.int32))


def _like(name: str, tree: Any, plan: Any) -> Any:
    """A copy of a tree that fits a plan, in the containers and dtypes of the plan."""
    given = {path: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for path, leaf in leaves_of(tree).items()}
    wanted = leaves_of(plan)
    rows = [
        (path, *(show(tree[path]) if path in tree else "nothing" for tree in (wanted, given)))
        for path in {**wanted, **given}
        if path not in wanted or path not in given or not _fits(given[path], wanted[path])
    ]
    if rows:
        table = show_table(("array", "the network", "given"), rows, limit=ROWS)
        count = f"{len(rows)} array{'s differ' if len(rows) > 1 else ' differs'}"
        verb = "does" if name == "state" else "do"
        raise ValueError(f"{name} {verb} not fit the network: {count}\n{table}")
    leaves = [jnp.array(given[path], spec.dtype) for path, spec in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(plan), leaves)


def _fits(leaf: Any, spec: Any) -> bool:
    kinds = [jnp.floating, jnp.integer, jnp.complexfloating, jnp.bool_]
    is_of = lambda array: [jnp.issubdtype(array.dtype, kind) for kind in kinds]
    return leaf.shape == spec.shape and is_of(leaf) == is_of(spec)


def train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    watch: Watch | None = None,
    skip_non_finite: bool = False,
    axis_name: AxisName | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Make one step of gradient descent, ``step(run, batch) -> (run, metrics)``: pure, and not compiled.

    Args:
        objective: ``objective(params, state, batch, *, key, train) -> (loss, (state, metrics))``, such as
            `supervised` makes.
        optimizer: From optax. Those that ask for the loss or its function (``optax.lbfgs``,
            ``optax.contrib.reduce_on_plateau``) get them. With `loss_scaling` the gradient is that of the scaled loss,
            divided by the scale.
        augment: ``augment(key, batch) -> batch``, applied within the step.
        watch: ``watch(params, grads, updates, opt_state) -> metrics``: more to measure, such as `norms`.
        skip_non_finite: Whether a step whose loss or gradients are not finite changes nothing but the step's number;
            its metric ``"skipped"`` is then 1.
        axis_name: Name of a mapped axis (`jax.vmap`, `jax.shard_map`) over which batches are spread in equal parts: its
            index is folded into the key, and loss, metrics and gradients are means over it. For an objective of
            `supervised` they are those of the whole batch, whatever the weights of its rows; a custom objective is
            averaged over the devices as it is. Batch normalisation needs the same ``axis_name``.

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
    check_optimizer(optimizer)
    optimizer = optax.with_extra_args_support(optimizer)
    measure = objective
    if axis_name is not None and isinstance(objective, Supervised):
        measure = replace(objective, axis_name=axis_name)

    def step(run: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        traces_of(step).note(objective, run, batch)
        check_opt_state(optimizer, run.params, run.opt_state)
        key = jax.random.fold_in(fold(run.key, "step"), run.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if augment is not None:
            batch = augment(fold(key, "augment"), batch)
        objective_key = fold(key, "objective")

        scale = scale_of(run.opt_state)

        def loss_of(params: Any) -> Any:
            loss, (state, metrics) = unpack(measure(params, run.state, batch, key=objective_key, train=True))
            return loss if scale is None else loss.astype(jnp.float32) * scale, (loss, state, metrics)

        def value_and_grad(params: Any) -> tuple[tuple[jax.Array, Any, dict[str, jax.Array]], Any]:
            params = params if axis_name is None else vary(params, axis_name)
            (_, (loss, state, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
            if jax.tree.structure(state) != jax.tree.structure(run.state):
                raise ValueError(
                    "the objective returned a state of another structure than run.state; return the state that "
                    "net.apply returned"
                )
            grads = grads if scale is None else unscale(grads, scale)
            loss, metrics, grads = mean_over((loss, {"loss": loss, **metrics}, grads), axis_name)
            return (loss, state, metrics), grads

        def mean_value_and_grad(params: Any) -> tuple[jax.Array, Any]:
            (loss, _, _), grads = value_and_grad(params)
            return loss, grads

        (loss, state, metrics), grads = value_and_grad(run.params)
        value_fn = mean_value(mean_value_and_grad) if axis_name is not None else lambda params: loss_of(params)[1][0]
        updates, opt_state = optimizer.update(
            grads, run.opt_state, run.params, value=loss, grad=grads, value_fn=value_fn
        )
        params = optax.apply_updates(run.params, updates)
        if watch is not None:
            metrics = _join(metrics, watch(run.params, grads, updates, opt_state))
        if scale is not None:
            metrics = _join(metrics, {"loss_scale": scale})
        if skip_non_finite:
            overflows = False if scale is None else has_overflow(grads, scale)  # which the optimizer itself skips
            good = jnp.isfinite(loss) & (all_finite(grads) | overflows)
            new, old = (params, state, opt_state), (run.params, run.state, run.opt_state)
            params, state, opt_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, old)
            metrics["skipped"] = (~good).astype(jnp.float32)
        return TrainState(params, state, opt_state, run.key, run.step + 1), metrics

    return step


def _join(metrics: dict[str, jax.Array], watched: dict[str, jax.Array]) -> dict[str, jax.Array]:
    if taken := metrics.keys() & watched.keys():
        raise ValueError(f"watch and the objective both measure {', '.join(sorted(taken))}; rename one")
    return metrics | watched
