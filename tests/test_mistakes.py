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
import pandas
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

PHOTOS = np.ones((4, 6, 6, 3), np.float32)
IDS, SEQUENCES = np.zeros((2, 3), np.int32), np.ones((2, 5, 8), np.float32)
CNN = fnn.serial(fnn.conv(4, (3, 3)), fnn.batch_norm(), fnn.flatten(), fnn.dense(2))


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


def gpt(cache: int | None = None) -> fnn.Layer:
    trunk = fnn.attention(2, causal=True, cache=cache)
    return fnn.language_model(7, 8, trunk, positions=fnn.learned_positions(20, cache=cache is not None))


@mistake(
    fnn.LayerError,
    "conv_0: x has 3 axes, wanted 4 for this window: (batch, height, width, channels); add the channel "
    "axis, x[..., None], or the batch axis, x[None]",
)
def one_image_without_a_batch_axis() -> None:
    fnn.serial(fnn.conv(4, (3, 3), bias=False)).init(KEY, PHOTOS[0])


@mistake(
    fnn.LayerError,
    "conv_0: x is uint8, wanted a floating dtype; convert it first: x.astype(jnp.float32) / 255 for pixels",
)
def images_of_bytes() -> None:
    fnn.serial(fnn.conv(4, (3, 3))).init(KEY, PHOTOS.astype(np.uint8))


@mistake(fnn.LayerError, "dense_0: x is int32, wanted a floating dtype; convert it first: x.astype(jnp.float32)")
def rows_of_ints() -> None:
    NET.init(KEY, X.astype(np.int32))


@mistake(fnn.LayerError, "dense_0: x is a scalar, wanted (*leading, features); add an axis: x[None]")
def one_number_as_input() -> None:
    NET.init(KEY, 1.0)


@mistake(
    fnn.LayerError,
    "conv_0: x has 5 axes, wanted 4 for this window: (batch, height, width, channels); give the window 3 "
    "entries, or join leading axes, x.reshape(-1, *x.shape[-3:])",
)
def films_into_a_window_of_two_axes() -> None:
    fnn.serial(fnn.conv(4, (3, 3))).init(KEY, np.ones((2, 3, 6, 6, 3)))


@mistake(
    fnn.LayerError,
    "lstm_0: x has shape (8, 3), wanted (batch, time, *features); add the missing axes, such as x[..., None]",
)
def rows_into_a_recurrent_network() -> None:
    fnn.serial(fnn.lstm(4)).init(KEY, X)


@mistake(
    fnn.LayerError,
    "embedding_0: x is float32, wanted ids of an integer dtype; convert them, x.astype(jnp.int32), or "
    "use fnn.dense for vectors",
)
def float_ids_into_an_embedding() -> None:
    fnn.serial(fnn.embedding(10, 4)).init(KEY, X)


@mistake(fnn.LayerError, "dense_0: an input is a list, wanted one array; convert it: jnp.asarray(x)")
def list_as_input() -> None:
    NET.init(KEY, [[1.0, 2.0], [3.0, 4.0]])


@mistake(fnn.LayerError, "dense_0: an input is a tuple, wanted one array")
def layer_after_one_that_returns_a_pair() -> None:
    fnn.serial(lambda x: (x, x), fnn.dense(2)).init(KEY, X)


@mistake(fnn.LayerError, "dense_0: init takes (key, x), got key, 2 inputs")
def two_inputs_for_one() -> None:
    NET.init(KEY, X, X)


@mistake(
    ValueError,
    "window must be a tuple of positive ints, one for each spatial axis, got 3; write (3,) for "
    "sequences, (3, 3) for images",
)
def window_as_an_int() -> None:
    window: Any = 3
    fnn.conv(4, window)


@mistake(
    fnn.LayerError,
    "conv_0: the window spans 9 and axis 1 of x has size 6; use a smaller window, more padding "
    '(padding="SAME") or a larger x',
)
def window_larger_than_the_image() -> None:
    fnn.serial(fnn.conv(4, (9, 9), padding="VALID")).init(KEY, PHOTOS)


@mistake(
    ValueError,
    'padding must be "SAME", "VALID", "CAUSAL", "REFLECT", "CIRCULAR", an int, or pairs (low, high), got \'same\'',
)
def padding_in_lower_case() -> None:
    padding: Any = "same"
    fnn.conv(4, (3, 3), padding=padding)


@mistake(ValueError, "features must be a positive int, got 4.0")
def float_features() -> None:
    features: Any = 4.0
    fnn.dense(features)


@mistake(ValueError, "rate must lie in [0.0, 1.0), got 50.0")
def percent_as_dropout_rate() -> None:
    fnn.dropout(50)


@mistake(
    fnn.LayerError,
    "conv_0: x has 3 channels, which groups=2 does not divide; groups that divide 3 channels and 4 features: 1",
)
def groups_that_do_not_divide_the_channels() -> None:
    fnn.serial(fnn.conv(4, (3, 3), groups=2)).init(KEY, PHOTOS)


@mistake(fnn.LayerError, "group_norm_0: 2 groups do not divide 3 channels; groups=1 would")
def normalised_groups_that_do_not_divide_the_channels() -> None:
    fnn.serial(fnn.group_norm(2)).init(KEY, PHOTOS)


@mistake(
    fnn.LayerError,
    "residual_0: the shortcut has shape (8, 3) and the body's output (8, 4); pass "
    "shortcut=fnn.dense(...) or fnn.conv(...) that makes them equal",
)
def residual_of_another_shape() -> None:
    fnn.serial(fnn.residual(fnn.dense(4))).init(KEY, X)


@mistake(fnn.LayerError, "attention_0: 3 heads do not divide 8 features; choose a divisor, or pass head_features")
def heads_that_do_not_divide_the_features() -> None:
    fnn.serial(fnn.attention(3)).init(KEY, SEQUENCES)


@mistake(
    fnn.LayerError,
    "attention_0: a mask has shape (3, 3), wanted (batch, keys), (batch, queries, keys) or (batch, "
    "heads, queries, keys), each axis of (2, 2, 5, 5) or 1",
)
def mask_of_another_shape() -> None:
    fnn.serial(fnn.attention(2)).init(KEY, SEQUENCES, np.ones((3, 3), bool))


@mistake(fnn.LayerError, "stack_0: a stacked block keeps the shape of its input; it maps float32[8,3] to float32[8,4]")
def stacked_block_that_changes_the_shape() -> None:
    fnn.serial(fnn.stack(fnn.dense(4), 2)).init(KEY, X)


@mistake(fnn.LayerError, "stack repeats one block, got a list of 2; use fnn.serial(*blocks)")
def stack_of_a_list() -> None:
    fnn.stack([fnn.dense(2), fnn.dense(2)], 2)


