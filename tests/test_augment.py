"""Augmentations: exact properties, distributions of what is drawn, and the same numbers for the same key."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import fnn
from fnn.augment import chain, cutmix, mixup, random_crop, random_flip, random_shift

UNLIKELY = 1e-4  # of the p-values below; keys are fixed, so that a test gives one result


def images(count: int, height: int = 4, width: int = 5, channels: int = 2, dtype: Any = np.float32) -> np.ndarray:
    """Images whose entries all differ, as far as the dtype can tell."""
    return np.arange(count * height * width * channels).reshape(count, height, width, channels).astype(dtype)


def windows(image: np.ndarray, size: tuple[int, int], margins: tuple[int, int], mode: Any) -> list[np.ndarray]:
    """All windows of a padded image, row by row."""
    padded = np.pad(image, [(m, m) for m in margins] + [(0, 0)] * (image.ndim - 2), mode=mode)
    rooms = [length - window + 1 for length, window in zip(padded.shape, size)]
    return [padded[i : i + size[0], j : j + size[1]] for i in range(rooms[0]) for j in range(rooms[1])]


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_a_crop_is_a_window_of_the_padded_image(mode: Any, key: jax.Array) -> None:
    x = images(16)
    cropped, y = random_crop((3, 4), padding=(1, 2), mode=mode)(key, (x, np.arange(16)))
    assert cropped.shape == (16, 3, 4, 2)
    np.testing.assert_array_equal(y, np.arange(16))
    for image, found in zip(x, cropped):
        assert any(np.array_equal(found, window) for window in windows(image, (3, 4), (1, 2), mode))


def test_all_windows_are_as_likely(key: jax.Array) -> None:
    count = 900
    x = np.broadcast_to(images(1), (count, 4, 5, 2))
    shifted, _ = random_shift(1)(key, (x, np.zeros(count)))
    candidates = windows(x[0], (4, 5), (1, 1), "constant")
    numbers = [next(n for n, window in enumerate(candidates) if np.array_equal(window, f)) for f in np.asarray(shifted)]
    assert stats.chisquare(np.bincount(numbers, minlength=9)).pvalue > UNLIKELY


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, jnp.bfloat16, np.int32])
def test_crops_and_flips_keep_values_and_dtype(dtype: Any, key: jax.Array) -> None:
    x = images(4, dtype=dtype)
    both = chain(random_crop(padding=1), random_flip(probability=1.0), random_shift(1))
    changed = both(key, (x, np.zeros(4)))[0]
    assert changed.dtype == x.dtype
    assert set(np.unique(changed)) <= {*np.unique(x), 0}


def test_a_flip_is_a_reversal_of_some_examples(key: jax.Array) -> None:
    x = images(400, 2, 3, 1)
    flipped = np.asarray(random_flip()(key, (x, np.zeros(400)))[0])
    is_same, is_flipped = ((flipped == other).all(axis=(1, 2, 3)) for other in (x, x[:, :, ::-1]))
    assert (is_same ^ is_flipped).all()
    assert stats.binomtest(int(is_flipped.sum()), 400, 0.5).pvalue > UNLIKELY
    np.testing.assert_array_equal(random_flip(1, probability=1.0)(key, (x, x))[0], x[:, ::-1])
    np.testing.assert_array_equal(random_flip(1, probability=0.0)(key, (x, x))[0], x)


def test_axes_are_flipped_independently(key: jax.Array) -> None:
    x = images(400, 2, 3, 1)
    flipped = np.asarray(random_flip((1, 2))(key, (x, np.zeros(400)))[0])
    views = (x, x[:, ::-1], x[:, :, ::-1], x[:, ::-1, ::-1])
    counts = [(flipped == view).all(axis=(1, 2, 3)).sum() for view in views]
    assert sum(counts) == 400
    assert stats.chisquare(counts).pvalue > UNLIKELY


class Named(NamedTuple):
    x: Any
    target: Any


def test_parts_are_changed_alike_in_every_form_of_a_batch(key: jax.Array) -> None:
    x = images(6)
    mask = x[..., 0] + 0.5
    change = chain(random_crop(3, padding=1, mode="edge", parts=("x", "target")), random_flip(parts=("x", "target")))
    found = change(key, (x, mask))
    np.testing.assert_array_equal(found[0][..., 0] + 0.5, found[1])
    for batch in ({"x": x, "target": mask}, [x, mask], Named(x, mask), (x, mask, np.arange(6))):
        changed = change(key, batch)
        assert type(changed) is type(batch)
        parts = list(changed.values()) if isinstance(changed, dict) else changed
        for part, wanted in zip(parts, (*found, np.arange(6))):
            np.testing.assert_array_equal(part, wanted)
    custom = random_crop(3, parts=("picture", "outline"))(key, {"picture": x, "outline": mask, "name": np.arange(6)})
    np.testing.assert_array_equal(custom["picture"][..., 0] + 0.5, custom["outline"])
    pair, _ = random_crop(3)(key, ((x, x + 1), mask))  # all inputs of a network that has several
    np.testing.assert_array_equal(pair[0] + 1, pair[1])
    np.testing.assert_array_equal(random_crop(3)(key, x), random_crop(3)(key, (x, mask))[0])


def test_sequences_are_cut_along_time(key: jax.Array) -> None:
    ids = np.arange(50).reshape(5, 10)
    cut, following = random_crop(4, axes=(1,), parts=("x", "target"))(key, (ids, ids + 1))
    assert cut.shape == (5, 4)
    np.testing.assert_array_equal(cut + 1, following)
    np.testing.assert_array_equal(np.diff(cut, axis=1), 1)
    np.testing.assert_array_equal(cut // 10, np.arange(5)[:, None] * np.ones(4))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_of_mixup_have_a_beta_distribution_and_labels_follow_them(alpha: float, key: jax.Array) -> None:
    count = 600
    eye = np.eye(count, dtype=np.float32)
    x, target = (np.asarray(part) for part in mixup(alpha, num_classes=count)(key, (eye, np.arange(count))))
    np.testing.assert_array_equal(x, target)  # row i of x is one-hot, and so is the target
    np.testing.assert_allclose(target.sum(axis=1), 1, rtol=1e-6)
    assert ((target != 0).sum(axis=1) <= 2).all()
    shares = np.diag(target)
    partners = np.where(shares < 1, (target - np.diag(shares)).argmax(axis=1), np.arange(count))
    assert len(set(partners)) > 0.95 * count  # a permutation, but for shares that round to 1
    shares = shares[partners != np.arange(count)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > UNLIKELY


def test_mixup_is_the_formula_for_soft_targets_and_several_inputs(key: jax.Array) -> None:
    draw = np.random.default_rng(0)
    x, other, target = (draw.normal(size=shape).astype(np.float32) for shape in ((8, 3), (8, 2, 2), (8,)))
    plain = np.asarray(mixup(1.0)(key, (np.eye(8, dtype=np.float32), target))[0], np.float64)
    mixed, mixed_target = mixup(1.0)(key, ((x, other), target))
    np.testing.assert_allclose(mixed[0], plain @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed[1], np.einsum("ij,jkl->ikl", plain, other), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed_target, plain @ target, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, jnp.bfloat16, np.float32])
def test_mixup_keeps_the_dtype_of_images(dtype: Any, key: jax.Array) -> None:
    x = np.random.default_rng(0).integers(0, 256, (64, 4)).astype(dtype)
    shares = np.asarray(mixup(1.0)(key, (np.eye(64, dtype=np.float32), np.zeros(64, np.float32)))[0], np.float64)
    mixed = mixup(1.0)(key, (x, np.zeros(64, np.float32)))[0]
    assert mixed.dtype == dtype
    precision = {np.uint8: 0.501, jnp.bfloat16: 1.0, np.float32: 1e-3}[dtype]
    np.testing.assert_allclose(np.asarray(mixed, np.float64), shares @ x.astype(np.float64), atol=precision)


def boxes(count: int, height: int, width: int, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Which entries of each image come from another one, and the share of its own label."""
    x = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, height, width, 1))
    changed, target = cutmix(num_classes=count)(key, (x, np.arange(count)))
    return np.asarray(changed[..., 0] != x[..., 0]), np.asarray(target)


