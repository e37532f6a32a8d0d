"""Ways to run a layer that keep its children: repeated, rematerialised, many at once, in half precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.errors import LayerError, within
from fnn.core.layer import Change, Layer, Plan, check_names, make_layer
from fnn.core.leaf import as_layer
from fnn.core.specs import Spec, same, show


def _wrap(
    inner: Layer,
    verb: str,
    plan: Any,
    apply: Any,
    again: Callable[[Layer], Layer],
    *,
    name: str = "",
    rebuild: Callable[[Change], Layer] | None = None,
) -> Layer:
    def rebuild_inner(change: Change) -> Layer:
        changed = inner._rebuild(change)
        return made if changed is inner else again(changed)

    made = make_layer(
        name or inner.name,
        plan,
        apply,
        describe=lambda: f"{verb}({inner!r})",
        children=inner.children,
        rebuild=rebuild or rebuild_inner,
        owns=inner._owns,
    )
    return made


def _at_leaves(net: Layer, change: Callable[[Layer], Layer]) -> Layer:
    """Rebuild a network with another layer in the place of each that has no children."""
    return net._rebuild(lambda _, child: _at_leaves(child, change)) if net.children else change(net)


def _keys(key: jax.Array, size: int) -> jax.Array:
    """One key per index by folding, so that a longer stack begins with the keys of a shorter one."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(size, dtype=jnp.uint32))


def _batched(tree: Any, size: int) -> Any:
    return jax.tree.map(lambda spec: Spec((size, *spec.shape), spec.dtype), tree)


def _check_size(kind: str, size: int) -> None:
    if not isinstance(size, int) or size < 1:
        raise LayerError(f"{kind} wants a positive int as its size, got {size!r}")


def _check_count(params: Any, size: int, what: str, kind: str) -> None:
    if wrong := {leaf.shape[:1] for leaf in jax.tree.leaves(params)} - {(size,)}:
        count = ", ".join(map(str, wrong.pop())) or "no"
        raise LayerError(
            f"params hold {count} {what}, this {kind} has {size}; pass the params that this network's init returned"
        )


def _check_block(block: Any) -> None:
    if isinstance(block, list | tuple):
        raise LayerError(
            f"stack repeats one block, got a {type(block).__name__} of {len(block)}; use fnn.serial(*blocks)"
        )
    if not callable(block) or str(block.__module__).startswith("fnn."):
        as_layer(block)  # says what is wrong with a string or a constructor


def stack(block: Any, size: int, *, unroll: bool = False) -> Layer:
    """Run ``size`` blocks of one kind in a row, each with its own parameters.

    Parameters are stacked on a leading axis whatever way the blocks run, and the blocks compile once. Wrap the block in
    `remat` to save memory.

    Args:
        block: A layer whose output has the shape of its first input; or a function from the block's number (a traced
            int32) to such a layer, for drop-path by depth. Inputs after the first go to every block.
        size: How many.
        unroll: Run the blocks as a Python loop in place of `jax.lax.scan`: longer to compile, at times faster. Blocks
            with a cache always run so.

    Returns:
        A layer with the block's children.

        - x, y: the shape of the block
        - params: the block's tree, each leaf ``(size, *shape)``
        - state: ``{"0": block's state, "1": ...}``

    Raises:
        LayerError: at init, when the block changes the shape of its input.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.stack(fnn.residual(fnn.dense(4)), 3)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params["body"]["kernel"].shape
        (3, 4, 4)
    """
    _check_size("stack", size)
    _check_block(block)
    at_index = (lambda _: block) if isinstance(block, Layer) else (lambda index: as_layer(block(index)))
    first = at_index(np.int32(0))
    numbers = [str(number) for number in range(size)]

    def plan(made: Layer, x: Any, *more: Any) -> Plan:
        inner = first._plan(x, *more)
        if not same(inner.output, x):
            raise LayerError(f"a stacked block keeps the shape of its input; it maps {show(x)} to {show(inner.output)}")

        def make(key: jax.Array) -> Any:
            make_one = lambda number, key: at_index(number)._plan(x, *more).make(key)
            one = (lambda _, key: inner.make(key)) if isinstance(block, Layer) else make_one
            params, state = jax.vmap(one)(jnp.arange(size), _keys(key, size))
            return params, _unstack(state, numbers)

        state = dict.fromkeys(numbers, inner.state) if inner.state else {}
        return Plan(made, (x, *more), inner.output, _batched(inner.params, size), state, make, inner.children)

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        check_names({}, state, set(numbers))
        _check_count(params, size, "blocks", "stack")
        x, *more = xs
        keys = None if key is None else _keys(key, size)
        cached = _has_cache(state)
        if unroll or cached:  # a loop would copy stacked caches whole in every step
            new: dict[str, Any] = {}
            parts = jax.tree.map(_gathered if cached else _split, params)
            for number, name in enumerate(numbers):
                mine = jax.tree.map(lambda _, part, number=number: part[number], params, parts)
                my_key = None if keys is None else keys[number]
                with within(f"block_{number}"):
                    x, new[name] = at_index(number).apply(mine, state.get(name, {}), x, *more, key=my_key, train=train)
            return x, {name: tree for name, tree in new.items() if tree}

        def body(x: Any, one: Any) -> Any:
            number, mine, my_state, my_key = one
            with within("block"):
                return at_index(number).apply(mine, my_state, x, *more, key=my_key, train=train)

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state[name] for name in numbers)) if state else {}
        x, new_state = jax.lax.scan(body, x, (jnp.arange(size), params, stacked, keys))
        return x, _unstack(new_state, numbers)

    def rebuild_blocks(change: Change) -> Layer:
        return stack(lambda index: at_index(index)._rebuild(change), size, unroll=unroll)

    again = lambda new: stack(new, size, unroll=unroll)
    rebuild = None if isinstance(block, Layer) else rebuild_blocks
    return _wrap(first, "stack", plan, apply, again, name="stack", rebuild=rebuild)


