"""Attention of a sequence to itself, and to another."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.attend import Pattern
from fnn.ops.checks import check_positive_int, check_range
from fnn.ops.heads import Heads
from fnn.ops.masks import clear_padding, reached, read_masks, spoil, zero_non_finite
from fnn.ops.positions import Alibi, Rotary
from fnn.ops.sequences import check_sequence


def attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_features: int | None = None,
    features: int | None = None,
    causal: bool = False,
    window: int | None = None,
    positions: Rotary | Alibi | None = None,
    norm: bool = False,
    scale: Any = None,
    rate: Any = None,
    bias: bool = True,
    cache: int | None = None,
    implementation: str | None = None,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Let every step of a sequence take what it needs from all of them.

    Each head makes a query, a key and a value of every step; a step gets the mean of the values, weighted by the
    softmax of the products of its query with their keys. Softmax and scores are float32, or float64 for float64 inputs.
    Memory is linear in the length: where the scores of all pairs would be many, they are made in chunks, and again for
    the gradient.

    Inputs after the first are masks, any number of them, which act together:

    - booleans, True where a key may be attended: ``(batch, keys)``, ``(batch, queries, keys)`` or
      ``(batch, heads, queries, keys)``, each axis of its size or 1;
    - floats of the same shapes, which are added to the scores; ``-inf`` hides a key. Zeros and ones are a boolean mask
      of the wrong dtype: an error where the values are concrete, and NaN in all of y where they are traced;
    - integers ``(batch,)``: the length of each sequence; keys after it are hidden. Lengths out of range are an error
      where they are concrete, and NaN for their examples where they are traced.

    A query that sees no key gets zeros (and the bias of the output). A step that is not finite makes those queries NaN
    that see it and changes no other, in values and gradients. With ``cache`` the keys and values of earlier
    calls are kept in state, so that a sequence may come in pieces: its parameters are those of the same layer without
    a cache, its state comes from `fnn.init_state`, and steps beyond the cache give NaN. It is not trained.

    Args:
        heads: How many queries each step makes.
        kv_heads: How many keys and values: 1 is multi-query attention, a divisor of ``heads`` grouped-query attention.
            None: ``heads``.
        head_features: Size of a query, key or value. None: the features of x, divided by ``heads``.
        features: Size of the last axis of the output. None: that of x.
        causal: Whether a step sees only itself and those before it.
        window: How far a step sees: itself and ``window - 1`` steps back, and ahead where it is not causal. None: all.
        positions: `fnn.Rotary` or `fnn.Alibi`. None: the order of the steps is unknown but for what x tells.
        norm: Whether queries and keys are brought to a mean square of 1 and scaled, which keeps scores small.
        scale: Factor of the scores; may be traced. None: ``1 / sqrt(head_features)``.
        rate: The fraction of the weights that is dropped in training; may be traced. None: no dropout.
        bias: Whether the four products have biases.
        cache: For how many steps there is room. None: no cache.
        implementation: ``"xla"``, ``"cudnn"`` (GPUs, half precision; without forward mode and second derivatives), or
            None: cuDNN on GPUs where it applies, otherwise XLA.
        kernel_init: Initializer of the kernels.
        bias_init: Initializer of the biases.
        dtype: Dtype of the parameters. The products are done in the dtype of x.

    Returns:
        A layer; without ``cache`` it has no state.

        - x: ``(batch, time, features_in)``, floating; then masks, as above
        - y: ``(batch, time, features)``
        - params: ``query_kernel (features_in, heads * head_features)``, ``key_kernel`` and ``value_kernel (features_in,
          kv_heads * head_features)``, ``out_kernel (heads * head_features, features)``; ``query_bias``, ``key_bias``,
          ``value_bias``, ``out_bias`` of their last axes; with ``norm`` ``query_scale`` and ``key_scale
          (head_features,)``
        - state: with ``cache`` ``cache/key`` and ``cache/value (batch, kv_heads, cache, head_features)``,
          ``cache/position ()``

    Raises:
        ValueError: when ``kv_heads`` does not divide ``heads``, or there is a cache and not ``causal``.
        LayerError: at init, when x is no batch of sequences, the heads do not divide its features, the sequence is
            longer than the cache, or a mask does not fit; in apply, when a concrete mask has wrong values.

    Note:
        In PyTorch's ``nn.MultiheadAttention`` True hides a key: pass ``~key_padding_mask`` and ``~attn_mask`` here.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x = jnp.ones((2, 5, 16))
        >>> net = fnn.attention(heads=4, causal=True)
        >>> params, state = net.init(jax.random.key(0), x)
        >>> net.apply(params, state, x)[0].shape, params["query_kernel"].shape
        ((2, 5, 16), (16, 16))

        One step at a time, with the same parameters:

        >>> cached = fnn.attention(heads=4, causal=True, cache=5)
        >>> state = fnn.init_state(cached, x[:, :1])
        >>> for t in range(5):
        ...     y, state = cached.apply(params, state, x[:, t : t + 1])
        >>> bool(jnp.allclose(y[:, 0], net.apply(params, {}, x)[0][:, -1], atol=1e-5))
        True

    References:
        Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
        Ainslie et al., GQA: training generalized multi-query transformer models, 2023, arXiv:2305.13245.
    """
    if cache is not None:
        check_positive_int("cache", cache)
        if not causal:
            raise ValueError("a cache holds the past, so attention with a cache must be causal; pass causal=True")
    kv_heads = heads if kv_heads is None else kv_heads
    parts = Heads(
        heads, kv_heads, head_features, features, norm, scale, bias, implementation, kernel_init, bias_init, dtype
    )
    slopes = positions.slopes(heads) if isinstance(positions, Alibi) else None
    if window is not None:
        check_positive_int("window", window)
    if rate is not None:
        check_range("rate", rate, 0.0, 1.0)

    def init(key: jax.Array, x: Any, *masks: Any) -> Any:
        check_sequence(x)
        params = parts.init(partial(fold, key), x, x)
        size = parts.sizes(x.shape[-1])[0]
        if isinstance(positions, Rotary):
            positions.size(size)
        if cache is None:
            return params
        zeros = jnp.zeros((x.shape[0], parts.kv_heads, cache, size), x.dtype)
        return params, {"cache": {"key": zeros, "value": zeros, "position": jnp.zeros((), jnp.int32)}}

    def run(params: Any, x: jax.Array, masks: Any, kept: Any, key: Any, train: bool) -> Any:
        start = 0 if kept is None else kept["position"]
        batch, time = x.shape[:2]
        pattern = Pattern(start, causal, window, slopes)
        biases, legal = read_masks(masks, (batch, heads, time, time if cache is None else cache))
        wrong = None
        if biases or causal or window is not None:  # else every step sees every other one
            x, wrong = zero_non_finite(clear_padding(x, masks))
        query, keys, values = parts.project(params, x, "query", "key", "value")
        if isinstance(positions, Rotary):
            query, keys = positions.turn(query, start), positions.turn(keys, start)
        if kept is not None and cache is not None:
            if time > cache:
                raise ValueError(f"x has {time} steps and the cache has room for {cache}; pass cache={time} or more")
            place = (0, 0, start, 0)
            keys = keys if wrong is None else jnp.where(wrong[:, None, :, None], jnp.nan, keys)
            keys = jax.lax.dynamic_update_slice(kept["key"], keys.astype(kept["key"].dtype), place)
            values = jax.lax.dynamic_update_slice(kept["value"], values.astype(kept["value"].dtype), place)
            kept = {"key": keys, "value": values, "position": start + time}
            keys, values = keys.astype(x.dtype), values.astype(x.dtype)
        y = parts.attend(params, query, keys, values, biases, pattern, rate, key if train else None)
        if kept is not None:
            return spoil(jnp.where(kept["position"] <= cache, y, jnp.nan), None, legal), {"cache": kept}
        return spoil(y, None if wrong is None else wrong | reached(wrong, biases, pattern, time), legal), None

    return _lift("attention", init, run, rate, cache is not None)


