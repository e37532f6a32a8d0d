import jax
import jax.numpy as jnp
import pytest

from fnn.ops.dtypes import widen


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int32", "uint8", "bool"])
def test_what_is_narrow_becomes_float32(dtype: str) -> None:
    assert widen(jnp.ones(2, dtype)).dtype == jnp.float32


def test_what_is_wide_stays() -> None:
    assert widen(jnp.ones(2, jnp.complex64)).dtype == jnp.complex64
    with jax.enable_x64(True):
        assert widen(jnp.ones(2, jnp.float64)).dtype == jnp.float64
