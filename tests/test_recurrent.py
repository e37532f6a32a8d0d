"""Recurrent networks agree with PyTorch, whole, in pieces, both ways and ragged."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

BATCH, TIME, FEATURES, SIZE = 3, 6, 4, 5
LENGTHS = np.array([6, 2, 4])
x = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)

KINDS = {"rnn": fnn.rnn, "lstm": fnn.lstm, "gru": fnn.gru}
CELLS = {"rnn": fnn.rnn_cell, "lstm": fnn.lstm_cell, "gru": fnn.gru_cell}


def from_torch(module: Any, suffix: str) -> dict[str, jax.Array]:
    """The weights of one layer and direction; two biases become one, except where a gate divides them."""
    own = {name: jnp.asarray(getattr(module, f"{name}_{suffix}").detach().numpy()) for name in
           ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    params = {"kernel": own["weight_ih"].T, "recurrent_kernel": own["weight_hh"].T}
    if type(module).__name__ == "GRU":
        return params | {"bias": own["bias_ih"], "recurrent_bias": own["bias_hh"]}
    return params | {"bias": own["bias_ih"] + own["bias_hh"]}


def torch_module(kind: str, **options: Any) -> Any:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    torch.manual_seed(0)
    return torch, getattr(torch.nn, kind.upper())(FEATURES, SIZE, batch_first=True, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_pytorch(kind: str) -> None:
    torch, module = torch_module(kind)
    theirs_x = torch.tensor(x, requires_grad=True)
    theirs, _ = module(theirs_x)
    theirs.sin().sum().backward()
    params = from_torch(module, "l0")
    net = KINDS[kind](SIZE)

    def loss(params: Any, x: Any) -> Any:
        y, _ = net.apply(params, {}, x)
        return jnp.sum(jnp.sin(y)), y

    (grads, x_grad), y = jax.grad(loss, (0, 1), has_aux=True)(params, jnp.asarray(x))
    np.testing.assert_allclose(y, theirs.detach(), atol=1e-6)
    np.testing.assert_allclose(x_grad, theirs_x.grad, atol=1e-5)
    np.testing.assert_allclose(grads["recurrent_kernel"].T, module.weight_hh_l0.grad, atol=1e-5)
    np.testing.assert_allclose(grads["kernel"].T, module.weight_ih_l0.grad, atol=1e-5)
    np.testing.assert_allclose(grads["bias"], module.bias_ih_l0.grad, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_layers_both_ways_over_ragged_sequences_are_those_of_pytorch(kind: str) -> None:
    torch, module = torch_module(kind, num_layers=2, bidirectional=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True, total_length=TIME)
    cell = CELLS[kind](SIZE)
    net = fnn.wire(
        lambda f, x, lengths: f.second(f.first(x, lengths), lengths),
        first=fnn.bidirectional(cell),
        second=fnn.bidirectional(cell),
    )
    params = {
        name: {"forward": from_torch(module, f"l{i}"), "backward": from_torch(module, f"l{i}_reverse")}
        for i, name in enumerate(("first", "second"))
    }
    y, _ = net.apply(params, {}, x, LENGTHS)
    np.testing.assert_allclose(y, theirs.detach(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, key: jax.Array) -> None:
    cell = CELLS[kind](SIZE)
    for reverse in (False, True):
        net = fnn.recurrent(cell, carry=True, reverse=reverse)
        start = cell.start(x[:, 0])
        params, _ = net.init(key, x, start, LENGTHS)
        (y, last), _ = net.apply(params, {}, x, start, LENGTHS)
        for row, length in enumerate(LENGTHS):
            one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], start)
            (alone, alone_last), _ = net.apply(params, {}, x[row : row + 1, :length], one)
            np.testing.assert_allclose(y[row, :length], alone[0], atol=1e-6)
            assert not np.asarray(y[row, length:]).any()
            mine = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], last)
            chex.assert_trees_all_close(mine, alone_last, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_tree_of_parameters_serves_the_three_forms(kind: str, key: jax.Array) -> None:
    plain, cached = KINDS[kind](SIZE), KINDS[kind](SIZE, cache=True)
    carried = KINDS[kind](SIZE, carry=True)
    params, _ = plain.init(key, x)
    whole, _ = plain.apply(params, {}, x)

    carry = CELLS[kind](SIZE).start(x[:, 0])
    state = fnn.init_state(cached, x[:, :1])
    pieces: list[Any] = []
    for first, last in ((0, 1), (1, 4), (4, 6)):
        (y, carry), _ = carried.apply(params, {}, x[:, first:last], carry)
        y_cached, state = cached.apply(params, state, x[:, first:last])
        np.testing.assert_array_equal(y, y_cached)
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, atol=1e-6)
    chex.assert_trees_all_equal(list(state["cache"].values()), jax.tree.leaves(carry))


def test_a_convolutional_lstm_is_an_lstm_at_each_pixel_where_windows_are_one(key: jax.Array) -> None:
    film = np.random.default_rng(1).normal(size=(2, 4, 3, 3, FEATURES)).astype(np.float32)
    net = fnn.conv_lstm(SIZE, (1, 1))
    params, _ = net.init(key, film)
    y, _ = net.apply(params, {}, film)
    flat = {"bias": params["bias"]} | {name: params[name][0, 0] for name in ("kernel", "recurrent_kernel")}
    pixels = film.transpose(0, 2, 3, 1, 4).reshape(-1, 4, FEATURES)
    wanted, _ = fnn.lstm(SIZE).apply(flat, {}, pixels)
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1, 4).reshape(wanted.shape), wanted, atol=1e-6)


def test_a_convolutional_lstm_convolves_in_every_step(key: jax.Array) -> None:
    film = np.random.default_rng(1).normal(size=(2, 3, 5, 5, 2)).astype(np.float32)
    cell = fnn.conv_lstm_cell(3, (3, 3))
    params = cell.init(key, film[:, 0])
    y, _ = fnn.recurrent(cell).apply(params, {}, film)
    h, c = cell.start(film[:, 0])
    conv = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    for step in range(3):
        gates = conv(film[:, step], params["kernel"]) + conv(h, params["recurrent_kernel"]) + params["bias"]
        i, f, g, o = np.split(np.asarray(gates), 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * np.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        np.testing.assert_allclose(y[:, step], h, atol=1e-5)


def test_a_cell_of_ones_own_takes_a_few_lines(key: jax.Array) -> None:
    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        return {"recurrent_kernel": jnp.eye(x.shape[-1])}

    def step(params: Any, h: jax.Array, u: jax.Array) -> Any:
        return u, u

    cell = fnn.Cell(init, lambda x: jnp.zeros(x.shape, x.dtype), step, hidden=lambda h: h, name="sum")
    net = fnn.recurrent(cell)
    params, _ = net.init(key, x)
    np.testing.assert_allclose(net.apply(params, {}, x)[0], np.cumsum(x, 1), rtol=1e-5)
    assert net.name == "sum"


def test_the_forget_gate_begins_open(key: jax.Array) -> None:
    params, _ = fnn.lstm(SIZE, forget_bias=2.0).init(key, x)
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 2, 0, 0], SIZE))


@pytest.mark.parametrize(
    ("make", "xs", "message"),
    [
        (lambda: fnn.lstm(3), (x[:, 0],), r"wanted \(batch, time, \*features\)"),
        (lambda: fnn.lstm(3), (x.astype(int),), "floating"),
        (lambda: fnn.lstm(3), (x, np.array([6, 7, 1])), "lengths hold 7, and the time axis has 6 steps"),
        (lambda: fnn.lstm(3), (x, np.array([6, -1, 1])), "lengths hold -1"),
        (lambda: fnn.lstm(3), (x, np.array([6.0, 1.0, 1.0])), "wanted integers"),
        (lambda: fnn.lstm(3), (x, LENGTHS, LENGTHS), "a carry is taken with carry=True"),
        (lambda: fnn.gru(3, carry=True), (x, jnp.zeros((2, 3))), "the carry is"),
    ],
)
def test_bad_input_is_told(make: Any, xs: Any, message: str, key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match=message):
        use(make(), key, xs)


def use(net: fnn.Layer, key: jax.Array, xs: Any) -> None:
    """Shapes are checked at init; lengths have values only when running."""
    params, state = net.init(key, *xs)
    net.apply(params, state, *xs)


def test_bad_options_are_told() -> None:
    with pytest.raises(ValueError, match="choose one"):
        fnn.lstm(3, carry=True, cache=True)
    with pytest.raises(ValueError, match="in reverse"):
        fnn.lstm(3, reverse=True, cache=True)
    with pytest.raises(TypeError, match="rate"):
        fnn.lstm(3, rate=0.5)
    with pytest.raises(ValueError, match="features"):
        fnn.gru(0)


def test_traced_lengths_that_do_not_fit_give_nan_and_nothing_else_does(key: jax.Array) -> None:
    net = fnn.gru(SIZE)
    params, _ = net.init(key, x)
    y = jax.jit(lambda lengths: net.apply(params, {}, x, lengths)[0])(jnp.array([6, 7, 4]))
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[2]).all()


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "bidirectional", "conv_lstm"])
def test_nan_beyond_the_lengths_reaches_nothing(kind: str, key: jax.Array) -> None:
    # y and the loss were finite, and every gradient was NaN: ids that are padded with -1 are NaN when embedded.
    nets = {
        **{name: make(SIZE) for name, make in KINDS.items()},
        "bidirectional": fnn.bidirectional(fnn.gru_cell(SIZE)), "conv_lstm": fnn.conv_lstm(2, (3,)),
    }  # fmt: skip
    net, xs = nets[kind], jnp.asarray(x[..., None] if kind == "conv_lstm" else x)
    params, _ = net.init(key, xs, LENGTHS)
    padding = (np.arange(TIME) >= LENGTHS[:, None]).reshape(BATCH, TIME, *(1,) * (xs.ndim - 2))

    @jax.jit
    def run(params: Any, xs: Any) -> Any:
        loss = lambda params, xs: jnp.sum(jnp.sin(net.apply(params, {}, xs, LENGTHS)[0]))
        return jax.value_and_grad(loss, (0, 1))(params, xs)

    chex.assert_trees_all_equal(run(params, jnp.where(padding, jnp.nan, xs)), run(params, xs))


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_without_steps_have_no_output_and_finite_gradients(kind: str, key: jax.Array) -> None:
    # The gradient of gru stacked an empty list.
    net = KINDS[kind](SIZE, carry=True)
    params, _ = net.init(key, x, CELLS[kind](SIZE).start(x[:, 0]))

    def last(params: Any) -> Any:
        y, carry = net.apply(params, {}, x[:, :0], CELLS[kind](SIZE).start(x[:, 0]))[0]
        assert y.shape == (BATCH, 0, SIZE)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(carry))

    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(last)(params)))
