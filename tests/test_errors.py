"""One test for each common mistake: the message names the place, what it got, what it wanted, and the fix."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import fnn

IMAGES, LABELS = np.ones((4, 6, 6, 3), np.float32), np.zeros(4, np.int32)
CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels
NET = fnn.serial(
    features=fnn.serial(fnn.conv(4, (3, 3)), fnn.batch_norm(), jax.nn.relu), pool=fnn.flatten(), head=fnn.dense(2)
)


def check(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"


def fit(x: Any, y: Any, **options: Any) -> Any:
    run = fnn.train_init(NET, optax.sgd(0.1), jax.random.key(0), IMAGES)
    objective = fnn.supervised(NET, CROSS_ENTROPY, metrics={"accuracy": fnn.accuracy})
    return fnn.fit(objective, optax.sgd(0.1), run, (x, y), progress=False, **{"batch_size": 2, **options})


def test_targets_of_the_wrong_shape() -> None:
    with pytest.raises(fnn.LayerError) as caught:
        fit(IMAGES, LABELS[:, None])
    check(str(caught.value), "loss: ", "float32[2,2] and int32[2,1]", "pass target[..., 0]")


def test_fewer_targets_than_inputs() -> None:
    with pytest.raises(ValueError, match=r"data\[0\] has 4, data\[1\] has 3; cut them to the same length"):
        fit(IMAGES, LABELS[:3])


def test_empty_data() -> None:
    with pytest.raises(ValueError, match="data is empty: it has no rows"):
        fit(IMAGES[:0], LABELS[:0])


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(ValueError, match="batch_size is 32, the data has 4 rows; choose batch_size=4 or smaller"):
        fit(IMAGES, LABELS, batch_size=32)


def test_input_that_is_not_a_number() -> None:
    spoiled = IMAGES.copy()
    spoiled[2, 0, 0, 0] = np.nan
    with pytest.raises(fnn.NonFiniteError) as caught:
        fit(spoiled, LABELS)
    check(str(caught.value), "the loss of step", "nan", "batch[0]", "np.isfinite")
