"""Attention by cuDNN, on GPUs and for what it supports."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.attend import Pattern


def uses_cudnn(implementation: str | None, query: jax.Array, pattern: Pattern, drop_key: jax.Array | None) -> bool:
    """Whether to leave attention to cuDNN: when asked for, or where it applies on a GPU."""
    if implementation is not None:
        return implementation == "cudnn"
    known = isinstance(pattern.start, int) and pattern.slopes is None and drop_key is None
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    fits = query.shape[-1] % 8 == 0 and query.shape[-1] <= 128 and (pattern.window is None or pattern.causal)
    return known and half and fits and jax.default_backend() == "gpu"


def cudnn_attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *biases: jax.Array,
    pattern: Pattern,
    scale: Any = None,
    rate: Any = None,
    drop_key: jax.Array | None = None,
) -> jax.Array:
    """`fnn.ops.attend.attend` by cuDNN's flash attention, which has neither dropout nor forward mode.

    Raises:
        ValueError: for what cuDNN lacks.
    """
    if drop_key is not None or pattern.slopes is not None or not isinstance(pattern.start, int) or pattern.start:
        raise ValueError("cuDNN has no dropout, Alibi or cache in attention; pass implementation=None or 'xla'")
    flip = lambda array: array.transpose(0, 2, 1, 3)
    masks = [bias if bias.dtype == bool else bias > -jnp.inf for bias in biases]
    floats = [jnp.where(bias > -jnp.inf, bias, 0).astype(query.dtype) for bias in biases if bias.dtype != bool]
    shape = (*query.shape[:3], key.shape[2])
    mask = jnp.broadcast_to(functools.reduce(jnp.logical_and, masks), shape) if masks else None
    bias = jnp.broadcast_to(functools.reduce(jnp.add, floats), shape) if floats else None
    scaled = query * jnp.asarray(1 / math.sqrt(query.shape[-1]) if scale is None else scale, query.dtype)
    y = jax.nn.dot_product_attention(
        flip(scaled), flip(key), flip(value), bias, mask, scale=1.0, is_causal=pattern.causal,
        local_window_size=None if pattern.window is None else (pattern.window - 1, 0), implementation="cudnn",
    )  # fmt: skip
    y = flip(y)
    if mask is None:
        return y
    seen = pattern.seen(pattern.distances(*shape[2:]))
    mask = mask if seen is None else mask & seen
    return jnp.where(mask.any(-1, keepdims=True), y, 0)
