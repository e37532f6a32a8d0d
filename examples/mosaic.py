"""Many small grey images as one picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def mosaic(images: Any, columns: int) -> np.ndarray:
    """Put images side by side, row after row, with a white line of one pixel between them.

    Args:
        images: ``(count, height, width, 1)`` in [0, 1]; what lies outside is cut off.
        columns: How many in a row.

    Returns:
        One image ``(height', width')``, in which ink is dark.
    """
    images = 1 - np.clip(np.asarray(images)[..., 0], 0, 1)
    count, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.ones((rows * columns, height + 1, width + 1), np.float32)
    canvas[:count, :-1, :-1] = images
    canvas = canvas.reshape(rows, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
    return canvas.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]


def side_by_side(titles: Sequence[str], groups: Sequence[Any], columns: int) -> Figure:
    """A panel for each group of images, under its title."""
    figure = Figure(figsize=(3.3 * len(groups), 3.5), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False, gridspec_kw={"wspace": 0.08})[0]
    for panel, title, images in zip(panels, titles, groups):
        panel.imshow(mosaic(images, columns), cmap="gray", vmin=0, vmax=1)
        panel.set_title(title)
        panel.axis("off")
    return figure


def in_rows(titles: Sequence[str], groups: Sequence[Any]) -> Figure:
    """A row for each group of images, beside its title."""
    count, label = len(groups[0]), 0.1 + 0.08 * max(map(len, titles))
    width, height = label + 0.62 * count, 0.66 * len(groups)
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left=label / width, right=0.995, bottom=0.01, top=0.99, hspace=0.05)
    for panel, title, images in zip(figure.subplots(len(groups), 1, squeeze=False)[:, 0], titles, groups):
        panel.imshow(mosaic(images, count), cmap="gray", vmin=0, vmax=1, aspect="auto")
        panel.set(xticks=[], yticks=[])
        panel.set_ylabel(title, rotation="horizontal", horizontalalignment="right", verticalalignment="center")
        panel.spines[:].set_visible(False)
    return figure
