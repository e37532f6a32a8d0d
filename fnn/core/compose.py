"""The one mechanism behind every layer that has children.

A composite is a function ``forward(f, *xs)``. ``f`` is made afresh for each call and gone when it returns; through it
the function reaches its children. While a network is applied, ``f.child(x)`` runs the child with its own parameters,
state and key and collects its new state. While it is planned, ``f.child(x)`` plans the child and returns zeros of the
shape of its output, so each leaf is traced once.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from fnn.core.errors import LayerError, within
from fnn.core.keys import fold
from fnn.core.layer import Change, Layer, Plan, change_children, check_names, make_layer
from fnn.core.leaf import as_layer
from fnn.core.specs import same, show, specs, zeros

_RESERVED = re.compile(r"train|call_\d+")


def compose(name: str, forward: Callable[..., Any], children: tuple[tuple[str, Layer], ...]) -> Layer:
    """Make a layer whose output is ``forward(f, *xs)``, where ``f`` holds the children."""
    table = dict(children)

    def describe() -> str:
        return f"{name}({', '.join(table)})"

    def apply(params: Any, state: Any, xs: tuple[Any, ...], key: Any, train: bool) -> tuple[Any, Any]:
        f = _Applying(table, params, state, key, train, get_opaque_trace_state())
        y = forward(f, *xs)
        return y, f._new_state()

    def plan(made: Layer, *inputs: Any) -> Plan:
        f = _Planning(table)

        def run(train: bool) -> Any:
            def traced(*xs: Any) -> Any:
                f._enter(train, get_opaque_trace_state())
                return forward(f, *xs)

            return jax.eval_shape(traced, *inputs)

        output = run(False)
        if f._uncalled():
            run(True)
        if uncalled := f._uncalled():
            raise LayerError(f"never calls its {', '.join(uncalled)}; call every child, or leave it out")
        plans = f._plans()
        return Plan(
            made,
            inputs,
            output,
            {child: plan.params for child, plan in plans if plan.params},
            {child: plan.state for child, plan in plans if plan.state},
            lambda key: make_children(plans, key),
            plans,
        )

    def rebuild(change: Change) -> Layer:
        changed = change_children(children, change)
        return made if changed is children else compose(name, forward, changed)

    made = make_layer(name, plan, apply, describe=describe, children=children, rebuild=rebuild)
    return made


def make_children(plans: tuple[tuple[str, Plan], ...], key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make every child under its own name; a child that owns nothing gets no entry."""
    made = {name: plan.make(fold(key, name)) for name, plan in plans}
    params = {name: params for name, (params, _) in made.items() if params}
    state = {name: state for name, (_, state) in made.items() if state}
    return params, state


class _Children:
    """What ``f`` and a group of children have in common: handles by name."""

    def __init__(self, table: dict[str, Layer], train: bool, trace: Any):
        self.train, self._trace, self._table = train, trace, table

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str | int) -> Any:
        size = len(self._table)
        name = str(name + size if isinstance(name, int) and name < 0 else name)
        if name not in self._table:
            raise LayerError(f"has no child {name!r}; its children are {', '.join(self._table) or 'none'}")
        child = self._table[name]
        return self._group(name, child) if isinstance(child, Group) else _Handle(self, name, child)

    def __call__(self, *xs: Any) -> Any:
        raise LayerError("a group of layers is not callable; call one of them: f.group[0](x)")

    def __iter__(self) -> Iterator[Any]:
        return (self[name] for name in self._table)

    def __len__(self) -> int:
        return len(self._table)

    def _group(self, name: str, group: "Group") -> Any:
        raise NotImplementedError

    def _params(self, name: str) -> Any:
        raise NotImplementedError

    def _state(self, name: str) -> Any:
        raise NotImplementedError

    def _call(self, name: str, child: Layer, xs: tuple[Any, ...], key: Any) -> Any:
        raise NotImplementedError

    def _inside_transformation(self) -> bool:
        return get_opaque_trace_state() != self._trace

    def _refuse_state(self, state: Any) -> None:
        if state and self._inside_transformation():
            raise LayerError(
                "has state and is called inside a jax transformation (vmap, scan, grad, checkpoint, ...) within the "
                "network's function, where its new state would be lost; call it outside, or use fnn.stack, "
                "fnn.ensemble or fnn.remat, which carry state through"
            )


class _Handle:
    """One child as ``forward`` sees it: call it, or read its ``params`` and ``state``."""

    __slots__ = ("_child", "_name", "_owner")

    def __init__(self, owner: _Children, name: str, child: Layer):
        self._owner, self._name, self._child = owner, name, child

    def __call__(self, *xs: Any, key: jax.Array | None = None) -> Any:
        with within(self._name):
            return self._owner._call(self._name, self._child, xs, key)

    @property
    def params(self) -> Any:
        return self._owner._params(self._name)

    @property
    def state(self) -> Any:
        return self._owner._state(self._name)


