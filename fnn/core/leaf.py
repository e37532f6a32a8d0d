"""Make a layer without children from the functions that it needs and no others."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.errors import LayerError
from fnn.core.layer import Layer, Plan, check_names, make_layer
from fnn.core.specs import same, show, specs


def layer(
    init: Callable[..., Any] | None, apply: Callable[..., Any], *, stateful: bool = False, name: str | None = None
) -> Layer:
    """Make a layer from the functions that it needs and no others.

    ``apply`` is called with ``params`` (unless ``init`` is None), ``state`` (if ``stateful``) and the inputs, all of
    them by position: what it calls them does not matter. Two keyword-only parameters are passed by name where
    ``apply`` has them: ``*, key`` asks for random numbers and ``*, train`` for the mode. A layer with ``key`` must be
    given one; a layer with ``key`` and ``train`` needs it only in training; with a default, ``key=None``, it is
    optional.

    Args:
        init: ``init(key, *specs) -> params``, or ``(params, state)`` for a stateful layer. It sees the inputs as
            `jax.ShapeDtypeStruct`. None: the layer owns nothing.
        apply: ``apply([params, [state,]] *xs[, *, key][, train]) -> y``, or ``(y, state)`` for a stateful layer.
        stateful: Whether the layer has state: ``init`` returns it, ``apply`` takes it and returns the new one.
        name: The kind; by default the name of the function that calls ``layer``.

    Returns:
        A layer without children.

    Raises:
        ValueError: if ``stateful`` is True and ``init`` is None.
        LayerError: at init, if ``init`` or ``apply`` returns something else than is stated above, or if the state
            changes its structure.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> def scale():
        ...     def init(key, x):
        ...         return {"scale": jnp.ones(x.shape[-1:])}
        ...     def apply(params, x):
        ...         return params["scale"].astype(x.dtype) * x
        ...     return fnn.layer(init, apply)
        >>> params, state = scale().init(jax.random.key(0), jnp.ones((2, 3)))
        >>> y, _ = scale().apply(params, state, jnp.ones((2, 3)))
        >>> scale().name, y.shape
        ('scale', (2, 3))

        A layer with state that draws random numbers in training:

        >>> def noisy_counter():
        ...     def init(key, x):
        ...         return {}, {"calls": jnp.zeros(())}
        ...     def apply(params, state, x, *, key, train):
        ...         y = x + jax.random.normal(key, x.shape) if train else x
        ...         return y, {"calls": state["calls"] + 1}
        ...     return fnn.layer(init, apply, stateful=True)
        >>> params, state = noisy_counter().init(jax.random.key(0), 1.0)
        >>> y, state = noisy_counter().apply(params, state, 1.0)
        >>> float(y), float(state["calls"])
        (1.0, 1.0)
    """
    if stateful and init is None:
        raise ValueError("stateful=True needs an init that returns (params, state), got init=None")
    named = _keyword_only(apply)
    wants = [word for word in ("key", "train") if word in named]
    key_is_needed = "key" in named and named["key"].default is inspect.Parameter.empty
    kind = name or _constructor_name(init or apply)
    names = ("params", "state")

    def describe() -> str:
        return f"{kind}({', '.join(f'{k}={v}' for k, v in _configuration(init, apply).items())})"

    def run(params: Any, state: Any, xs: tuple[Any, ...], key: Any, train: bool) -> tuple[Any, Any]:
        if key is None and key_is_needed and (train or "train" not in wants):
            raise LayerError(f"{kind} needs random numbers: pass key=jax.random.key(...) to apply")
        xs = jax.tree.map(jnp.asarray, xs)  # NumPy's float64 is float32 to JAX, and x.dtype must say so
        if not stateful:
            check_names(params if init is None else {}, state, set())
        owned = () if init is None else (params, state) if stateful else (params,)
        given = {"key": key, "train": train}
        try:
            with jax.named_scope(kind):
                y = apply(*owned, *xs, **{word: given[word] for word in wants})
        except KeyError:
            if missing := _missing(start, params, state, xs):
                raise LayerError(f"{missing}; pass the trees that this network's init returned") from None
            raise
        except TypeError:
            if misfit := _misfit("apply" if init else kind, apply, names[: len(owned)], len(xs), wants):
                raise LayerError(misfit) from None
            raise
        if isinstance(y, Layer):
            raise LayerError(f"{kind} is a constructor that was not called; write {kind}(...)")
        is_pair = isinstance(y, tuple) and len(y) == 2 and isinstance(y[1], dict)
        if stateful and not is_pair:
            raise LayerError(
                f"apply of a stateful layer returns (y, state), it returned {show((y,))}; "
                "return both, or leave out stateful=True"
            )
        if not stateful and init is not None and is_pair and not y[1]:
            raise LayerError("apply returned (y, {}); return y alone, or pass stateful=True to fnn.layer")
        return y if stateful else (y, state)

    def start(key: jax.Array, *inputs: Any) -> tuple[Any, Any]:
        try:
            made = {} if init is None else init(key, *inputs)
        except TypeError:
            if init and (misfit := _misfit("init", init, ("key",), len(inputs), [])):
                raise LayerError(misfit) from None
            raise
        is_pair = isinstance(made, tuple) and len(made) == 2 and all(isinstance(tree, dict) for tree in made)
        if is_pair and not stateful:
            raise LayerError("init returned (params, state); pass stateful=True to fnn.layer, or return params alone")
        if stateful and not is_pair:
            raise LayerError(f"init must return (params, state), two dicts, got {show((made,))}")
        if not stateful and not isinstance(made, dict):
            raise LayerError(f"init must return params, a dict, got {show((made,))}")
        params, state = made if stateful else (made, {})
        return params, state

    def plan(made: Layer, *inputs: Any) -> Plan:
        def trace(*xs: Any) -> Any:
            params, state = start(jax.random.key(0), *inputs)
            y, new_state = run(params, state, xs, jax.random.key(1), False)
            return y, params, state, new_state

        output, params, state, new_state = jax.eval_shape(trace, *inputs)
        if not same(state, new_state):
            raise LayerError(f"apply must keep the structure of state: {show(state)} became {show(new_state)}")
        return Plan(made, inputs, output, params, state, lambda key: start(key, *inputs))

    return make_layer(kind, plan, run, describe=describe, owns=init is not None)


def as_layer(value: Any) -> Layer:
    """Make a plain function a layer that owns nothing and gets its inputs alone; a Layer stays as it is."""
    if isinstance(value, Layer):
        return value
    if not callable(value) or isinstance(value, type):
        raise LayerError(f"wanted a Layer or a function, got {_odd_value(value)}")
    name = _function_name(value)
    if getattr(value, "__annotations__", {}).get("return") in (Layer, "Layer"):
        raise LayerError(f"got the constructor {name} itself; call it: {name}(...)")
    if asked := [word for word in ("key", "train") if word in _keyword_only(value)]:
        raise LayerError(
            f"{name} asks for {' and '.join(asked)}, and a plain function gets its inputs alone; "
            f"write fnn.layer(None, {name})"
        )
    return layer(None, value, name=name)


def _odd_value(value: Any) -> str:
    if isinstance(value, str):
        return f"the string {value!r}; pass the function, jax.nn.{value if hasattr(jax.nn, value) else 'relu'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}; unpack it, fnn.serial(*layers)"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}; unpack it, fnn.serial(**layers)"
    if isinstance(value, type):
        return f"the class {value.__name__} itself; call it: {value.__name__}(...)"
    return f"{type(value).__name__}: {value!r}"


def _function_name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return "function" if name == "<lambda>" else name


def _constructor_name(function: Callable[..., Any]) -> str:
    """``scale.<locals>.init`` was made by ``scale``; a function at the top of a module is its own constructor."""
    qualified = getattr(function, "__qualname__", _function_name(function))
    outer, _, _ = qualified.rpartition(".<locals>")
    return (outer or qualified).rpartition(".")[2].replace("<lambda>", "function")


def _keyword_only(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some NumPy-like callables have no signature
        return {}
    return {name: one for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}


def _missing(start: Callable[..., Any], params: Any, state: Any, xs: Any) -> str:
    """Say which name init makes and the trees lack; empty if they have them all."""
    paths = lambda tree: [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves_with_path(tree)]
    leaves_with_path = jax.tree_util.tree_leaves_with_path
    try:
        wanted = jax.eval_shape(lambda: start(jax.random.key(0), *specs(xs)))
    except Exception:  # init does not take these inputs, and says so itself
        return ""
    for kind, tree, made in zip(("params", "state"), (params, state), wanted):
        have = paths(tree)
        if lacking := [path for path in paths(made) if path not in have]:
            names = ", ".join(map(repr, lacking))
            return f"{kind} lacks {names} (it has {', '.join(map(repr, have)) or 'nothing'})"
    return ""


def _misfit(role: str, function: Callable[..., Any], owned: tuple[str, ...], inputs: int, wants: list[str]) -> str:
    """Say why a function cannot be called with so many inputs; empty if it can, or has no signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*owned, *range(inputs), **dict.fromkeys(wants))
    except TypeError:
        parameters = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
        asked = [
            one.name
            for one in parameters[len(owned) :]
            if one.name in ("key", "train") and one.kind < one.VAR_POSITIONAL
        ]
        hint = f"; to ask for {asked[0]} make it keyword-only, *, {asked[0]}" if asked else ""
        given = ", ".join((*owned, f"{inputs} input{'' if inputs == 1 else 's'}"))
        return f"{role} takes {inspect.Signature(parameters)}, got {given}{hint}"
    return ""


def _configuration(*functions: Callable[..., Any] | None) -> dict[str, str]:
    """What the closures of a leaf hold is its configuration; shown in errors and in ``repr``."""
    found: dict[str, str] = {}
    for function in functions:
        code = getattr(function, "__code__", None)
        for name, cell in zip(code.co_freevars if code else (), getattr(function, "__closure__", None) or ()):
            value = cell.cell_contents
            if value is None or isinstance(value, Layer) or name == "init" or name.endswith("_init"):
                continue
            if isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                found[name] = show(value)
            elif callable(value) and not isinstance(value, type):
                found[name] = _function_name(value)
            else:
                found[name] = getattr(value, "__name__", None) or repr(value)
    return found
