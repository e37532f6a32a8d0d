"""Common mistakes, one row each: the whole first line of the error says what is wrong, where, and how to fix it.

A row is a function that makes the mistake. Its traceback may show the user's code and at most 12 frames of fnn.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fnn

FNN = str(Path(fnn.__file__).parent)
FRAMES = 12
MISTAKES: list[Any] = []


def mistake(error: type[BaseException], first_line: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a function that must raise exactly ``error``, with ``first_line`` as the first line of its message."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        MISTAKES.append(pytest.param(function, error, first_line, id=function.__name__))
        return function

    return register


KEY = jax.random.key(0)
X, Y = np.ones((8, 3), np.float32), np.arange(8) % 2
CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels
NET = fnn.serial(fnn.dense(4), jax.nn.relu, fnn.dense(2))
OBJECTIVE = fnn.supervised(NET, CROSS_ENTROPY)
ADAM = optax.adam(1e-3)


def new_run() -> fnn.TrainState:
    return fnn.train_init(NET, ADAM, KEY, X)


# Layers, init and apply.


@mistake(
    fnn.LayerError,
    "conv_0: x has 3 axes, wanted 4 for this window: (batch, height, width, channels); "
    "add the channel axis, x[..., None], or the batch axis, x[None]",
)
def images_without_a_channel_axis() -> None:
    fnn.serial(fnn.conv(4, (3, 3))).init(KEY, np.ones((4, 6, 6)))


def moving_mean(apply: Callable[..., Any], **options: Any) -> fnn.Layer:
    return fnn.layer(lambda key, x: ({}, {"mean": jax.numpy.zeros(x.shape[-1:])}), apply, name="mean", **options)


@mistake(
    fnn.LayerError,
    "mean_0: init returned (params, state); pass stateful=True to fnn.layer, or return params alone",
)
def state_of_a_layer_that_is_not_stateful() -> None:
    fnn.serial(moving_mean(lambda params, state, x: (x, state))).init(KEY, X)


@mistake(
    fnn.LayerError,
    "mean_0: apply of a stateful layer returns (y, state), it returned float32[8,3]; "
    "return both, or leave out stateful=True",
)
def stateful_layer_that_returns_its_output_alone() -> None:
    fnn.serial(moving_mean(lambda params, state, x: x, stateful=True)).init(KEY, X)


@mistake(fnn.LayerError, "scale_0: apply returned (y, {}); return y alone, or pass stateful=True to fnn.layer")
def layer_without_state_that_returns_a_state() -> None:
    init = lambda key, x: {"scale": jax.numpy.ones(x.shape[-1:])}
    scale = fnn.layer(init, lambda params, x: (params["scale"] * x, {}), name="scale")
    fnn.serial(scale, fnn.dense(2)).init(KEY, X)


@mistake(
    fnn.LayerError,
    "noise asks for key, and a plain function gets its inputs alone; write fnn.layer(None, noise)",
)
def plain_function_that_asks_for_a_key() -> None:
    def noise(x: Any, *, key: Any) -> Any:
        return x + jax.random.normal(key, x.shape)

    fnn.serial(fnn.dense(2), noise)


# Convolutions, pooling and wrappers.


@mistake(
    ValueError,
    'padding="CAUSAL" is for windows with one axis, and this one has 2; '
    "write the zeros before and after each axis: padding=[(2, 0), (1, 1)]",
)
def causal_images() -> None:
    fnn.conv(4, (3, 3), padding="CAUSAL")


@mistake(
    fnn.LayerError,
    'conv_0: padding="REFLECT" mirrors 2 and 2 elements at the ends of axis 1 of x, which has size 2; '
    'use a window that spans at most 3, or padding="SAME"',
)
def reflected_beyond_the_edge() -> None:
    fnn.serial(fnn.conv(4, (5,), padding="REFLECT")).init(KEY, np.ones((1, 2, 3)))


@mistake(ValueError, 'padding must be "SAME", "VALID", an int, or pairs (low, high), got \'REFLECT\'')
def a_pool_that_reflects() -> None:
    fnn.max_pool((2, 2), padding="REFLECT")


# Sequences, attention and normalisation.


SEQUENCE = np.ones((2, 3, 4), np.float32)
ATTENTION = fnn.attention(2)
KEPT = np.array([[1, 1, 1], [1, 1, 0]])


@mistake(
    fnn.LayerError,
    "integers are lengths, wanted shape (2,), got int32[2, 3]; for a mask pass booleans, "
    "mask.astype(bool), True where a key may be attended",
)
def a_mask_of_integers() -> None:
    ATTENTION.init(KEY, SEQUENCE, KEPT)


@mistake(
    fnn.LayerError,
    "a float mask is added to the scores, and this one consists of zeros and ones; pass booleans, "
    "mask.astype(bool), True where a key may be attended",
)
def a_mask_of_floats() -> None:
    params, state = ATTENTION.init(KEY, SEQUENCE)
    ATTENTION.apply(params, state, SEQUENCE, KEPT.astype(np.float32))


# Training: objectives, steps, optimizers and labels.


# Data, batches, evaluation and prediction.


# fit, checkpoints and early stopping.


@mistake(
    ValueError,
    "early_stopping needs the name of one metric and a direction: "
    'minimize="validation/loss" or maximize="validation/accuracy", got neither',
)
def early_stopping_without_a_direction() -> None:
    fnn.early_stopping(3)


@mistake(TypeError, "minimize and maximize are names of metrics, such as 'validation/loss', got True")
def early_stopping_with_a_flag_for_a_direction() -> None:
    fnn.early_stopping(3, maximize=True)  # pyright: ignore[reportArgumentType]


@mistake(ValueError, "give maximize='accuracy' or minimize='loss': there is one best checkpoint")
def checkpoints_with_two_directions() -> None:
    fnn.Checkpoints("run", maximize="accuracy", minimize="loss")


@mistake(TypeError, "every must be an int, got 1.5")
def checkpoints_every_one_and_a_half_steps() -> None:
    fnn.Checkpoints("run", every=1.5)  # pyright: ignore[reportArgumentType]


@mistake(
    ValueError,
    "nothing decides which checkpoint is the best; make them by "
    'fnn.Checkpoints(folder, minimize="validation/loss") or by maximize="validation/accuracy"',
)
def the_best_checkpoint_by_no_metric() -> None:
    fnn.Checkpoints("run").restore(best=True)


# Studies.


# Augmentation and progress.


@mistake(
    ValueError,
    "the tree has no path 'dense_0/kernal': the closest are dense_0/kernel, dense_1/kernel, dense_0/bias; "
    "a layer that owns no arrays has no entry",
)
def a_path_with_a_typo() -> None:
    fnn.at(new_run().params, "dense_0/kernal")


@mistake(TypeError, "tree must be nested dicts, such as run.params, got TrainState")
def the_path_of_a_run() -> None:
    fnn.at(new_run(), "dense_0/kernel")  # pyright: ignore[reportArgumentType]


@mistake(ValueError, "'*kernal' matches no leaf; the closest paths are dense_1/kernel, dense_0/kernel, dense_1/bias")
def a_pattern_with_a_typo() -> None:
    fnn.l2(new_run().params, "*kernal")


@pytest.mark.parametrize(("make", "error", "first_line"), MISTAKES)
def test_a_mistake_is_explained(make: Callable[[], Any], error: type[BaseException], first_line: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert str(caught.value).split("\n")[0] == first_line
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert sum(frame.startswith(FNN) for frame in frames) <= FRAMES