@mistake(fnn.LayerError, "got the constructor layer_norm itself; call it: layer_norm(...)")
def stack_of_a_constructor() -> None:
    fnn.stack(fnn.layer_norm, 2)


@mistake(fnn.LayerError, "wanted a Layer or a function, got the string 'gelu'; pass the function, jax.nn.gelu")
def activation_as_a_string() -> None:
    fnn.serial(fnn.dense(2), "gelu")


@mistake(fnn.LayerError, "wanted a Layer or a function, got a list of 2; unpack it, fnn.serial(*layers)")
def list_of_layers() -> None:
    fnn.serial([fnn.dense(2), jax.nn.relu])


@mistake(fnn.LayerError, "wanted a Layer or a function, got a dict of hidden, head; unpack it, fnn.serial(**layers)")
def dict_of_layers() -> None:
    fnn.serial({"hidden": fnn.dense(2), "head": fnn.dense(2)})


@mistake(fnn.LayerError, "wanted a Layer or a function, got the class Block itself; call it: Block(...)")
def class_instead_of_a_layer() -> None:
    class Block:
        pass

    fnn.serial(Block)


@mistake(fnn.LayerError, "wanted a Layer or a function, got int: 3")
def number_instead_of_a_layer() -> None:
    fnn.serial(fnn.dense(2), 3)


@mistake(fnn.LayerError, "got the constructor flatten itself; call it: flatten(...)")
def uncalled_constructor() -> None:
    fnn.serial(fnn.dense(2), fnn.flatten)


@mistake(fnn.LayerError, "block_0: block is a constructor that was not called; write block(...)")
def uncalled_constructor_of_a_user() -> None:
    def block(x: Any = None):
        return fnn.dense(2)

    fnn.serial(block).init(KEY, X)


@mistake(
    TypeError,
    "dense is a layer, which holds no weights and is not called: params, state = net.init(key, x); y, "
    "state = net.apply(params, state, x)",
)
def layer_that_is_called() -> None:
    layer: Any = fnn.dense(8)
    layer(X)


@mistake(
    TypeError,
    "serial is a layer, which holds no weights and is not called: params, state = net.init(key, x); y, "
    "state = net.apply(params, state, x)",
)
def network_that_is_called() -> None:
    net: Any = NET
    net(X)


@mistake(
    fnn.LayerError,
    "layer_that_takes_its_key_by_position_0: layer_that_takes_its_key_by_position takes (x, key), got 1 "
    "input; to ask for key make it keyword-only, *, key",
)
def layer_that_takes_its_key_by_position() -> None:
    def noise(x: Any, key: Any) -> Any:
        return x + jax.random.normal(key, x.shape)

    fnn.serial(fnn.layer(None, noise)).init(KEY, X)


@mistake(fnn.LayerError, "mean_0: apply must keep the structure of state: {mean: float32[3]} became {}")
def state_changed_in_structure() -> None:
    fnn.serial(moving_mean(lambda params, state, x: (x, {}), stateful=True)).init(KEY, X)


@mistake(fnn.LayerError, "two layers are called dense_0; give one another name")
def name_that_is_taken() -> None:
    fnn.serial(fnn.dense(2), dense_0=fnn.dense(2))


@mistake(fnn.LayerError, "has no child 'encodr'; its children are encoder")
def misspelt_child_of_a_wire() -> None:
    fnn.wire(lambda f, x: f.encodr(x), encoder=fnn.dense(2)).init(KEY, X)


@mistake(fnn.LayerError, "wire_0: never calls its encoder; call every child, or leave it out")
def child_of_a_wire_that_is_never_called() -> None:
    fnn.serial(fnn.wire(lambda f, x: x, encoder=fnn.dense(2))).init(KEY, X)


@mistake(fnn.LayerError, "wire_0: a group of layers is not callable; call one of them: f.group[0](x)")
def group_of_a_wire_that_is_called() -> None:
    fnn.serial(fnn.wire(lambda f, x: f.blocks(x), blocks=[fnn.dense(4)])).init(KEY, X)


@mistake(
    fnn.LayerError,
    "head: is called with float32[8,3] and again with float32[8,2], which need different parameters; "
    "give the second call a child of its own",
)
def child_called_with_inputs_that_need_other_parameters() -> None:
    fnn.wire(lambda f, x: f.head(x).sum() + f.head(x[:, :2]).sum(), head=fnn.dense(4)).init(KEY, X)


@mistake(
    fnn.LayerError,
    "norm: has state and is called inside a jax transformation (vmap, scan, grad, checkpoint, ...) "
    "within the network's function, where its new state would be lost; call it outside, or use "
    "fnn.stack, fnn.ensemble or fnn.remat, which carry state through",
)
def layer_with_state_under_vmap() -> None:
    fnn.wire(lambda f, x: jax.vmap(f.norm)(x), norm=fnn.batch_norm()).init(KEY, SEQUENCES)


@mistake(KeyError, "'imgae'")
def misspelt_key_of_an_input() -> None:
    fnn.serial(fnn.wire(lambda f, x: f.body(x["imgae"]), body=fnn.dense(2))).init(KEY, {"image": X})


@mistake(ValueError, "one row is empty")
def plain_function_with_a_check() -> None:
    def check(x: Any) -> Any:
        raise ValueError("one row is empty")

    fnn.serial(fnn.dense(4), check).init(KEY, X)


@mistake(fnn.LayerError, "wire_0: the trees of 'head' are read before its first call; call f.head(x) first")
def weights_that_are_read_before_the_first_call() -> None:
    fnn.serial(fnn.wire(lambda f, x: x @ f.head.params["kernel"], head=fnn.dense(4))).init(KEY, X)


@mistake(TypeError, "key must be a typed key such as jax.random.key(0), got Array of dtype uint32")
def legacy_key() -> None:
    NET.init(jax.random.PRNGKey(0), X)


@mistake(TypeError, "key must be a typed key such as jax.random.key(0), got int")
def seed_as_key() -> None:
    seed: Any = 0
    NET.init(seed, X)


@mistake(TypeError, "key must be a typed key such as jax.random.key(0), got ndarray of dtype float32")
def inputs_before_the_key() -> None:
    x: Any = X
    NET.init(x, KEY)


@mistake(TypeError, "key must be one key, got an array of keys of shape (3,); use jax.vmap over keys")
def array_of_keys() -> None:
    NET.init(jax.random.split(jax.random.key(1), 3), X)


@mistake(fnn.LayerError, "body/body/dropout_0: dropout needs random numbers: pass key=jax.random.key(...) to apply")
def forgotten_key() -> None:
    net = fnn.serial(body=fnn.residual(fnn.serial(fnn.dense(3), fnn.dropout(0.5))))
    net.apply(*net.init(KEY, X), X, train=True)


