from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.combinators import serial
from fnn.core.errors import LayerError
from fnn.core.layer import Layer
from fnn.layers.conv import conv, conv_transpose, depthwise_conv

NO_TORCH = "compares with PyTorch, which is not installed"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def compare(
    net: Layer,
    x: np.ndarray,
    weight: np.ndarray,
    function: Callable[..., Any],
    port: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Compare values and gradients with a PyTorch function of x, weight and bias; ``port`` maps its weight to ours."""
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    kernel, bias = port(weight), normal(*params["bias"].shape, seed=2)
    assert kernel.shape == params["kernel"].shape
    params = {"kernel": kernel, "bias": bias}
    cotangent = normal(*jax.eval_shape(net.apply, params, state, x)[0].shape, seed=3)

    @jax.jit
    def run(params: Any, x: Any) -> Any:
        y, back = jax.vjp(lambda params, x: net.apply(params, state, x)[0], params, x)
        return y, *back(cotangent)

    y, grads, x_grad = run(params, x)

    first = lambda a: torch.from_numpy(np.moveaxis(a, -1, 1).copy())
    last = lambda tensor: np.moveaxis(tensor.detach().numpy(), 1, -1)
    tensors = [a.requires_grad_() for a in (first(x), torch.from_numpy(weight), torch.from_numpy(bias))]
    out = function(*tensors)
    out.backward(first(cotangent))
    np.testing.assert_allclose(y, last(out), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x_grad, last(tensors[0].grad), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads["kernel"], port(tensors[1].grad.numpy()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads["bias"], tensors[2].grad.numpy(), rtol=1e-4, atol=1e-4)


def from_conv(weight: np.ndarray) -> np.ndarray:
    """``(features, channels // groups, *window)`` of PyTorch to ``(*window, channels // groups, features)``."""
    return np.moveaxis(weight, (0, 1), (-1, -2))


def from_conv_transpose(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """``(channels, features // groups, *window)`` of PyTorch to ``(*window, channels // groups, features)``."""
    flipped = np.flip(weight, axis=tuple(range(2, weight.ndim)))
    return np.concatenate([np.moveaxis(part, (0, 1), (-2, -1)) for part in np.split(flipped, groups)], axis=-1)


@pytest.mark.parametrize(
    ("space", "window", "options", "theirs"),
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
def test_conv_agrees_with_pytorch(space: Any, window: Any, options: Any, theirs: Any) -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    function = getattr(torch.nn.functional, f"conv{len(window)}d")
    weight = normal(6, 4 // options.get("groups", 1), *window, seed=1)
    net = conv(6, window, **options)
    compare(net, normal(2, *space, 4), weight, lambda *tensors: function(*tensors, **theirs), from_conv)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_conv_agrees_with_pytorch(multiplier: int) -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    net = depthwise_conv((3, 2), multiplier=multiplier, strides=(2, 1), dilation=(1, 2), padding=1)
    theirs = {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 3}
    weight = normal(3 * multiplier, 1, 3, 2, seed=1)
    compare(net, normal(2, 7, 6, 3), weight, lambda *a: torch.nn.functional.conv2d(*a, **theirs), from_conv)


@pytest.mark.parametrize(
    ("space", "window", "options", "theirs"),
    [
        ((4, 3), (4, 4), {"strides": 2}, {"stride": 2, "padding": 1}),
        ((4, 3), (2, 2), {"strides": 2}, {"stride": 2}),
        ((4, 3), (3, 2), {"strides": 2, "padding": "VALID"}, {"stride": 2}),
        ((4, 3), (3, 3), {"strides": 2, "padding": ((1, 0),) * 2}, {"stride": 2, "padding": 1, "output_padding": 1}),
        ((4, 3), (3, 3), {"dilation": 2, "padding": 1}, {"dilation": 2, "padding": 1}),
        ((4, 3), (3, 3), {"groups": 2, "padding": (0, 1)}, {"groups": 2, "padding": (0, 1)}),
        ((5,), (5,), {"strides": 3, "padding": 1}, {"stride": 3, "padding": 1}),
        ((3, 2, 3), (2, 3, 2), {"strides": (2, 1, 2), "padding": "VALID"}, {"stride": (2, 1, 2)}),
    ],
)
def test_conv_transpose_agrees_with_pytorch(space: Any, window: Any, options: Any, theirs: Any) -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    function = getattr(torch.nn.functional, f"conv_transpose{len(window)}d")
    groups = options.get("groups", 1)
    compare(
        conv_transpose(6, window, **options),
        normal(2, *space, 4),
        normal(4, 6 // groups, *window, seed=1),
        lambda *tensors: function(*tensors, **theirs),
        lambda weight: from_conv_transpose(weight, groups),
    )


def test_conv_transpose_has_the_output_padding_of_pytorch() -> None:
    # An output_padding larger than the padding was refused.
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    x, weight = normal(1, 3, 4, 2), normal(2, 3, 3, 2, seed=1)
    kernel = from_conv_transpose(weight)
    first = lambda a: torch.from_numpy(np.moveaxis(a, -1, 1).copy())
    grid = [
        (stride, dilation, p, q)
        for stride in (1, 2, 3)
        for dilation in (1, 2)
        for p in (0, 1, 2)
        for q in range(max(stride, dilation))
    ]
    nets = [
        conv_transpose(3, (3, 2), strides=stride, dilation=dilation, padding=[(p, p - q)] * 2, bias=False)
        for stride, dilation, p, q in grid
    ]
    ours = jax.jit(lambda x: [net.apply({"kernel": kernel}, {}, x)[0] for net in nets])(x)
    for (stride, dilation, p, q), y in zip(grid, ours):
        options = {"stride": stride, "dilation": dilation, "padding": p, "output_padding": q}
        wanted = torch.nn.functional.conv_transpose2d(first(x), torch.from_numpy(weight), **options)
        np.testing.assert_allclose(y, np.moveaxis(wanted.numpy(), 1, -1), rtol=1e-4, atol=1e-5, err_msg=str(options))


@pytest.mark.parametrize("padding", ["CAUSAL", "REFLECT", "CIRCULAR"])
def test_layers_take_padding_modes(padding: str) -> None:
    x = normal(2, 6, 4)
    pairs = [(0, 0), (2, 0) if padding == "CAUSAL" else (1, 1), (0, 0)]
    modes: dict[str, Any] = {"CAUSAL": "constant", "REFLECT": "reflect", "CIRCULAR": "wrap"}
    padded = np.pad(x, pairs, modes[padding])
    for make in (lambda padding: conv(4, (3,), padding=padding), lambda padding: depthwise_conv((3,), padding=padding)):
        params, state = make(padding).init(jax.random.key(0), x)
        wanted = make("VALID").apply(params, state, padded)[0]
        np.testing.assert_allclose(make(padding).apply(params, state, x)[0], wanted, rtol=1e-5, atol=1e-6)


def test_the_documented_port_from_pytorch_is_the_tested_one() -> None:
    weight = normal(4, 6, 3, 2)
    np.testing.assert_array_equal(weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), from_conv_transpose(weight))


@pytest.mark.parametrize(("window", "strides"), [((4, 3), (2, 2)), ((3, 3), (1, 1)), ((2, 2), (3, 3))])
def test_same_transposed_multiplies_space_by_the_strides(window: tuple[int, int], strides: tuple[int, int]) -> None:
    x = jax.ShapeDtypeStruct((2, 5, 4, 3), jnp.float32)
    net = conv_transpose(2, window, strides=strides)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    assert jax.eval_shape(net.apply, params, state, x)[0].shape == (2, 5 * strides[0], 4 * strides[1], 2)


def test_a_causal_convolution_sees_no_later_step() -> None:
    net = conv(2, (3,), padding=((2, 0),))
    x = normal(1, 6, 2)
    params, state = net.init(jax.random.key(0), x)
    y, later = (net.apply(params, state, a)[0] for a in (x, jnp.asarray(x).at[:, 4:].set(0)))
    assert y.shape == (1, 6, 2)
    np.testing.assert_array_equal(y[:, :4], later[:, :4])
    assert not np.allclose(y[:, 4:], later[:, 4:])


MAKERS: dict[str, Callable[..., Layer]] = {
    "conv": lambda **options: conv(4, (3, 3), **options),
    "depthwise_conv": lambda **options: depthwise_conv((3, 3), multiplier=2, **options),
    "conv_transpose": lambda **options: conv_transpose(4, (3, 3), **options),
}
each_layer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each_layer
def test_parameters_are_float32_unless_told_otherwise(make: Callable[..., Layer]) -> None:
    for x_dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.ones((1, 4, 4, 2), x_dtype)
        for net, dtype in ((make(), jnp.float32), (make(dtype=jnp.bfloat16), jnp.bfloat16)):
            params, state = jax.eval_shape(net.init, jax.random.key(0), x)
            assert {name: leaf.dtype for name, leaf in params.items()} == {"kernel": dtype, "bias": dtype}
            assert jax.eval_shape(net.apply, params, state, x)[0].dtype == x_dtype


@each_layer
def test_without_bias_there_is_only_a_kernel_and_it_is_the_same(make: Callable[..., Layer]) -> None:
    x = normal(2, 4, 4, 2)
    params, state = make().init(jax.random.key(0), x)
    without, _ = make(bias=False).init(jax.random.key(0), x)
    assert set(without) == {"kernel"}
    np.testing.assert_array_equal(without["kernel"], params["kernel"])
    shifted = {**params, "bias": jnp.arange(4.0)}
    y = make(bias=False).apply(without, {}, x)[0]
    np.testing.assert_allclose(make().apply(shifted, state, x)[0], y + np.arange(4), rtol=1e-5, atol=1e-5)


@each_layer
def test_initializers_are_given_the_shape_and_dtype(make: Callable[..., Layer]) -> None:
    x = normal(2, 4, 4, 2)
    ones, twos = jax.nn.initializers.ones, jax.nn.initializers.constant(2)
    params, _ = make(kernel_init=ones, bias_init=twos, dtype=jnp.float16).init(jax.random.key(0), x)
    shapes = {name: leaf.shape for name, leaf in make().init(jax.random.key(0), x)[0].items()}
    np.testing.assert_array_equal(params["kernel"], np.ones(shapes["kernel"], np.float16))
    np.testing.assert_array_equal(params["bias"], np.full(shapes["bias"], 2, np.float16))


@pytest.mark.parametrize(
    "net",
    [conv(100, (3, 3), padding="VALID"), conv(100, (3, 3), padding="VALID", groups=4), depthwise_conv((5, 5))],
    ids=repr,
)
def test_outputs_begin_with_the_variance_of_the_inputs(net: Layer) -> None:
    x = normal(4, 12, 12, 400)
    params, state = net.init(jax.random.key(0), x)
    np.testing.assert_array_equal(params["bias"], np.zeros(params["bias"].shape))
    np.testing.assert_allclose(np.var(net.apply(params, state, x)[0][:, 2:-2, 2:-2]), 1, rtol=0.1)


def test_a_depthwise_feature_depends_on_its_own_channel_alone() -> None:
    x = normal(1, 5, 5, 3)
    net = depthwise_conv((3, 3), multiplier=2)
    params, state = net.init(jax.random.key(0), x)
    changed = jnp.asarray(x).at[..., 1].add(1)
    y, moved = (net.apply(params, state, a)[0] for a in (x, changed))
    assert [bool(np.any(y[..., i] != moved[..., i])) for i in range(6)] == [False, False, True, True, False, False]


IMAGES = jax.ShapeDtypeStruct((8, 28, 28, 6), jnp.float32)


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (conv(8, (3, 3)), jnp.ones((8, 28, 28)), r"x has 3 axes, wanted 4 .*add the channel axis, x\[\.\.\., None\]"),
        (depthwise_conv((3, 3)), jnp.ones((8, 28, 28)), r"add the channel axis, x\[\.\.\., None\]"),
        (conv_transpose(8, (3, 3)), jnp.ones((8, 28, 28)), r"add the channel axis, x\[\.\.\., None\]"),
        (conv(8, (3,)), IMAGES, r"wanted 3 .*\(batch, time, channels\); give the window 2 entries"),
        (conv(8, (3, 3)), jnp.ones((8, 28, 28, 1), jnp.uint8), r"x is uint8, .*x.astype\(jnp.float32\) / 255"),
        (depthwise_conv((3, 3)), jnp.ones((8, 28, 28, 1), jnp.int32), "x is int32, wanted a floating dtype"),
        (conv_transpose(8, (3, 3)), jnp.ones((8, 9, 9, 1), jnp.int32), "x is int32, wanted a floating dtype"),
        (conv(8, (3, 3), groups=4), IMAGES, "x has 6 channels, which groups=4 does not divide; .*: 1, 2"),
        (conv(8, (3, 3), groups=3), IMAGES, "features is 8, which groups=3 does not divide; .*: 1, 2"),
        (conv_transpose(8, (3, 3), groups=3), IMAGES, "features is 8, which groups=3 does not divide"),
        (conv(8, (3, 29), padding="VALID"), IMAGES, "the window spans 29 and axis 2 of x has size 28; use a smaller"),
        (conv(8, (3, 3), padding=1, dilation=15), IMAGES, r"spans 31 .* size 30 \(28 with padding 1 and 1\)"),
        (depthwise_conv((29, 3), padding=0), IMAGES, "the window spans 29 and axis 1 of x has size 28"),
        (conv_transpose(8, (3, 3), padding=15), IMAGES, "nothing is left of axis 1: its full size is 30"),
    ],
    ids=str,
)
def test_a_wrong_input_raises_at_init_with_the_path_and_the_fix(net: Layer, x: Any, message: str) -> None:
    with pytest.raises(LayerError) as caught:
        serial(stem=net).init(jax.random.key(0), x)
    assert caught.value.path == ("stem",)
    assert caught.value.layer == repr(net)
    assert caught.value.got.endswith(f"[{','.join(map(str, x.shape))}]")
    caught.match(rf"stem: (?s:.)*{message}")


def test_an_error_shows_the_configuration() -> None:
    text = repr(conv(8, (3, 3), strides=2))
    for part in ("conv(", "features=8", "window=(3, 3)", "strides=2", "padding='SAME'"):
        assert part in text


@each_layer
def test_parameters_of_another_number_of_channels_raise(make: Callable[..., Layer]) -> None:
    net = make()
    params, state = net.init(jax.random.key(0), normal(1, 4, 4, 2))
    with pytest.raises(LayerError, match="x has 6 channels"):
        net.apply(params, state, normal(1, 4, 4, 6))


@each_layer
def test_pixels_are_refused_by_apply_too(make: Callable[..., Layer]) -> None:
    net = make()
    params, state = net.init(jax.random.key(0), normal(1, 4, 4, 2))
    with pytest.raises(LayerError, match="x is uint8"):
        net.apply(params, state, np.ones((1, 4, 4, 2), np.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv(8, 3), r"window must be a tuple of positive ints.*got 3; write \(3,\)"),  # pyright: ignore
        (lambda: conv(0, (3, 3)), "features must be a positive int, got 0"),
        (lambda: conv(8, (3, 3), strides=0), "strides must be a positive int, got 0"),
        (lambda: conv(8, (3, 3), padding=-1), "padding must not be negative"),
        (lambda: conv(8, (3, 3), padding="same"), "padding must be \"SAME\".*got 'same'"),
        (lambda: conv(8, (3, 3), groups=0), "groups must be a positive int, got 0"),
        (lambda: depthwise_conv((3, 3), multiplier=0), "multiplier must be a positive int, got 0"),
        (lambda: depthwise_conv((3, 3), strides=(1, 2, 1)), "strides has 3 entries and the window 2"),
        (lambda: conv_transpose(8, (3, -3)), "window must be a tuple of positive ints"),
        (lambda: conv_transpose(8, (3, 3), padding="FULL"), "got 'FULL'"),
        (lambda: conv_transpose(8, (3, 3), groups=0), "groups must be a positive int, got 0"),
    ],
)
def test_a_wrong_setting_raises_where_it_is_written(make: Callable[[], Layer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
