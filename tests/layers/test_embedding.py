from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

IDS = np.array([[0, 3, 3], [6, 1, 3]], np.int32)


def made(ids: Any = IDS, **options: Any) -> tuple[fnn.Layer, Any]:
    net = fnn.embedding(7, 4, **options)
    return net, net.init(jax.random.key(0), ids)[0]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3)])
def test_each_id_gives_its_row(shape: tuple[int, ...]) -> None:
    ids = np.random.default_rng(0).integers(0, 7, shape)
    net, params = made(ids.astype(np.int32))
    y, state = net.apply(params, {}, ids.astype(np.int32))
    np.testing.assert_array_equal(y, np.asarray(params["embedding"])[ids])
    assert y.shape == (*shape, 4)
    assert state == {}


def test_the_gradient_of_a_row_is_the_sum_over_its_uses() -> None:
    net, params = made()
    weight = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    grad = jax.grad(lambda params: jnp.vdot(net.apply(params, {}, IDS)[0], weight))(params)["embedding"]
    expected = np.zeros((7, 4), np.float32)
    for index in np.ndindex(IDS.shape):
        expected[IDS[index]] += weight[index]
    np.testing.assert_allclose(grad, expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [-1, -7, 7, 8, np.iinfo(np.int32).max, np.iinfo(np.int32).min])
@pytest.mark.parametrize("compiled", [False, True])
def test_an_id_outside_the_vocabulary_gives_nan_and_no_gradient(wrong: int, compiled: bool) -> None:
    net, params = made()
    ids = np.array([2, wrong], np.int32)

    def score(params: Any) -> Any:
        y, _ = net.apply(params, {}, ids)
        return jnp.sum(jnp.where(jnp.isnan(y), 0.0, y)), y

    run = jax.grad(score, has_aux=True)
    grad, y = (jax.jit(run) if compiled else run)(params)
    np.testing.assert_array_equal(y[0], params["embedding"][2])
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(grad["embedding"], np.eye(7)[2][:, None] * np.ones(4))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.uint32])
def test_ids_of_a_small_dtype_never_wrap_around_a_large_vocabulary(dtype: Any) -> None:
    ids = np.array([100, np.iinfo(dtype).max, 0], dtype)
    net = fnn.embedding(300, 2)
    params, _ = net.init(jax.random.key(0), ids)
    y, _ = net.apply(params, {}, ids)
    for id, row in zip(ids.tolist(), np.asarray(y)):
        np.testing.assert_array_equal(row, params["embedding"][id] if id < 300 else np.full(2, np.nan))
    if np.iinfo(dtype).min < 0:
        assert np.isnan(net.apply(params, {}, np.array([-1], dtype))[0]).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bool_, jnp.bfloat16])
def test_ids_that_are_no_integers_are_an_error_with_the_fix(dtype: Any) -> None:
    with pytest.raises(fnn.LayerError, match=r"wanted ids of an integer dtype; convert them, x\.astype\(jnp\.int32\)"):
        fnn.embedding(7, 4).init(jax.random.key(0), jnp.ones(3, dtype))


@pytest.mark.parametrize("sizes", [(0, 4), (7, 0), (2.5, 4), (7, "4")])
def test_sizes_must_be_positive_ints(sizes: Any) -> None:
    with pytest.raises(ValueError, match="must be a positive int"):
        fnn.embedding(*sizes)


def test_rows_begin_with_length_one_and_decode_to_unit_variance() -> None:
    net = fnn.embedding(500, 64)
    table = np.asarray(net.init(jax.random.key(0), IDS)[0]["embedding"])
    np.testing.assert_allclose((table**2).sum(-1).mean(), 1, rtol=0.03)
    h = np.random.default_rng(0).normal(size=(200, 64))
    np.testing.assert_allclose((h @ table.T).var(), 1, rtol=0.05)


def test_the_result_has_the_dtype_of_the_table() -> None:
    net, params = made(dtype=jnp.bfloat16, embedding_init=jax.nn.initializers.ones)
    y, _ = net.apply(params, {}, IDS)
    assert params["embedding"].dtype == jnp.bfloat16
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, np.ones((2, 3, 4)))


def test_a_tied_table_gets_the_gradient_of_both_uses() -> None:
    def forward(f: Any, ids: Any) -> Any:
        h = jnp.tanh(f.embedding(ids))
        return h @ f.embedding.params["embedding"].T

    net = fnn.wire(forward, embedding=fnn.embedding(7, 4))
    params, state = net.init(jax.random.key(0), IDS)
    weight = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)
    score = lambda params: jnp.vdot(net.apply(params, state, IDS)[0], weight)
    untied = lambda encode, decode: jnp.vdot(jnp.tanh(encode[IDS]) @ decode.T, weight)
    table = params["embedding"]["embedding"]
    encode_grad, decode_grad = jax.grad(untied, (0, 1))(table, table)
    np.testing.assert_allclose(score(params), untied(table, table), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(score)(params)["embedding"]["embedding"], encode_grad + decode_grad, rtol=1e-4, atol=1e-5
    )


def test_parameters_may_be_numpy_arrays(key: jax.Array) -> None:
    # NumPy has no table.at: it failed outside of jit, as after loading parameters from a file.
    net = fnn.embedding(6, 4)
    params, _ = net.init(key, np.array([1]))
    table = np.asarray(params["embedding"])
    np.testing.assert_array_equal(net.apply({"embedding": table}, {}, np.array([2, 5]))[0], table[[2, 5]])
