"""Parameters of another configuration are an error that names the layer, the parameter and both shapes."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

ROWS, SEQUENCE, IMAGES = jnp.ones((2, 8)), jnp.ones((2, 3, 8)), jnp.ones((2, 5, 5, 4))
FILMS, IDS = jnp.ones((2, 3, 5, 5, 4)), jnp.ones((2, 3), int)
ones = jax.nn.initializers.ones

# The layer whose parameters are passed, the layer that gets them, an input, the parameter, its shape, what was wanted.
PAIRS: dict[str, tuple[Any, Any, Any, str, tuple[int, ...], tuple[int, ...]]] = {
    "dense": (fnn.dense(64), fnn.dense(32), ROWS, "kernel", (8, 64), (8, 32)),
    "glu": (fnn.glu(6), fnn.glu(5), ROWS, "kernel", (8, 6), (8, 5)),
    "swiglu": (fnn.swiglu(6), fnn.swiglu(5), ROWS, "kernel", (8, 6), (8, 5)),
    "conv": (fnn.conv(6, (3, 3)), fnn.conv(5, (3, 3)), IMAGES, "kernel", (3, 3, 4, 6), (3, 3, 4, 5)),
    "window": (fnn.conv(6, (3, 3)), fnn.conv(6, (1, 3)), IMAGES, "kernel", (3, 3, 4, 6), (1, 3, 4, 6)),
    "depthwise": (
        fnn.depthwise_conv((3, 3)), fnn.depthwise_conv((5, 5)), IMAGES, "kernel", (3, 3, 1, 4), (5, 5, 1, 4),
    ),
    "transposed": (
        fnn.conv_transpose(6, (2, 2)), fnn.conv_transpose(5, (2, 2)), IMAGES, "kernel", (2, 2, 4, 6), (2, 2, 4, 5),
    ),
    "embedding": (fnn.embedding(10, 6), fnn.embedding(10, 5), IDS, "embedding", (10, 6), (10, 5)),
    "vocabulary": (fnn.embedding(10, 6), fnn.embedding(9, 6), IDS, "embedding", (10, 6), (9, 6)),
    "positions": (
        fnn.learned_positions(7), fnn.learned_positions(6), SEQUENCE, "embedding", (7, 8), (6, 8),
    ),
    "rnn": (fnn.rnn(6), fnn.rnn(5), SEQUENCE, "kernel", (8, 6), (8, 5)),
    "lstm": (fnn.lstm(6), fnn.lstm(5), SEQUENCE, "kernel", (8, 24), (8, 20)),
    "gru": (fnn.gru(6), fnn.gru(5), SEQUENCE, "kernel", (8, 18), (8, 15)),
    "conv_lstm": (
        fnn.conv_lstm(6, (3, 3)), fnn.conv_lstm(5, (3, 3)), FILMS, "kernel", (3, 3, 4, 24), (3, 3, 4, 20),
    ),
    "attention": (
        fnn.attention(2, head_features=4), fnn.attention(2, head_features=3), SEQUENCE, "query_kernel", (8, 8), (8, 6),
    ),
    "kv_heads": (fnn.attention(4), fnn.attention(4, kv_heads=2), SEQUENCE, "key_kernel", (8, 8), (8, 4)),
    "out": (fnn.attention(2, features=6), fnn.attention(2, features=5), SEQUENCE, "out_kernel", (8, 6), (8, 5)),
    "feed_forward": (fnn.feed_forward(6), fnn.feed_forward(5), ROWS, "up_kernel", (8, 6), (8, 5)),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_parameters_of_another_size_are_an_error(kind: str) -> None:
    # dense(32) took a kernel of 64 and gave 64 features, and the next layer took these.
    made, given, x, name, have, wanted = PAIRS[kind]
    params, state = fnn.serial(here=made).init(jax.random.key(0), x)
    net = fnn.serial(here=given)
    with pytest.raises(fnn.LayerError) as caught:
        jax.eval_shape(net.apply, params, state, x)
    message = f"here: {name} has shape {have}, wanted {wanted}; pass the params that this network's init returned"
    assert str(caught.value).split("\n")[0] == message


@pytest.mark.parametrize(
    ("made", "given", "name"),
    [
        (fnn.dense(4), fnn.dense(4, bias=False), "bias"),
        (fnn.conv(4, (3, 3)), fnn.conv(4, (3, 3), bias=False), "bias"),
        (fnn.feed_forward(4, gated=True), fnn.feed_forward(4), "gate_kernel"),
        (fnn.lstm(4), fnn.lstm(4, bias=False), "bias"),
        (fnn.attention(2, norm=True), fnn.attention(2), "query_scale"),
    ],
)
def test_parameters_that_a_layer_does_not_have_are_an_error(made: fnn.Layer, given: fnn.Layer, name: str) -> None:
    # They were left out of the sum without a word.
    x = IMAGES if made.name == "conv" else SEQUENCE
    params, state = made.init(jax.random.key(0), x)
    with pytest.raises(fnn.LayerError, match=f"params has a {name}, which this layer does not have; pass the params"):
        jax.eval_shape(given.apply, params, state, x)


@pytest.mark.parametrize(
    "net", [fnn.layer_norm(), fnn.rms_norm(), fnn.group_norm(1), fnn.instance_norm(), fnn.batch_norm(), fnn.prelu()]
)
@pytest.mark.parametrize("channels", [1, 6])
def test_inputs_of_another_width_are_an_error_of_every_normalisation(net: fnn.Layer, channels: int) -> None:
    # One channel was broadcast to as many as the scale has.
    params, state = net.init(jax.random.key(0), SEQUENCE)
    x = SEQUENCE[..., :channels]
    with pytest.raises(fnn.LayerError, match=rf"x has {channels} features on its last axis and \w+ has shape \(8,\)"):
        net.apply(params, state, x)


def test_a_held_value_of_another_shape_is_an_error() -> None:
    params, _ = fnn.parameter((3,), ones).init(jax.random.key(0))
    with pytest.raises(fnn.LayerError, match=re.escape("value has shape (3,), wanted (2,); pass the params")):
        fnn.parameter((2,), ones).apply(params, {})


@pytest.mark.parametrize(("wrap", "what"), [(fnn.stack, "blocks"), (fnn.ensemble, "networks")])
def test_another_number_of_networks_is_an_error(wrap: Any, what: str) -> None:
    params, state = wrap(fnn.dense(8), 3).init(jax.random.key(0), ROWS)
    with pytest.raises(fnn.LayerError, match=f"params hold 3 {what}, this {wrap.__name__} has 2; pass the params"):
        wrap(fnn.dense(8), 2).apply(params, state, ROWS)
    with pytest.raises(fnn.LayerError, match=re.escape("kernel has shape (8, 8), wanted (8, 9)")):
        fnn.ensemble(fnn.dense(9), 3).apply(params, state, ROWS)


def test_stacks_ensembles_and_mapped_parameters_pass() -> None:
    net = fnn.stack(fnn.residual(fnn.serial(fnn.layer_norm(), fnn.dense(8))), 2)
    many = fnn.ensemble(net, 3)
    params, state = many.init(jax.random.key(0), ROWS)
    y = jax.vmap(lambda params: net.apply(params, {}, ROWS)[0])(params)
    np.testing.assert_array_equal(many.apply(params, state, ROWS)[0], y)


def test_a_symbolic_batch_passes_every_check() -> None:
    batch = jax.export.symbolic_shape("b")[0]
    x = jax.ShapeDtypeStruct((batch, 5, 5, 4), jnp.float32)
    net = fnn.serial(fnn.conv(6, (3, 3)), fnn.batch_norm(), fnn.prelu(), fnn.flatten(), fnn.layer_norm(), fnn.dense(2))
    params, state = net.init(jax.random.key(0), IMAGES)
    f = jax.jit(lambda x: net.apply(params, state, x)[0])
    exported = jax.export.export(f)(x)
    np.testing.assert_allclose(exported.call(IMAGES), f(IMAGES), rtol=1e-6)
