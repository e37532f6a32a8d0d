"""The loop over steps, as a generator of reports."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.arrays import as_arrays
from fnn.core.caches import cached_on_first
from fnn.core.programs import content
from fnn.core.specs import show
from fnn.data import Batches, batch_of_step, is_arrays, pick, rows
from fnn.training.retrace import traces_of

SECONDS_PER_REPORT = 0.2
STEPS_PER_CALL = 1024  # at most: the size of the buffer that collects metrics

Step = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


class Report(NamedTuple):
    """News from the loop.

    Attributes:
        run: The state after the reported steps; the loop never overwrites it.
        metrics: By name, one value for each step since the last report, NumPy arrays ``(steps, *shape)``.
        steps: How many steps this report covers.
    """

    run: Any
    metrics: dict[str, np.ndarray]
    steps: int


def reports(
    step: Step, run: Any, batches: Iterable[Any], every: int | None, limit: Callable[[int], int], at: int = 0
) -> Iterator[Report]:
    """Run a step over batches, with reports that end where the caller wants.

    Args:
        step: As for `fnn.training`.
        run: As for `fnn.training`.
        batches: As for `fnn.training`.
        every: As for `fnn.training`.
        limit: ``limit(at)``: how many more steps, at least 1, the report may cover after ``at`` steps.
        at: Steps that were done before, for an iterable; `fnn.batches` knows them.
    """
    traces_of(step).forget()
    if isinstance(batches, Batches):
        yield from _over_arrays(step, run, batches, every, limit)
    elif is_arrays(batches, "batches") and not isinstance(batches, tuple):
        raise TypeError(f"batches is {show(batches)}, which is not cut; pass fnn.batches(data, batch_size)")
    else:
        yield from _over_iterable(step, run, batches, every or 1, limit, at)


def measured(step: Step, run: Any, batches: Batches) -> Any:
    """Specs of what a step measures; its shapes are checked, and nothing is computed."""
    one = lambda run, data, rows: _traced(step)(run, pick(data, rows))[1]
    return jax.eval_shape(one, run, batches.data, jax.ShapeDtypeStruct((batches.batch_size,), np.int32))


def program_of(step: Step, run: Any, batch: Any) -> str:
    """A checksum of what a step computes; ``batch`` may be specs. It is traced as for `measured`, once for both."""
    return content(_traced(step).trace(run, as_arrays(batch, "batch")).jaxpr).fingerprint()[:16]


def spec_of_batch(batches: Batches) -> Any:
    """Shapes and dtypes of a batch."""
    specs = lambda leaf: jax.ShapeDtypeStruct((batches.batch_size, *leaf.shape[1:]), leaf.dtype)
    return jax.tree.map(specs, batches.data)


def _over_iterable(
    step: Step, run: Any, batches: Iterable[Any], every: int, limit: Callable[[int], int], at: int
) -> Iterator[Report]:
    compiled, waiting = _compile(step), []
    run = _copy(run)
    for batch in batches:
        room = limit(at)
        run, metrics = compiled(run, as_arrays(batch, "batch"))
        waiting.append(metrics)
        at += 1
        if len(waiting) == every or room == 1:
            yield Report(_copy(run), _stack(waiting), len(waiting))
            waiting = []
    if waiting:
        yield Report(_copy(run), _stack(waiting), len(waiting))


def _over_arrays(
    step: Step, run: Any, batches: Batches, every: int | None, limit: Callable[[int], int]
) -> Iterator[Report]:
    at, end, per_epoch = batches.start, batches.stop, batches.steps_per_epoch
    advance = _compile_looped(step)
    words, count = batches.words(), every or 1
    while at < end:
        steps = min(count, per_epoch - at % per_epoch, end - at, STEPS_PER_CALL, limit(at))
        began = time.perf_counter()
        run, buffers = advance(run, batches.data, words, at, steps, batch_size=batches.batch_size, pads=batches.pads)
        metrics = _cut(jax.device_get(buffers), steps)
        seconds = time.perf_counter() - began
        if every is None:  # the first call's time is mostly compilation and says nothing
            wanted = steps * SECONDS_PER_REPORT / seconds if at > batches.start else 16
            count = int(min(max(wanted, 1), 16 * count))
        at += steps
        yield Report(run, metrics, steps)


def _cut(buffers: Any, steps: int) -> Any:
    return jax.tree.map(lambda values: values[:steps], buffers)


def _stack(waiting: list[Any]) -> Any:
    return jax.tree.map(lambda *values: np.stack(values), *jax.device_get(waiting))


@cached_on_first
def _traced(step: Step) -> Any:
    """One trace, shared by all that compile the step."""

    def noted(run: Any, batch: Any) -> Any:
        after = step(run, batch)
        traces_of(step).note(step, run, batch)  # one that `train_step` made has done so: of its objective
        return after

    return jax.jit(noted)


@cached_on_first
def _compile(step: Step) -> Callable[..., Any]:
    return jax.jit(lambda run, batch: _traced(step)(run, batch), donate_argnums=0)


@cached_on_first
def _compile_looped(step: Step) -> Callable[..., Any]:
    """``steps`` is traced, so that calls of any length share one executable.

    The state is not donated: XLA copies it once into the loop, and so the caller may keep what went in.
    """

    @partial(jax.jit, static_argnames=("batch_size", "pads"))
    def advance(
        run: Any, data: Any, words: jax.Array | None, first: jax.Array, steps: jax.Array, batch_size: int, pads: bool
    ) -> Any:
        batch = lambda number: batch_of_step(data, words, first + number, batch_size, pads)
        size = min(-(-rows(data) // batch_size), STEPS_PER_CALL)
        _, spec = jax.eval_shape(lambda run: _traced(step)(run, batch(0)), run)
        buffers = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), spec)

        def body(number: jax.Array, carry: Any) -> Any:
            run, buffers = carry
            run, metrics = _traced(step)(run, batch(number))
            return run, jax.tree.map(lambda buffer, value: buffer.at[number].set(value), buffers, metrics)

        return jax.lax.fori_loop(0, steps, body, (run, buffers))

    return advance


@jax.jit
def _copy(run: Any) -> Any:
    return jax.tree.map(jnp.copy, run)
