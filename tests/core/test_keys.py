import zlib

import jax
import jax.numpy as jnp
import pytest

from fnn.core.keys import check_key, fold


def test_a_name_is_folded_as_its_crc32(key: jax.Array) -> None:
    expected = jax.random.fold_in(key, jnp.uint32(zlib.crc32(b"kernel")))
    assert jax.random.key_data(fold(key, "kernel")).tolist() == jax.random.key_data(expected).tolist()


def test_names_give_different_numbers(key: jax.Array) -> None:
    names = [f"dense_{number}" for number in range(50)]
    assert len({int(jax.random.bits(fold(key, name))) for name in names}) == 50


def test_the_order_of_a_path_matters(key: jax.Array) -> None:
    one, other = fold(fold(key, "a"), "b"), fold(fold(key, "b"), "a")
    assert jax.random.key_data(one).tolist() != jax.random.key_data(other).tolist()


@pytest.mark.parametrize("bad", [0, None, jnp.zeros(2, jnp.uint32)])
def test_a_legacy_key_is_an_error_that_names_the_typed_one(bad: object) -> None:
    with pytest.raises(TypeError, match=r"jax\.random\.key\(0\)"):
        check_key(bad)  # pyright: ignore[reportArgumentType]


def test_an_array_of_keys_is_an_error_that_names_vmap(key: jax.Array) -> None:
    with pytest.raises(TypeError, match=r"jax\.vmap"):
        check_key(jax.random.split(key))
