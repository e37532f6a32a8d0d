"""One error for every mistake: where it happened, in which layer, what came in, and the fix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from fnn.core.specs import show


class LayerError(ValueError):
    """A layer could not be planned or applied.

    Attributes:
        path: Names from the network's root to the layer, such as ``("decoder", "conv_0")``.
        layer: The layer's kind and configuration, such as ``"conv(features=8, window=(3, 3))"``.
        got: Dtypes and shapes of the inputs, such as ``"float32[32,28,28]"``.
        reason: What was wrong and how to mend it.
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


@contextmanager
def blame(describe: Callable[[], str], xs: Any) -> Iterator[None]:
    """Turn a mistake inside one layer into a `LayerError` that names the layer and its inputs."""
    try:
        yield
    except LayerError as error:
        error.layer = error.layer or describe()
        error.got = error.got or show(xs)
        raise
    except KeyError as error:
        reason = f"params or state has no {error}; pass the trees that this network's init returned"
        raise LayerError(reason, layer=describe(), got=show(xs)) from error
    except (TypeError, ValueError, IndexError) as error:
        raise LayerError(str(error), layer=describe(), got=show(xs)) from error


@contextmanager
def within(name: str) -> Iterator[None]:
    """Enter a child: name its operations in profiles and prepend its name to errors."""
    try:
        with jax.named_scope(name):
            yield
    except LayerError as error:
        error.path = (name, *error.path)
        raise
