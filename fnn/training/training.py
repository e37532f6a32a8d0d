"""The loop over steps for a caller with a ``for`` of one's own, and how it is kept in a folder."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np

from fnn.checkpoint.folder import Checkpoints
from fnn.checkpoint.structure import ANYTHING
from fnn.core.errors import short_tracebacks
from fnn.data import Batches
from fnn.ops.checks import check_choice, check_counts
from fnn.training.logs import means
from fnn.training.loop import STEPS_PER_CALL, Report, Step, reports, spec_of_batch
from fnn.training.resume import Identity, Resume, identify_data, order_of, text_of
from fnn.training.signals import TERMINATED, termination


@short_tracebacks
def training(
    step: Step,
    run: Any,
    batches: Iterable[Any],
    *,
    every: int | None = None,
    checkpoints: Checkpoints | None = None,
    resume: Resume = "warn",
) -> Iterator[Report]:
    """Run a step over batches; the loop is the caller's own ``for``.

    ``step`` is compiled here. For `fnn.batches` the data stays on the device and many steps run within one compiled
    call.

    With ``checkpoints`` the folder decides where to begin: empty, at ``run``; otherwise at the report that was saved
    last, which is the first to come, again: the process may have ended before the caller had seen it. A loop that was
    killed, or was done, and is started again ends in the same bits as one that was not (on the same machine). SIGTERM
    finishes the step, saves and exits with status 143.

    Args:
        step: Any pure ``step(run, batch) -> (run, metrics)``, such as `train_step` makes.
        run: Any pytree of arrays. It is never overwritten.
        batches: `fnn.batches`, or any iterable of batches of one shape.
        every: Steps for each report. None: as many as take about a fifth of a second, or one for an iterable; a report
            never spans two epochs.
        checkpoints: Where to save reports before they are given: ``every`` so many steps, or after each epoch of
            `fnn.batches`; and the last. The best one, where ``minimize`` or ``maximize`` names a metric, is
            the one with the best mean over the report's steps.
        resume: What to do where the folder holds a loop whose step was another: ``"warn"`` with a table of what
            differs, or ``"strict"``: an error. Other data, and a run of other shapes, are always an error.

    Yields:
        `Report`: the state and the metrics of the steps since the report before.

    Raises:
        MisfitError: when the folder holds the checkpoints of a loop of other data or other shapes, or with
            ``resume="strict"`` of any other loop; it says what differs.
        ValueError: when ``every`` is not positive, or ``checkpoints`` of an iterable, which may have no epochs, have no
            ``every``.
        SystemExit: after SIGTERM, with ``checkpoints``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net, optimizer = fnn.dense(1), optax.sgd(0.1)
        >>> step = fnn.train_step(fnn.supervised(net, optax.losses.squared_error), optimizer)
        >>> x, y = jnp.ones((8, 2)), jnp.ones((8, 1))
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), x)
        >>> for report in fnn.training(step, run, fnn.batches((x, y), 4, epochs=5), every=2):
        ...     run = report.run
        >>> int(run.step)
        10
    """
    check_counts(every=(every, 1))
    check_choice("resume", resume, "warn", "strict")
    if checkpoints is None:
        yield from reports(step, run, batches, every, lambda at: STEPS_PER_CALL)
    else:
        yield from _kept(step, run, batches, every, checkpoints, resume)


def _kept(
    step: Step, run: Any, batches: Iterable[Any], every: int | None, checkpoints: Checkpoints, resume: Resume
) -> Iterator[Report]:
    """Reports that are saved when they are due; the first is the one that was saved last."""
    arrays = isinstance(batches, Batches)
    period = checkpoints.every or (batches.steps_per_epoch if arrays else None)
    if period is None:
        raise ValueError("an iterable may have no epochs; say after how many steps to save: fnn.Checkpoints(every=...)")
    identity = Identity(checkpoints.folder, {"step": text_of(step)}, resume)
    if arrays:
        identity.texts |= identify_data(batches) | {"order of the rows": order_of(batches)}
        identity.note_program(step, run, spec_of_batch(batches))
    at = batches.start if arrays else 0
    with checkpoints, termination(saves=True) as asked:
        report, saved = None, True
        if (found := _restore(checkpoints, run, identity)) is not None:
            at, report = found
            run, batches = report.run, batches.after(at) if arrays else islice(batches, at, None)
            yield report
        batches = batches if arrays else identity.noting(step, run, batches)
        for report in reports(step, run, batches, every, lambda at: 1 if asked() else period - at % period, at):
            at += report.steps
            if saved := asked() or at % period == 0:
                _save(checkpoints, at, report, identity.texts)
            if asked():
                raise SystemExit(TERMINATED)
            yield report
        if report is not None and not saved:
            _save(checkpoints, at, report, identity.texts)


def _save(checkpoints: Checkpoints, at: int, report: Report, identity: dict[str, str]) -> None:
    by_name = report.metrics if isinstance(report.metrics, dict) else {}
    metrics = {name: float(value) for name, value in means(by_name).items() if np.ndim(value) == 0}
    tree = {"run": report.run, "metrics": report.metrics}
    checkpoints.save(at, tree, metrics=metrics, note={"steps": report.steps, "of": identity})


def _restore(checkpoints: Checkpoints, run: Any, identity: Identity) -> tuple[int, Report] | None:
    found = checkpoints.restore({"run": run, "metrics": ANYTHING})
    if found is None:
        return None
    identity.compare(found.note["of"])
    return found.step, Report(found.tree["run"], jax.device_get(found.tree["metrics"]), found.note["steps"])
