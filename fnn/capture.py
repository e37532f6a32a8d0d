"""Looking into a network, and operating on it: by path, without changing what it owns."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import jax

from fnn.core.compose import Group
from fnn.core.errors import LayerError
from fnn.core.layer import Layer, Plan, make_layer

_SLOT = "captured"  # the entry of state through which outputs leave; no child is called so within a recorded layer


def map_layers(fn: Callable[[Layer], Layer], net: Layer) -> Layer:
    """Rebuild a network with every layer in it replaced by ``fn(layer)``, leaves first.

    Args:
        fn: Returns the layer that it was given, or another one.
        net: Any network.

    Returns:
        A network; ``fn`` saw each layer after its children were replaced, and the whole network last.

    Example:
        >>> import fnn, jax
        >>> net = fnn.serial(fnn.dense(8), fnn.dropout(0.5), fnn.dense(2))
        >>> calm = fnn.map_layers(lambda layer: fnn.dropout(0.1) if layer.name == "dropout" else layer, net)
        >>> [child.name for _, child in calm.children]
        ['dense', 'dropout', 'dense']
    """
    rebuilt = net._rebuild(lambda _, child: map_layers(fn, child))
    return rebuilt if isinstance(net, Group) else fn(rebuilt)


def capture(net: Layer, *patterns: str) -> Layer:
    """Make a network whose apply also returns the outputs of some of its layers.

    Args:
        net: Any network. Blocks of a `stack` are captured one by one.
        *patterns: Paths of layers, such as ``"encoder/conv_0"``; ``*`` stands for anything, slashes too.

    Returns:
        A network with the trees of ``net`` whose output is the pair of its output and a dict from path to captured
        output; a tuple of outputs for a layer that is called several times.

    Raises:
        LayerError: when a pattern matches no layer; it lists the paths.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.dense(8), jax.nn.relu, fnn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> (y, outputs), _ = fnn.capture(net, "relu_0").apply(params, state, jnp.ones((4, 3)))
        >>> outputs["relu_0"].shape
        (4, 8)
    """
    paths = _paths(net)
    recording = _record(net, "", patterns)
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise LayerError(f"{pattern!r} matches no layer; the network has {', '.join(paths) or 'no children'}")

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        y, new = recording.apply(params, state, *xs, key=key, train=train)
        outputs: dict[str, Any] = {}
        return (y, outputs), _take(new, (), outputs)

    def plan(made: Layer, *inputs: Any) -> Plan:
        one = net._plan(*inputs)
        run = lambda params, state, *xs: apply(params, state, xs, jax.random.key(0), False)[0]
        return one._replace(layer=made, output=jax.eval_shape(run, one.params, one.state, *inputs))

    return make_layer(
        net.name,
        plan,
        apply,
        describe=lambda: f"capture({net!r})",
        children=net.children,
        rebuild=lambda change: capture(net._rebuild(change), *patterns),
    )


def _paths(net: Layer, above: str = "") -> list[str]:
    return [path for name, child in net.children for path in (above + name, *_paths(child, f"{above}{name}/"))]


def _record(net: Layer, above: str, patterns: tuple[str, ...]) -> Layer:
    """Wrap every layer whose path matches."""

    def change(name: str, child: Layer) -> Layer:
        path = above + name
        recorded = _record(child, f"{path}/", patterns)
        is_wanted = any(fnmatchcase(path, pattern) for pattern in patterns) and not isinstance(child, Group)
        return _recorded(recorded) if is_wanted else recorded

    return net._rebuild(change)


def _recorded(inner: Layer) -> Layer:
    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        earlier = state.get(_SLOT, ())
        own = {name: tree for name, tree in state.items() if name != _SLOT}
        y, new = inner.apply(params, own, *xs, key=key, train=train)
        return y, {**new, _SLOT: (*earlier, y)}

    def plan(made: Layer, *inputs: Any) -> Plan:
        return inner._plan(*inputs)._replace(layer=made)

    return make_layer(
        inner.name, plan, apply, describe=lambda: repr(inner), children=inner.children, rebuild=inner._rebuild
    )


def _take(state: dict[str, Any], path: tuple[str, ...], outputs: dict[str, Any]) -> dict[str, Any]:
    """Move what was captured out of the state tree."""
    kept = {}
    for name, tree in state.items():
        if name == _SLOT:
            outputs["/".join(path)] = tree[0] if len(tree) == 1 else tree
        elif not isinstance(tree, dict):
            kept[name] = tree
        elif below := _take(tree, (*path, name), outputs):
            kept[name] = below
    return kept
