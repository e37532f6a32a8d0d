"""One test for each common mistake: the message names the place, what it got, what it wanted, and the fix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

IMAGES, LABELS = np.ones((4, 6, 6, 3), np.float32), np.zeros(4, np.int32)
CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels
NET = fnn.serial(
    features=fnn.serial(fnn.conv(4, (3, 3)), fnn.batch_norm(), jax.nn.relu), pool=fnn.flatten(), head=fnn.dense(2)
)


def message(net: fnn.Layer, *xs: Any, **options: Any) -> str:
    """What init says, or else apply."""

    def run() -> None:
        params, state = net.init(jax.random.key(0), *xs)
        net.apply(params, state, *xs, **options)

    with pytest.raises(fnn.LayerError) as caught:
        run()
    return str(caught.value)


def check(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"


def test_images_without_a_channel_axis() -> None:
    check(message(NET, IMAGES[..., 0]), "features/conv_0: ", "x[..., None]", "conv(", "float32[4,6,6]")


def test_channels_that_groups_do_not_divide() -> None:
    check(message(fnn.serial(fnn.conv(4, (3, 3), groups=2)), IMAGES), "conv_0: ", "3", "groups", "2")
    check(message(fnn.serial(fnn.group_norm(2)), IMAGES), "group_norm_0: ", "3", "2", "float32[4,6,6,3]")


def test_dropout_without_a_key() -> None:
    net = fnn.serial(body=fnn.residual(fnn.serial(fnn.dense(3), fnn.dropout(0.5))))
    text = message(net, IMAGES, train=True)
    check(text, "body/body/dropout_0: ", "needs random numbers", "key=jax.random.key(...)", "rate=0.5")


def test_state_where_params_belong() -> None:
    params, state = NET.init(jax.random.key(0), IMAGES)
    with pytest.raises(fnn.LayerError) as caught:
        NET.apply(state, params, IMAGES)
    check(str(caught.value), "features/conv_0: state has 'bias', 'kernel', wanted nothing; pass the state that")


def test_parameters_of_another_network() -> None:
    params, state = NET.init(jax.random.key(0), IMAGES)
    other = fnn.serial(fnn.flatten(), fnn.dense(2)).init(jax.random.key(0), IMAGES)[0]
    for wrong in (other, {**params, "head": {}}, {**params, "head": {"kernel": jnp.ones((5, 2)), "bias": jnp.ones(2)}}):
        with pytest.raises(fnn.LayerError) as caught:
            NET.apply(wrong, state, IMAGES)
        assert any(part in str(caught.value) for part in ("; pass the params that", "head: "))


def test_the_pair_that_init_returned_passed_as_params() -> None:
    pair: Any = NET.init(jax.random.key(0), IMAGES)
    with pytest.raises(fnn.LayerError, match=r"unpack it: params, state = net\.init"):
        NET.apply(pair, {}, IMAGES)


def test_integer_pixels() -> None:
    text = message(NET, np.ones((4, 6, 6, 3), np.uint8))
    check(text, "features/conv_0: ", "x is uint8", "x.astype(jnp.float32) / 255")


def test_a_constructor_that_was_not_called() -> None:
    for constructor in (fnn.dense, fnn.flatten, fnn.max_pool, fnn.batch_norm):
        with pytest.raises(fnn.LayerError, match=rf"got the constructor {constructor.__name__} itself; call it"):
            fnn.serial(fnn.dense(2), constructor)


def test_a_constructor_of_ones_own_that_was_not_called() -> None:
    def block(x: Any = None):
        return fnn.dense(2)

    check(message(fnn.serial(block), IMAGES), "block_0: ", "was not called; write block(...)")


def test_an_unknown_keyword() -> None:
    options: dict[str, Any] = {"activation": "relu"}
    with pytest.raises(TypeError, match="activation"):
        fnn.dense(3, **options)


def test_a_legacy_key() -> None:
    legacy: Any = np.zeros(2, np.uint32)
    with pytest.raises(
        TypeError, match=r"key must be a typed key such as jax\.random\.key\(0\), got ndarray of dtype uint32"
    ):
        NET.init(legacy, IMAGES)


def test_a_traced_train() -> None:
    params, state = NET.init(jax.random.key(0), IMAGES)
    with pytest.raises(fnn.LayerError, match=r"train must be a Python bool.*static_argnames"):
        jax.jit(NET.apply)(params, state, IMAGES, train=True)


def fit(x: Any, y: Any, **options: Any) -> Any:
    run = fnn.train_init(NET, optax.sgd(0.1), jax.random.key(0), IMAGES)
    objective = fnn.supervised(NET, CROSS_ENTROPY, metrics={"accuracy": fnn.accuracy})
    return fnn.fit(objective, optax.sgd(0.1), run, (x, y), progress=False, **{"batch_size": 2, **options})


def test_targets_of_the_wrong_shape() -> None:
    with pytest.raises(fnn.LayerError) as caught:
        fit(IMAGES, LABELS[:, None])
    check(str(caught.value), "loss: ", "float32[2,2] and int32[2,1]", "pass target[..., 0]")


def test_fewer_targets_than_inputs() -> None:
    with pytest.raises(ValueError, match=r"\[0\] has 4, \[1\] has 3; cut them to the same length"):
        fit(IMAGES, LABELS[:3])


def test_empty_data() -> None:
    with pytest.raises(ValueError, match="the data is empty: it has no rows"):
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
