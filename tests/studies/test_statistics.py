"""Statistics, compared with SciPy's."""

import numpy as np
import pytest
from scipy import stats

import fnn
from fnn.studies.statistics import compare, importance, interval

random = np.random.default_rng(0)
A, B = random.normal(size=7), random.normal(size=7)


def test_an_interval_is_students():
    found = interval(A, 0.9)
    low, high = stats.t.interval(0.9, 6, A.mean(), stats.sem(A))
    assert (found.low, found.high, found.size) == (pytest.approx(low), pytest.approx(high), 7)


def test_a_comparison_is_the_paired_test():
    found = compare(A, B)
    wanted = stats.ttest_rel(A, B)
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.low == pytest.approx(wanted.confidence_interval().low)


def test_one_measurement_has_no_interval():
    assert np.isnan(interval([1.0]).low)
    assert np.isnan(compare([1.0], [2.0]).p_value)


def test_equal_differences_are_certain_or_nothing():
    assert compare([1.0, 2.0], [1.0, 2.0]).p_value == 1
    assert compare([2.0, 3.0], [1.0, 2.0]).p_value == 0


def test_a_confidence_is_a_probability():
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(A, 95)


def test_importance_finds_what_matters():
    dimensions = {
        "rate": fnn.log_uniform(1e-4, 1e-1),
        "noise": fnn.uniform(0, 1),
        "activation": fnn.choice([np.tanh, np.sin], static=True),
        "constant": fnn.choice([3]),
    }
    rows = [{name: dimension.at(random.random()) for name, dimension in dimensions.items()} for _ in range(60)]
    scores = [np.log10(row["rate"]) + 0.5 * (row["activation"] is np.sin) for row in rows]
    found = importance(dimensions, rows, [*scores[:-1], np.nan])
    assert list(found)[:2] == ["rate", "activation"]
    assert found["rate"] > 0.7
    assert found["constant"] == 0
    assert sum(found.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 8 trials"):
        importance(dimensions, rows[:5], scores[:5])
