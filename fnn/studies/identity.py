"""What a study is, and what its programs compute, as texts that a folder remembers."""

import hashlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.specs import show as show_specs
from fnn.studies.compiled import Traced
from fnn.studies.configurations import Configuration
from fnn.studies.engine import Engine
from fnn.studies.settings import Settings
from fnn.studies.trial import Place
from fnn.training.resume import identify

TREES = ("parameters", "state", "optimizer state")  # what cannot differ where states are read


def identity_of(settings: Settings, folds_name: str, count: int) -> dict[str, str]:
    """What must be the same of a study that resumes."""
    arrays = jax.tree.leaves(settings.table)
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    options = {
        "key": np.asarray(jax.random.key_data(settings.key)).tolist(),
        "drawn by": settings.space.rule,
        "data": f"{show_specs(settings.table.data)}, checksum {checksum:08x}",
        "folds": folds_name,
        "steps": settings.longest,
        "evaluate_every": settings.every,
        "compared": f"{'largest' if settings.maximize else 'smallest'} {settings.monitor} at {settings.at}",
        "early stopping": settings.rule,
        "halving": settings.halving and f"{settings.halving} of {count} trials and {settings.seeds} seeds",
        "keep": settings.keep,
        "predictions": settings.predictions,
        "mode": f"{settings.mode}, width {settings.width}",
        "mesh": settings.mesh and dict(settings.mesh.shape),
    }
    space = {f"space: {name}": repr(dimension) for name, dimension in settings.space.dimensions.items()}
    return space | {name: str(value) for name, value in options.items()}


def program_identity(settings: Settings, configuration: Configuration, traces: dict[str, Traced]) -> dict[str, str]:
    """What is trained for a static choice.

    ``"program"`` is a fingerprint of the traced program: it decides. `TREES` are compared too, and the other texts
    only explain to a person what may have changed.
    """
    program = settings.program(configuration)
    lane, measured = traces["advance"].outputs
    contents = [traces[name].content.fingerprint() for name in sorted(traces)]
    made = program.build({name: jnp.asarray(value) for name, value in settings.traced(configuration).items()})
    trees = zip(TREES, map(_show_tree, (lane.params, lane.state, lane.opt_state)))
    options = {"augment": made.augment, "batch size": program.batch_size, "measured": sorted(measured)}
    return {
        "program": hashlib.sha256("\n".join([*contents, *sorted(measured)]).encode()).hexdigest(),
        "traced by": f"JAX {jax.__version__}",
        **dict(trees),
        **identify(made.objective, None, **options),
    }


def traced_for(settings: Settings, configuration: Configuration, traces: dict[str, Traced]) -> dict[str, Traced]:
    """The programs of one network for a configuration: ``traces``, with what was missing."""
    engine = Engine(settings.program(configuration), "loop", 1, settings.table, settings.key, None, traces)
    return engine.trace(example(settings, configuration), predicts=settings.predictions)


def example(settings: Settings, configuration: Configuration) -> Place:
    """A training of a configuration, of which only shapes and dtypes are read."""
    return Place(settings.traced(configuration), *(np.int32(0) for _ in range(3)))


def _show_tree(tree: Any) -> str:
    leaves = jax.tree.leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return ", ".join(f"{name(path)} {show_specs(leaf)}" for path, leaf in leaves)
