"""Compiled programs, found by what they compute: by the traced program and JAX's configuration, never by a function.

A function may call helpers and read globals that change; its trace shows what it computes now. Tracing takes
milliseconds where compiling takes seconds, so it is done anew, and only compiling is saved.
"""

import enum
import functools
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, get_opaque_trace_state

from fnn.core.caches import on_clear
from fnn.core.layer import Layer

KEPT = 256  # compiled programs; of more, those that were not used for longest are dropped

CUSTOM = ("custom_jvp_call", "custom_vjp_call")  # of these only the function counts: derivatives are traced already
UNUSED = {"name", "policy"}  # parameters of the primitives below that play no part in what is compiled
PLAIN = ("jit", "pjit", "checkpoint", "remat2")


class Content(NamedTuple):
    """What a traced program computes; equal programs have equal contents.

    Attributes:
        digest: A hash of its operations, shapes and constants, the same in every process.
        others: What has no text that says all, such as callbacks: compared by their own equality.
    """

    digest: str
    others: tuple[Hashable, ...]

    def fingerprint(self) -> str:
        """The content as a text that is the same in another process: callbacks count by their names."""
        names = [getattr(one, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(one)) for one in self.others]
        return hashlib.sha256("\n".join([self.digest, *names]).encode()).hexdigest()


def content(jaxpr: Any) -> Content:
    """What a traced program, such as `jax.make_jaxpr` returns, computes."""
    reader = _Reader()
    digest = reader.digest(jaxpr)
    return Content(digest, tuple(reader.others))


class _Reader:
    """Reads jaxprs, each of those that are shared once."""

    def __init__(self) -> None:
        self.others: dict[Hashable, int] = {}
        self._digests: dict[int, str] = {}
        self._texts: dict[Any, str] = {}

    def digest(self, program: Any) -> str:
        """A hash of a jaxpr, open or closed."""
        if id(program) not in self._digests:
            hashed = hashlib.sha256()
            jaxpr = getattr(program, "jaxpr", program)
            numbers: dict[Any, int] = {}
            for const in getattr(program, "consts", ()):
                hashed.update(self._bytes(const))
            hashed.update(self._define([*jaxpr.constvars, *jaxpr.invars], numbers).encode())
            for equation in jaxpr.eqns:
                hashed.update(self._equation(equation, numbers))
            hashed.update(",".join(self._atom(atom, numbers) for atom in jaxpr.outvars).encode())
            self._digests[id(program)] = hashed.hexdigest()
        return self._digests[id(program)]

    def _equation(self, equation: Any, numbers: dict[Any, int]) -> bytes:
        name, params = equation.primitive.name, equation.params
        if name.startswith(CUSTOM):
            params = {key: value for key, value in params.items() if hasattr(value, "eqns")}
        elif name in PLAIN:
            params = {key: value for key, value in params.items() if key not in UNUSED}
        inputs = ",".join(self._atom(atom, numbers) for atom in equation.invars)
        outputs = self._define(equation.outvars, numbers)
        options = b" ".join(f"{key}=".encode() + self._bytes(value) for key, value in sorted(params.items()))
        return f"\n{name}({inputs}) {self._text(equation.ctx)} {outputs}".encode() + options

    def _define(self, variables: Any, numbers: dict[Any, int]) -> str:
        for variable in variables:
            numbers[variable] = len(numbers)
        return ",".join(self._text(variable.aval) for variable in variables) + ";"

    def _atom(self, atom: Any, numbers: dict[Any, int]) -> str:
        if isinstance(atom, Literal):
            return f"{self._text(atom.aval)} {self._bytes(atom.val)!r}"
        return str(numbers[atom])

    def _text(self, value: Any) -> str:
        """The text of a type or a context: few of them occur, each many times."""
        if value not in self._texts:
            self._texts[value] = f"{value!r}{'~' if getattr(value, 'weak_type', False) else ''}"
        return self._texts[value]

    def _bytes(self, value: Any) -> bytes:
        if hasattr(value, "eqns"):
            return self.digest(value).encode()
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return f"{value.dtype}".encode() + self._bytes(jax.random.key_data(value))
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            array = np.ascontiguousarray(value)
            return f"{array.dtype}{np.shape(value)}".encode() + array.tobytes()
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.dtype | enum.Enum | type):
            return f"{type(value).__name__} {value!r}".encode()
        if isinstance(value, tuple | list):
            return f"{type(value).__name__}(".encode() + b",".join(map(self._bytes, value)) + b")"
        if isinstance(value, dict):
            return b"{" + b",".join(self._bytes(item) for item in value.items()) + b"}"
        if isinstance(value, set | frozenset):
            return b"{" + b",".join(sorted(map(self._bytes, value))) + b"}"
        other = value if isinstance(value, Hashable) else _Same(value)
        return f"other {self.others.setdefault(other, len(self.others))}".encode()


