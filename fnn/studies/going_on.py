"""How a study goes on from its folder, if that holds the same one."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fnn.studies.conduct import Study
from fnn.studies.folder import StudyFolder
from fnn.studies.identity import example
from fnn.studies.runs import OVER, RunId
from fnn.studies.schedule import bare, to_host
from fnn.studies.scores import ranked, scores_of, value_of
from fnn.studies.space import show


def go_on(made: Study, folder: StudyFolder, identity: Mapping[str, str], resume: str) -> str | None:
    """Take in what the folder has, and say what that is, where it is anything."""
    settings = made.settings
    groups = {made.label(trial): trial for trial in reversed(range(len(made.configurations)))}
    programs = {label: made.identity(trial) for label, trial in groups.items()}
    made.chosen = folder.begin(identity, programs, resume)
    folder.configurations()
    write_configurations(made, folder)
    wants = settings.keep == "all" or settings.predictions
    runs, states, kept, predictions = folder.read(settings.rule, wants, lambda run_id: _like(made, run_id))
    known = lambda run_id: run_id.trial < len(made.configurations)
    made.runs |= {run_id: run for run_id, run in runs.items() if known(run_id)}
    made.store.parked |= {run_id: to_host(state) for run_id, state in states.items() if known(run_id)}
    made.store.kept |= {run_id: to_host(tree) for run_id, tree in kept.items()}
    made.store.predictions |= {run_id: to_host(tree) for run_id, tree in predictions.items()}
    _forget(made)
    if not runs:
        return None
    over = sum(run.status == "finished" for run in runs.values())
    return f"resuming from {folder.folder}: {over} runs are finished, {len(states)} in the middle"


def write_configurations(made: Study, folder: StudyFolder) -> None:
    """Write down those that are not yet."""
    rows = enumerate(made.configurations)
    folder.add_configurations([{"trial": n, **{k: _plain(v) for k, v in row.items()}} for n, row in rows])


def _forget(made: Study) -> None:
    """Train those of the best trials again whose parameters are wanted and lost."""
    settings, runs = made.settings, list(made.runs.values())
    if settings.keep == "all" or not settings.keep:
        return
    scores = scores_of(runs, len(made.configurations), lambda run: value_of(run, settings.monitor, settings.at))
    best = set(ranked(runs, scores, settings.maximize)[: settings.keep])
    for run in runs:
        if run.id.trial in best and run.status in OVER and run.id not in made.store.kept:
            del made.runs[run.id]


def _like(made: Study, run_id: RunId) -> Any:
    """The state of a run, as NumPy arrays without memory."""
    settings, configuration = made.settings, made.configurations[run_id.trial]
    place = example(settings, configuration)
    start = lambda: jax.tree.map(bare, settings.program(configuration).start(settings.key, place, settings.table))
    return jax.tree.map(lambda spec: np.broadcast_to(np.zeros((), spec.dtype), spec.shape), jax.eval_shape(start))


def _plain(value: Any) -> Any:
    """A hyperparameter as JSON holds it: numbers and texts as they are, others by their names."""
    if isinstance(value, bool | int | float | str):
        return value
    return value.item() if hasattr(value, "item") else show(value)
