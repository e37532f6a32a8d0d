"""Metrics: values against scikit-learn and plain NumPy, whatever the size of the batches and the padding."""

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.metrics.classification import auroc, confusion_matrix, f1, precision, recall
from fnn.metrics.per_example import absolute_error, accuracy, squared_error, top_k
from fnn.metrics.regression import r2
from fnn.metrics.streaming import Metric, mean

scores = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn, which is not installed")

EXAMPLES, CLASSES = 41, 6
LABELS = range(CLASSES)


def classification(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets where class 3 is never predicted, class 4 never right and class 5 neither."""
    random = np.random.default_rng(seed)
    y = random.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
    y[:, [3, 5]] -= 100
    return y, random.choice([0, 1, 2, 3], EXAMPLES)


def binary(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties and targets."""
    random = np.random.default_rng(seed)
    target = random.integers(0, 2, EXAMPLES)
    return np.round(random.normal(size=EXAMPLES) + target, 1).astype(np.float32), target


def regression(*outputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    target = random.normal(size=(EXAMPLES, *outputs)).astype(np.float32)
    return target + random.normal(scale=0.3, size=target.shape).astype(np.float32), target


def weights(kind: str) -> np.ndarray:
    if kind == "unit":
        return np.ones(EXAMPLES, np.float32)
    random = np.random.default_rng(7)
    return (random.gamma(1.0, size=EXAMPLES) * (random.random(EXAMPLES) > 0.2)).astype(np.float32)


@lru_cache(maxsize=64)
def compiled(init: Callable[..., Any], update: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(lambda y, target, weight: update(init(), y, target, weight))


def measure(metric: Metric, y: Any, target: Any, weight: Any = None) -> Any:
    """The statistics of one batch, in NumPy."""
    return jax.device_get(compiled(metric.init, metric.update)(y, target, weight))


def parts(metric: Metric, y: Any, target: Any, weight: Any, batch_size: int) -> list[Any]:
    """The statistics of each batch as evaluation makes them: padding has weight 0, the host works in float64."""
    found = []
    for start in range(0, len(y), batch_size):
        batch = [a[start : start + batch_size] for a in (y, target, weight)]
        missing = batch_size - len(batch[0])
        junk = [np.nan, np.nan if target.dtype.kind == "f" else -1, 0]
        padded = [np.concatenate([a, np.full((missing, *a.shape[1:]), x, a.dtype)]) for a, x in zip(batch, junk)]
        stats = measure(metric, *padded)
        found.append(jax.tree.map(lambda a: a.astype(np.float64), stats))
    return found


def stream(metric: Metric, y: Any, target: Any, weight: Any, batch_size: int) -> Any:
    return metric.compute(reduce(metric.merge, parts(metric, y, target, weight, batch_size)))


def by_class(score: Any, average: str | None) -> Any:
    def truth(y: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Any:
        return score(target, y.argmax(-1), labels=LABELS, average=average, zero_division=0, sample_weight=weight)

    return truth


SHARED = recall(CLASSES)
STREAMS: dict[str, tuple[Metric, Any, Any]] = {
    "confusion_matrix": (
        confusion_matrix(CLASSES),
        classification,
        lambda y, t, w: scores.confusion_matrix(t, y.argmax(-1), labels=LABELS, sample_weight=w),
    ),
    "confusion_matrix of one logit": (
        confusion_matrix(2),
        binary,
        lambda y, t, w: scores.confusion_matrix(t, y > 0, labels=[0, 1], sample_weight=w),
    ),
    "precision of one logit": (
        precision(2, average=None),
        binary,
        lambda y, t, w: scores.precision_score(t, y > 0, average=None, sample_weight=w),
    ),
    "auroc": (auroc(), binary, lambda y, t, w: scores.roc_auc_score(t, y, sample_weight=w)),
    "r2": (r2(), regression, lambda y, t, w: scores.r2_score(t, y, sample_weight=w)),
    "r2 of several outputs": (
        r2(),
        lambda: regression(3),
        lambda y, t, w: scores.r2_score(t, y, sample_weight=w),
    ),
    "mean accuracy": (
        mean(accuracy),
        classification,
        lambda y, t, w: scores.accuracy_score(t, y.argmax(-1), sample_weight=w),
    ),
    "mean top_k": (
        mean(top_k(2)),
        classification,
        lambda y, t, w: scores.top_k_accuracy_score(t, y, k=2, labels=LABELS, sample_weight=w),
    ),
    "mean squared_error": (
        mean(squared_error),
        lambda: regression(3),
        lambda y, t, w: scores.mean_squared_error(t, y, sample_weight=w),
    ),
    "mean absolute_error": (
        mean(absolute_error),
        lambda: regression(3),
        lambda y, t, w: scores.mean_absolute_error(t, y, sample_weight=w),
    ),
}
for made, score in ((precision, scores.precision_score), (recall, scores.recall_score), (f1, scores.f1_score)):
    for average in ("macro", "micro", None):
        # The statistics are the same whatever is computed of them; sharing their functions compiles them once.
        metric = made(CLASSES, average)._replace(init=SHARED.init, update=SHARED.update)
        STREAMS[f"{made.__name__} {average}"] = metric, classification, by_class(score, average)


@pytest.mark.parametrize("kind", ["unit", "random"])
@pytest.mark.parametrize("name", STREAMS)
def test_streaming_equals_scikit_learn_whatever_the_batch_size(name: str, kind: str) -> None:
    metric, data, truth = STREAMS[name]
    y, target = data()
    weight = weights(kind)
    wanted = truth(y.astype(np.float64), target, weight)
    for batch_size in (1, 7, EXAMPLES):
        value = stream(metric, y, target, weight, batch_size)
        assert isinstance(value, np.ndarray | np.floating)
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["confusion_matrix", "f1 macro", "auroc", "r2 of several outputs", "mean accuracy"])
def test_everything_also_runs_inside_jit(name: str) -> None:
    metric, data, truth = STREAMS[name]
    y, target = data()
    weight = weights("random")

    @jax.jit
    def run(y: Any, target: Any, weight: Any) -> Any:
        stats = metric.init()
        for batch in (slice(0, 20), slice(20, EXAMPLES)):
            stats = metric.update(stats, y[batch], target[batch], weight[batch])
        return metric.compute(metric.merge(metric.init(), stats))

    value = run(y, target, weight)
    assert isinstance(value, jax.Array)
    np.testing.assert_allclose(value, truth(y.astype(np.float64), target, weight), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["confusion_matrix", "f1 None", "auroc", "r2 of several outputs", "mean accuracy"])
def test_merging_in_another_order_gives_the_same_value(name: str) -> None:
    metric, data, _ = STREAMS[name]
    y, target = data()
    found = parts(metric, y, target, weights("random"), 7)
    forward, backward = reduce(metric.merge, found), reduce(metric.merge, found[::-1])
    nested = metric.merge(reduce(metric.merge, found[:3]), reduce(metric.merge, [metric.init(), *found[3:]]))
    np.testing.assert_allclose(metric.compute(backward), metric.compute(forward), rtol=1e-12)
    np.testing.assert_allclose(metric.compute(nested), metric.compute(forward), rtol=1e-12)


@pytest.mark.parametrize("name", ["confusion_matrix", "f1 macro", "auroc", "r2 of several outputs", "mean accuracy"])
def test_a_call_gives_the_value_of_whole_arrays(name: str) -> None:
    metric, data, truth = STREAMS[name]
    y, target = data()
    weight = weights("random")
    np.testing.assert_allclose(metric(y, target, weight), truth(y.astype(np.float64), target, weight), rtol=1e-5)
    np.testing.assert_allclose(metric(y, target), truth(y.astype(np.float64), target, weights("unit")), rtol=1e-5)


@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_a_concrete_target_that_is_no_class_is_refused_unless_it_has_no_weight(wrong: int) -> None:
    # It was left out in silence, as 6 of 6 classes counted from 1 are; auroc counted -1 as 0 and 2 as 1.
    y, target = classification()
    target[0] = wrong
    for metric in (confusion_matrix(CLASSES), f1(CLASSES)):
        with pytest.raises(ValueError, match=f"target holds {wrong}, wanted classes 0 to 5"):
            metric(y, target)
        weight = (np.arange(EXAMPLES) > 0).astype(np.float32)
        np.testing.assert_array_equal(metric(y, target, weight), metric(y[1:], target[1:]))


@pytest.mark.parametrize("wrong", [-1, 2])
@pytest.mark.parametrize("metric", [auroc(), confusion_matrix(2)], ids=["auroc", "confusion_matrix"])
def test_a_target_of_two_classes_is_0_or_1(metric: Metric, wrong: int) -> None:
    # Everything above 0.5 was the second class, and all else the first.
    y, target = binary()
    target[0] = wrong
    with pytest.raises(ValueError, match=f"target holds {wrong}, wanted classes 0 to 1"):
        metric(y, target)
    left_out = metric.compute(measure(metric, y, target))
    np.testing.assert_allclose(left_out, metric(y[1:], target[1:]), rtol=1e-6)


def test_no_weight_is_a_weight_of_one() -> None:
    y, target = classification()
    metric = confusion_matrix(CLASSES)
    unit = measure(metric, y, target, np.ones(EXAMPLES))
    np.testing.assert_array_equal(measure(metric, y, target), unit)
    assert measure(metric, y, target).sum() == EXAMPLES


def test_a_mask_of_bools_is_a_weight() -> None:
    y, target = classification()
    keep = np.arange(EXAMPLES) < 10
    metric = confusion_matrix(CLASSES)
    assert measure(metric, y, target, keep).sum() == 10


def test_nothing_updates_what_init_returned() -> None:
    metric = confusion_matrix(2)
    metric.init()[:] = 5
    assert metric.init().sum() == 0


# Metrics per example


def test_accuracy_is_whether_the_largest_logit_is_right() -> None:
    y, target = classification()
    np.testing.assert_array_equal(accuracy(y, target), y.argmax(-1) == target)
    assert accuracy(y, target).dtype == jnp.float32


def test_accuracy_has_one_value_for_each_target_as_losses_of_optax_do() -> None:
    y = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    target = y.argmax(-1)
    target[0, 0, 0] = (target[0, 0, 0] + 1) % 5
    found = accuracy(y, target)
    assert found.shape == (2, 3, 4)
    assert found.sum() == 23
    assert found[0, 0, 0] == 0


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool, np.float32])
@pytest.mark.parametrize("shapes", [((4,), (4,)), ((4, 1), (4,)), ((4, 1), (4, 1))])
def test_accuracy_of_one_logit_is_its_sign(shapes: Any, dtype: Any) -> None:
    y, target = np.array([2, -0.1, 0.3, -3], np.float32), np.array([1, 1, 0, 0], dtype)
    assert accuracy(y.reshape(shapes[0]), target.reshape(shapes[1])).tolist() == [1, 0, 0, 1]


def test_labels_that_are_each_true_or_false_take_a_logit_each() -> None:
    y, target = np.array([[1, -1, 1], [-1, -1, -1]], np.float32), np.array([[1, 0, 0], [1, 1, 1]])
    assert accuracy(y[..., None], target).tolist() == [[1, 1, 0], [0, 0, 0]]


def test_a_class_that_does_not_exist_is_never_right() -> None:
    y = jnp.eye(3)
    target = jnp.array([-1, 7, -100])
    assert accuracy(y, target).sum() == 0
    assert top_k(3)(y, target).sum() == 0


def test_top_one_is_accuracy_ties_included() -> None:
    y = np.random.default_rng(1).integers(0, 3, (50, 4)).astype(np.float32)
    target = np.random.default_rng(2).integers(0, 4, 50)
    np.testing.assert_array_equal(top_k(1)(y, target), accuracy(y, target))


def test_zero_and_minus_zero_are_a_tie() -> None:
    # lax.top_k puts 0.0 before -0.0, argmax takes the first.
    y, target = np.array([[-0.0, 0.0], [0.0, -0.0]], np.float32), np.array([0, 0])
    assert top_k(1)(y, target).tolist() == accuracy(y, target).tolist() == [1, 1]


def test_top_k_of_all_classes_is_always_right() -> None:
    y, target = classification()
    assert top_k(CLASSES)(y, target).sum() == EXAMPLES


def test_errors_are_averaged_over_all_axes_but_the_batch() -> None:
    y, target = regression(3, 2)
    np.testing.assert_allclose(squared_error(y, target), ((y - target) ** 2).mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(absolute_error(y, target), abs(y - target).mean((1, 2)), rtol=1e-6)
    y, target = regression()
    np.testing.assert_allclose(squared_error(y, target), (y - target) ** 2, rtol=1e-6)


def test_errors_are_computed_in_float32_whatever_the_network_computes_in() -> None:
    # 1 + 2**-10 is 1 in bfloat16: the target must not be cast to the dtype of y.
    y, target = jnp.ones((1, 1), jnp.bfloat16), jnp.full((1, 1), 1 + 2.0**-10)
    assert absolute_error(y, target).tolist() == [2.0**-10]
    assert squared_error(y, target).dtype == jnp.float32


def test_errors_of_unsigned_integers_do_not_wrap() -> None:
    assert absolute_error(np.array([[1]], np.uint8), np.array([[3]], np.uint8)).tolist() == [2]


# What may go wrong


@pytest.mark.parametrize("metric", [squared_error, absolute_error])
@pytest.mark.parametrize(
    ("y", "target", "fix"),
    [
        ((32, 1), (32,), r"target\[\.\.\., None\]"),
        ((32,), (32, 1), r"target\[\.\.\., 0\]"),
        ((32, 3), (32, 1), r"\(32, 3\) and target \(32, 1\)"),
        ((), (), r"wanted one shape \(batch"),
    ],
)
def test_errors_refuse_to_broadcast(metric: Any, y: Any, target: Any, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        metric(jnp.zeros(y), jnp.zeros(target))


def test_r2_refuses_to_broadcast() -> None:
    metric = r2()
    with pytest.raises(ValueError, match=r"target\[\.\.\., None\]"):
        measure(metric, jnp.zeros((32, 1)), jnp.zeros(32))


@pytest.mark.parametrize(
    ("y", "target", "fix"),
    [
        (jnp.zeros((4, 3)), jnp.zeros((4, 3)), "one-hot"),
        (jnp.zeros((4, 3)), jnp.zeros((4, 1), int), r"target\[\.\.\., 0\]"),
        (jnp.zeros((4, 3)), jnp.zeros(5, int), r"wanted logits \(\*shape, classes\)"),
        (jnp.zeros((4, 3)), jnp.zeros(4), "astype"),
        (jnp.zeros(4, int), jnp.zeros(4, int), "floating logits"),
        (jnp.zeros(()), jnp.zeros(()), "wanted logits"),
    ],
)
def test_classes_that_do_not_fit_the_logits_are_refused(y: Any, target: Any, fix: str) -> None:
    for metric in (accuracy, top_k(1), lambda y, t: f1(3).update(f1(3).init(), y, t, None)):
        with pytest.raises(ValueError, match=fix):
            metric(y, target)


def test_a_network_with_another_number_of_classes_is_refused() -> None:
    metric = confusion_matrix(4)
    with pytest.raises(ValueError, match="y has 3 classes, the metric was made for 4"):
        measure(metric, jnp.zeros((2, 3)), jnp.zeros(2, int))
    with pytest.raises(ValueError, match="auroc compares two"):
        auroc().update(auroc().init(), jnp.zeros((2, 3)), jnp.zeros(2, int), None)
    with pytest.raises(ValueError, match="at least k = 4"):
        top_k(4)(jnp.zeros((2, 3)), jnp.zeros(2, int))


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="classes=2"):
        precision(1)
    with pytest.raises(ValueError, match="positive int"):
        confusion_matrix(0)
    with pytest.raises(ValueError, match='"macro", "micro" or None'):
        recall(3, average="weighted")
    with pytest.raises(ValueError, match="k must be"):
        top_k(0)


@pytest.mark.parametrize("metric", [accuracy, top_k(1), f1(3), auroc(), squared_error, r2()])
def test_strings_are_refused(metric: Any) -> None:
    # JAX named a dtype <U3.
    with pytest.raises(TypeError, match="target is no array of numbers; encode labels as integers: classes, target ="):
        metric(np.zeros((2, 3), np.float32), np.array(["cat", "dog"]))


def test_a_weight_of_another_shape_is_refused() -> None:
    metric = mean(squared_error)
    with pytest.raises(ValueError, match=r"weight has shape \(3,\)"):
        measure(metric, jnp.zeros((4, 2)), jnp.zeros((4, 2)), jnp.ones(3))


# Streaming metrics, one by one


def test_no_data_has_no_mean_and_no_score() -> None:
    for metric in (mean(accuracy), auroc(), r2()):
        assert np.isnan(metric.compute(metric.init()))
    for metric in (precision(3), recall(3), f1(3, average="micro")):
        assert metric.compute(metric.init()) == 0


def test_a_batch_without_rows_changes_no_metric() -> None:
    # The scores of an empty selection: r2 looked for its first row.
    for name, (metric, data, _) in STREAMS.items():
        y, target = data()
        stats = metric.update(metric.init(), y, target)
        again = metric.update(stats, y[:0], target[:0])
        np.testing.assert_array_equal(metric.compute(again), metric.compute(stats), err_msg=name)


def test_a_mean_over_tokens_takes_a_weight_for_each_token_or_each_example() -> None:
    y = jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    target = jnp.zeros((2, 2), int)  # right: [[1, 1], [0, 1]]
    metric = mean(accuracy)
    value = lambda weight: float(metric.compute(measure(metric, y, target, weight)))
    assert value(None) == 0.75
    assert value(jnp.array([1.0, 3.0])) == pytest.approx((1 + 1 + 0 + 3) / 8)
    assert value(jnp.array([[1.0, 0.0], [1.0, 2.0]])) == 0.75


def test_a_confusion_matrix_of_pixels_counts_each() -> None:
    y = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    target = np.random.default_rng(1).integers(0, 2, (3, 4, 5))
    metric = confusion_matrix(2)
    weight = np.array([1, 2, 0], np.float32)
    wanted = scores.confusion_matrix(target.ravel(), y.argmax(-1).ravel(), sample_weight=weight.repeat(20))
    np.testing.assert_allclose(measure(metric, y, target, weight), wanted)


def test_a_target_that_is_no_class_is_left_out() -> None:
    # An index of -1 wraps to the last row of an array: such targets must not be counted as the last class.
    y, target = classification()
    target[:5] = [-1, -100, 6, 100, -6]
    for metric in (confusion_matrix(CLASSES), recall(CLASSES, average=None), precision(CLASSES)):
        whole, rest = (measure(metric, y[i:], target[i:]) for i in (0, 5))
        jax.tree.map(np.testing.assert_array_equal, whole, rest)


def test_auroc_takes_the_difference_of_two_logits_or_one_column() -> None:
    score, target = binary()
    weight = weights("random")
    wanted = scores.roc_auc_score(target, score, sample_weight=weight)
    offset = np.round(np.random.default_rng(0).normal(size=EXAMPLES) * 8) / 8
    two = np.stack([offset, offset + np.round(score * 8) / 8], axis=-1).astype(np.float32)
    for y, t in ((score[:, None], target), (score[:, None], target[:, None]), (score, target.astype(bool))):
        np.testing.assert_allclose(stream(auroc(), y, t.astype(np.float32), weight, 7), wanted, rtol=1e-6)
    wanted = scores.roc_auc_score(target, np.round(score * 8), sample_weight=weight)
    np.testing.assert_allclose(stream(auroc(), two, target, weight, 7), wanted, rtol=1e-6)


def test_auroc_counts_a_tie_as_half() -> None:
    metric = auroc()
    stats = measure(metric, jnp.zeros(4), jnp.array([0, 1, 1, 0]))
    assert metric.compute(stats) == 0.5


def test_auroc_of_one_class_is_nan() -> None:
    metric = auroc()
    assert np.isnan(metric.compute(measure(metric, jnp.arange(3.0), jnp.ones(3))))


def test_auroc_of_a_network_that_diverged_is_nan() -> None:
    # A sort puts NaN last, which would look like a good score.
    metric = auroc()
    stats = measure(metric, jnp.array([0.0, jnp.nan]), jnp.array([0, 1]))
    assert np.isnan(metric.compute(stats))
    assert np.isnan(jax.jit(metric.compute)(stats))


@pytest.mark.parametrize("batch_size", [1, 7, EXAMPLES])
def test_r2_keeps_its_digits_when_the_mean_is_large(batch_size: int) -> None:
    # Means of float32 targets near 1e6 round to 1/16, so merging plain means is wrong in the second digit.
    random = np.random.default_rng(0)
    target = (1e6 + random.normal(size=EXAMPLES)).astype(np.float32)
    y = target + np.float32(0.25) * random.integers(-2, 3, EXAMPLES).astype(np.float32)
    weight = weights("random")
    wanted = scores.r2_score(target.astype(np.float64), y.astype(np.float64), sample_weight=weight)
    np.testing.assert_allclose(stream(r2(), y, target, weight, batch_size), wanted, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_r2_of_a_constant_target_is_one_or_zero(batch_size: int) -> None:
    # The rounded mean of equal numbers is not always that number: 0/tiny would be far below zero.
    target = np.full((4, 2), 0.1, np.float32)
    y = np.stack([target[:, 0], target[:, 1] + 1], axis=-1)
    weight = np.array([0.3, 0.7, 0.9, 0.1], np.float32)
    for exact, wanted in ((target, 1.0), (y, 0.5)):
        assert stream(r2(), exact, target, weight, batch_size) == wanted
        assert wanted == scores.r2_score(target, exact)


def test_r2_ignores_a_batch_that_is_all_padding() -> None:
    metric = r2()
    y, target = regression(2)
    stats = measure(metric, y, target)
    nothing = measure(metric, np.full((3, 2), np.nan), np.full((3, 2), np.inf), np.zeros(3))
    for merged in (metric.merge(stats, nothing), metric.merge(nothing, stats)):
        assert metric.compute(merged) == metric.compute(stats)
    assert np.isnan(metric.compute(metric.merge(nothing, nothing)))
