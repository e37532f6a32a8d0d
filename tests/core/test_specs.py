import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.specs import Spec, same, show, specs, zeros


def test_specs_have_the_dtype_that_jax_would_give() -> None:
    assert specs(np.ones(3, np.float64)).dtype == jnp.float32
    assert specs(Spec((3,), np.dtype("float64"))).dtype == jnp.float32
    assert specs(2.0).shape == ()


def test_specs_of_a_tree_keep_its_structure(key: jax.Array) -> None:
    tree = {"a": (np.ones((2, 3)), key), "b": np.arange(4, dtype=np.int32)}
    found = specs(tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert found["a"][1].dtype == key.dtype
    assert same(specs(zeros({"b": found["b"]})), {"b": found["b"]})


def test_trees_are_the_same_only_with_equal_structure_shapes_and_dtypes() -> None:
    a = {"x": Spec((2,), jnp.float32)}
    assert same(a, {"x": Spec((2,), jnp.float32)})
    assert not same(a, {"y": Spec((2,), jnp.float32)})
    assert not same(a, {"x": Spec((3,), jnp.float32)})
    assert not same(a, {"x": Spec((2,), jnp.bfloat16)})


def test_arrays_are_shown_by_dtype_and_shape() -> None:
    assert show((np.ones((2, 3), np.float32), {"ids": np.ones(4, np.int32)})) == "float32[2,3], {ids: int32[4]}"
    assert show(None) == "NoneType"