def cross_attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_features: int | None = None,
    features: int | None = None,
    norm: bool = False,
    scale: Any = None,
    rate: Any = None,
    bias: bool = True,
    cache: bool = False,
    implementation: str | None = None,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Multi-head cross-attention: queries from x, keys and values from the memory.

    It is `attention` whose keys and values are computed from the second input. Inputs after the second are masks, as
    there: booleans are True where a key may be attended. With ``cache`` the keys and values of the first call are kept
    in state, and later calls read them in place of the memory, as decoding does: the parameters are those of the same
    layer without a cache, and another memory needs a new state from `fnn.init_state`. It is not trained.

    Args:
        heads: How many queries each step makes.
        kv_heads: How many keys and values each step of the memory makes. None: ``heads``.
        head_features: Size of a query, key or value. None: the features of x, divided by ``heads``.
        features: Size of the last axis of the output. None: that of x.
        norm: Whether queries and keys are brought to a mean square of 1 and scaled.
        scale: Factor of the scores; may be traced. None: ``1 / sqrt(head_features)``.
        rate: The fraction of the weights that is dropped in training; may be traced. None: no dropout.
        bias: Whether the four products have biases.
        cache: Whether the keys and values of the memory are kept in state.
        implementation: ``"xla"``, ``"cudnn"`` or None, as in `attention`.
        kernel_init: Initializer of the kernels.
        bias_init: Initializer of the biases.
        dtype: Dtype of the parameters. The products are done in the dtype of x.

    Returns:
        A layer; without ``cache`` it has no state.

        - x: ``(batch, time, features_in)``, floating; memory: ``(batch, keys, memory_features)``; then masks
        - y: ``(batch, time, features)``
        - params: those of `attention`; the kernels of key and value are ``(memory_features, kv_heads * head_features)``
        - state: with ``cache`` ``cache/memory/key`` and ``cache/memory/value (batch, kv_heads, keys, head_features)``,
          ``cache/filled ()``

    Raises:
        ValueError: when ``kv_heads`` does not divide ``heads``.
        LayerError: at init, when x or the memory is no batch of sequences, the heads do not divide the features of x,
            or a mask does not fit; in apply, when the memory has another shape than that of the cache, or a concrete
            mask has wrong values.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x, memory = jnp.ones((2, 3, 8)), jnp.ones((2, 7, 6))
        >>> net = fnn.cross_attention(heads=2)
        >>> params, state = net.init(jax.random.key(0), x, memory)
        >>> net.apply(params, state, x, memory, jnp.array([7, 4]))[0].shape  # the second memory has 4 steps
        (2, 3, 8)

    References:
        Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    parts = Heads(
        heads, kv_heads, head_features, features, norm, scale, bias, implementation, kernel_init, bias_init, dtype
    )
    if rate is not None:
        check_range("rate", rate, 0.0, 1.0)

    def init(key: jax.Array, x: Any, memory: Any, *masks: Any) -> Any:
        check_sequence(x)
        check_sequence(memory, "memory")
        params = parts.init(partial(fold, key), x, memory)
        if not cache:
            return params
        zeros = jnp.zeros((memory.shape[0], kv_heads, memory.shape[1], parts.sizes(x.shape[-1])[0]), memory.dtype)
        return params, {"cache": {"memory": {"key": zeros, "value": zeros}, "filled": jnp.zeros((), bool)}}

    def run(params: Any, x: jax.Array, rest: Any, kept: Any, key: Any, train: bool) -> Any:
        memory, *masks = rest
        (batch, time), length = x.shape[:2], memory.shape[1]
        biases, legal = read_masks(masks, (batch, heads, time, length))
        wrong = None
        if biases and kept is None:
            (x, rows), (memory, wrong_keys) = zero_non_finite(x), zero_non_finite(memory)
            wrong = rows | reached(wrong_keys, biases, Pattern(), time)
        (query,) = parts.project(params, x, "query")
        if kept is None:
            keys, values = parts.project(params, memory, "key", "value")
        else:
            keys, values, kept = remember(params, memory, kept)
        y = parts.attend(params, query, keys, values, biases, Pattern(), rate, key if train else None)
        return spoil(y, wrong, legal), None if kept is None else {"cache": kept}

    def remember(params: Any, memory: jax.Array, kept: Any) -> Any:
        """Keys and values from the cache, which the first call fills, and the new cache."""
        held = kept["memory"]["key"].shape
        if memory.shape[:2] != (held[0], held[2]):
            raise ValueError(
                f"the memory has shape {memory.shape}, and the cache holds {held[0]} rows of {held[2]} keys; start "
                "from a new state, fnn.init_state(net, x, memory)"
            )

        def fill() -> dict[str, jax.Array]:
            finite, wrong = zero_non_finite(memory)
            keys, values = parts.project(params, finite, "key", "value")
            keys = jnp.where(wrong[:, None, :, None], jnp.nan, keys)  # NaN in scores can be hidden, in values it cannot
            dtype = kept["memory"]["key"].dtype
            return {"key": keys.astype(dtype), "value": values.astype(dtype)}

        made = jax.lax.cond(kept["filled"], lambda: kept["memory"], fill)
        keys, values = (made[name].astype(memory.dtype) for name in ("key", "value"))
        return keys, values, {"memory": made, "filled": jnp.ones((), bool)}

    return _lift("cross_attention", init, run, rate, cache)


def _lift(name: str, init: Any, run: Any, rate: Any, cached: bool) -> Layer:
    """A leaf that takes state only with a cache, and a key only with dropout."""
    if cached:

        def stepped(params: Any, state: Any, x: jax.Array, *more: jax.Array) -> Any:
            return run(params, x, more, state["cache"], None, False)

        return layer(init, stepped, stateful=True, name=name)
    if rate is None:

        def plain(params: Any, x: jax.Array, *more: jax.Array) -> jax.Array:
            return run(params, x, more, None, None, False)[0]

        return layer(init, plain, name=name)

    def dropped(params: Any, x: jax.Array, *more: jax.Array, key: Any, train: bool) -> jax.Array:
        return run(params, x, more, None, key, train)[0]

    return layer(init, dropped, name=name)