@mistake(
    fnn.LayerError,
    "train must be a Python bool, got Array; under jax.jit name it in static_argnames=('train',) or close over it",
)
def traced_train() -> None:
    jax.jit(NET.apply)(*NET.init(KEY, X), X, train=True)


@mistake(fnn.LayerError, "state must be the dict that init returned, got ndarray; write net.apply(params, state, x)")
def forgotten_state() -> None:
    apply: Any = NET.apply
    apply(NET.init(KEY, X)[0], X)


@mistake(
    fnn.LayerError, "params must be the dict that init returned, got tuple; unpack it: params, state = net.init(key, x)"
)
def trees_that_are_not_unpacked() -> None:
    trees: Any = NET.init(KEY, X)
    NET.apply(trees, {}, X)


@mistake(
    fnn.LayerError,
    "conv_0: state has 'bias', 'kernel', wanted nothing; pass the state that this network's init returned",
)
def params_and_state_swapped() -> None:
    params, state = CNN.init(KEY, PHOTOS)
    CNN.apply(state, params, PHOTOS)


@mistake(
    fnn.LayerError,
    "batch_norm_0: state lacks 'mean', 'var' (it has nothing); pass the trees that this network's init returned",
)
def empty_state_for_batch_norm() -> None:
    CNN.apply(CNN.init(KEY, PHOTOS)[0], {}, PHOTOS)


@mistake(
    fnn.LayerError,
    "dense_0: x has 5 features on its last axis and the kernel was made for 3; pass inputs like those that init saw",
)
def inputs_of_another_width() -> None:
    NET.apply(*NET.init(KEY, X), np.ones((8, 5), np.float32))


@mistake(
    fnn.LayerError,
    "dense_0: x has 96 features on its last axis and the kernel was made for 144; pass inputs like those that init saw",
)
def images_of_another_size() -> None:
    CNN.apply(*CNN.init(KEY, PHOTOS), PHOTOS[:, :4])


@mistake(
    fnn.LayerError, "dense_0: kernel has shape (3, 4), wanted (3, 5); pass the params that this network's init returned"
)
def params_of_a_network_of_another_width() -> None:
    fnn.serial(fnn.dense(5), jax.nn.relu, fnn.dense(2)).apply(*NET.init(KEY, X), X)


@mistake(
    fnn.LayerError,
    "dense_0: params has a bias, which this layer does not have; pass the params that this network's init returned",
)
def params_of_a_network_with_biases() -> None:
    fnn.serial(fnn.dense(4, bias=False), jax.nn.relu, fnn.dense(2)).apply(*NET.init(KEY, X), X)


@mistake(
    fnn.LayerError, "params has 'dense_0', 'dense_1', wanted head; pass the params that this network's init returned"
)
def params_of_another_network() -> None:
    fnn.serial(head=fnn.dense(2)).apply(*NET.init(KEY, X), X)


@mistake(
    fnn.LayerError, "dense_0: params lacks 'bias' (it has 'kernel'); pass the trees that this network's init returned"
)
def params_without_a_bias() -> None:
    NET.apply({"dense_0": {"kernel": np.ones((3, 4))}}, {}, X)


@mistake(ValueError, "'conv_0/*' matches no leaf; the closest paths are dense_0/bias, dense_0/kernel, dense_1/bias")
def pattern_that_matches_no_parameter() -> None:
    fnn.mask(NET.init(KEY, X)[0], "conv_0/*")


@mistake(fnn.LayerError, "'rellu_0' matches no layer; the network has dense_0, relu_0, dense_1")
def pattern_that_matches_no_layer() -> None:
    fnn.capture(NET, "rellu_0")


@mistake(
    fnn.LayerError, "the network has state (batch_norm_0/mean, batch_norm_0/var); freeze it with fnn.bind(net, state)"
)
def network_with_state_as_a_function_of_its_parameters() -> None:
    fnn.stateless(CNN)[0](KEY, PHOTOS)


@mistake(
    fnn.LayerError,
    "the network has no cache, so each id would be read without those before it; build it with cache=, "
    "such as fnn.attention(..., cache=length) or fnn.lstm(..., cache=True)",
)
def generating_without_a_cache() -> None:
    fnn.generate(gpt(), gpt().init(KEY, IDS)[0], IDS, 2)


@mistake(
    fnn.LayerError,
    "scores became NaN or infinite within 12 ids; build the network with cache=12 or more, and with as "
    "many positions, or look for NaN in its parameters",
)
def generating_beyond_the_cache() -> None:
    fnn.generate(gpt(4), gpt().init(KEY, IDS)[0], IDS, 9)


@mistake(ValueError, "the prompt is int32[3], wanted ids (batch, time) of an integer dtype, at least one in each row")
def prompt_without_a_batch_axis() -> None:
    fnn.generate(gpt(8), gpt().init(KEY, IDS)[0], IDS[0], 2)


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


@mistake(
    ValueError,
    "shape must be ints, of which one may be -1, got (7, 7.0); write fnn.reshape(7, 7, 32) or fnn.reshape(7, -1)",
)
def a_shape_of_floats() -> None:
    fnn.reshape(7, 7.0)  # pyright: ignore[reportArgumentType]


@mistake(
    fnn.LayerError,
    "reshape_0: each example of x has the shape (3,), 3 elements, which do not fill (2, 2); "
    "give sizes whose product is that number, or -1 for one of them",
)
def a_shape_that_does_not_fit() -> None:
    fnn.serial(fnn.reshape((2, 2))).init(KEY, X)


@mistake(
    fnn.LayerError,
    "spectral_norm wants a layer without children, got serial(dense_0, relu_0, dense_1); "
    "wrap its layers, by fnn.map_layers for example",
)
def spectral_norm_of_a_network() -> None:
    fnn.spectral_norm(NET)


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


@mistake(
    TypeError,
    "f1 takes the number of classes and returns a metric, which takes predictions and targets: "
    "fnn.f1(10)(predictions, targets)",
)
def a_metric_that_is_given_predictions_at_once() -> None:
    fnn.f1(X, Y)  # pyright: ignore[reportArgumentType]


@mistake(
    ValueError,
    "target holds 2, wanted classes 0 to 1; subtract the first class if counting starts at 1, or give targets to "
    "ignore weight 0",
)
def targets_that_count_from_one() -> None:
    fnn.confusion_matrix(2)(np.zeros((8, 2), np.float32), Y + 1)


# Training: objectives, steps, optimizers and labels.


def fit_targets(target: Any, *weight: Any, **options: Any) -> None:
    objective = fnn.supervised(NET, CROSS_ENTROPY)
    fnn.fit(objective, ADAM, new_run(), (X, target, *weight), batch_size=4, progress=False, **options)


@mistake(ValueError, "target holds -1 (row 3), the output has 2 classes, 0 to 1; give such rows weight 0")
def a_label_of_minus_one_for_rows_to_ignore() -> None:
    fit_targets(np.array([0, 1, 0, -1, 0, 1, 0, 1]))


