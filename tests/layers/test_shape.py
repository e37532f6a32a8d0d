from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def run(net: fnn.Layer, x: Any) -> Any:
    assert net.init(jax.random.key(0), x) == ({}, {})
    return net.apply({}, {}, x)[0]


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3), (2,), (0, 3, 4), (2, 0, 4)])
def test_flatten_joins_all_axes_but_the_batch_in_order(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    np.testing.assert_array_equal(run(fnn.flatten(), x), [example.ravel() for example in x] or np.zeros((0, 12)))


def test_flatten_of_a_scalar_is_an_error() -> None:
    with pytest.raises(fnn.LayerError, match=r"x is a scalar, wanted \(batch, \*shape\)"):
        fnn.flatten().init(jax.random.key(0), 1.0)


@pytest.mark.parametrize("shape", [(4, 3), (-1, 3), (12,), (2, -1, 2)])
def test_reshape_gives_every_example_its_shape(shape: tuple[int, ...]) -> None:
    x = normal(2, 3, 4)
    np.testing.assert_array_equal(run(fnn.reshape(*shape), x), np.stack([example.reshape(shape) for example in x]))


@pytest.mark.parametrize("shape", [(4, 3), (-1, 3), [12]])
def test_reshape_takes_one_tuple_too(shape: Any) -> None:
    # It was taken, and init failed with words of JAX.
    x = normal(2, 3, 4)
    np.testing.assert_array_equal(run(fnn.reshape(shape), x), run(fnn.reshape(*shape), x))


@pytest.mark.parametrize("shape", [(2, -1), (-1,), (2, 6), (3, -1, 2)])
def test_reshape_of_a_batch_without_rows(shape: tuple[int, ...]) -> None:
    # What -1 stands for was unknown where the batch has no rows.
    y = run(fnn.reshape(*shape), normal(0, 3, 4))
    assert y.shape == (0, *np.zeros((3, 4)).reshape(shape).shape)


@pytest.mark.parametrize("shape", [(5, 3), (-1, 5), (0, -1), ()])
def test_a_shape_that_does_not_fit_is_an_error_at_init(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        fnn.LayerError, match=r"each example of x has the shape \(3, 4\), 12 elements, which do not fill"
    ):
        fnn.reshape(*shape).init(jax.random.key(0), normal(2, 3, 4))


@pytest.mark.parametrize("shape", [(-1, -1), (3, -2), (2.0, 6), ((3, 4), 1), (True, 12)])
def test_a_shape_that_is_none_is_an_error(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"shape must be ints, of which one may be -1, got \("):
        fnn.reshape(*shape)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16])
@pytest.mark.parametrize("net", [fnn.flatten(), fnn.reshape(-1), fnn.upsample(2)], ids=lambda net: net.name)
def test_moving_numbers_keeps_their_dtype(net: fnn.Layer, dtype: Any) -> None:
    assert run(net, jnp.ones((2, 3, 4), dtype)).dtype == dtype


@pytest.mark.parametrize(("space", "scale"), [((3,), 2), ((3, 4), 3), ((3, 4), (1, 2)), ((2, 3, 2), (2, 1, 3))])
def test_upsample_by_nearest_repeats_each_entry(space: tuple[int, ...], scale: Any) -> None:
    x = normal(2, *space, 3)
    factors = scale if isinstance(scale, tuple) else (scale,) * len(space)
    block = np.ones((1, *factors, 1))
    np.testing.assert_allclose(run(fnn.upsample(scale), x), np.kron(x, block), rtol=1e-6)


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_upsample_agrees_with_pytorch(method: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x = normal(2, 3, 4, 2)
    mode = {"nearest": "nearest", "linear": "bilinear"}[method]
    peer = torch.nn.functional.interpolate(torch.from_numpy(x).permute(0, 3, 1, 2), scale_factor=(2, 3), mode=mode)
    y = run(fnn.upsample((2, 3), method=method), x)
    np.testing.assert_allclose(y, peer.permute(0, 2, 3, 1).numpy(), rtol=1e-5, atol=1e-6)


def test_cubic_upsampling_keeps_a_straight_line_straight() -> None:
    line = jnp.arange(10.0)[None, :, None]
    y = run(fnn.upsample(2, method="cubic"), line)[0, :, 0]
    np.testing.assert_allclose(y[6:-6], (np.arange(20)[6:-6] - 0.5) / 2, rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_interpolation_keeps_bfloat16(method: str) -> None:
    assert run(fnn.upsample(2, method=method), jnp.ones((1, 3, 2), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("scale", "shape"), [((2, 2), (1, 4, 3)), ((2,), (1, 4, 4, 3)), (2, (4, 3)), (2, (4,)), (2, ())]
)
def test_a_scale_that_does_not_fit_space_is_an_error_at_init(scale: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(fnn.LayerError, match=r"spatial axes, wanted \(batch, \*space, channels\)"):
        fnn.upsample(scale).init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize("scale", [0, -2, 1.5, (2, 0)])
def test_a_scale_must_be_positive_ints(scale: Any) -> None:
    with pytest.raises(ValueError, match="scale must be a positive int"):
        fnn.upsample(scale)


def test_an_unknown_method_is_an_error_at_init() -> None:
    with pytest.raises(fnn.LayerError, match="sharp"):
        fnn.upsample(2, method="sharp").init(jax.random.key(0), jnp.ones((1, 4, 3)))
