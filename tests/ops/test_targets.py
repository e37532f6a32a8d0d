"""Predictions, targets and weights that fit together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.ops.targets import expand, masked, mean_over_features, namespace, ratio, to_classes, with_columns


@pytest.mark.parametrize(
    ("y", "target", "columns"),
    [
        ((4,), (4,), 1),
        ((4, 1), (4,), 1),
        ((4, 1), (4, 1), 1),
        ((4, 3), (4,), 3),
        ((4, 5, 3), (4, 5), 3),
        ((1,), (1,), 1),
    ],
)
def test_with_columns_gives_logits_one_axis_more_than_targets(y: tuple, target: tuple, columns: int) -> None:
    y_found, target_found = with_columns(jnp.zeros(y), jnp.zeros(target, int))
    assert y_found.shape == (*target_found.shape, columns)


def test_to_classes_takes_the_sign_of_one_column_and_the_largest_of_many() -> None:
    prediction, target = to_classes(jnp.array([[0.5], [-0.5]]), jnp.array([1.0, 0.0]))
    assert (prediction.tolist(), target.tolist()) == ([1, 0], [1, 0])
    prediction, _ = to_classes(jnp.array([[0.5, 0.9, 0.9]]), jnp.array([2], jnp.uint8))
    assert prediction.tolist() == [1]


def test_expand_repeats_a_weight_over_the_axes_that_it_lacks() -> None:
    assert expand(np.array([True, False]), (2, 3)).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert expand(None, (2,)).tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"weight has shape \(3,\)"):
        expand(np.ones(3), (2, 3))


def test_masked_takes_nan_out_where_the_weight_is_zero() -> None:
    assert masked(jnp.array([jnp.nan, 2.0]), jnp.array([0.0, 3.0])).tolist() == [0, 2]


def test_mean_over_features_keeps_the_batch() -> None:
    assert mean_over_features(jnp.array([[1.0, 3.0], [5.0, 5.0]])).tolist() == [2, 5]
    assert mean_over_features(jnp.array([1.0, 3.0])).tolist() == [1, 3]


def test_arithmetic_stays_in_numpy_until_there_is_a_jax_array() -> None:
    assert namespace({"a": np.ones(2)}, np.float64(1)) is np
    assert namespace({"a": np.ones(2), "b": jnp.ones(2)}) is jnp
    assert jax.jit(lambda x: x if namespace(x) is jnp else -x)(1.0) == 1


def test_ratio_divides_by_zero_without_a_warning() -> None:
    found = ratio(np.array([1.0, 2.0, 0.0]), np.array([2.0, 0.0, 0.0]), np.nan)
    np.testing.assert_array_equal(found, [0.5, np.nan, np.nan])
    assert ratio(jnp.array(1.0), jnp.array(0.0)) == 0