@mistake(
    ValueError,
    "target holds 2 (row 1, and 3 more), the output has 2 classes, 0 to 1; classes count from 0: pass target - 1",
)
def labels_that_count_from_one() -> None:
    fit_targets(Y + 1)


@mistake(
    ValueError,
    "validation: target holds -100 (row 0, and 7 more), the output has 2 classes, 0 to 1; give such rows weight 0",
)
def validation_labels_that_are_no_class() -> None:
    fit_targets(Y, validation=(X, Y * 0 - 100))


@mistake(ValueError, "target holds 5 (row 7), the output has 2 classes, 0 to 1; give such rows weight 0")
def evaluation_labels_that_are_no_class() -> None:
    run = new_run()
    fnn.evaluate(OBJECTIVE, run.params, run.state, (X, np.where(np.arange(8) == 7, 5, Y)), batch_size=4)


@mistake(ValueError, "weight holds -1 (row 2); weights are finite and at least 0")
def negative_weights() -> None:
    fit_targets(Y, np.array([1, 1, -1, 1, 1, 1, 1, 1.0]))


@mistake(ValueError, "all weights are 0, so that no row counts; give real rows weight 1")
def weights_that_are_all_zero() -> None:
    fit_targets(Y, np.zeros(8))


@mistake(ValueError, "all weights are 0, so that no row counts; give real rows weight 1")
def evaluation_with_weights_that_are_all_zero() -> None:
    run = new_run()
    fnn.evaluate(OBJECTIVE, run.params, run.state, (X, Y, np.zeros(8)))


@mistake(TypeError, "weight is a dict; class weights are an array, looked up by class: class_weight[target]")
def class_weights_as_a_dict() -> None:
    fit_targets(Y, {0: 1.0, 1: 2.0})


@mistake(
    fnn.LayerError,
    "loss: the loss takes classes, and the target looks one-hot; pass jnp.argmax(target, axis=-1), or use "
    "optax.losses.softmax_cross_entropy; output and target are float32[4,2] and float32[4,2]",
)
def one_hot_targets_for_the_integer_loss() -> None:
    fit_targets(np.eye(2, dtype=np.float32)[Y])


@mistake(
    fnn.LayerError,
    "loss: the loss takes integer classes, and the target is float32; pass target.astype(jnp.int32); "
    "output and target are float32[4,2] and float32[4]",
)
def float_labels() -> None:
    fit_targets(Y.astype(np.float32))


@mistake(
    fnn.LayerError,
    "loss: the loss takes integer classes, and the target is bool; pass target.astype(jnp.int32); "
    "output and target are float32[4,2] and bool[4]",
)
def bool_labels() -> None:
    fit_targets(Y == 1)


@mistake(
    fnn.LayerError,
    "loss: the target has an axis too many; pass target[..., 0]; output and target are float32[4,2] and int32[4,1]",
)
def labels_in_a_column() -> None:
    fit_targets(Y[:, None])


@mistake(
    fnn.LayerError,
    "loss: the loss takes one-hot targets, and the target holds classes; use "
    "optax.losses.softmax_cross_entropy_with_integer_labels; output and target are float32[4,2] and int32[4]",
)
def integer_labels_for_the_one_hot_loss() -> None:
    objective = fnn.supervised(NET, optax.losses.softmax_cross_entropy)
    fnn.fit(objective, ADAM, new_run(), (X, Y), batch_size=4, progress=False)


@mistake(TypeError, "metric 'f1' is a function that makes the metric; call it: fnn.f1(10)")
def metric_that_is_not_called() -> None:
    fnn.supervised(NET, CROSS_ENTROPY, metrics={"f1": fnn.f1})  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "loss must be a function of (predictions, targets), got 'cross_entropy'")
def loss_by_name() -> None:
    fnn.supervised(NET, "cross_entropy")  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "net must be a layer, got a function; pass the network itself, not its apply")
def objective_of_an_apply() -> None:
    fnn.supervised(NET.apply, CROSS_ENTROPY)  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "net must be a layer, got a function; swap the arguments: fnn.supervised(net, loss)")
def loss_before_the_network() -> None:
    fnn.supervised(CROSS_ENTROPY, NET)  # pyright: ignore[reportArgumentType]


@mistake(ValueError, "metrics may not be called skipped, step; these names are reported already")
def metrics_with_names_of_the_history() -> None:
    fnn.supervised(NET, CROSS_ENTROPY, metrics={"step": fnn.accuracy, "skipped": fnn.accuracy})


@mistake(TypeError, "loss is a streaming metric, wanted a function of (predictions, targets); pass that in metrics")
def loss_that_is_a_streaming_metric() -> None:
    fnn.supervised(NET, fnn.f1(2))  # pyright: ignore[reportArgumentType]


@mistake(fnn.LayerError, "loss: weight has shape (4, 1), wanted the leading axes of (4,); pass weight[..., 0]")
def weights_in_a_column() -> None:
    fit_targets(Y, np.ones((8, 1)))


@mistake(TypeError, "net must be a layer, got a function; pass the network itself, not its apply")
def run_of_an_apply() -> None:
    fnn.train_init(NET.apply, ADAM, KEY, X)  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "optimizer is the function optax.adam; call it: optax.adam(1e-3)")
def optimizer_that_is_not_called() -> None:
    fnn.train_init(NET, optax.adam, KEY, X)  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "optimizer must be one of optax, such as optax.adam(1e-3), got 'adam'")
def optimizer_by_name() -> None:
    fnn.train_init(NET, "adam", KEY, X)  # pyright: ignore[reportArgumentType]


OTHER_OPTIMIZER = (
    "run.opt_state is of another optimizer: it holds {}, this optimizer keeps {}; pass the optimizer that "
    "fnn.train_init was given, or start this one anew: run._replace(opt_state=optimizer.init(run.params))"
)


@mistake(ValueError, OTHER_OPTIMIZER.format("EmptyState, EmptyState", "ScaleByAdamState, EmptyState"))
def adam_for_a_run_of_sgd() -> None:
    run = fnn.train_init(NET, optax.sgd(0.1), KEY, X)
    fnn.fit(OBJECTIVE, ADAM, run, (X, Y), batch_size=4, progress=False)


@mistake(ValueError, OTHER_OPTIMIZER.format("ScaleByAdamState, EmptyState", "EmptyState, EmptyState"))
def sgd_for_a_run_of_adam() -> None:
    fnn.train_step(OBJECTIVE, optax.sgd(0.1))(new_run(), (X, Y))


