import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.ops.linear import linear

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)


@pytest.mark.parametrize("leading", [(), (5,), (2, 5), (2, 3, 5), (0, 5)])
def test_it_is_the_product_over_the_last_axis(leading: tuple[int, ...]) -> None:
    x = jnp.asarray(RNG.normal(size=(*leading, 3)), jnp.float32)
    np.testing.assert_allclose(
        linear(x, jnp.asarray(KERNEL), jnp.asarray(BIAS)), np.asarray(x) @ KERNEL + BIAS, atol=1e-5
    )
    np.testing.assert_allclose(linear(x, jnp.asarray(KERNEL)), np.asarray(x) @ KERNEL, atol=1e-5)


def test_leading_axes_are_flattened_for_the_product() -> None:
    jaxpr = str(jax.make_jaxpr(linear)(jnp.ones((2, 5, 3)), jnp.asarray(KERNEL)))
    assert "10,4" in jaxpr


def test_the_result_has_the_dtype_of_x() -> None:
    with jax.numpy_dtype_promotion("strict"):
        y = linear(jnp.ones((2, 3), jnp.bfloat16), jnp.asarray(KERNEL), jnp.asarray(BIAS))
    assert y.dtype == jnp.bfloat16


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"x is int32, wanted a floating dtype; convert it first: x\.astype"):
        linear(jnp.ones((2, 3), jnp.int32), jnp.asarray(KERNEL))


def test_features_that_the_kernel_was_not_made_for_are_refused() -> None:
    with pytest.raises(ValueError, match="x has 5 features on its last axis and the kernel was made for 3"):
        linear(jnp.ones((2, 5)), jnp.asarray(KERNEL))
