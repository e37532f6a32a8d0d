"""Trees by path: lookup, masks, sizes and penalties."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn.trees import at, count, l1, l2, mask, nbytes

PARAMS: dict[str, Any] = {
    "body": {
        "dense_0": {"kernel": jnp.array([[1.0, -2.0], [3.0, -4.0]]), "bias": jnp.array([5.0, -6.0])},
        "norm": {"scale": jnp.array([7.0])},
    },
    "head": {"kernel": jnp.array([[8.0], [-9.0]]), "bias": jnp.array([10.0])},
}


def leaf(tree: Any, path: str) -> Any:
    return at(tree, path)


def marked(*patterns: str) -> set[str]:
    pairs = jax.tree.leaves_with_path(mask(PARAMS, *patterns))
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, wanted in pairs if wanted}


def test_at_gives_a_subtree_or_a_leaf() -> None:
    assert at(PARAMS, "body/norm") is PARAMS["body"]["norm"]
    assert at(PARAMS, "head/kernel") is PARAMS["head"]["kernel"]
    assert at(PARAMS, "") is PARAMS


@pytest.mark.parametrize(
    ("path", "closest"),
    [
        ("head/kernal", "head/kernel"),
        ("bodi/norm", "body/norm"),
        ("body/dense_0/kernels", "body/dense_0/kernel"),
        ("head/kernel/deeper", "head/kernel"),
        ("body/dropout_0", "body/norm"),
        ("Head", "head"),
    ],
)
def test_at_names_the_closest_paths_where_the_tree_has_none(path: str, closest: str) -> None:
    """It was an empty dict, so that a typo looked like a layer without parameters."""
    with pytest.raises(ValueError, match=f"no path '{path}': the closest are .*{closest}.*; a layer that owns no"):
        at(PARAMS, path)


def test_at_of_an_empty_tree_and_of_no_tree() -> None:
    with pytest.raises(ValueError, match="it has no leaves"):
        at({}, "head")
    with pytest.raises(TypeError, match=r"nested dicts, such as run\.params, got tuple"):
        at((PARAMS,), "head")  # pyright: ignore[reportArgumentType]


def test_mask_is_a_tree_of_python_bools() -> None:
    found = mask(PARAMS, "head/*")
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    assert {type(leaf) for leaf in jax.tree.leaves(found)} == {bool}


def test_a_pattern_is_matched_against_the_whole_path_across_slashes() -> None:
    assert marked("*kernel") == {"body/dense_0/kernel", "head/kernel"}
    assert marked("body/*") == {"body/dense_0/kernel", "body/dense_0/bias", "body/norm/scale"}
    assert marked("*/bias") == {"body/dense_0/bias", "head/bias"}
    assert marked("head/kernel") == {"head/kernel"}
    assert marked("body/dense_?/[kb]*") == {"body/dense_0/kernel", "body/dense_0/bias"}


def test_several_patterns_are_a_union() -> None:
    assert marked("*scale", "*bias") == {"body/norm/scale", "body/dense_0/bias", "head/bias"}


def test_mask_works_on_shapes_and_on_tracers() -> None:
    wanted = mask(PARAMS, "*kernel")
    assert mask(jax.eval_shape(lambda: PARAMS), "*kernel") == wanted
    seen = []
    jax.jit(lambda params: seen.append(mask(params, "*kernel")))(PARAMS)
    assert seen == [wanted]


def test_a_pattern_that_matches_nothing_names_the_closest_paths() -> None:
    with pytest.raises(ValueError, match=r"'head/kernal' matches no leaf; the closest paths are head/kernel"):
        mask(PARAMS, "*bias", "head/kernal")
    with pytest.raises(ValueError, match=r"'HEAD/\*' matches no leaf"):
        mask(PARAMS, "HEAD/*")
    for penalty in (l1, l2):
        with pytest.raises(ValueError, match="'kernels' matches no leaf"):
            penalty(PARAMS, "kernels")


def test_the_name_of_a_subtree_matches_nothing_and_says_what_would() -> None:
    with pytest.raises(ValueError, match=r"'body/dense_0' matches no leaf; .* write 'body/dense_0/\*'"):
        mask(PARAMS, "body/dense_0")


def test_a_tree_without_leaves_matches_nothing() -> None:
    with pytest.raises(ValueError, match="the tree has none"):
        mask({}, "*")
    with pytest.raises(ValueError, match="the tree has none"):
        l2({}, "*")


def test_a_mask_without_patterns_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least one"):
        mask(PARAMS)


def test_a_list_of_patterns_is_refused() -> None:
    with pytest.raises(TypeError, match="unpack"):
        mask(PARAMS, ["*kernel", "*bias"])  # pyright: ignore[reportArgumentType]


def test_multi_transform_freezes_what_is_not_marked() -> None:
    transforms: dict[Hashable, optax.GradientTransformation] = {True: optax.sgd(0.5), False: optax.set_to_zero()}
    optimizer = optax.multi_transform(transforms, lambda params: mask(params, "head/*"))
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    moved = optax.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(leaf(moved, "body/dense_0/kernel"), at(PARAMS, "body/dense_0/kernel"))
    np.testing.assert_array_equal(leaf(moved, "head/kernel"), at(PARAMS, "head/kernel") / 2)


def test_weight_decay_takes_a_mask() -> None:
    decay = optax.add_decayed_weights(0.1, mask=mask(PARAMS, "*kernel"))
    updates, _ = decay.update(jax.tree.map(jnp.zeros_like, PARAMS), decay.init(PARAMS), PARAMS)
    np.testing.assert_allclose(leaf(updates, "head/kernel"), 0.1 * at(PARAMS, "head/kernel"))
    assert not leaf(updates, "head/bias").any()


def test_count_and_nbytes_add_up_sizes() -> None:
    tree = {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": {"c": np.zeros(5, np.float64), "d": jnp.zeros((), jnp.int8)}}
    assert count(tree) == 6 + 5 + 1
    assert nbytes(tree) == 12 + 40 + 1
    assert count(jax.eval_shape(lambda: PARAMS)) == 10
    assert nbytes(jax.eval_shape(lambda: PARAMS)) == 40
    assert (count({}), nbytes({})) == (0, 0)


def test_a_key_in_a_tree_has_a_size(key: jax.Array) -> None:
    assert count({"key": key}) == 1
    assert nbytes({"key": key}) == jax.random.key_data(key).nbytes


def test_penalties_are_sums_over_the_leaves_that_match() -> None:
    assert l1(PARAMS) == 55
    assert l2(PARAMS) == sum(i * i for i in range(1, 11))
    assert l1(PARAMS, "*kernel") == 1 + 2 + 3 + 4 + 8 + 9
    assert l2(PARAMS, "*kernel", "head/*") == 1 + 4 + 9 + 16 + 64 + 81 + 100
    assert l2({}) == 0


def test_the_gradient_of_l2_is_twice_the_weights_and_zero_elsewhere() -> None:
    grads = jax.jit(jax.grad(lambda params: l2(params, "*kernel")))(PARAMS)
    np.testing.assert_array_equal(leaf(grads, "head/kernel"), 2 * at(PARAMS, "head/kernel"))
    assert not leaf(grads, "head/bias").any()


def test_the_gradient_of_l1_is_the_sign() -> None:
    params = {"kernel": jnp.array([2.0, 0.0, -3.0])}
    assert jax.grad(l1)(params)["kernel"].tolist() == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("penalty", [l1, l2])
def test_penalties_of_bfloat16_are_summed_in_float32(penalty: Any) -> None:
    # A bfloat16 sum of ones stops at 256, where adding one changes nothing.
    total = penalty({"kernel": jnp.ones(1001, jnp.bfloat16)})
    assert total.dtype == jnp.float32
    assert total == 1001


def test_penalties_of_complex_weights_are_real_and_have_gradients_at_zero() -> None:
    params = {"kernel": jnp.array([3 + 4j, 0j])}
    assert (l1(params), l2(params)) == (5, 25)
    np.testing.assert_allclose(jax.grad(l2)(params)["kernel"], [6 - 8j, 0])