@mistake(
    ValueError,
    "run.opt_state does not fit run.params: 0/mu/dense_1/bias has shape (2,), wanted (5,); "
    "start the optimizer anew: run._replace(opt_state=optimizer.init(run.params))",
)
def parameters_replaced_without_the_optimizer() -> None:
    params, _ = fnn.serial(fnn.dense(4), jax.nn.relu, fnn.dense(5)).init(KEY, X)
    fnn.train_step(OBJECTIVE, ADAM)(new_run()._replace(params=params), (X, Y))


@mistake(ValueError, "the optimizer keeps no average of the parameters; make it by fnn.ema(optax.adam(1e-3))")
def average_of_an_optimizer_without_one() -> None:
    options = {"validation": (X, Y), "evaluate_with": fnn.ema_params}
    fnn.fit(OBJECTIVE, ADAM, new_run(), (X, Y), batch_size=4, progress=False, **options)


@mistake(ValueError, "evaluate_with gives the parameters to validate with; pass validation data")
def average_without_validation_data() -> None:
    fit_targets(Y, evaluate_with=fnn.ema_params)


@mistake(ValueError, "ema averages parameters; call optimizer.update(grads, opt_state, params)")
def average_without_parameters() -> None:
    params = {"bias": np.zeros(2, np.float32)}
    optimizer = fnn.ema(ADAM)
    optimizer.update(params, optimizer.init(params))


def custom_step(out: Callable[[Any, Any], Any]) -> None:
    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Any:
        return out(jax.numpy.sum(params["dense_0"]["kernel"]), state)

    jax.jit(fnn.train_step(objective, ADAM))(new_run(), (X, Y))


@mistake(TypeError, "an objective returns (loss, (state, metrics)), got float32[]")
def objective_that_returns_the_loss_alone() -> None:
    custom_step(lambda loss, state: loss)


@mistake(TypeError, "an objective returns (loss, (state, metrics)), got (float32[], a dict)")
def objective_that_returns_no_metrics() -> None:
    custom_step(lambda loss, state: (loss, state))


@mistake(TypeError, "an objective returns (loss, (state, metrics)), got (float32[], a dict, a dict)")
def objective_that_returns_a_triple() -> None:
    custom_step(lambda loss, state: (loss, state, {}))


@mistake(TypeError, "an objective returns a loss that is a scalar, got float32[3]; take its mean")
def objective_with_a_loss_for_each_row() -> None:
    custom_step(lambda loss, state: (loss + jax.numpy.ones(3), (state, {})))


@mistake(
    TypeError, "an objective returns metrics in a dict, such as {'accuracy': ...}, got (float32[], (a dict, float32[]))"
)
def objective_whose_metrics_are_no_dict() -> None:
    custom_step(lambda loss, state: (loss, (state, loss)))


@mistake(ValueError, "metrics may not be called skipped; these names are reported already")
def objective_with_a_metric_of_the_history() -> None:
    custom_step(lambda loss, state: (loss, (state, {"skipped": loss})))


@mistake(
    ValueError,
    "the objective returned a state of another structure than run.state; return the state that net.apply returned",
)
def objective_that_returns_params_for_the_state() -> None:
    custom_step(lambda loss, state: (loss, ({"mean": loss}, {})))


@mistake(ValueError, "watch and the objective both measure loss; rename one")
def watch_that_measures_the_loss() -> None:
    watch = lambda params, grads, updates, opt_state: {"loss": jax.numpy.zeros(())}
    fnn.train_step(OBJECTIVE, ADAM, watch=watch)(new_run(), (X, Y))


# Data, batches, evaluation and prediction.


X_LIST, Y_LIST = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]] * 4, [0, 1] * 4


def fit_data(data: Any, objective: Any = OBJECTIVE, **options: Any) -> None:
    fnn.fit(objective, ADAM, new_run(), data, progress=False, **{"batch_size": 4, **options})


def evaluate_data(data: Any, **options: Any) -> None:
    run = new_run()
    fnn.evaluate(OBJECTIVE, run.params, run.state, data, **options)


@mistake(TypeError, "data is a list, which is read as batches, and data[0] is float32[8,3]; pass the tuple (X, Y)")
def a_list_for_a_tuple() -> None:
    fit_data([X, Y])


@mistake(
    TypeError,
    "validation is a list, which is read as batches, and validation[0] is float32[8,3]; pass the tuple (X, Y)",
)
def a_list_for_the_tuple_of_validation() -> None:
    fit_data((X, Y), validation=[X, Y])


@mistake(
    TypeError,
    "data is a list, which is read as batches, and data[0] is a list of numbers; "
    "pass the tuple (np.asarray(X), np.asarray(Y))",
)
def lists_of_lists() -> None:
    fit_data([X_LIST, Y_LIST])


@mistake(TypeError, "data[0] is a list of numbers; pass an array: np.asarray(...)")
def a_tuple_of_lists() -> None:
    fit_data((X_LIST, Y_LIST))


@mistake(ValueError, "data is float32[8,3] alone; pass the tuple (x, target) or (x, target, weight)")
def x_alone() -> None:
    fit_data(X)


@mistake(ValueError, "data is a tuple of 1; pass the tuple (x, target) or (x, target, weight)")
def evaluation_of_x_alone() -> None:
    evaluate_data((X,))


@mistake(
    ValueError,
    "data is a dict with the keys ['labels', 'x'], wanted x, target and at times weight; "
    "or pass (x, target) or (x, target, weight)",
)
def a_dict_with_other_keys() -> None:
    fit_data({"x": X, "labels": Y})


@mistake(ValueError, "batch is float32[4,3] alone; pass the tuple (x, target) or (x, target, weight)")
def batches_of_x_alone() -> None:
    fit_data(iter([X[:4], X[4:]]))


@mistake(
    TypeError,
    "data is a function; wrap it so that iter() starts it again: a class whose __iter__ calls it, "
    "or for one epoch data=function()",
)
def a_generator_function() -> None:
    def batches() -> Any:
        yield X, Y

    fit_data(batches, epochs=2)


@mistake(
    TypeError,
    "data is of type Dataset, neither arrays nor an iterable of batches; a Dataset of PyTorch goes into a DataLoader",
)
def a_dataset_of_pytorch() -> None:
    class Dataset:
        def __getitem__(self, index: int) -> Any:
            return X[index], Y[index]

    fit_data(Dataset())


@mistake(TypeError, "data is of type str, neither arrays nor an iterable of batches; pass (x, target)")
def the_name_of_a_file() -> None:
    fit_data("data.csv")


@mistake(TypeError, "batches is float32[8,3], which is not cut; pass fnn.batches(data, batch_size)")
def arrays_in_a_loop_of_training() -> None:
    list(fnn.training(fnn.train_step(OBJECTIVE, ADAM), new_run(), X))


class Image:
    """Not an array, and with much to print."""

    def __repr__(self) -> str:
        return "pixels " * 1000


