"""Every way to compute a product agrees with the plain one, on every geometry that it is for."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from fnn.ops import conv_cpu
from fnn.ops.conv_cpu import Product
from fnn.ops.conv_plain import Geometry, plain_product

GEOMETRIES = {
    "valid": Geometry((6, 5), (3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "same": Geometry((5, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "one side": Geometry((5, 6), (3, 2), (1, 1), ((2, 0), (0, 1)), (1, 1), 1),
    "wide steps": Geometry((6, 9), (3, 3), (1, 2), ((1, 1), (0, 2)), (1, 1), 1),
    "dilated": Geometry((8, 9), (3, 2), (1, 1), ((1, 2), (0, 1)), (2, 3), 1),
    "cropped": Geometry((7, 8), (3, 3), (1, 1), ((-1, 0), (1, -2)), (1, 1), 1),
    "strided": Geometry((7, 9), (3, 3), (2, 3), ((1, 1), (1, 0)), (1, 1), 1),
    "strides beyond the window": Geometry((9, 8), (2, 1), (3, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "strided and dilated": Geometry((9, 9), (3, 2), (2, 2), ((1, 0), (0, 1)), (2, 1), 1),
    "sequence": Geometry((7,), (3,), (2,), ((1, 1),), (1,), 1),
    "volume": Geometry((4, 3, 5), (2, 3, 2), (1, 2, 1), ((0, 1), (1, 1), (0, 0)), (1, 1, 1), 1),
}
IMAGES = [name for name in GEOMETRIES if name not in ("sequence", "volume")]
SINGLE_ROWS = [name for name in IMAGES if GEOMETRIES[name].strides[0] == 1]
UNDILATED = [name for name in IMAGES if GEOMETRIES[name].dilation == (1, 1) and name != "cropped"]

# By way: the product, the way, the geometries.
WAYS: dict[str, tuple[str, Product, list[str]]] = {
    "direct y": ("y", conv_cpu.direct_y, ["strided and dilated", "volume"]),
    "direct x": ("x", conv_cpu.direct_x, list(GEOMETRIES)),
    "direct kernel": ("kernel", conv_cpu.direct_kernel, list(GEOMETRIES)),
    "sum": ("y", conv_cpu.sum_y, ["one side", "cropped", "strided and dilated", "sequence", "volume"]),
    "apart": ("y", conv_cpu.apart(conv_cpu.sum_y), ["same", "strided"]),
    "rows": ("y", conv_cpu.rows_y, SINGLE_ROWS),
    "tall": ("y", conv_cpu.tall_y, ["valid", "dilated", "strided"]),
    "subpixel": (
        "x",
        partial(conv_cpu.subpixel_x, product=conv_cpu.direct_y),
        [n for n in UNDILATED if n != "cropped"],
    ),
    "split": ("kernel", conv_cpu.split_kernel, SINGLE_ROWS),
    "chunks": ("kernel", conv_cpu.chunked(conv_cpu.direct_kernel, 2), ["same", "strided"]),
}


def operands(of: str, geometry: Geometry, batch: int, channels: int, features: int) -> tuple[jax.Array, jax.Array]:
    shapes = {
        "x": (batch, *geometry.sizes, channels),
        "kernel": (*geometry.window, channels // geometry.groups, features),
        "y": (batch, *geometry.outputs, features),
    }
    keys = jax.random.split(jax.random.key(math.prod(geometry.sizes)))
    a, b = (jax.random.normal(key, shapes[name]) for key, name in zip(keys, [name for name in shapes if name != of]))
    return (b, a) if of == "x" else (a, b)


def check(of: str, way: Product, geometry: Geometry, channels: int, features: int, batch: int = 5) -> None:
    a, b = operands(of, geometry, batch, channels, features)
    expected = plain_product(of, a, b, geometry)
    y = jax.jit(lambda a, b: way(a, b, geometry))(a, b)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=2e-6 * math.prod(b.shape))


@pytest.mark.parametrize(("way", "name"), [(way, name) for way, (_, _, names) in WAYS.items() for name in names])
def test_a_way_agrees_with_the_plain_product(way: str, name: str) -> None:
    of, product, _ = WAYS[way]
    check(of, product, GEOMETRIES[name], channels=3, features=4)


@pytest.mark.parametrize("name", ["same", "strided", "dilated"])
def test_one_channel_is_one_matrix_product(name: str) -> None:
    check("kernel", conv_cpu.taps_kernel, GEOMETRIES[name], channels=1, features=3)


@pytest.mark.parametrize("name", ["same", "strided", "strided and dilated", "sequence"])
def test_depthwise_sums_agree_with_the_plain_product(name: str) -> None:
    geometry = GEOMETRIES[name]._replace(groups=4)
    for features in (4, 8):
        check("y", conv_cpu.depthwise_y, geometry, 4, features)
        check("x", conv_cpu.depthwise_x, geometry, 4, features)
    check("kernel", conv_cpu.depthwise_kernel, geometry, 4, 4)


@pytest.mark.parametrize(
    ("of", "way"), [("y", conv_cpu.direct_y), ("x", conv_cpu.direct_x), ("kernel", conv_cpu.direct_kernel)]
)
def test_groups_one_after_the_other_are_all_groups(of: str, way: Product) -> None:
    check(of, conv_cpu.grouped(way), GEOMETRIES["wide steps"]._replace(groups=2), channels=6, features=4)


def test_an_infinite_first_element_changes_the_way_and_not_the_result() -> None:
    geometry = GEOMETRIES["same"]
    x, kernel = operands("y", geometry, 2, 3, 4)
    x = x.at[0, 0, 0, 0].set(np.inf)
    y = conv_cpu.apart(conv_cpu.sum_y)(x, kernel, geometry)
    np.testing.assert_allclose(y, plain_product("y", x, kernel, geometry), rtol=1e-5, atol=1e-5)


def test_chunks_leave_no_image_out() -> None:
    for batch in (4, 5, 7):
        check("kernel", conv_cpu.chunked(conv_cpu.direct_kernel, 2), GEOMETRIES["same"], 2, 3, batch)
