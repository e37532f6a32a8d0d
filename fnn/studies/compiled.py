"""Programs of many networks: each function of one network is traced in every study, and compiled if it is new."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn.core.programs import PROGRAMS, Content, configuration, content

Axes = Sequence[int | None]


class Traced(NamedTuple):
    """A function of one network as a program.

    Attributes:
        call: Runs it, or traces it again for many networks.
        outputs: Shapes and dtypes of its results.
        content: What it computes.
    """

    call: Callable[..., Any]
    outputs: Any
    content: Content


def trace(function: Callable[..., Any], *args: Any) -> Traced:
    """Trace a function of one network; of ``args`` only shapes and dtypes are read."""
    specs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
    jaxpr, outputs = jax.make_jaxpr(function, return_shape=True)(*specs)
    flat, structure = jaxpr_as_fun(jaxpr), jax.tree.structure(outputs)
    return Traced(lambda *args: structure.unflatten(flat(*jax.tree.leaves(args))), outputs, content(jaxpr))


class Tried(NamedTuple):
    """What a try of a program measured.

    Attributes:
        seconds: Of one network's step.
        exact: Whether that is so; otherwise it is at most as much.
    """

    seconds: float
    exact: bool


class Lowered:
    """A traced program, compiled when it is first wanted.

    Attributes:
        outputs: Shapes and dtypes of what it returns.
        seconds: How long it took to trace and to compile, so far.
        tried: What a try of it measured, if there was one.
    """

    def __init__(self, lower: Callable[[], Any], quickly: bool):
        began = time.perf_counter()
        self._lowered = lower()
        self.outputs, self.seconds = self._lowered.out_info, time.perf_counter() - began
        self.tried: Tried | None = None
        self._quickly, self._lock = quickly, Lock()

    def compiled(self) -> Any:
        """The executable."""
        with self._lock:
            if self._lowered is not None:
                began = time.perf_counter()
                self._compiled = _compile_quickly(self._lowered) if self._quickly else self._lowered.compile()
                self._lowered = None
                self.seconds += time.perf_counter() - began
            return self._compiled


def lowered(
    traced: Traced,
    axes: Axes,
    args: Sequence[Any],
    *,
    together: bool,
    mesh: Mesh | None = None,
    donate: int | None = None,
    quickly: bool = False,
) -> Lowered:
    """A program of one network as one of many.

    Args:
        traced: That of one network.
        axes: For each argument 0 where each network has its own, None where they share it.
        args: Arguments of many networks; only their shapes and dtypes are read.
        together: Whether networks go side by side; otherwise there is one.
        mesh: Devices to spread them over.
        donate: Number of the argument whose memory may be used up.
        quickly: Whether it runs so seldom that it need not be fast.
    """
    specs = [jax.tree.map(lambda leaf, axis=axis: _spec(leaf, axis, mesh), arg) for arg, axis in zip(args, axes)]
    shapes = (jax.tree.structure(specs), *((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(specs)))

    def lower() -> Any:
        mapped = _mapped(traced.call, axes, together, mesh)
        return jax.jit(mapped, donate_argnums=() if donate is None else donate).lower(*specs)

    names = jax.tree.structure(traced.outputs)  # a jaxpr has a flat list of outputs
    how = (names, tuple(axes), together, mesh, donate, quickly, shapes, configuration())
    return PROGRAMS.get((traced.content, *how), lambda: Lowered(lower, quickly))


def _spec(leaf: Any, axis: int | None, mesh: Mesh | None) -> jax.ShapeDtypeStruct:
    place = None
    if mesh is not None:
        place = NamedSharding(mesh, PartitionSpec() if axis is None else PartitionSpec(mesh.axis_names[0]))
    leaf = np.int32(leaf) if isinstance(leaf, int) else leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _mapped(function: Callable[..., Any], axes: Axes, together: bool, mesh: Mesh | None) -> Callable[..., Any]:
    if not together:
        return _of_one(function, axes)
    mapped = jax.vmap(function, tuple(axes))
    if mesh is None:
        return mapped
    along = PartitionSpec(mesh.axis_names[0])
    specs = tuple(PartitionSpec() if axis is None else along for axis in axes)
    return jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=along, check_vma=False)


def _of_one(function: Callable[..., Any], axes: Axes) -> Callable[..., Any]:
    """The function itself, of networks with a leading axis of 1."""
    inner = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    outer = lambda tree: jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), tree)
    return lambda *args: outer(function(*(arg if axis is None else inner(arg) for arg, axis in zip(args, axes))))


def _compile_quickly(lowered: Any) -> Any:
    """On a CPU, LLVM would optimize a program for longer than it ever runs."""
    if jax.default_backend() == "cpu":
        with suppress(jax.errors.JaxRuntimeError):  # the option is not for ever
            return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    return lowered.compile()
