"""Positions are added by place, also where a sequence comes in pieces."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

x = np.zeros((2, 6, 8), np.float32)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_pieces_get_the_positions_of_the_whole(kind: str, key: jax.Array) -> None:
    make = lambda cache: (
        fnn.learned_positions(6, cache=cache) if kind == "learned" else fnn.sinusoidal_positions(cache=cache)
    )
    params, _ = make(False).init(key, x)
    whole, _ = make(False).apply(params, {}, x)
    state = fnn.init_state(make(True), x[:, :2])
    pieces = []
    for first, last in ((0, 2), (2, 3), (3, 6)):
        y, state = make(True).apply(params, state, x[:, first:last])
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, atol=1e-5)


def test_sinusoids_are_those_of_the_paper() -> None:
    y, _ = fnn.sinusoidal_positions().apply({}, {}, x[:1])
    place, half = np.arange(6)[:, None], np.arange(4)
    angles = place / 10_000 ** (2 * half / 8)
    np.testing.assert_allclose(y[0, :, ::2], np.sin(angles), atol=1e-6)
    np.testing.assert_allclose(y[0, :, 1::2], np.cos(angles), atol=1e-6)


def test_steps_beyond_the_learned_ones_are_an_error_or_nan(key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match="there are 4 positions"):
        fnn.learned_positions(4).init(key, x)
    net = fnn.learned_positions(4, cache=True)
    params, state = net.init(key, x[:, :3])
    for expected in (False, True):
        y, state = net.apply(params, state, x[:, :3])
        assert bool(jnp.isnan(y).all()) == expected


@pytest.mark.parametrize("make", [lambda: fnn.learned_positions(9), fnn.sinusoidal_positions])
def test_bad_input_is_told(make: Any, key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match=r"wanted \(batch, time, features\)"):
        make().init(key, x[0])
    with pytest.raises(fnn.LayerError, match="floating"):
        make().init(key, x.astype(int))