@mistake(
    TypeError,
    "batch[0] is of type Image, which NumPy cannot read as an array; pass arrays; "
    "for a DataLoader: pass collate_fn=...",
)
def batches_of_images() -> None:
    fit_data(iter([(Image(), Y)]))


@mistake(TypeError, "data[1] holds strings; encode labels: names, y = np.unique(labels, return_inverse=True)")
def labels_as_strings() -> None:
    fit_data((X, np.array(["cat", "dog"] * 4)))


@mistake(TypeError, "data[1][0] is a string; encode labels: names, y = np.unique(labels, return_inverse=True)")
def labels_as_a_list_of_strings() -> None:
    evaluate_data((X, ["cat", "dog"] * 4))


@mistake(
    TypeError,
    "data[0] is an array of objects, object[8,2]; give its rows the same length and its columns numbers, "
    "so that .astype(np.float32) works",
)
def a_table_with_words() -> None:
    fit_data((pandas.DataFrame({"age": range(8), "name": ["a"] * 8}), Y))


@mistake(fnn.LayerError, "x holds strings; encode labels: names, y = np.unique(labels, return_inverse=True)")
def init_with_a_table_of_words() -> None:
    fnn.dense(2).init(KEY, pandas.DataFrame({"name": ["a"] * 8}))


@mistake(
    ValueError, "the arrays differ in their number of rows: data[0] has 8, data[1] has 7; cut them to the same length"
)
def rows_that_differ_in_number() -> None:
    evaluate_data((X, Y[:7]))


@mistake(
    ValueError,
    "the arrays differ in their number of rows: validation[0] has 8, validation[1] has 7; cut them to the same length",
)
def rows_of_validation_that_differ_in_number() -> None:
    fit_data((X, Y), validation=(X, Y[:7]))


@mistake(ValueError, "data is empty: it has no rows")
def no_rows() -> None:
    fnn.batches((X[:0], Y[:0]), 4)


@mistake(ValueError, "validation is empty: it has no batches")
def no_batches() -> None:
    fit_data((X, Y), validation=[])


@mistake(ValueError, "batch_size is 9, the data has 8 rows; choose batch_size=8 or smaller")
def a_batch_larger_than_the_data() -> None:
    fit_data((X, Y), batch_size=9)


@mistake(TypeError, "batch_size must be an int, got 32.0")
def a_batch_size_that_is_no_integer() -> None:
    fnn.batches((X, Y), 32.0)  # type: ignore[arg-type]


@mistake(TypeError, "batch_size must be an int, got '32'")
def a_batch_size_of_text_in_evaluation() -> None:
    evaluate_data((X, Y), batch_size="32")


@mistake(ValueError, "batch_size must be at least 1, got 0")
def a_batch_size_of_zero_in_prediction() -> None:
    run = new_run()
    fnn.predict(NET, run.params, run.state, X, batch_size=0)


@mistake(TypeError, "epochs must be an int, got '3'")
def epochs_as_text() -> None:
    fnn.batches((X, Y), 4, epochs="3")  # type: ignore[arg-type]


@mistake(TypeError, "predict(net, params, state, *xs): state is float32[8,3]; pass run.params, run.state, x")
def predict_without_the_state() -> None:
    fnn.predict(NET, new_run().params, X)


@mistake(TypeError, "predict(net, params, state, *xs): params is of type TrainState; pass run.params, run.state, x")
def predict_with_the_run() -> None:
    fnn.predict(NET, new_run(), X)


@mistake(TypeError, "predict(net, params, state, *xs): there is no input; pass run.params, run.state, x")
def predict_without_an_input() -> None:
    fnn.predict(NET, new_run().params, new_run().state)


@mistake(ValueError, "xs is empty: it has no rows")
def predict_for_no_rows() -> None:
    fnn.predict(NET, new_run().params, new_run().state, X[:0])


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


def fit(**options: Any) -> Any:
    return fnn.fit(OBJECTIVE, ADAM, new_run(), (X, Y), progress=False, **options)


@mistake(TypeError, "objective is a network; pass fnn.supervised(net, loss), which says what to minimize")
def fit_of_a_network_and_arrays() -> None:
    fnn.fit(NET, X, Y)  # pyright: ignore[reportArgumentType, reportCallIssue]


@mistake(TypeError, "objective is a network; pass fnn.supervised(net, loss), which says what to minimize")
def fit_of_a_network() -> None:
    fnn.fit(NET, ADAM, new_run(), (X, Y))  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "data is one argument, a tuple: fit(objective, optimizer, run, (x, target))")
def fit_with_data_as_two_arguments() -> None:
    fnn.fit(OBJECTIVE, ADAM, new_run(), X, Y)  # pyright: ignore[reportCallIssue]


@mistake(TypeError, "data is missing: fit(objective, optimizer, run, (x, target))")
def fit_without_data() -> None:
    fnn.fit(OBJECTIVE, ADAM, new_run())  # pyright: ignore[reportCallIssue]


@mistake(
    TypeError,
    "optimizer is a TrainState: fit(objective, optimizer, run, (x, target)) takes the optimizer before the run",
)
def fit_with_optimizer_and_run_swapped() -> None:
    fnn.fit(OBJECTIVE, new_run(), ADAM, (X, Y))  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "optimizer is the function optax.adam; call it: optax.adam(1e-3)")
def fit_with_an_optimizer_that_is_not_called() -> None:
    fnn.fit(OBJECTIVE, optax.adam, new_run(), (X, Y))  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "optimizer must be one of optax, such as optax.adam(1e-3), got 'adam'")
def fit_with_the_name_of_an_optimizer() -> None:
    fnn.fit(OBJECTIVE, "adam", new_run(), (X, Y))  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "run must be the TrainState that fnn.train_init returned, got dict")
def fit_with_params_for_a_run() -> None:
    fnn.fit(OBJECTIVE, ADAM, new_run().params, (X, Y))


@mistake(TypeError, "epochs must be an int, got '3'")
def epochs_as_a_text() -> None:
    fit(epochs="3")


@mistake(TypeError, "batch_size must be an int, got 32.0")
def batch_size_as_a_float() -> None:
    fit(batch_size=32.0)


@mistake(ValueError, "batch_size must be at least 1, got 0")
def batch_size_of_nothing() -> None:
    fit(batch_size=0)


@mistake(ValueError, 'non_finite must be "stop" or "skip" or "restore", got \'ignore\'')
def non_finite_steps_ignored() -> None:
    fit(non_finite="ignore")


@mistake(ValueError, 'remainder must be "drop" or "pad", got \'keep\'')
def remainder_that_is_kept() -> None:
    fit(remainder="keep")


@mistake(
    TypeError,
    "validation must be data, (x, target) or an iterable of batches, got 0.1; split the arrays first: "
    "fit(objective, optimizer, run, (x[:n], y[:n]), validation=(x[n:], y[n:]))",
)
def validation_as_a_fraction() -> None:
    fit(validation=0.1)


