"""Errors that say where a mistake was made, in which layer, with which inputs, and how to fix it.

A check of fnn that fails raises one `LayerError`. An exception of a user's function, or one of `jax.errors`, stays the
object that it is and gets a note that names the place. In tracebacks, frames of fnn and JAX between the user's lines
are left out, unless ``jax.config.jax_traceback_filtering`` is ``"off"``.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import jax

from fnn.core.specs import show

# Code that fnn and users call: a mistake is blamed on the caller.
_LIBRARIES = frozenset(
    {"jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "optax", "chex", "contextlib", "functools", "inspect"}
)
_HIDDEN = frozenset({"fnn", "jax", "jaxlib", "contextlib", "functools"})

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


class LayerError(ValueError):
    """A layer could not be planned or applied.

    Attributes:
        path: Names from the network's root to the layer, such as ``("decoder", "conv_0")``.
        layer: The layer's kind and configuration, such as ``"conv(features=8, window=(3, 3))"``.
        got: Dtypes and shapes of the inputs, such as ``"float32[32,28,28]"``.
        reason: What was wrong and how to fix it.
    """

    def __init__(self, reason: str, *, layer: str = "", got: str = "", path: tuple[str, ...] = ()):
        super().__init__(reason)
        self.reason, self.layer, self.got, self.path = reason, layer, got, path

    def __str__(self) -> str:
        where = "/".join(self.path)
        lines = [f"{where}: {self.reason}" if where else self.reason]
        if self.layer:
            lines.append(f"  layer: {self.layer}")
        if self.got:
            lines.append(f"  got:   {self.got}")
        return "\n".join(lines)


class _Place(str):
    """The note of a user's exception: the path grows while the exception passes the layer's parents."""

    path: tuple[str, ...]
    layer: str
    got: str

    def __new__(cls, path: tuple[str, ...], layer: str, got: str) -> "_Place":
        made = super().__new__(cls, f"raised in {'/'.join(path) or 'the network'}\n  layer: {layer}\n  got:   {got}")
        made.path, made.layer, made.got = path, layer, got
        return made

    def __getnewargs__(self) -> Any:  # exceptions travel between processes, and their notes with them
        return self.path, self.layer, self.got


class blame:  # noqa: N801 - used like contextlib.suppress
    """Name the layer and its inputs in whatever is raised within.

    A TypeError, ValueError, IndexError, KeyError or AttributeError that comes out of fnn's code, or out of JAX's where
    fnn called it, becomes a `LayerError`.
    """

    __slots__ = ("_describe", "_xs")

    def __init__(self, describe: Callable[[], str], xs: Any):
        self._describe, self._xs = describe, xs

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, LayerError):
            error.layer = error.layer or self._describe()
            error.got = error.got or show(self._xs)
        elif not isinstance(error, Exception):
            return
        elif _is_replaceable(error) and is_of_fnn(error):
            cause = error if _shows_all() else None
            raise LayerError(self._reason(error), layer=self._describe(), got=show(self._xs)) from cause
        elif _find_place(error) is None:
            error.add_note(_Place((), self._describe(), show(self._xs)))
            error.__notes__.insert(0, error.__notes__.pop())  # above the note of JAX about its own frames
        hide_frames(error)

    def _reason(self, error: Exception) -> str:
        odd = [type(x).__name__ for x in self._xs if not hasattr(x, "dtype") and not hasattr(x, "__array__")]
        if odd and isinstance(error, AttributeError | TypeError):
            hint = "; convert it: jnp.asarray(x)" if odd[0] == "list" else ""
            return f"an input is a {odd[0]}, wanted one array{hint}"
        return f"has no {error}" if isinstance(error, KeyError) else str(error)


class within:  # noqa: N801 - used like contextlib.suppress
    """Enter a child: name its operations in profiles and prepend its name to errors."""

    __slots__ = ("_name", "_scope")

    def __init__(self, name: str):
        self._name, self._scope = name, jax.named_scope(name)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._scope.__exit__(kind, error, trace)
        if isinstance(error, LayerError):
            error.path = (self._name, *error.path)
        elif error is not None and (found := _find_place(error)) is not None:
            index, place = found
            error.__notes__[index] = _Place((self._name, *place.path), place.layer, place.got)


def _find_place(error: BaseException) -> tuple[int, _Place] | None:
    notes = getattr(error, "__notes__", ())
    return next(((index, note) for index, note in enumerate(notes) if isinstance(note, _Place)), None)


def _is_replaceable(error: Exception) -> bool:
    """Whether the exception may be fnn's, by its type. Messages of types that JAX defines are kept."""
    kinds = (TypeError, ValueError, IndexError, KeyError, AttributeError)
    return isinstance(error, kinds) and type(error).__module__.partition(".")[0] not in _LIBRARIES


def is_of_fnn(error: BaseException) -> bool:
    """Whether fnn raised the exception, or called the library that did."""
    callers = [package for package in map(_package, _frames(error)) if package not in _LIBRARIES]
    return callers[-1:] == ["fnn"]


def _frames(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _package(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _shows_all() -> bool:
    return getattr(jax.config, "jax_traceback_filtering", None) == "off"


def hide_frames(error: BaseException) -> None:
    """Leave frames of fnn and JAX out of a traceback, except the first: the user called that function.

    The last frame of fnn stays too where fnn raised something else than a `LayerError`: it may be a bug of fnn. Causes
    are shortened likewise.
    """
    if _shows_all() or error.__traceback__ is None:
        return
    if error.__cause__ is not None:
        hide_frames(error.__cause__)
    first, *rest = _frames(error)
    last = rest[-1] if rest and not isinstance(error, LayerError) and _package(rest[-1]) == "fnn" else None
    kept = [first, *(trace for trace in rest if trace is last or _package(trace) not in _HIDDEN)]
    rebuilt = None
    for trace in reversed(kept):
        rebuilt = TracebackType(rebuilt, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    error.__traceback__ = rebuilt


def short_tracebacks(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Decorate a public function, or a generator function, so that its exceptions pass through `hide_frames`."""

    @functools.wraps(function)
    def call(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            hide_frames(error)
            raise

    @functools.wraps(function)
    def generate(*args: _Args.args, **kwargs: _Args.kwargs) -> Any:
        try:
            return (yield from cast(Any, function(*args, **kwargs)))
        except Exception as error:
            hide_frames(error)
            raise

    return generate if inspect.isgeneratorfunction(function) else call