def test_labels_of_cutmix_have_the_area_of_a_box(key: jax.Array) -> None:
    count, height, width = 200, 6, 8
    inside, target = boxes(count, height, width, key)
    np.testing.assert_allclose(target.sum(axis=1), 1, rtol=1e-6)
    for number in range(count):
        rows, columns = inside[number].any(axis=1), inside[number].any(axis=0)
        np.testing.assert_array_equal(inside[number], np.outer(rows, columns))  # a box
        assert (np.diff(np.flatnonzero(rows)) == 1).all()
        assert (np.diff(np.flatnonzero(columns)) == 1).all()
        if inside[number].any():
            assert target[number, number] == pytest.approx(1 - inside[number].mean(), abs=1e-6)


def test_areas_of_cutmix_are_distributed_as_in_the_paper(key: jax.Array) -> None:
    """Beside the authors' function ``rand_bbox``, written again in NumPy."""
    count, height, width, draw = 1500, 12, 10, np.random.default_rng(0)
    inside, _ = boxes(count, height, width, key)
    areas = []
    for share in draw.beta(1.0, 1.0, count):
        halves = [int(length * np.sqrt(1 - share)) // 2 for length in (height, width)]
        centres = [draw.integers(height), draw.integers(width)]
        ends = [np.clip([c - half, c + half], 0, length) for c, half, length in zip(centres, halves, (height, width))]
        areas.append(np.prod([last - first for first, last in ends]) / (height * width))
    compared: Any = stats.ks_2samp(inside.mean(axis=(1, 2)), areas)
    assert compared.pvalue > UNLIKELY


def test_cutmix_of_volumes_and_of_bytes(key: jax.Array) -> None:
    x = np.random.default_rng(0).integers(0, 256, (8, 4, 3, 5, 2)).astype(np.uint8)
    changed, target = cutmix()(key, (x, np.eye(8, dtype=np.float32)))
    assert changed.dtype == np.uint8
    for number in range(8):
        partner = int(np.where(np.arange(8) == number, -1, target[number]).argmax())
        own, other = (np.asarray(changed[number]) == x[k] for k in (number, partner))
        assert (own | other).all()


@pytest.mark.parametrize("make", [mixup, cutmix])
def test_a_mixed_loss_is_the_mixture_of_losses_with_weights_too(make: Any, key: jax.Array) -> None:
    draw = np.random.default_rng(0)
    count, classes = 16, 3
    x, y = images(count), draw.integers(0, classes, count)
    weight = draw.uniform(0.5, 2.0, count).astype(np.float32)
    mixture = make(1.0, num_classes=count)(key, (x, np.arange(count)))[1]  # shares of the examples
    _, target, total = make(1.0, num_classes=classes)(key, (x, y, weight))
    logits = draw.normal(size=(count, classes)).astype(np.float32)
    loss = np.asarray(total) * optax.losses.softmax_cross_entropy(logits, target)
    single = -np.asarray(jax.nn.log_softmax(logits))[:, y]  # of each row's logits for each example's label
    np.testing.assert_allclose(loss, (np.asarray(mixture) * weight * single).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("make", [mixup, cutmix])
def test_an_example_of_weight_zero_is_not_mixed_with_others(make: Any, key: jax.Array) -> None:
    x, weight = images(12), np.ones(12, np.float32)
    x[[2, 7]], weight[[2, 7]] = np.nan, 0
    changed, target, total = make(1.0, num_classes=12)(key, (x, np.arange(12), weight))
    assert np.isfinite(np.delete(changed, [2, 7], axis=0)).all()
    assert not np.delete(target, [2, 7], axis=0)[:, [2, 7]].any()
    assert np.flatnonzero(np.asarray(total) == 0).tolist() == [2, 7]


ALL = {
    "flip": random_flip((1, 2)),
    "crop": random_crop(3, padding=1),
    "shift": random_shift(2),
    "mixup": mixup(0.5, num_classes=3),
    "cutmix": cutmix(0.5, num_classes=3),
    "chain": chain(random_flip(), random_flip(), random_shift(1)),
}


@pytest.mark.parametrize("augment", ALL.values(), ids=ALL)
def test_the_same_key_gives_the_same_batch_compiled_mapped_and_scanned(augment: Any, key: jax.Array) -> None:
    batch = images(6), np.arange(6) % 3
    keys = jax.random.split(key, 3)
    alone = [augment(one, batch) for one in keys]
    assert not np.array_equal(alone[0][0], alone[1][0])
    mapped = jax.jit(jax.vmap(lambda key: augment(key, batch)))(keys)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, augment(key, batch)), None, keys)
    for number, wanted in enumerate(alone):
        for found in (mapped, scanned):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), [f[number] for f in found], [*wanted]
            )


