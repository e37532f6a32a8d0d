from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.ops import conv_cpu, conv_rule
from fnn.ops.conv_plain import Geometry, plain_product
from fnn.ops.conv_products import conv_product
from tests.ops.test_conv_padding import OPERANDS, arrays

NAMES = [name for name in dir(conv_cpu) if name.endswith(("_y", "_x", "_kernel"))]


def ways(
    monkeypatch: pytest.MonkeyPatch,
    of: str,
    *,
    batch: int = 32,
    size: int = 28,
    channels: int,
    features: int,
    window: int = 3,
    stride: int = 1,
    groups: int = 1,
    space: int = 2,
    derived: bool = True,
) -> list[str]:
    """Names of the ways that a product takes, outermost first."""
    low = (window - 1) // 2
    padding = ((low, window - 1 - low),) * space
    geometry = Geometry((size,) * space, (window,) * space, (stride,) * space, padding, (1,) * space, groups)
    shapes = {
        "x": (batch, *geometry.sizes, channels),
        "kernel": (*geometry.window, channels // groups, features),
        "y": (batch, *geometry.outputs, features),
    }
    a, b = (jax.ShapeDtypeStruct(shapes[name], jnp.float32) for name in shapes if name != of)
    taken: list[str] = []
    for name in NAMES:
        real = getattr(conv_cpu, name)

        def recorded(*arguments: Any, real: Any = real, name: str = name) -> Any:
            taken.append(name)
            return real(*arguments)

        monkeypatch.setattr(conv_cpu, name, recorded)
    product = lambda a, b: conv_rule.fast_product(a, b, of=of, geometry=geometry, derived=derived)
    result = jax.eval_shape(product, *((b, a) if of == "x" else (a, b)))
    assert result.shape == shapes[of]
    return list(dict.fromkeys(taken))


CASES = {
    "the first layer of MNIST": ("y", {"channels": 1, "features": 32}, ["direct_y", "sum_y"]),
    "the same, many images": ("y", {"batch": 128, "channels": 1, "features": 32}, ["sum_y"]),
    "one image of it": ("y", {"batch": 1, "channels": 1, "features": 32}, ["direct_y"]),
    "the first layer of CIFAR": ("y", {"batch": 128, "size": 32, "channels": 3, "features": 32}, ["sum_y"]),
    "the same without a derivative": (
        "y",
        {"batch": 128, "channels": 1, "features": 32, "derived": False},
        ["direct_y"],
    ),
    "small images without a derivative": (
        "y",
        {"batch": 8, "size": 8, "channels": 64, "features": 64, "derived": False},
        ["direct_y"],
    ),
    "wide images without a derivative": (
        "y",
        {"size": 56, "channels": 64, "features": 64, "derived": False},
        ["direct_y"],
    ),
    "depthwise without a derivative": (
        "y",
        {"channels": 8, "features": 8, "groups": 8, "derived": False},
        ["depthwise_y"],
    ),
    "small images": ("y", {"size": 8, "channels": 64, "features": 64}, ["rows_y"]),
    "wide images": ("y", {"size": 56, "channels": 64, "features": 64}, ["tall_y", "direct_y"]),
    "one small image": ("y", {"batch": 1, "channels": 32, "features": 64}, ["direct_y"]),
    "few channels": ("y", {"size": 32, "channels": 16, "features": 16}, ["direct_y"]),
    "strides": ("y", {"channels": 32, "features": 64, "stride": 2}, ["direct_y"]),
    "the gradient of images with colours": ("x", {"channels": 3, "features": 32}, ["rows_y"]),
    "the gradient of small images": ("x", {"size": 8, "channels": 64, "features": 64}, ["rows_y"]),
    "the gradient of strides": (
        "x",
        {"channels": 16, "features": 32, "stride": 2},
        ["subpixel_x", "direct_y", "sum_y"],
    ),
    "the gradient of strides that divide the window": (
        "x",
        {"channels": 16, "features": 32, "stride": 2, "window": 4},
        ["subpixel_x", "tall_y", "direct_y"],
    ),
    "the kernel of the first layer": ("kernel", {"channels": 1, "features": 32}, ["taps_kernel"]),
    "a large kernel of the first layer": ("kernel", {"channels": 1, "features": 6, "window": 5}, ["direct_kernel"]),
    "the kernel of few channels": ("kernel", {"channels": 16, "features": 16}, ["direct_kernel"]),
    "the kernel of many channels": ("kernel", {"channels": 64, "features": 64}, ["split_kernel"]),
    "depthwise": ("y", {"channels": 8, "features": 8, "groups": 8}, ["depthwise_y"]),
    "the gradient of depthwise": ("x", {"channels": 8, "features": 8, "groups": 8}, ["depthwise_x", "depthwise_y"]),
    "the kernel of depthwise": ("kernel", {"channels": 8, "features": 8, "groups": 8}, ["depthwise_kernel"]),
    "the kernel of a multiplier": (
        "kernel",
        {"channels": 8, "features": 16, "groups": 8},
        ["taps_kernel"],
    ),
    "large groups": ("y", {"channels": 64, "features": 64, "groups": 2}, ["tall_y", "direct_y"]),
    "small groups": ("y", {"channels": 64, "features": 64, "groups": 16}, ["direct_y"]),
    "the gradient of small groups": ("x", {"channels": 64, "features": 64, "groups": 16}, ["direct_x"]),
    "sequences": ("y", {"channels": 32, "features": 32, "space": 1}, ["direct_y"]),
    "the gradient of sequences": ("x", {"channels": 32, "features": 32, "space": 1}, ["direct_x"]),
    "the kernel of sequences": ("kernel", {"channels": 32, "features": 32, "space": 1}, ["direct_kernel"]),
    "volumes": ("y", {"size": 8, "channels": 32, "features": 32, "space": 3}, ["direct_y"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_shape_goes_the_way_that_was_fastest(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of, sizes, expected = CASES[case]
    assert ways(monkeypatch, of, **sizes) == expected


def test_every_way_is_taken_by_some_shape() -> None:
    assert {name for _, _, names in CASES.values() for name in names} == set(NAMES)


# The smallest shapes that choose each formulation of y, of x and of the kernel, where several are nested the innermost.
CHOSEN = {
    "sums": ({"batch": 8, "size": 24, "channels": 1, "features": 2}, ("sum_y", "direct_y", "taps_kernel")),
    "rows": ({"batch": 16, "size": 6, "channels": 32, "features": 32}, ("rows_y", "rows_y", "direct_kernel")),
    "tall": ({"batch": 4, "size": 32, "channels": 32, "features": 32}, ("tall_y", "tall_y", "direct_kernel")),
    "split": ({"batch": 2, "size": 12, "channels": 64, "features": 64}, ("direct_y", "direct_y", "split_kernel")),
    "strided": (
        {"batch": 17, "size": 12, "channels": 16, "features": 12, "stride": 2},
        ("direct_y", "subpixel_x", "direct_kernel"),
    ),
    "strided, few channels": (
        {"batch": 2, "size": 9, "channels": 2, "features": 3, "stride": 2, "window": 5},
        ("direct_y", "subpixel_x", "direct_kernel"),
    ),
    "depthwise": (
        {"batch": 2, "size": 6, "channels": 4, "features": 4, "groups": 4},
        ("depthwise_y", "depthwise_x", "depthwise_kernel"),
    ),
    "grouped": (
        {"batch": 2, "size": 6, "channels": 32, "features": 32, "groups": 2},
        ("direct_y", "direct_y", "direct_kernel"),
    ),
}


@pytest.fixture
def optimized() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("case", CHOSEN)
def test_the_chosen_formulations_are_right_compiled_as_users_compile_them(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, Any] = CHOSEN[case][0]
    names = CHOSEN[case][1]
    for of, name in zip(("y", "x", "kernel"), names):
        assert name in ways(monkeypatch, of, **sizes)
    monkeypatch.undo()
    window, stride, groups = sizes.get("window", 3), sizes.get("stride", 1), sizes.get("groups", 1)
    padding = (((window - 1) // 2, window // 2),) * 2
    geometry = Geometry((sizes["size"],) * 2, (window,) * 2, (stride,) * 2, padding, (1, 1), groups)
    given = arrays(geometry, sizes["channels"], sizes["features"], sizes["batch"])

    def run(x: Any, kernel: Any, g: Any) -> Any:
        y, back = jax.vjp(lambda x, kernel: conv_product("y", x, kernel, geometry), x, kernel)
        return y, *back(g)

    got = jax.jit(run)(given["x"], given["kernel"], given["y"])
    with jax.enable_x64(True):
        double = {name: jnp.asarray(array, jnp.float64) for name, array in given.items()}
        pairs = {of: [double[name] for name in OPERANDS[of]] for of in ("y", "x", "kernel")}
        exact = [plain_product(of, a, b, geometry) for of, (a, b) in pairs.items()]
    for array, wanted in zip(got, exact):
        np.testing.assert_allclose(array, wanted, atol=3e-6 * np.abs(wanted).max())
