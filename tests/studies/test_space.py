"""Hyperparameters and the values they may take."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

import fnn

u = np.random.default_rng(0).random(4000)


@pytest.mark.parametrize(
    ("dimension", "distribution"),
    [
        (fnn.uniform(2, 5), lambda x: (x - 2) / 3),
        (fnn.log_uniform(1e-3, 1e1), lambda x: (np.log10(x) + 3) / 4),
        (fnn.normal(1, 2), "norm"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_values_have_the_named_distribution(dimension, distribution):
    values = np.array([dimension.at(one) for one in u])
    if distribution == "norm":
        assert kstest((values - 1) / 2, "norm").pvalue > 1e-3
    else:
        assert kstest(distribution(values), "uniform").pvalue > 1e-3


def test_a_normal_value_is_finite_at_the_ends():
    assert np.isfinite(fnn.normal(0, 1).at(0.0))


def test_integers_and_choices_are_equally_probable_and_within_bounds():
    counts = np.bincount([fnn.integer(-1, 2).at(one) + 1 for one in u])
    assert counts.min() > 900
    assert len(counts) == 4
    assert {fnn.choice(list("abc"), static=True).at(one) for one in u} == set("abc")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fnn.uniform(1, 0), "the smaller first"),
        (lambda: fnn.uniform(0, float("inf")), "finite bounds"),
        (lambda: fnn.log_uniform(0, 1), "fnn.uniform where 0 is allowed"),
        (lambda: fnn.normal(0, 0), "positive std"),
        (lambda: fnn.integer(3, 2), "the smaller first"),
        (lambda: fnn.integer(0, "1"), "two ints"),  # type: ignore
        (lambda: fnn.choice([]), "nothing to choose from"),
        (lambda: fnn.choice([jnp.tanh]), "static=True"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_dimension_shows_as_it_was_written():
    assert repr(fnn.uniform(0, 0.5)) == "uniform(low=0, high=0.5)"
    assert repr(fnn.choice([jnp.tanh, jnp.sin], static=True)) == "choice(values=[tanh, sin], static=True)"
