# ruff: noqa: I001 - the order is that of a reader, not of the alphabet
"""Pictures that help to understand a network or a study. They read arrays only; matplotlib is the extra ``plot``.

Every function returns a `matplotlib.figure.Figure` that no window holds: save it with ``figure.savefig("name.png")``,
or let a notebook show it.
"""

# A training: its curves, what the network answers, what it looks for.
from fnn.plot.history import comparison as comparison, learning_curves as learning_curves
from fnn.plot.network import (
    confusion as confusion,
    decision_surface as decision_surface,
    filters as filters,
    predictions as predictions,
)

# A study: how its trainings went, what the hyperparameters have to do with the scores, which rate to take.
from fnn.plot.study import importance as importance, study_curves as study_curves
from fnn.plot.hyperparameters import (
    contour as contour,
    parallel_coordinates as parallel_coordinates,
    slices as slices,
)
from fnn.plot.rates import learning_rates as learning_rates
