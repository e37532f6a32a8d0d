from typing import Any

import jax
import jax.numpy as jnp
import pytest

from fnn.ops.checks import check_floating, check_positive_int, check_range


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None])
def test_what_is_no_positive_int_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="features must be a positive int, got"):
        check_positive_int("features", value)


def test_a_concrete_value_out_of_range_is_refused_and_a_traced_one_passes() -> None:
    with pytest.raises(ValueError, match=r"rate must lie in \[0\.0, 1\.0\), got 1\.0"):
        check_range("rate", 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="rate must lie in"):
        check_range("rate", jnp.float32(-0.1), 0.0, 1.0)
    with pytest.raises(ValueError, match="rate must lie in"):
        check_range("rate", float("nan"), 0.0, 1.0)
    check_range("momentum", 1.0, 0.0, 1.0, closed=True)
    jax.jit(lambda rate: check_range("rate", rate, 0.0, 1.0))(2.0)


def test_pixels_are_told_to_be_scaled() -> None:
    with pytest.raises(TypeError, match=r"x\.astype\(jnp\.float32\) / 255 for pixels"):
        check_floating(jnp.ones(2, jnp.uint8))
    for dtype in (jnp.bfloat16, jnp.float32, jnp.complex64):
        check_floating(jnp.ones(2, dtype))
