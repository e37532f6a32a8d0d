"""The lift: a layer without children from the functions that it needs and no others."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.errors import LayerError
from fnn.core.layer import Layer, Plan, check_names, make_layer
from fnn.core.specs import same, show


def layer(init: Callable[..., Any] | None, apply: Callable[..., Any], *, name: str | None = None) -> Layer:
    """Make a layer from the functions that it needs and no others.

    The names of ``apply``'s parameters say what it takes: ``params`` first, unless ``init`` is None; ``state`` second
    makes the layer stateful; ``key`` and ``train`` where they are wanted. A layer that takes ``key`` must be given one,
    except that one that also takes ``train`` needs it only when training. A default, ``key=None``, lifts that.

    Args:
        init: ``init(key, *specs) -> params``, or ``(params, state)`` for a stateful layer. It sees the inputs as
            `jax.ShapeDtypeStruct`. None: the layer owns nothing.
        apply: ``apply([params, [state,]] *xs[, key][, train]) -> y``, or ``(y, state)`` for a stateful layer.
        name: The kind; by default the name of the function that calls ``layer``.

    Returns:
        A layer without children.

    Raises:
        LayerError: at init, when ``init`` or ``apply`` fails on the inputs, or the state changes its structure.

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
    """
    takes = _parameter_names(apply)
    stateful = init is not None and takes[1:2] == ["state"]
    wants = [word for word in ("key", "train") if word in takes]
    key_is_needed = "key" in takes and inspect.signature(apply).parameters["key"].default in (inspect.Parameter.empty,)
    kind = name or _constructor_name(init or apply)

    def describe() -> str:
        return f"{kind}({', '.join(f'{k}={v}' for k, v in _configuration(init, apply).items())})"

    def run(params: Any, state: Any, xs: tuple[Any, ...], key: Any, train: bool) -> tuple[Any, Any]:
        if key is None and key_is_needed and (train or "train" not in wants):
            raise LayerError(f"{kind} needs random numbers: pass key=jax.random.key(...) to apply")
        xs = jax.tree.map(jnp.asarray, xs)  # NumPy's float64 is float32 to JAX, and x.dtype must say so
        given = {"key": key, "train": train}
        owned = () if init is None else (params, state) if stateful else (params,)
        if init is None:
            check_names(params, state, set())
        elif not stateful:
            check_names({}, state, set())
        with jax.named_scope(kind):
            y = apply(*owned, *xs, **{word: given[word] for word in wants})
        if isinstance(y, Layer):
            raise LayerError(f"{kind} is a constructor that was not called; write {kind}(...)")
        return y if stateful else (y, state)

    def start(key: jax.Array, *inputs: Any) -> tuple[Any, Any]:
        made = {} if init is None else init(key, *inputs)
        params, state = made if stateful else (made, {})
        if not isinstance(params, dict) or not isinstance(state, dict):
            raise TypeError(
                f"init must return {'(params, state), two dicts' if stateful else 'params, a dict'}, got {show(made)}"
            )
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
    """Lift a plain function to a layer that owns nothing; a Layer stays as it is."""
    if isinstance(value, Layer):
        return value
    if not callable(value) or isinstance(value, type):
        raise LayerError(f"wanted a Layer or a function, got {type(value).__name__}: {value!r}")
    name = _function_name(value)
    if getattr(value, "__annotations__", {}).get("return") in (Layer, "Layer"):
        raise LayerError(f"got the constructor {name} itself; call it: {name}(...)")
    return layer(None, value, name=name)


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


def _parameter_names(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some NumPy-like callables have no signature
        return []


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