def _split(leaf: jax.Array) -> list[jax.Array]:
    """The blocks of a stacked leaf; it transposes to one concatenation, slices would to a sum of whole stacks."""
    return [part[0] for part in jax.lax.split(leaf, (1,) * len(leaf))]


def _gathered(leaf: jax.Array) -> list[jax.Array]:
    """The same for blocks that run in a loop over ids: XLA takes a gather out of a loop, and leaves slices in it."""
    return [leaf[np.array([number])][0] for number in range(len(leaf))]


def _has_cache(state: Any) -> bool:
    named = jax.tree.leaves_with_path(state)
    return any(getattr(part, "key", None) == "cache" for path, _ in named for part in path)


def _unstack(state: Any, numbers: list[str]) -> dict[str, Any]:
    if not state:
        return {}
    return {name: jax.tree.map(lambda leaf, number=number: leaf[number], state) for number, name in enumerate(numbers)}


def ensemble(net: Any, size: int, *, shared: bool = True) -> Layer:
    """Run ``size`` networks of one kind side by side.

    Args:
        net: Any layer.
        size: How many.
        shared: Whether all get the same inputs. Otherwise each gets its own, of inputs with a leading axis of ``size``.

    Returns:
        A layer with the name and children of ``net``.

        - y: ``(size, *y of net)``
        - params, state: the trees of ``net``, each leaf ``(size, *shape)``

    Raises:
        LayerError: at init, when inputs are not shared and one does not begin with an axis of ``size``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.ensemble(fnn.dense(2), 5)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((3, 4)))
        >>> net.apply(params, state, jnp.ones((3, 4)))[0].shape
        (5, 3, 2)
    """
    _check_size("ensemble", size)
    inner = as_layer(net)

    def plan(made: Layer, *xs: Any) -> Plan:
        if not shared and any(leaf.shape[:1] != (size,) for leaf in jax.tree.leaves(xs)):
            raise LayerError(f"each of {size} networks gets inputs of its own, wanted a leading axis of {size}")
        mine = xs if shared else jax.tree.map(lambda spec: Spec(spec.shape[1:], spec.dtype), xs)
        one = inner._plan(*mine)
        output, params, state = (_batched(tree, size) for tree in (one.output, one.params, one.state))
        return Plan(made, xs, output, params, state, lambda key: jax.vmap(one.make)(_keys(key, size)), one.children)

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        run = lambda params, state, key, xs: inner.apply(params, state, *xs, key=key, train=train)
        _check_count(params, size, "networks", "ensemble")
        keys = None if key is None else _keys(key, size)
        return jax.vmap(run, (0, 0, 0, None if shared else 0), axis_size=size)(params, state, keys, xs)

    return _wrap(inner, f"ensemble[{size}]", plan, apply, lambda new: ensemble(new, size, shared=shared))