class _Applying(_Children):
    def __init__(self, table: Any, params: Any, state: Any, key: Any, train: bool, trace: Any):
        super().__init__(table, train, trace)
        check_names(params, state, set(table))
        self._all_params, self._all_state, self._key = params, state, key
        self._changed: dict[str, Any] = {}
        self._groups: dict[str, _Applying] = {}
        self._calls: dict[str, int] = {}

    def _params(self, name: str) -> Any:
        return self._all_params.get(name, {})

    def _state(self, name: str) -> Any:
        return self._changed.get(name, self._all_state.get(name, {}))

    def _child_key(self, name: str) -> Any:
        return None if self._key is None else fold(self._key, name)

    def _group(self, name: str, group: "Group") -> Any:
        if name not in self._groups:
            self._groups[name] = _Applying(
                dict(group.children),
                self._params(name),
                self._state(name),
                self._child_key(name),
                self.train,
                self._trace,
            )
        return self._groups[name]

    def _call(self, name: str, child: Layer, xs: tuple[Any, ...], key: Any) -> Any:
        state = self._state(name)
        self._refuse_state(state)
        inside = self._inside_transformation()
        if key is None and not inside:
            count = self._calls[name] = self._calls.get(name, -1) + 1
            key = self._child_key(name)
            key = fold(key, f"call_{count}") if key is not None and count else key
        try:
            y, new = child.apply(self._params(name), state, *xs, key=key, train=self.train)
        except LayerError as error:
            if inside and key is None and "random numbers" in error.reason:
                error.reason += f"; inside a transformation pass one by hand: f.{name}(x, key=key)"
            raise
        self._refuse_state(new)
        if new:
            self._changed[name] = new
        return y

    def _new_state(self) -> dict[str, Any]:
        groups = {name: state for name, group in self._groups.items() if (state := group._new_state())}
        return {**self._all_state, **self._changed, **groups}


class _Planning(_Children):
    def __init__(self, table: Any):
        super().__init__(table, False, None)
        self._made: dict[str, Plan] = {}
        self._groups: dict[str, _Planning] = {
            name: _Planning(dict(child.children)) for name, child in table.items() if isinstance(child, Group)
        }

    def _enter(self, train: bool, trace: Any) -> None:
        self.train, self._trace = train, trace
        for group in self._groups.values():
            group._enter(train, trace)

    def _group(self, name: str, group: "Group") -> Any:
        return self._groups[name]

    def _planned(self, name: str) -> Plan:
        if name not in self._made:
            raise LayerError(f"the trees of {name!r} are read before its first call; call f.{name}(x) first")
        return self._made[name]

    def _params(self, name: str) -> Any:
        return zeros(self._planned(name).params)

    def _state(self, name: str) -> Any:
        return zeros(self._planned(name).state)

    def _call(self, name: str, child: Layer, xs: tuple[Any, ...], key: Any) -> Any:
        plan = child._plan(*specs(xs))
        self._refuse_state(plan.state)
        first = self._made.setdefault(name, plan)
        if not (same(first.params, plan.params) and same(first.state, plan.state)):
            raise LayerError(
                f"is called with {show(first.inputs)} and again with {show(plan.inputs)}, which need different "
                "parameters; give the second call a child of its own"
            )
        return zeros(plan.output)

    def _uncalled(self) -> list[str]:
        inner = [f"{name}/{child}" for name, group in self._groups.items() for child in group._uncalled()]
        return [name for name in self._table if name not in self._made and name not in self._groups] + inner

    def _plans(self) -> tuple[tuple[str, Plan], ...]:
        def group_plan(name: str, group: _Planning) -> Plan:
            plans = group._plans()
            return Plan(
                self._table[name],
                (),
                None,
                {child: plan.params for child, plan in plans if plan.params},
                {child: plan.state for child, plan in plans if plan.state},
                lambda key: make_children(plans, key),
                plans,
            )

        groups = tuple((name, group_plan(name, group)) for name, group in self._groups.items())
        return tuple(self._made.items()) + groups


class Group(Layer):
    """A list or dict of children under one name: reached as ``f.blocks[i]``, never called itself."""


def make_group(layers: Any) -> Group:
    """Lift a list, tuple or dict of layers to a group."""
    pairs = layers.items() if isinstance(layers, dict) else enumerate(layers)
    children = tuple((str(name), as_child(str(name), child)) for name, child in pairs)

    def refuse(*_: Any, **__: Any) -> Any:
        raise LayerError("is a group of layers; call one of them: f.group[i](x)")

    return Group(
        refuse,
        refuse,
        "group",
        children,
        refuse,
        lambda change: make_group(dict(change_children(children, change))),
        _describe=lambda: f"group({', '.join(name for name, _ in children)})",
        _owns=True,
    )


def as_child(name: str, value: Any) -> Layer:
    """Lift one child and check its name."""
    if not name or "/" in name or "*" in name or _RESERVED.fullmatch(name):
        raise LayerError(
            f"{name!r} cannot name a layer: a name is not empty, has no '/' or '*', and is not 'train' or 'call_1'"
        )
    return make_group(value) if isinstance(value, list | tuple | dict) else as_layer(value)


def name_children(layers: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[str, Layer], ...]:
    """Name positional layers ``kind_0``, ``kind_1``, ...; layers that own nothing are counted last.

    So putting in or taking out a function, dropout or pooling changes no path of params, whatever it is called.
    """
    lifted = [as_layer(value) for value in layers]
    counts: dict[str, int] = {}
    names: dict[int, str] = {}
    for position in sorted(range(len(lifted)), key=lambda position: not lifted[position]._owns):
        kind = lifted[position].name
        names[position] = f"{kind}_{counts.get(kind, 0)}"
        counts[kind] = counts.get(kind, 0) + 1
    positional = tuple((names[position], as_child(names[position], child)) for position, child in enumerate(lifted))
    given = tuple((name, as_child(name, value)) for name, value in named.items())
    if clash := {name for name, _ in positional} & set(named):
        raise LayerError(f"two layers are called {', '.join(sorted(clash))}; give one another name")
    return positional + given