class _Same:
    """Equal to itself alone, whatever it holds."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def configuration() -> Hashable:
    """JAX's configuration here and now; a program that was compiled with another one may compute something else."""
    return repr(jax.config.values), jax.sharding.get_abstract_mesh(), jax.sharding.get_mesh()


class Programs:
    """Compiled programs by content: so many, the ones that were used last."""

    def __init__(self, size: int):
        self._size, self._lock = size, Lock()
        self._programs: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The program of a key, made where there is none."""
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
        made = make()
        with self._lock:
            made = self._programs.setdefault(key, made)
            while len(self._programs) > self._size:
                self._programs.popitem(last=False)
        return made

    def clear(self) -> None:
        """Drop them all."""
        with self._lock:
            self._programs.clear()


PROGRAMS = Programs(KEPT)
on_clear(PROGRAMS.clear)


class _Executable:
    """A compiled program that may be referred to weakly."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


_of_networks: WeakKeyDictionary[Layer, dict[Hashable, Any]] = WeakKeyDictionary()
on_clear(_of_networks.clear)


def compiled(
    net: Layer,
    function: Callable[..., Any],
    *args: Any,
    static: tuple[Hashable, ...] = (),
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """The executable of ``function(net, *static, *args)``, to be called with ``args``.

    A network that was seen before finds it at once; another one of the same content finds it by tracing. No network is
    kept alive. Within a transformation of JAX it is a function under `jax.jit`.

    Args:
        net: The network.
        function: A function of a module.
        *args: Arrays; only their types and placement are read.
        static: Further arguments of ``function``, which are part of the program.
        donate: Numbers of the arguments whose memory may be used up.
    """
    if jax.config.values["jax_disable_jit"]:
        return functools.partial(function, net, *static)
    known = _of_networks.setdefault(net, {})
    if is_traced():
        how = (function, static)
        if how not in known:
            held = ref(net)
            known[how] = jax.jit(lambda *args: function(held(), *static, *args))
        return known[how]
    leaves, structure = jax.tree.flatten(args)
    signature = structure, tuple((jax.typeof(leaf), _placement(leaf)) for leaf in leaves)
    how = (function, static, donate, signature, configuration())
    executable = known[how]() if how in known else None
    if executable is None:
        traced = jax.jit(functools.partial(function, net, *static), donate_argnums=donate).trace(*args)
        names = jax.tree.structure(traced.out_info)  # a jaxpr has a flat list of outputs
        key = (content(traced.jaxpr), names, *how[2:])
        executable = PROGRAMS.get(key, lambda: _Executable(traced.lower().compile()))
        known[how] = ref(executable)
    return executable.call


def call_compiled(net: Layer, function: Callable[..., Any], *args: Any, static: tuple[Hashable, ...] = ()) -> Any:
    """``function(net, *static, *args)``, compiled as `compiled` does."""
    return compiled(net, function, *args, static=static)(*args)


def _placement(leaf: Any) -> Any:
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None


def is_traced() -> bool:
    """Whether this is called within a transformation of JAX, where arrays have no values."""
    return get_opaque_trace_state() != _untraced()


@functools.cache
def _untraced() -> Any:
    """The state of JAX where nothing is traced, as in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(get_opaque_trace_state).result()
