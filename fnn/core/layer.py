"""The protocol: a layer is a pair of pure functions, ``init`` and ``apply``, over a tree of parameters."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from fnn.core.errors import LayerError, blame
from fnn.core.keys import check_key
from fnn.core.specs import specs


class Plan(NamedTuple):
    """What a layer will do with inputs of given shapes: found by one abstract run, before any array is made.

    Attributes:
        layer: The layer that was planned.
        inputs: Specs of the inputs, a tuple.
        output: Spec of the output.
        params: Specs of the parameters.
        state: Specs of the state.
        make: ``make(key) -> (params, state)``; traces no layer.
        children: Pairs of name and plan, in the order of the calls.
    """

    layer: "Layer"
    inputs: tuple[Any, ...]
    output: Any
    params: dict[str, Any]
    state: dict[str, Any]
    make: Callable[[jax.Array], tuple[dict[str, Any], dict[str, Any]]]
    children: tuple[tuple[str, "Plan"], ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A neural network, or a part of one, as two pure functions.

    ``params, state = layer.init(key, *xs)`` reads only shapes and dtypes of ``xs``;
    ``y, state = layer.apply(params, state, *xs, key=None, train=False)`` runs the layer. A Layer unpacks as the pair
    ``init, apply = layer``. Two layers are equal only if they are the same object.

    Attributes:
        init: Makes parameters and state.
        apply: Maps parameters, state and inputs to an output and the new state.
        name: The kind, such as ``"conv"``.
        children: Pairs of name and Layer; walking them gives the paths of ``params``.
    """

    init: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
    apply: Callable[..., tuple[Any, dict[str, Any]]]
    name: str
    children: tuple[tuple[str, "Layer"], ...]
    _plan: Callable[..., Plan]
    _rebuild: Callable[[Callable[[str, "Layer"], "Layer"]], "Layer"]
    _describe: Callable[[], str]
    _owns: bool

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.apply))

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            f"{self.name} is a layer, which holds no weights and is not called: "
            "params, state = net.init(key, x); y, state = net.apply(params, state, x)"
        )

    def __repr__(self) -> str:
        return self._describe()


Change = Callable[[str, Layer], Layer]  # from the name of a child and the child to what takes its place


def change_children(children: tuple[tuple[str, Layer], ...], change: Change) -> tuple[tuple[str, Layer], ...]:
    """Put others in the place of children; the same tuple if none is another."""
    changed = tuple((name, change(name, child)) for name, child in children)
    return children if changed == children else changed


def make_layer(
    name: str,
    plan: Callable[..., Plan],
    apply: Callable[..., Any],
    *,
    describe: Callable[[], str],
    children: tuple[tuple[str, Layer], ...] = (),
    rebuild: Callable[[Change], Layer] | None = None,
    owns: bool = True,
) -> Layer:
    """Assemble a Layer from its plan and its unchecked ``apply(params, state, xs, key, train)``.

    ``rebuild(change)`` makes the layer with ``change(name, child)`` in the place of each child.
    """

    def checked_plan(*xs: Any) -> Plan:
        with blame(describe, xs):
            return plan(made, *specs(xs))

    def init(key: jax.Array, *xs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        check_key(key)
        return checked_plan(*xs).make(key)

    def checked_apply(
        params: dict[str, Any], state: dict[str, Any], *xs: Any, key: jax.Array | None = None, train: bool = False
    ) -> tuple[Any, dict[str, Any]]:
        with blame(describe, xs):
            _check_call(params, state, key, train)
            return apply(params, state, xs, key, train)

    made = Layer(
        init, checked_apply, name, children, checked_plan, rebuild or (lambda _: made), _describe=describe, _owns=owns
    )
    return made


def _check_call(params: Any, state: Any, key: jax.Array | None, train: bool) -> None:
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, dict):
            hint = "; unpack it: params, state = net.init(key, x)" if isinstance(tree, tuple) else ""
            hint = "; write net.apply(params, state, x)" if hasattr(tree, "dtype") else hint
            raise TypeError(f"{name} must be the dict that init returned, got {type(tree).__name__}{hint}")
    if key is not None:
        check_key(key)
    if not isinstance(train, bool | np.bool):
        kind = "Array" if isinstance(train, jax.Array) else type(train).__name__
        raise TypeError(
            f"train must be a Python bool, got {kind}; "
            "under jax.jit name it in static_argnames=('train',) or close over it"
        )


def check_names(params: dict[str, Any], state: dict[str, Any], names: set[str]) -> None:
    """Raise if params or state holds a name that is none of ``names``: they were made by another network."""
    for kind, tree in (("params", params), ("state", state)):
        if unknown := sorted(set(tree) - names):
            owned = ", ".join(sorted(names)) or "nothing"
            raise LayerError(
                f"{kind} has {', '.join(map(repr, unknown))}, wanted {owned}; "
                f"pass the {kind} that this network's init returned"
            )