def remat(net: Any, policy: Callable[..., bool] | None = None) -> Layer:
    """Recompute a layer's intermediate values in the backward pass in place of keeping them.

    Args:
        net: Any layer.
        policy: Which values to keep nonetheless, from ``jax.checkpoint_policies``. None: none.

    Returns:
        A layer with the name, children, trees and values of ``net``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.remat(fnn.serial(fnn.dense(8), jnp.tanh))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> net.apply(params, state, jnp.ones((2, 4)))[0].shape
        (2, 8)
    """
    inner = as_layer(net)

    def plan(made: Layer, *xs: Any) -> Plan:
        return inner._plan(*xs)._replace(layer=made)

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        run = lambda params, state, key, *xs: inner.apply(params, state, *xs, key=key, train=train)
        return jax.checkpoint(run, policy=policy)(params, state, key, *xs)

    return _wrap(inner, "remat", plan, apply, lambda new: remat(new, policy))


def frozen(net: Any) -> Layer:
    """Freeze a network, or a part of one: no gradient for its parameters, and nothing that training changes.

    It is applied with ``train=False`` even while what surrounds it is trained: dropout does nothing, and batch norm
    uses and keeps the statistics that it has. Inputs get their gradients.

    Args:
        net: Any layer.

    Returns:
        A layer with the name, children and trees of ``net``; checkpoints of either fit the other.

    Note:
        Gradients are zeros, so that an optimizer with weight decay still moves the parameters. Exclude them by
        ``optax.multi_transform``, or by the ``mask`` of ``optax.adamw``, with paths from `fnn.mask`.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> trunk = fnn.serial(fnn.dense(8), fnn.batch_norm(), jax.nn.relu, fnn.dropout(0.5))
        >>> net = fnn.serial(trunk=fnn.frozen(trunk), head=fnn.dense(2))
        >>> x = jnp.ones((4, 3))
        >>> params, state = net.init(jax.random.key(0), x)
        >>> y, new_state = net.apply(params, state, x, train=True)  # needs no key
        >>> bool(jnp.array_equal(new_state["trunk"]["batch_norm_0"]["mean"], state["trunk"]["batch_norm_0"]["mean"]))
        True
    """
    inner = as_layer(net)

    def plan(made: Layer, *xs: Any) -> Plan:
        return inner._plan(*xs)._replace(layer=made)

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        return inner.apply(jax.lax.stop_gradient(params), state, *xs, key=key, train=False)

    return _wrap(inner, "frozen", plan, apply, frozen)


def mixed_precision(net: Any, compute: Any = jnp.bfloat16) -> Layer:
    """Compute in a smaller dtype; parameters stay float32 and the result returns to the input's dtype.

    Floating inputs and parameters are cast on entry, state never is. Integer inputs stay; where no input is floating
    the result is float32.

    Args:
        net: Any layer.
        compute: The dtype to compute in.

    Returns:
        A layer with the name, children and trees of ``net``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.mixed_precision(fnn.dense(8))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params["kernel"].dtype.name, net.apply(params, state, jnp.ones((2, 4)))[0].dtype.name
        ('float32', 'float32')
    """
    inner = as_layer(net)

    def cast(tree: Any, dtype: Any) -> Any:
        def one(leaf: Any) -> Any:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return leaf
            return Spec(leaf.shape, dtype) if isinstance(leaf, Spec) else leaf.astype(dtype)

        return jax.tree.map(one, tree)

    def outer_dtype(xs: Any) -> Any:
        found = [leaf.dtype for leaf in jax.tree.leaves(xs) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.result_type(*found) if found else jnp.float32

    def planned(leaf: Layer) -> Layer:
        """The same leaf, planned as it is applied: with parameters that are cast."""

        def plan(made: Layer, *xs: Any) -> Plan:
            one = leaf._plan(*xs)
            params = cast(one.params, compute)
            run = lambda params, state, *xs: leaf.apply(params, state, *xs, key=jax.random.key(0))[0]
            output = one.output if same(params, one.params) else jax.eval_shape(run, params, one.state, *xs)
            return one._replace(layer=made, params=params, output=output)

        return make_layer(leaf.name, plan, leaf.apply, describe=lambda: repr(leaf), owns=leaf._owns)

    def plan(made: Layer, *xs: Any) -> Plan:
        one = _at_leaves(inner, planned)._plan(*cast(xs, compute))
        params, _ = jax.eval_shape(one.make, jax.random.key(0))
        return one._replace(layer=made, inputs=xs, params=params, output=cast(one.output, outer_dtype(xs)))

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        xs = jax.tree.map(jnp.asarray, xs)
        y, state = inner.apply(cast(params, compute), state, *cast(xs, compute), key=key, train=train)
        return cast(y, outer_dtype(xs)), state

    return _wrap(inner, "mixed_precision", plan, apply, lambda new: mixed_precision(new, compute))
