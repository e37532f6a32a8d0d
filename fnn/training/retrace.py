"""A step that is compiled again and again is told of, with what changed. Nothing of this runs in a compiled step."""

import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from fnn.checkpoint.table import show_table
from fnn.core.caches import cached_on_first
from fnn.core.programs import is_traced

SHAPES = 3  # full batches, a last one, and one more are common; a step that is compiled for a fourth is told of
IN_A_ROW = 8  # traces of one objective with the same shapes: nothing has changed, but the function is another

_recent: deque[tuple[Any, Callable[[], Any], dict[str, str]]] = deque(maxlen=IN_A_ROW)


class RetraceWarning(UserWarning):
    """A step is compiled again and again, which takes longer than to run it."""


class Traces:
    """The arguments for which one step was traced."""

    def __init__(self) -> None:
        self._seen: list[dict[str, str]] = []

    def forget(self) -> None:
        """Begin anew, as another loop does."""
        self._seen.clear()

    def note(self, of: Any, run: Any, batch: Any) -> None:
        """Called within the step, where each call is a trace, unless it is not compiled at all.

        Args:
            of: What stays the same where the step itself is made anew.
            run: As the step has it.
            batch: As the step has it.
        """
        trace = get_opaque_trace_state()
        if not is_traced() or (_recent and _recent[-1][0] == trace):  # a step may be unrolled within one trace
            return
        found = _describe({"run": run, "batch": batch})
        _recent.append((trace, _weak(of), found))
        if len(_recent) == IN_A_ROW and all(other() is of and seen == found for _, other, seen in _recent):
            _recent.clear()
            _warn(
                f"a step was traced {IN_A_ROW} times in a row for arguments of the same shapes. Make it, and its "
                "jax.jit, once before the loop: a function that is made in each round is compiled in each round."
            )
        if found in self._seen:
            return
        self._seen.append(found)
        if len(self._seen) == SHAPES + 1:
            table = show_table(("argument", "before", "now"), _differences(self._seen[-2], found), limit=10)
            _warn(
                f"a step is compiled for the {len(self._seen)}th time, for other arguments than before\n{table}\n"
                "  Give all batches one shape: drop the rows that are left, or pad them and give them the weight 0; "
                "pad sequences to a few lengths."
            )


def _weak(of: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(of)
    except TypeError:  # a tuple, say: it is not watched
        return lambda: None


@cached_on_first
def traces_of(step: Any) -> Traces:
    """What is known of a step."""
    return Traces()


def _describe(tree: Any) -> dict[str, str]:
    """Dtype and shape of every leaf, by path."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        kind = jax.typeof(leaf)
        weak = " (weakly typed)" if getattr(kind, "weak_type", False) else ""
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[name] = f"{kind.dtype}[{','.join(map(str, kind.shape))}]{weak}"
    return found


def _differences(before: dict[str, str], now: dict[str, str]) -> list[tuple[str, str, str]]:
    rows = [(name, before.get(name, "nothing"), now.get(name, "nothing")) for name in {**before, **now}]
    return [row for row in rows if row[1] != row[2]]


def _warn(message: str) -> None:
    warnings.warn(message, RetraceWarning, stacklevel=4)
