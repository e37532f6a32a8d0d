"""Finding where numbers stop being finite: a step, operation by operation."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


class Finding(NamedTuple):
    """The first operation whose result is not finite although what went in was.

    Attributes:
        kind: ``"NaN"`` or ``"infinite"``.
        path: The layers around it and the kind of the innermost, such as ``"encoder/dense_0/dense"``; empty outside.
        backward: Whether it carries the gradient back; what a gradient keeps of the way forward is forward.
        operation: What it does, such as ``"log"`` or ``"div"``.
        inputs: Its inputs: dtype, shape, smallest and largest value of each.
        source: File and line of the program that asked for it.
    """

    kind: str
    path: str
    backward: bool
    operation: str
    inputs: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        where = self.path or "outside of all layers"
        way = "backward" if self.backward else "forward"
        made = "a NaN" if self.kind == "NaN" else "an infinite number"
        return f"{made} first comes from `{self.operation}` of {', '.join(self.inputs)}: {where}, {way}, {self.source}"


def check(step: Callable[..., Any], *args: Any) -> Finding | None:
    """Run a step slowly, one operation after the other, and find the first number that is not finite.

    Args:
        step: Such as `train_step` makes; any function that `jax.jit` could compile.
        *args: What it is called with: a state and a batch.

    Returns:
        None when all that it returns is finite. Otherwise the first operation that made a NaN or an infinite number
        from finite ones; infinite constants, such as the padding of max pooling, count for nothing.

    Raises:
        ValueError: when what goes in is not finite already; it names the arrays.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net = fnn.serial(fnn.dense(3), lambda x: jnp.log(x * x - x * x))
        >>> objective = fnn.supervised(net, lambda y, target: jnp.sum(y, -1))
        >>> run = fnn.train_init(net, optax.sgd(0.1), jax.random.key(0), jnp.ones((2, 4)))
        >>> found = fnn.check(fnn.train_step(objective, optax.sgd(0.1)), run, (jnp.ones((2, 4)), jnp.ones(2)))
        >>> found.operation, found.path, found.backward
        ('log', 'function_0/function', False)
    """
    named = jax.tree_util.tree_leaves_with_path(args)
    if bad := [jax.tree_util.keystr(path) for path, leaf in named if not _finite(leaf)]:
        listed = ", ".join(bad)
        raise ValueError(f"what goes in is not finite: arguments {listed}; clean the data, or use an older state")
    closed = jax.make_jaxpr(step)(*args)
    search = _Search(closed.jaxpr.debug_info)
    out = search.run(closed.jaxpr, closed.consts, [leaf for _, leaf in named], "")
    return None if all(_finite(value) for value in out) else search.found


class _Search:
    """An interpreter of programs that watches what they compute."""

    def __init__(self, debug_info: Any) -> None:
        self.debug_info = debug_info
        self.found: Finding | None = None

    def run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], outer: str) -> list[Any]:
        values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
        read = lambda atom: atom.val if isinstance(atom, core.Literal) else values[atom]
        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            scope = "/".join(filter(None, [outer, str(equation.source_info.name_stack)]))
            outputs = self.inside(equation, inputs, scope)
            if outputs is None:
                outputs = self.apply(equation, inputs, scope)
            values.update(zip(equation.outvars, outputs))
        return [read(atom) for atom in jaxpr.outvars]

    def inside(self, equation: Any, inputs: list[Any], scope: str) -> list[Any] | None:
        """Run what an operation consists of; None where it is one operation."""
        params, name = equation.params, equation.primitive.name
        if name == "scan":
            return self.scan(params, inputs, scope)
        if name == "cond":
            branch = params["branches"][int(inputs[0])]
            return self.run(branch.jaxpr, branch.consts, inputs[1:], scope)
        if name == "while":
            return self.loop(params, inputs, scope)
        for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            program = params.get(key)
            if isinstance(program, core.ClosedJaxpr):
                return self.run(program.jaxpr, program.consts, inputs, scope)
            if isinstance(program, core.Jaxpr):
                return self.run(program, (), inputs, scope)
        return None

    def scan(self, params: Any, inputs: list[Any], scope: str) -> list[Any]:
        consts, carried, length = params["num_consts"], params["num_carry"], params["length"]
        fixed, carry, rows = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]
        program, made = params["jaxpr"], []
        for number in reversed(range(length)) if params["reverse"] else range(length):
            row = [array[number] for array in rows]
            out = self.run(program.jaxpr, program.consts, [*fixed, *carry, *row], scope)
            carry = out[:carried]
            made.append(out[carried:])
        made = made[::-1] if params["reverse"] else made
        return [*carry, *(jnp.stack(column) for column in zip(*made))]

    def loop(self, params: Any, inputs: list[Any], scope: str) -> list[Any]:
        of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        tested, fixed, carry = inputs[:of_test], inputs[of_test : of_test + of_body], inputs[of_test + of_body :]
        while bool(self.run(test.jaxpr, test.consts, [*tested, *carry], scope)[0]):
            carry = self.run(body.jaxpr, body.consts, [*fixed, *carry], scope)
        return carry

    def apply(self, equation: Any, inputs: list[Any], scope: str) -> list[Any]:
        given = {atom: value for atom, value in zip(equation.invars, inputs) if not isinstance(atom, core.Literal)}
        program = core.Jaxpr(
            (), list(given), equation.outvars, [equation], equation.effects, self.debug_info.with_unknown_names()
        )
        outputs = core.jaxpr_as_fun(core.ClosedJaxpr(program, ()))(*given.values())
        if self.found is None and all(map(_finite, inputs)) and not all(map(_finite, outputs)):
            kind = "NaN" if any(bool(jnp.isnan(number).any()) for number in _numbers(outputs)) else "infinite"
            self.found = _describe(kind, equation, inputs, scope)
        return outputs


def _describe(kind: str, equation: Any, inputs: list[Any], scope: str) -> Finding:
    path = re.sub(r"\w+(?=\()|[()]", "", scope)  # jvp(dense_0) is about dense_0
    path = "/".join(part for part in path.split("/") if part)
    operation = equation.primitive.name
    return Finding(kind, path, "transpose(" in scope, operation, tuple(map(_show, inputs)), _line(equation))


def _line(equation: Any) -> str:
    """The innermost line of the user's program, or of fnn where there is none of the user's."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    places = [(frame.file_name, frame.line_num) for frame in frames]
    packages = [f"{os.sep}{name}{os.sep}" for name in ("jax", "optax", "fnn")]
    for count in (3, 2):
        for file, line in places:
            if not any(package in file for package in packages[:count]):
                return f"{os.path.basename(file)}:{line}"
    return "no line of a program"


def _show(value: Any) -> str:
    array = np.asarray(value)
    name = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    if not array.size or not jnp.issubdtype(array.dtype, jnp.number):
        return name
    low, high = float(array.min()) + 0.0, float(array.max()) + 0.0  # no -0
    return f"{name} of {low:.3g}" if low == high else f"{name} from {low:.3g} to {high:.3g}"


def _numbers(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.inexact)]


def _finite(value: Any) -> bool:
    return all(bool(jnp.isfinite(number).all()) for number in _numbers([value]))
