import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fnn.ops.windows import check_geometry, check_groups, check_padding, check_rank, output_sizes, resolve_padding


@pytest.mark.parametrize("size", [1, 4, 7])
def test_same_padding_is_that_of_lax_and_keeps_the_size(size: int) -> None:
    for extent, stride in itertools.product((1, 2, 3, 6), (1, 2, 3, 5)):
        pairs = resolve_padding("SAME", (size,), (extent,), (stride,))
        assert pairs == tuple(lax.padtype_to_pads((size,), (extent,), (stride,), "SAME"))
        assert output_sizes((size,), (extent,), (stride,), pairs) == (-(-size // stride),)


def test_an_int_pads_both_ends_of_every_axis() -> None:
    assert check_padding(2, 2) == check_padding((2, 2), 2) == check_padding(((2, 2), [2, 2]), 2) == ((2, 2), (2, 2))
    assert check_padding((1, (0, 3)), 2) == ((1, 1), (0, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, r"window must be a tuple of positive ints, .*got 3; write \(3,\) for sequences"),
        ({"window": [3, 3]}, r"window must be a tuple .*got \[3, 3\]"),
        ({"window": ()}, r"window must be a tuple .*got \(\)"),
        ({"window": (3, 0)}, r"window must be a tuple .*got \(3, 0\)"),
        ({"window": (3, 1.5)}, r"window must be a tuple .*got \(3, 1.5\)"),
        ({"strides": 0}, "strides must be a positive int, got 0"),
        ({"strides": (1, -1)}, "strides must be a positive int, got -1"),
        ({"strides": (1, 1, 1)}, "strides has 3 entries and the window 2; give one int, or one for each axis"),
        ({"dilation": 0}, "dilation must be a positive int, got 0"),
        ({"padding": "same"}, 'padding must be "SAME", "VALID", an int, or pairs .*got \'same\''),
        ({"padding": "CAUSAL"}, "got 'CAUSAL'"),
        ({"padding": -1}, "padding must not be negative, got -1; crop x"),
        ({"padding": ((0, -1), (0, 0))}, "padding must not be negative"),
        ({"padding": ((1, 1),)}, r"padding has 1 entries and the window 2 axes.*\(\(1, 1\), \(1, 1\)\)"),
        ({"padding": ((1, 1, 1), 0)}, "padding must be .*got"),
        ({"padding": 0.5}, "padding must be .*got 0.5"),
        ({"padding": None}, "padding must be .*got None"),
    ],
)
def test_a_geometry_that_cannot_be_raises(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_geometry(**{"window": (3, 3), **options})


@pytest.mark.parametrize(
    ("shape", "space", "message"),
    [
        (
            (8, 28, 28),
            2,
            r"x has 3 axes, wanted 4 .*\(batch, height, width, channels\); add the channel axis, x\[\.\.\., None\]",
        ),
        (
            (8, 3, 28, 28, 1),
            2,
            r"x has 5 axes, wanted 4.*give the window 3 entries, .*x.reshape\(-1, \*x.shape\[-3:\]\)",
        ),
        ((8, 784), 2, r"x has 2 axes, wanted 4.*reshape it"),
        ((8, 9), 1, r"\(batch, time, channels\); add the channel axis"),
    ],
)
def test_a_wrong_rank_raises_and_says_the_fix(shape: tuple[int, ...], space: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rank(jax.ShapeDtypeStruct(shape, jnp.float32), space)


def test_the_reshape_that_an_error_proposes_has_the_wanted_rank() -> None:
    x = np.zeros((8, 3, 28, 28, 1))
    check_rank(x.reshape(-1, *x.shape[-3:]), 2)


@pytest.mark.parametrize(
    ("channels", "features", "groups", "message"),
    [
        (6, 4, 4, "x has 6 channels, which groups=4 does not divide; .*: 1, 2$"),
        (4, 6, 4, "features is 6, which groups=4 does not divide; .*: 1, 2$"),
        (4, 4, 0, "groups must be a positive int, got 0"),
    ],
)
def test_groups_that_do_not_divide_raise(channels: int, features: int, groups: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_groups(channels, features, groups)
