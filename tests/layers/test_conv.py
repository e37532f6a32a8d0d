from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.core.errors import LayerError
from fnn.core.layer import Layer
from fnn.layers.conv import conv, conv_transpose, depthwise_conv


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def channels_first(x: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).requires_grad_()


def channels_last(tensor: Any) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def check_against_pytorch(net: Layer, x: np.ndarray, function: Callable[..., Any], port: Callable[..., Any]) -> None:
    """Compare values and gradients with a PyTorch function of x, weight and bias; ``port`` maps its weight to ours."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    params, state = net.init(jax.random.key(0), x)
    kernel_shape, bias = params["kernel"].shape, normal(*params["bias"].shape, seed=2)
    # port only moves axes about: running it on an array of places finds where each weight goes.
    weight_shape = WEIGHT_SHAPES[net.name](x.shape[-1], params)
    weight = normal(*weight_shape, seed=1)
    kernel = port(weight)
    assert kernel.shape == kernel_shape

    apply = jax.jit(lambda params, x: net.apply(params, state, x)[0])
    params = {"kernel": kernel, "bias": bias}
    y, back = jax.vjp(apply, params, x)
    cotangent = normal(*y.shape, seed=3)
    grads, x_grad = back(cotangent)

    tensors = channels_first(x), *(torch.from_numpy(a.copy()).requires_grad_() for a in (weight, bias))
    out = function(*tensors)
    out.backward(channels_first(cotangent).detach())
    np.testing.assert_allclose(y, channels_last(out), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x_grad, channels_last(tensors[0].grad), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads["kernel"], port(tensors[1].grad.numpy()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads["bias"], tensors[2].grad.numpy(), rtol=1e-4, atol=1e-4)


def torch_layout(weight: np.ndarray) -> np.ndarray:
    """``(features, channels // groups, *window)`` to ``(*window, channels // groups, features)``."""
    return np.moveaxis(weight, (0, 1), (-1, -2))


@pytest.mark.parametrize(
    ("space", "window", "options", "torch_options"),
    [
        ((9,), (3,), {"padding": 1}, {"padding": 1}),
        ((7, 6), (3, 3), {}, {"padding": "same"}),
        ((7, 6), (3, 2), {"strides": 2, "padding": "VALID"}, {"stride": 2}),
        ((8, 9), (3, 3), {"dilation": 2, "padding": (2, 1)}, {"dilation": 2, "padding": (2, 1)}),
        ((7, 6), (3, 3), {"groups": 2, "strides": (1, 2), "padding": 1}, {"groups": 2, "stride": (1, 2), "padding": 1}),
        ((7, 6), (1, 1), {}, {}),
        ((4, 5, 3), (2, 3, 2), {"strides": 2, "padding": 1}, {"stride": 2, "padding": 1}),
    ],
)
def test_conv_agrees_with_pytorch(space: Any, window: Any, options: Any, torch_options: Any) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    function = getattr(torch.nn.functional, f"conv{len(window)}d")
    weight = normal(6, 4 // options.get("groups", 1), *window, seed=1)
    compare(conv(6, window, **options), normal(2, *space, 4), weight, lambda *a: function(*a, **torch_options), torch_layout)
