from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = normal(2, 3, 5)
SHAPES = {"kernel": (5, 4), "gate_kernel": (5, 4), "bias": (4,), "gate_bias": (4,)}
PARAMS = {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(SHAPES.items())}
KERNELS = {name: PARAMS[name] for name in ("kernel", "gate_kernel")}
every_unit = pytest.mark.parametrize("make", [fnn.glu, fnn.swiglu])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@every_unit
@pytest.mark.parametrize("bias", [False, True])
def test_the_result_is_the_product_of_the_open_gate_and_the_value(make: Any, bias: bool) -> None:
    params = PARAMS if bias else KERNELS
    y, state = make(4, bias=bias).apply(params, {}, X)
    gate, value = X @ PARAMS["gate_kernel"], X @ PARAMS["kernel"]
    if bias:
        gate, value = gate + PARAMS["gate_bias"], value + PARAMS["bias"]
    expected = sigmoid(gate) * value * (gate if make is fnn.swiglu else 1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert state == {}


def test_glu_agrees_with_pytorch_in_values_and_gradients() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    weight = normal(2, 3, 4, seed=9)
    grads, x_grad = jax.grad(lambda p, x: jnp.vdot(fnn.glu(4).apply(p, {}, x)[0], weight), (0, 1))(PARAMS, X)
    leaves = {name: torch.from_numpy(leaf).requires_grad_() for name, leaf in PARAMS.items()}
    x = torch.from_numpy(X).requires_grad_()
    value, gate = x @ leaves["kernel"] + leaves["bias"], x @ leaves["gate_kernel"] + leaves["gate_bias"]
    y = torch.nn.functional.glu(torch.cat([value, gate], -1))
    (y * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(fnn.glu(4).apply(PARAMS, {}, X)[0], y.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x_grad, x.grad.numpy(), rtol=1e-4, atol=1e-5)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(grads[name], leaf.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_the_gate_opens_by_any_activation() -> None:
    y, _ = fnn.glu(4, activation=jax.nn.relu, bias=False).apply(KERNELS, {}, X)
    expected = np.maximum(X @ PARAMS["gate_kernel"], 0) * (X @ PARAMS["kernel"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (fnn.glu(4), set(SHAPES)),
        (fnn.glu(4, bias=False), {"kernel", "gate_kernel"}),
        (fnn.swiglu(4), {"kernel", "gate_kernel"}),
        (fnn.swiglu(4, bias=True), set(SHAPES)),
    ],
)
def test_parameters_have_the_documented_names_and_shapes(net: fnn.Layer, names: set[str]) -> None:
    params, _ = net.init(jax.random.key(0), X)
    assert {name: leaf.shape for name, leaf in params.items()} == {name: SHAPES[name] for name in names}


@every_unit
def test_both_kernels_are_drawn_by_themselves(make: Any) -> None:
    params, _ = make(4).init(jax.random.key(0), X)
    assert (params["kernel"] != params["gate_kernel"]).all()


@every_unit
def test_initializers_and_dtype_are_those_given(make: Any) -> None:
    constant = jax.nn.initializers.constant
    net = make(4, bias=True, kernel_init=constant(2.0), bias_init=constant(3.0), dtype=jnp.bfloat16)
    params, _ = net.init(jax.random.key(0), X)
    for name, leaf in params.items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, np.full(SHAPES[name], 2.0 if "kernel" in name else 3.0))


@every_unit
def test_bfloat16_stays_bfloat16(make: Any) -> None:
    net = make(4, bias=True)
    y, _ = net.apply(PARAMS, {}, jnp.asarray(X, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), net.apply(PARAMS, {}, X)[0], rtol=0.1, atol=0.1)


@every_unit
def test_the_kind_is_the_name_of_the_constructor(make: Any) -> None:
    params, _ = fnn.serial(make(4)).init(jax.random.key(0), X)
    assert list(params) == [f"{make.__name__}_0"]
    assert repr(make(4)).startswith(f"{make.__name__}(")


@every_unit
@pytest.mark.parametrize(
    ("x", "text"),
    [(jnp.ones(()), "x is a scalar"), (jnp.ones((2, 3), jnp.int32), "x is int32, wanted a floating dtype")],
)
def test_a_wrong_input_is_an_error_at_init(make: Any, x: Any, text: str) -> None:
    with pytest.raises(fnn.LayerError, match=text):
        make(4).init(jax.random.key(0), x)


@every_unit
def test_features_must_be_a_positive_int(make: Any) -> None:
    with pytest.raises(ValueError, match="features must be a positive int"):
        make(0)
