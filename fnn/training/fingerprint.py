"""A checksum of what a compiled function computes, which names and formatting do not change."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


def fingerprint(function: Any, *args: Any) -> str:
    """A checksum of the traced program: operations, shapes and constants; no names, devices or addresses.

    Args:
        function: What `jax.jit` returned; tracing is shared with its calls.
        *args: What it is called with, or specs of that.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from fnn.training.fingerprint import fingerprint
        >>> scaled = lambda factor: fingerprint(jax.jit(lambda x: jnp.sum(x) * factor), jnp.ones(3))
        >>> scaled(1.0) == scaled(1.0), scaled(1.0) == scaled(2.0)
        (True, False)
    """
    return Checksums().of_closed(function.trace(*args).jaxpr)[:16]


class Checksums:
    """Checksums of nested programs; one that is called many times is read once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of_closed(self, closed: core.ClosedJaxpr) -> str:
        constants = [_of_array(constant) for constant in closed.consts]
        return _digest(self.of(closed.jaxpr), *constants)

    def of(self, jaxpr: core.Jaxpr) -> str:
        if id(jaxpr) not in self._known:
            self._known[id(jaxpr)] = _digest(*self._lines(jaxpr))
        return self._known[id(jaxpr)]

    def _lines(self, jaxpr: core.Jaxpr) -> Iterator[str]:
        numbers: dict[core.Var, int] = {}

        def name(variable: Any) -> str:
            if isinstance(variable, core.Literal):
                return f"{_of_array(variable.val)}:{variable.aval}"
            return f"{numbers.setdefault(variable, len(numbers))}:{variable.aval}"

        yield " ".join(map(name, [*jaxpr.constvars, *jaxpr.invars]))
        for eqn in jaxpr.eqns:
            inputs, outputs = " ".join(map(name, eqn.invars)), " ".join(map(name, eqn.outvars))
            yield f"{outputs} = {eqn.primitive.name}[{self._parameters(eqn)}] {inputs}"
        yield " ".join(map(name, jaxpr.outvars))

    def _parameters(self, eqn: core.JaxprEqn) -> str:
        params: Mapping[str, Any] = eqn.params
        if eqn.primitive.name in ("pjit", "jit"):  # the others are names, and where arrays lie
            params = {"jaxpr": params["jaxpr"]}
        return ", ".join(f"{name}={self._text(params[name])}" for name in sorted(params))

    def _text(self, value: Any) -> str:
        if isinstance(value, core.ClosedJaxpr):
            return self.of_closed(value)
        if isinstance(value, core.Jaxpr):
            return self.of(value)
        if isinstance(value, tuple | list):
            return f"({', '.join(map(self._text, value))})"
        if isinstance(value, np.ndarray | jax.Array):
            return _of_array(value)
        if callable(value) and not isinstance(value, type):  # a rule of a derivative, or a callback of the host
            return "function"
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _of_array(value: Any) -> str:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if not hasattr(value, "dtype"):
        return repr(value)
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return f"{value.dtype}{value.shape}"
    array = np.asarray(value)
    return _digest(f"{array.dtype}{array.shape}", array.tobytes())


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
        found.update(b"\n")
    return found.hexdigest()
