"""Cells by themselves; `tests/test_recurrent.py` runs them over time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn


@pytest.mark.parametrize("make", [fnn.rnn_cell, fnn.lstm_cell, fnn.gru_cell])
def test_recurrent_kernels_begin_orthogonal_for_each_gate(make: type, key: jax.Array) -> None:
    kernel = make(4).init(key, jnp.ones((2, 3)))["recurrent_kernel"]
    gates = jnp.split(kernel, kernel.shape[1] // 4, 1)
    for gate in gates:
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-5)
    assert len({float(gate[0, 0]) for gate in gates}) == len(gates)


def test_a_cell_without_bias_has_none(key: jax.Array) -> None:
    for make in (fnn.rnn_cell, fnn.lstm_cell, fnn.gru_cell):
        assert set(make(4, bias=False).init(key, jnp.ones((2, 3)))) == {"kernel", "recurrent_kernel"}


def test_a_convolutional_cell_wants_as_many_axes_as_its_window(key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match="2 axes of space"):
        fnn.conv_lstm(4, (3, 3)).init(key, jnp.ones((2, 5, 8, 3)))