@mistake(
    ValueError, "validation is an iterator, which one epoch uses up; pass a list, or an iterable that starts again"
)
def validation_as_an_iterator() -> None:
    fit(validation=iter([(X, Y)]), epochs=2)


@mistake(TypeError, 'early_stopping must be a rule, such as fnn.early_stopping(3, minimize="validation/loss"), got 3')
def early_stopping_as_a_number() -> None:
    fit(early_stopping=3)


@mistake(TypeError, "log must be a function log(step, values), such as fnn.csv_log('run.csv'), got 'run.csv'")
def log_as_a_path() -> None:
    fit(log="run.csv")


@mistake(TypeError, "profile must be (start, stop) or (start, stop, folder), got 10")
def profile_of_a_number_of_steps() -> None:
    fit(profile=10)


@mistake(TypeError, "checkpoints must be fnn.Checkpoints('runs/first'), got 'runs/first'")
def checkpoints_as_a_path() -> None:
    fit(checkpoints="runs/first")


@mistake(
    ValueError,
    "early stopping monitors 'validation/los', which will not be measured; there is loss, step, validation/loss",
)
def misspelt_metric_of_early_stopping() -> None:
    fit(validation=(X, Y), batch_size=4, early_stopping=fnn.early_stopping(2, minimize="validation/los"))


# Studies.


ROWS = fnn.grid({"learning_rate": [0.1]})
TRIAL = (NET, OBJECTIVE, ADAM)
NEEDS_THE_VALUE = (
    "the trial needs the value of a hyperparameter while it is compiled, for a shape, a Python if or an int; mark it "
    "as static, fnn.choice([...], static=True), so that each value gets a program of its own"
)


def study(trial: Any = lambda hp: TRIAL, space: Any = ROWS, **changes: Any) -> Any:
    settings = {"data": (X, Y), "steps": 2, "batch_size": 4, "mode": "loop", "key": KEY, "progress": False}
    return fnn.study(trial, space, **settings | changes)


@mistake(KeyError, "'rate'")
def a_hyperparameter_is_misspelt_in_a_trial() -> None:
    study(lambda hp: (NET, OBJECTIVE, optax.sgd(hp["rate"])))


def test_a_misspelt_hyperparameter_is_noted_with_those_that_exist() -> None:
    with pytest.raises(KeyError) as caught:
        a_hyperparameter_is_misspelt_in_a_trial()
    assert caught.value.__notes__[0] == "hp holds 'learning_rate'; give 'rate' a place in the space"


@mistake(ValueError, NEEDS_THE_VALUE)
def a_width_is_traced_in_a_trial() -> None:
    def trial(hp: Any) -> Any:
        net = fnn.serial(fnn.dense(hp["width"]), fnn.dense(2))
        return net, fnn.supervised(net, CROSS_ENTROPY), ADAM

    study(trial, [{"width": 4}])


@mistake(ValueError, NEEDS_THE_VALUE)
def an_if_depends_on_a_traced_hyperparameter() -> None:
    study(lambda hp: (NET, OBJECTIVE, ADAM if hp["learning_rate"] > 0 else optax.sgd(0.1)))


@mistake(
    TypeError,
    "the trial must return (net, objective, optimizer), or with augment as a fourth, got (Layer, Supervised)",
)
def a_trial_returns_two_values() -> None:
    study(lambda hp: TRIAL[:2])


@mistake(TypeError, "optimizer is the function optax.adam; call it: optax.adam(1e-3)")
def a_trial_returns_an_optimizer_that_is_not_called() -> None:
    study(lambda hp: (NET, OBJECTIVE, optax.adam))


@mistake(
    TypeError,
    "the trial's objective softmax_cross_entropy_with_integer_labels cannot be called as objective(params, state, "
    "batch, key=key, train=True); a loss(y, target) becomes one by fnn.supervised(net, "
    "softmax_cross_entropy_with_integer_labels)",
)
def a_trial_returns_a_loss_as_its_objective() -> None:
    study(lambda hp: (NET, CROSS_ENTROPY, ADAM))


@mistake(TypeError, "the trial's augment must be a function of (key, batch), got 'flip'")
def a_trial_returns_an_augmentation_by_name() -> None:
    study(lambda hp: (*TRIAL, "flip"))


@mistake(TypeError, "trial must be a function trial(hp), got a tuple; pass it without calling it")
def a_trial_is_called_before_the_study() -> None:
    study(TRIAL)


@mistake(ValueError, "say how many configurations to draw: trials=64")
def the_number_of_trials_is_forgotten() -> None:
    study(space={"learning_rate": fnn.uniform(0, 1)})


@mistake(
    ValueError,
    "space['learning_rate'] is [0.1, 0.2], wanted a dimension such as fnn.uniform(0, 1) or fnn.choice([0.1, 0.2]); "
    "values that stay the same belong in the trial",
)
def a_space_holds_a_list() -> None:
    study(space={"learning_rate": [0.1, 0.2]}, trials=2)


@mistake(ValueError, "maximize='accuracy' is not measured; there is loss")
def an_unknown_measurement_is_maximized() -> None:
    study(maximize="accuracy")


@mistake(ValueError, "steps must be a positive int, got 10.5")
def steps_are_no_whole_number() -> None:
    study(steps=10.5)


@mistake(ValueError, "batch_size must be a positive int, got 32.0")
def a_batch_size_is_a_float() -> None:
    study(batch_size=32.0)


@mistake(ValueError, "seeds must be a positive int, got [0, 1, 2]")
def seeds_are_a_list() -> None:
    study(seeds=[0, 1, 2])


@mistake(TypeError, "data is a list; pass a tuple of arrays, (x, target) or (x, target, weight)")
def data_of_a_study_is_a_list() -> None:
    study(data=[X, Y])


@mistake(ValueError, "data is a ndarray of shape (8, 3); fnn.supervised takes (x, target) or (x, target, weight)")
def data_of_a_study_has_no_target() -> None:
    study(data=X)


@mistake(TypeError, "data[1] holds strings; encode labels: names, y = np.unique(labels, return_inverse=True)")
def labels_of_a_study_are_text() -> None:
    study(data=(X, np.array(list("abababab"))))


@mistake(
    ValueError,
    "target holds -1 (row 0, and 3 more), the output has 2 classes, 0 to 1; give such rows weight 0",
)
def labels_of_a_study_are_no_classes() -> None:
    study(data=(X, Y - 1))


@mistake(
    ValueError,
    "k_fold needs at least 2 folds, got 1; for one held-out part use fnn.shuffle_split(1)",
)
def a_study_has_one_fold() -> None:
    study(folds=1)


@mistake(
    ValueError,
    "give folds, which hold out rows of the data, or validation, which is other data; not both",
)
def a_study_has_folds_and_validation_data() -> None:
    study(folds=2, validation=(X, Y))


