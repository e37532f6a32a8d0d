"""The picture of a learning-rate finder shows every rate, what is too large, and the suggestion."""

from pathlib import Path

import numpy as np
import pytest

import fnn
from fnn import plot


def found(*, diverges: bool = True, scale: float = 1.0) -> fnn.LearningRates:
    """Twelve rates whose losses fall until the ninth; then one is larger than at the start, the others diverge."""
    rates = np.geomspace(1e-6, 1.0, 12)
    end = [50.0, np.inf, np.inf] if diverges else [0.04] * 3
    losses = np.array([2.0, 2.0, 2.0, 1.9, 1.5, 1.0, 0.5, 0.1, 0.05, *end])
    curves = np.linspace(2.0, np.where(np.isfinite(losses), losses, np.nan), 5).T * scale
    limit = rates[9] if diverges else np.inf
    return fnn.LearningRates(
        rates, np.arange(20.0, 120, 20), curves, losses * scale, np.isinf(losses), rates[8], limit, rates[7]
    )


def test_every_rate_is_drawn_and_those_that_fail_stand_at_the_upper_end(tmp_path: Path) -> None:
    figure = plot.learning_rates(found())
    over_rate, over_steps, bar = figure.axes
    assert (over_rate.get_xscale(), over_rate.get_yscale()) == ("log", "log")
    assert (over_rate.get_xlabel(), over_rate.get_ylabel()) == ("learning rate", "loss at step 100")
    line, suggestion = over_rate.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), np.stack([found().rates, found().losses], axis=-1)[:9])
    np.testing.assert_allclose(np.asarray(suggestion.get_xdata()), found().suggestion)
    drawn = {str(part.get_label()): np.asarray(part.get_offsets()) for part in over_rate.collections}
    high = over_rate.get_ylim()[1]
    np.testing.assert_allclose(drawn["off the axis"], [[found().rates[9], high]])
    np.testing.assert_allclose(drawn["diverged"], [[rate, high] for rate in found().rates[10:]])
    assert 2.0 < high < 3.0
    assert len(over_steps.lines) == 12
    assert over_steps.get_ylim() == over_rate.get_ylim()
    assert bar.get_ylabel() == "learning rate"
    figure.savefig(tmp_path / "rates.png")


def test_what_is_too_large_is_shaded_from_the_limit_on() -> None:
    (shade,) = plot.learning_rates(found()).axes[0].patches
    np.testing.assert_allclose(shade.get_extents().x0, plot_x(found().limit), rtol=1e-6)
    assert not plot.learning_rates(found(diverges=False)).axes[0].patches


def plot_x(rate: float) -> float:
    """Where a rate is on the canvas of the picture."""
    axes = plot.learning_rates(found()).axes[0]
    return axes.transData.transform((rate, 1.0))[0]


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_losses_that_are_not_positive_have_a_linear_axis(scale: float, tmp_path: Path) -> None:
    figure = plot.learning_rates(found(diverges=False, scale=scale))
    assert figure.axes[0].get_yscale() == ("log" if scale > 0 else "linear")
    figure.savefig(tmp_path / "rates.png")
