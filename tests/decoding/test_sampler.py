"""What is cut from the scores, by hand and as transformers does it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

SCORES = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.1], [0.1, 0.2, 0.3, 0.4]]))


def kept(sampler: fnn.Sampler) -> list[list[bool]]:
    return jnp.isfinite(sampler.filtered(SCORES)).tolist()


def test_top_k_keeps_the_k_best() -> None:
    assert kept(fnn.Sampler(top_k=2)) == [[True, True, False, False], [False, False, True, True]]
    assert kept(fnn.Sampler(top_k=9)) == [[True] * 4] * 2


def test_top_p_keeps_as_many_as_reach_it_and_always_one() -> None:
    assert kept(fnn.Sampler(top_p=0.6)) == [[True, True, False, False], [False, False, True, True]]
    assert kept(fnn.Sampler(top_p=0.01)) == [[True, False, False, False], [False, False, False, True]]
    assert kept(fnn.Sampler(top_p=1.0)) == [[True] * 4] * 2


def test_min_p_is_relative_to_the_best() -> None:
    assert kept(fnn.Sampler(min_p=0.4)) == [[True, True, False, False], [False, True, True, True]]
    assert kept(fnn.Sampler(min_p=0.0)) == [[True] * 4] * 2


def test_the_penalty_lowers_what_was_seen() -> None:
    seen = jnp.array([[True, False, True, False]])
    scores = jnp.array([[2.0, 2.0, -1.0, -1.0]])
    assert fnn.Sampler(repetition_penalty=2.0).filtered(scores, seen).tolist() == [[1.0, 2.0, -2.0, -1.0]]


def test_numbers_may_be_traced() -> None:
    run = jax.jit(lambda t, p: fnn.Sampler(temperature=t, top_p=p, top_k=3).filtered(SCORES))
    np.testing.assert_allclose(run(0.5, 0.6), fnn.Sampler(temperature=0.5, top_p=0.6, top_k=3).filtered(SCORES))


def test_it_cuts_what_transformers_cuts() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    process = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    scores = np.random.default_rng(0).normal(size=(5, 50)).astype(np.float32) * 3
    ids = np.random.default_rng(1).integers(0, 50, (5, 7))
    theirs = torch.tensor(scores)
    for warper in (
        process.RepetitionPenaltyLogitsProcessor(1.3), process.TemperatureLogitsWarper(0.7),
        process.TopKLogitsWarper(20), process.TopPLogitsWarper(0.8), process.MinPLogitsWarper(0.05),
    ):  # fmt: skip
        theirs = warper(torch.tensor(ids), theirs)
    seen = np.zeros((5, 50), bool)
    np.put_along_axis(seen, ids, True, 1)
    sampler = fnn.Sampler(0.7, top_k=20, top_p=0.8, min_p=0.05, repetition_penalty=1.3)
    np.testing.assert_allclose(sampler.filtered(jnp.asarray(scores), jnp.asarray(seen)), theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "must be positive"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
    ],
)
def test_numbers_out_of_range_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fnn.Sampler(**options)