@mistake(
    ValueError,
    "validation is float32[8,3], float64[8] and data is float32[8,3], int64[8]; give both the same arrays, shapes of "
    "rows and kinds of numbers",
)
def validation_of_a_study_holds_other_numbers() -> None:
    """Its targets were cut to ints, and its loss was that of others."""
    study(validation=(X, Y + 0.5))


@mistake(
    ValueError,
    "space['width'] is [4, 8], wanted a dimension such as fnn.uniform(0, 1) or fnn.choice([4, 8]); values that stay "
    "the same belong in the trial",
)
def a_space_for_optuna_holds_a_list() -> None:
    fnn.from_optuna(None, {"width": [4, 8]})  # pyright: ignore[reportArgumentType]


@mistake(TypeError, "folds must be an int, got 2.5")
def the_number_of_folds_is_a_float() -> None:
    fnn.k_fold(2.5)  # pyright: ignore[reportArgumentType]


@mistake(
    TypeError,
    "fold 0 of 1 pairs of rows has rows to train on of bool[8], wanted row numbers, ints (rows,); of a mask, pass "
    "np.flatnonzero(mask)",
)
def folds_are_masks() -> None:
    study(folds=[(Y == 0, Y == 1)])


@mistake(TypeError, "activation of the grid is 'relu', wanted a list of values: ['relu']")
def a_grid_holds_a_text() -> None:
    """It was taken for its letters, so that the study had four trials."""
    fnn.grid({"activation": "relu"})


@mistake(TypeError, "choice is 16, wanted a list of values: [16]")
def a_choice_of_one_number() -> None:
    fnn.choice(16, static=True)  # pyright: ignore[reportArgumentType]


@mistake(ValueError, "the study has no trial 0, seed 2, fold 0; it has trials 0 to 0, seeds 0 to 0 and folds 0 to 0")
def the_network_of_a_seed_that_was_not_trained() -> None:
    study().network(0, seed=2)


@mistake(ValueError, "at is 'best' or 'last', got 'first'")
def the_value_of_a_run_is_unknown() -> None:
    study(at="first")


@mistake(
    TypeError,
    'early_stopping must be None or such as fnn.early_stopping(5, minimize="validation/loss"), got 3',
)
def early_stopping_of_a_study_is_a_number() -> None:
    study(early_stopping=3)


@mistake(TypeError, "halving must be None or such as fnn.halving(3, first=100), got 3")
def halving_is_a_number() -> None:
    study(halving=3)


@mistake(TypeError, "key must be a typed key such as jax.random.key(0), got int")
def the_key_of_a_study_is_an_int() -> None:
    study(key=0)


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


IMAGES = np.ones((8, 6, 6, 3), np.float32), Y


@mistake(ValueError, "random_crop would change nothing; give a size, or the padding in which images are shifted")
def a_crop_without_size() -> None:
    fnn.augment.random_crop()


@mistake(
    ValueError,
    "the window is 9 long on axis 1, where the padded examples have 8; give a size of at most 8, or more padding",
)
def a_crop_that_is_too_large() -> None:
    fnn.augment.random_crop(9, padding=1)(KEY, IMAGES)


@mistake(
    ValueError,
    "x has shape (8, 3), and images are (batch, height, width, channels); add the channel axis, x[..., None], "
    "or choose the axes of other data by axes=",
)
def a_table_that_is_flipped() -> None:
    fnn.augment.random_flip()(KEY, (X, Y))


@mistake(ValueError, "the batch lacks 'x', it has 'picture', 'label'; name others by parts=")
def a_dict_of_other_names() -> None:
    fnn.augment.random_shift(2)(KEY, {"picture": IMAGES[0], "label": Y})


@mistake(TypeError, "parts is a tuple of names, ('x',), got 'x'")
def one_part_that_is_no_tuple() -> None:
    fnn.augment.random_flip(parts="x")(KEY, IMAGES)


@mistake(ValueError, "parts that are changed alike must agree on axes (0, 1, 2), got x (8, 6, 6, 3), target (8, 4, 4)")
def a_mask_of_another_size() -> None:
    fnn.augment.random_crop(3, parts=("x", "target"))(KEY, (IMAGES[0], np.ones((8, 4, 4))))


@mistake(
    ValueError,
    "mixup needs soft targets, and these are int64: pass mixup(..., num_classes=10) for one-hot targets of labels "
    "and train with optax.losses.softmax_cross_entropy, or pass floats",
)
def mixed_labels_without_classes() -> None:
    with jax.enable_x64(True):
        fnn.augment.mixup(0.2)(KEY, IMAGES)


@mistake(ValueError, "cutmix has num_classes=5, and the soft targets have shape (8, 2)")
def soft_targets_of_other_classes() -> None:
    fnn.augment.cutmix(num_classes=5)(KEY, (IMAGES[0], np.eye(2, dtype=np.float32)[Y]))


@mistake(TypeError, "mixup mixes images and other floats, and x is int32; mix what an embedding gives, not ids")
def mixed_ids() -> None:
    fnn.augment.mixup(0.2, num_classes=2)(KEY, (np.ones((8, 5), np.int32), Y))


@mistake(ValueError, "cutmix needs images, (batch, height, width, channels), got x of shape (8, 3)")
def boxes_of_a_table() -> None:
    fnn.augment.cutmix(num_classes=2)(KEY, (X, Y))


@mistake(ValueError, "alpha must be positive, got 0")
def no_concentration() -> None:
    fnn.augment.mixup(0)


@mistake(ValueError, "mixup needs a batch (x, target), (x, target, weight) or a dict with these keys, got one array")
def images_that_are_mixed_without_targets() -> None:
    fnn.augment.mixup(0.2)(KEY, IMAGES[0])


@mistake(
    TypeError,
    "augment must be a function of (key, batch), got random_flip(axes, probability, parts); if that returns the "
    "function, call it first",
)
def an_augmentation_that_is_not_called() -> None:
    fit(augment=fnn.augment.random_flip)


@mistake(
    TypeError,
    "on_epoch must be a function of (run, row), got <lambda>(run); if that returns the function, call it first",
)
def a_function_of_the_epoch_without_the_row() -> None:
    fit(on_epoch=lambda run: None)


@mistake(TypeError, "chain takes functions augment(key, batch), got list")
def a_list_of_augmentations() -> None:
    fnn.augment.chain([fnn.augment.random_flip(), fnn.augment.random_crop(padding=4)])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("make", "error", "first_line"), MISTAKES)
def test_a_mistake_is_explained(make: Callable[[], Any], error: type[BaseException], first_line: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert str(caught.value).split("\n")[0] == first_line
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert sum(frame.startswith(FNN) for frame in frames) <= FRAMES
