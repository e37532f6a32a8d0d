from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

CHANNELS = 4
CONSTRUCTORS: dict[str, Callable[..., fnn.Layer]] = {
    "layer_norm": fnn.layer_norm,
    "rms_norm": fnn.rms_norm,
    "group_norm": lambda **options: fnn.group_norm(2, **options),
    "instance_norm": fnn.instance_norm,
}
every_norm = pytest.mark.parametrize("make", CONSTRUCTORS.values(), ids=CONSTRUCTORS)


def normal(*shape: int, seed: int = 0, mean: float = 2.0, spread: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, shape).astype(np.float32)


def trees(net: fnn.Layer, x: Any) -> Any:
    """Parameters that are not the ones every layer starts from."""
    params, _ = net.init(jax.random.key(0), x)
    return {name: leaf + jnp.asarray(normal(CHANNELS, seed=len(name), mean=0)) for name, leaf in params.items()}


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The formulas in float64, for images."""
    x = x.astype(np.float64)
    if name == "rms_norm":
        return x / np.sqrt((x**2).mean(-1, keepdims=True))
    y = np.empty_like(x)
    for index in np.ndindex(x.shape[0], *(x.shape[1:3] if name == "layer_norm" else ())):
        for channels in {
            "layer_norm": [slice(None)],
            "group_norm": [slice(0, 2), slice(2, 4)],
            "instance_norm": [slice(c, c + 1) for c in range(CHANNELS)],
        }[name]:
            part = x[(*index, ..., channels)]
            y[(*index, ..., channels)] = (part - part.mean()) / part.std()
    return y


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_the_result_agrees_with_the_formula_also_where_the_mean_is_large(name: str) -> None:
    for mean, tolerance in ((2.0, 1e-4), (1e4, 1e-2)):
        x = normal(2, 3, 5, CHANNELS, mean=mean)
        net = CONSTRUCTORS[name](epsilon=0.0)
        params = trees(net, x)
        y, _ = net.apply(params, {}, x)
        np.testing.assert_allclose(
            y, exact(name, x) * params["scale"] + params.get("bias", 0.0), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_values_and_gradients_agree_with_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x, weight = normal(2, 3, 5, CHANNELS), normal(2, 3, 5, CHANNELS, seed=1)
    net = CONSTRUCTORS[name](epsilon=1e-2)
    params = trees(net, x)

    @jax.jit
    def score(params: Any, x: Any) -> Any:
        y, _ = net.apply(params, {}, x)
        return jnp.vdot(y, weight), y

    (grads, x_grad), y = jax.grad(score, (0, 1), has_aux=True)(params, jnp.asarray(x))

    leaves = {leaf: torch.from_numpy(np.array(value)).requires_grad_() for leaf, value in params.items()}
    tensor = torch.from_numpy(x).requires_grad_()
    swapped = tensor.permute(0, 3, 1, 2)
    functional, both = torch.nn.functional, (leaves["scale"], leaves.get("bias"))
    out = {
        "layer_norm": lambda: functional.layer_norm(tensor, (CHANNELS,), *both, eps=1e-2),
        "rms_norm": lambda: functional.rms_norm(tensor, (CHANNELS,), leaves["scale"], eps=1e-2),
        "group_norm": lambda: functional.group_norm(swapped, 2, *both, eps=1e-2).permute(0, 2, 3, 1),
        "instance_norm": lambda: functional.instance_norm(swapped, weight=both[0], bias=both[1], eps=1e-2).permute(
            0, 2, 3, 1
        ),
    }[name]()
    (out * torch.from_numpy(weight)).sum().backward()

    np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x_grad, tensor.grad.numpy(), rtol=1e-3, atol=1e-4)
    for leaf in params:
        np.testing.assert_allclose(grads[leaf], leaves[leaf].grad.numpy(), rtol=1e-4, atol=1e-4)


@every_norm
def test_bfloat16_is_normalised_in_float32(make: Callable[..., fnn.Layer]) -> None:
    x = jnp.asarray(normal(2, 3, 5, CHANNELS, mean=50.0), jnp.bfloat16)
    net = make()
    params = trees(net, x)
    y, _ = net.apply(params, {}, x)
    wide, _ = net.apply(params, {}, x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))


@every_norm
def test_half_precision_squares_do_not_overflow(make: Callable[..., fnn.Layer]) -> None:
    x = jnp.asarray(normal(2, 3, 5, CHANNELS, spread=1e4), jnp.float16)
    y, _ = make().apply(trees(make(), x), {}, x)
    assert y.dtype == jnp.float16
    assert np.isfinite(y).all()


@every_norm
def test_epsilon_may_be_traced(make: Callable[..., fnn.Layer]) -> None:
    x = normal(2, 3, 5, CHANNELS)
    params = trees(make(), x)

    @jax.jit
    @jax.vmap
    def run(epsilon: Any) -> Any:
        make(epsilon=epsilon).init(jax.random.key(0), x)
        return make(epsilon=epsilon).apply(params, {}, x)[0]

    epsilons = np.array([1.0, 1e-3], np.float32)
    for epsilon, y in zip(epsilons, run(epsilons)):
        np.testing.assert_allclose(y, make(epsilon=float(epsilon)).apply(params, {}, x)[0], rtol=1e-5, atol=1e-5)


@every_norm
def test_an_input_without_spread_has_finite_gradients(make: Callable[..., fnn.Layer]) -> None:
    x = jnp.zeros((2, 3, 5, CHANNELS))
    params = trees(make(), x)
    grad = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(make().apply(params, {}, x)[0]))))(x)
    assert np.isfinite(grad).all()


@every_norm
def test_parameters_are_as_asked_for(make: Callable[..., fnn.Layer]) -> None:
    x = normal(2, 3, 5, CHANNELS)
    net = make(scale_init=jax.nn.initializers.constant(3.0), dtype=jnp.bfloat16)
    params, state = net.init(jax.random.key(0), x)
    assert params["scale"].tolist() == [3.0] * CHANNELS
    assert {leaf.dtype.name for leaf in params.values()} == {"bfloat16"}
    assert state == {}
    assert "scale" not in make(scale=False).init(jax.random.key(0), x)[0]
    with pytest.raises(fnn.LayerError, match=r"params lacks .*'scale' \(it has nothing\)"):
        net.apply({}, {}, x)


@every_norm
def test_scale_and_bias_start_as_the_identity(make: Callable[..., fnn.Layer]) -> None:
    x = normal(2, 3, 5, CHANNELS)
    without = make(scale=False) if make is fnn.rms_norm else make(scale=False, bias=False)
    assert without.init(jax.random.key(0), x) == ({}, {})
    params, _ = make().init(jax.random.key(0), x)
    np.testing.assert_array_equal(make().apply(params, {}, x)[0], without.apply({}, {}, x)[0])


@every_norm
def test_a_negative_epsilon_is_an_error(make: Callable[..., fnn.Layer]) -> None:
    with pytest.raises(ValueError, match="epsilon must lie in"):
        make(epsilon=-1.0)


@every_norm
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_a_dtype_that_is_not_real_and_floating_is_an_error(make: Callable[..., fnn.Layer], dtype: Any) -> None:
    with pytest.raises(fnn.LayerError, match=f"x is {np.dtype(dtype).name}, wanted"):
        make().init(jax.random.key(0), jnp.ones((2, 3, 5, CHANNELS), dtype))


@pytest.mark.parametrize(
    ("net", "shape", "text"),
    [
        (fnn.layer_norm(), (), r"x has shape \(\), wanted \(\*leading, channels\)"),
        (fnn.rms_norm(), (), r"x has shape \(\), wanted \(\*leading, channels\)"),
        (fnn.group_norm(2), (4,), r"x has shape \(4,\), wanted \(batch, \*space, channels\)"),
        (fnn.instance_norm(), (2, 4), r"x has shape \(2, 4\), wanted .* at least one axis of space"),
    ],
    ids=CONSTRUCTORS,
)
def test_too_few_axes_are_an_error_at_init(net: fnn.Layer, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(fnn.LayerError, match=text):
        net.init(jax.random.key(0), jnp.ones(shape))


def test_groups_that_do_not_divide_the_channels_are_an_error_that_names_groups_that_do() -> None:
    with pytest.raises(fnn.LayerError, match="4 groups do not divide 6 channels; groups=2 would"):
        fnn.group_norm(4).init(jax.random.key(0), jnp.ones((2, 5, 6)))


@pytest.mark.parametrize("groups", [0, -1, 2.0, True])
def test_groups_must_be_a_positive_int(groups: Any) -> None:
    with pytest.raises(ValueError, match="groups must be a positive int"):
        fnn.group_norm(groups)


def test_one_group_for_each_channel_is_instance_norm() -> None:
    x = normal(2, 3, 5, CHANNELS)
    params = trees(fnn.instance_norm(), x)
    group, instance = fnn.group_norm(CHANNELS).apply(params, {}, x)[0], fnn.instance_norm().apply(params, {}, x)[0]
    np.testing.assert_allclose(group, instance, atol=1e-5)


def test_one_group_without_space_is_layer_norm() -> None:
    x = normal(3, CHANNELS)
    params = trees(fnn.layer_norm(), x)
    group, whole = fnn.group_norm(1).apply(params, {}, x)[0], fnn.layer_norm().apply(params, {}, x)[0]
    np.testing.assert_allclose(group, whole, atol=1e-6)
