"""One row for each layer and combinator. A new layer joins every law of test_laws.py with one row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn


class Row(NamedTuple):
    """A layer and what may be expected of it."""

    name: str
    make: Callable[[], fnn.Layer]
    xs: tuple[Any, ...]
    by_example: bool = True  # applied to a batch it does what it does to each example
    smooth: bool = True  # differentiable almost everywhere with the derivative of its values
    still: int = 0  # how many of the last inputs have no gradient


def normal(*shape: int) -> np.ndarray:
    """Numbers that stay clear of 0, where activations have their kink."""
    x = np.random.default_rng(sum(shape)).normal(size=shape)
    return (x + 0.05 * np.sign(x)).astype(np.float32)


IMAGES, SEQUENCE, ROWS = normal(2, 6, 6, 4), normal(2, 5, 4), normal(3, 4)
IDS = np.array([[0, 3, 1], [2, 2, 5]], np.int32)
relu = jax.nn.relu


def _block() -> fnn.Layer:
    return fnn.residual(fnn.serial(fnn.dense(4), jnp.tanh))


def _deeper(number: Any) -> fnn.Layer:
    return fnn.residual(fnn.drop_path(0.1 * number.astype(jnp.float32)))


def _wired(f: Any, x: Any) -> Any:
    return f.shared(x) + f.blocks[1](f.shared(jnp.tanh(x))) + f.blocks[0](x)


def _siamese(f: Any, a: Any, b: Any) -> Any:
    return f.net(a) - f.net(b)


def _tied(f: Any, ids: Any) -> Any:
    return f.embedding(ids) @ f.embedding.params["embedding"].T


CATALOG = [
    Row("dense", lambda: fnn.dense(3), (ROWS,)),
    Row("dense on a sequence", lambda: fnn.dense(3, bias=False), (SEQUENCE,)),
    Row("conv 1d", lambda: fnn.conv(3, (3,), dilation=2), (SEQUENCE,)),
    Row("conv 2d", lambda: fnn.conv(3, (3, 3)), (IMAGES,)),
    Row("conv 1x1", lambda: fnn.conv(3, (1, 1)), (IMAGES,)),
    Row("conv strided", lambda: fnn.conv(2, (3, 2), strides=2, padding="VALID", groups=2), (IMAGES,)),
    Row("conv 3d", lambda: fnn.conv(2, (2, 2, 2)), (normal(1, 3, 4, 3, 2),)),
    Row("depthwise_conv", lambda: fnn.depthwise_conv((3, 3)), (IMAGES,)),
    Row("conv_transpose", lambda: fnn.conv_transpose(3, (3, 3), strides=2), (normal(2, 3, 3, 2),)),
    Row("max_pool", lambda: fnn.max_pool((2, 2)), (IMAGES,)),
    Row("max_pool overlapping", lambda: fnn.max_pool((3, 3), strides=2, padding="SAME"), (IMAGES,)),
    Row("mean_pool", lambda: fnn.mean_pool((2, 2)), (IMAGES,)),
    Row("mean_pool overlapping", lambda: fnn.mean_pool((3, 3), strides=2, padding="SAME"), (IMAGES,)),
    Row("global_max_pool", lambda: fnn.global_max_pool(), (IMAGES,)),
    Row("global_mean_pool", lambda: fnn.global_mean_pool(), (IMAGES,)),
    Row("flatten", lambda: fnn.flatten(), (IMAGES,)),
    Row("reshape", lambda: fnn.reshape(9, -1), (IMAGES,)),
    Row("upsample", lambda: fnn.upsample(2), (IMAGES,)),
    Row("upsample linear", lambda: fnn.upsample((2, 3), method="linear"), (IMAGES,)),
    Row("dropout", lambda: fnn.dropout(0.4), (ROWS,)),
    Row("dropout spatial", lambda: fnn.dropout(0.4, axes=(1, 2)), (IMAGES,)),
    Row("drop_path", lambda: fnn.drop_path(0.4), (ROWS,)),
    Row("gaussian_noise", lambda: fnn.gaussian_noise(0.3), (ROWS,)),
    Row("batch_norm", lambda: fnn.batch_norm(), (IMAGES,)),
    Row("batch_norm with a mask", lambda: fnn.batch_norm(), (IMAGES, np.array([1.0, 0.5], np.float32)), still=1),
    Row("lstm", lambda: fnn.lstm(3), (SEQUENCE, np.array([5, 2]))),
    Row("gru reversed", lambda: fnn.gru(3, reverse=True), (SEQUENCE,)),
    Row("attention", lambda: fnn.attention(2, causal=True, rate=0.3), (SEQUENCE,)),
    Row("attention with lengths", lambda: fnn.attention(2, positions=fnn.Alibi()), (SEQUENCE, np.array([5, 2]))),
    Row("cross_attention", lambda: fnn.cross_attention(2), (SEQUENCE, normal(2, 3, 6))),
    Row("learned_positions", lambda: fnn.learned_positions(6), (SEQUENCE,)),
    Row("sinusoidal_positions", lambda: fnn.sinusoidal_positions(), (SEQUENCE,)),
    Row("feed_forward", lambda: fnn.feed_forward(6, gated=True, rate=0.3), (SEQUENCE,)),
    Row("experts", lambda: fnn.experts(fnn.feed_forward(6), 3), (SEQUENCE,), by_example=False),
    Row("layer_norm", lambda: fnn.layer_norm(), (SEQUENCE,)),
    Row("rms_norm", lambda: fnn.rms_norm(), (SEQUENCE,)),
    Row("group_norm", lambda: fnn.group_norm(2), (IMAGES,)),
    Row("instance_norm", lambda: fnn.instance_norm(), (IMAGES,)),
    Row("embedding", lambda: fnn.embedding(6, 4), (IDS,)),
    Row("prelu", lambda: fnn.prelu(), (ROWS,)),
    Row("step", lambda: fnn.step(), (ROWS,), smooth=False),
    Row("step straight-through", lambda: fnn.step(straight_through=True), (ROWS,), smooth=False),
    Row("glu", lambda: fnn.glu(3), (ROWS,)),
    Row("swiglu", lambda: fnn.swiglu(3), (SEQUENCE,)),
    Row("parameter", lambda: fnn.parameter((2, 3), jax.nn.initializers.normal()), (), by_example=False),
    Row("plain function", lambda: fnn.serial(jnp.tanh), (ROWS,)),
    Row("serial", lambda: fnn.serial(fnn.dense(5), jax.nn.gelu, fnn.batch_norm(), head=fnn.dense(2)), (ROWS,)),
    Row("serial empty", lambda: fnn.serial(), (ROWS,)),
    Row("parallel", lambda: fnn.parallel(fnn.dense(2), fnn.dense(2), join=jnp.add), (ROWS,)),
    Row("residual", lambda: fnn.residual(fnn.dense(3), fnn.dense(3)), (ROWS,)),
    Row("stack", lambda: fnn.stack(_block(), 3), (ROWS,)),
    Row("stack unrolled", lambda: fnn.stack(_block(), 3, unroll=True), (ROWS,)),
    Row("stack with state", lambda: fnn.stack(fnn.serial(fnn.dense(4), fnn.batch_norm()), 2), (ROWS,)),
    Row("stack with dropout", lambda: fnn.stack(fnn.serial(fnn.dense(4), fnn.dropout(0.3)), 2), (ROWS,)),
    Row("stack by depth", lambda: fnn.stack(_deeper, 2), (ROWS,)),
    Row("ensemble", lambda: fnn.ensemble(fnn.serial(fnn.dense(3), fnn.batch_norm()), 2), (ROWS,), by_example=False),
    Row("remat", lambda: fnn.remat(fnn.serial(fnn.dense(3), fnn.dropout(0.2))), (ROWS,)),
    Row("frozen", lambda: fnn.frozen(fnn.serial(fnn.dense(3), fnn.batch_norm())), (ROWS,), smooth=False),
    Row("spectral_norm", lambda: fnn.spectral_norm(fnn.dense(3)), (ROWS,)),
    Row("spectral_norm conv", lambda: fnn.spectral_norm(fnn.conv(3, (3, 3))), (IMAGES,)),
    Row("weight_norm", lambda: fnn.weight_norm(fnn.dense(3)), (ROWS,)),
    Row("mixed_precision", lambda: fnn.mixed_precision(fnn.dense(3), compute=jnp.float32), (ROWS,)),
    Row("wire", lambda: fnn.wire(_wired, shared=fnn.dense(4), blocks=[fnn.dense(4), fnn.batch_norm()]), (ROWS,)),
    Row("wire tied", lambda: fnn.wire(_tied, embedding=fnn.embedding(6, 4)), (IDS,)),
    Row("wire of two inputs", lambda: fnn.wire(_siamese, net=fnn.dense(2)), (ROWS, ROWS + 1)),
    Row("capture", lambda: fnn.capture(fnn.serial(fnn.dense(4), relu, fnn.dense(2)), "relu_*"), (ROWS,)),
]