def test_members_of_a_chain_draw_their_own_numbers(key: jax.Array) -> None:
    x = images(64)
    twice = np.asarray(chain(random_flip(), random_flip())(key, (x, x))[0])
    assert 16 < (twice == x).all(axis=(1, 2, 3)).sum() < 48  # with one key all would be as they were


def test_hyperparameters_may_be_traced(key: jax.Array) -> None:
    batch = images(200), np.arange(200) % 3
    flips = jax.vmap(lambda p: random_flip(probability=p)(key, batch)[0])(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(flips, [batch[0], batch[0][:, :, ::-1]])
    soft = jax.vmap(lambda alpha: mixup(alpha, num_classes=3)(key, batch)[1].max(axis=-1).mean())(
        jnp.array([0.05, 9.0])
    )
    assert soft[0] > soft[1]
    mixed = jax.jit(lambda alpha: cutmix(alpha, num_classes=3)(key, batch))(jnp.float32(1.0))
    np.testing.assert_allclose(mixed[1], cutmix(1.0, num_classes=3)(key, batch)[1], rtol=1e-6)


def test_a_network_learns_from_mixed_images(key: jax.Array) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = (draw.normal(size=(64, 6, 6, 1)) + 2 * y[:, None, None, None]).astype(np.float32)
    net, optimizer = fnn.serial(fnn.flatten(), fnn.dense(2)), optax.adam(0.02)
    accuracy = lambda logits, target: fnn.accuracy(logits, target.argmax(-1))
    objective = fnn.supervised(net, optax.losses.softmax_cross_entropy, metrics={"accuracy": accuracy})
    augment = chain(random_crop(padding=1), random_flip(), mixup(0.2, num_classes=2), cutmix(0.5))
    run = fnn.train_init(net, optimizer, key, x)
    validation = x, jax.nn.one_hot(y, 2)
    _, history = fnn.fit(
        objective, optimizer, run, (x, y), augment=augment, epochs=24, validation=validation, progress=False
    )
    assert history["validation/accuracy"][-1] > 0.9
