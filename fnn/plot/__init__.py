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
