"""Transformers: blocks of attention and a feed-forward part, and the networks that stack them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fnn.combinators import parameter
from fnn.core.layer import Layer
from fnn.layers.attention import attention, cross_attention
from fnn.layers.conv import conv
from fnn.layers.dense import dense
from fnn.layers.dropout import dropout
from fnn.layers.embedding import TABLE_INIT, embedding
from fnn.layers.feed_forward import feed_forward
from fnn.layers.norm import layer_norm
from fnn.layers.positions import learned_positions
from fnn.ops.linear import linear
from fnn.ops.masks import clear_padding
from fnn.wire import wire
from fnn.wrappers import stack

ORDERS = ("pre", "post", "parallel")


def transformer_block(
    attention: Layer,
    feed_forward: Layer,
    *,
    norm: Callable[[], Layer] = layer_norm,
    order: str = "pre",
    rate: Any = None,
) -> Layer:
    """Attention and a feed-forward part, each added to its input.

    Args:
        attention: `fnn.attention`, or any layer that keeps the shape of x. Inputs after the first go to it.
        feed_forward: `fnn.feed_forward`, `fnn.experts`, or any layer that keeps the shape of x.
        norm: Makes a normalisation, such as `fnn.layer_norm` or `fnn.rms_norm`.
        order: Where it stands. ``"pre"``: before each part, ``x + part(norm(x))``. ``"post"``: after each sum,
            ``norm(x + part(x))``, as in the first transformer and BERT. ``"parallel"``: one before both parts, which
            work side by side, ``x + attention(norm(x)) + feed_forward(norm(x))``, as in GPT-J and PaLM.
        rate: The fraction of the output of each part that is dropped in training; may be traced. None: no dropout.

    Returns:
        A layer with the children ``attention``, ``attention_norm``, ``feed_forward`` and, unless parallel,
        ``feed_forward_norm``.

        - x: ``(batch, time, features)``; then masks, as in `fnn.attention`. Time steps that are not finite and
          that the masks hide from every query are replaced by zeros, so that padding cannot make gradients NaN
        - y: the shape of x

    Raises:
        ValueError: when ``order`` is none of the three.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> block = fnn.transformer_block(fnn.attention(heads=2, causal=True), fnn.feed_forward(32))
        >>> net = fnn.stack(block, 4)
        >>> x = jnp.ones((2, 5, 8))
        >>> params, state = net.init(jax.random.key(0), x)
        >>> net.apply(params, state, x)[0].shape, params["feed_forward"]["up_kernel"].shape
        ((2, 5, 8), (4, 8, 32))

    References:
        Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
        Xiong et al., On layer normalization in the transformer architecture, 2020, arXiv:2002.04745.
    """
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, got {order!r}")
    children = {"attention": attention, "attention_norm": norm(), "feed_forward": feed_forward}
    children |= {} if order == "parallel" else {"feed_forward_norm": norm()}
    children |= {} if rate is None else {"drop": dropout(rate)}

    def forward(f: Any, x: jax.Array, *masks: Any) -> jax.Array:
        x = clear_padding(x, masks)
        drop = (lambda x: x) if rate is None else f.drop
        if order == "parallel":
            h = f.attention_norm(x)
            return x + drop(f.attention(h, *masks)) + drop(f.feed_forward(h))
        if order == "post":
            x = f.attention_norm(x + drop(f.attention(x, *masks)))
            return f.feed_forward_norm(x + drop(f.feed_forward(x)))
        x = x + drop(f.attention(f.attention_norm(x), *masks))
        return x + drop(f.feed_forward(f.feed_forward_norm(x)))

    return wire(forward, **children)


def decoder_block(
    attention: Layer,
    cross_attention: Layer,
    feed_forward: Layer,
    *,
    norm: Callable[[], Layer] = layer_norm,
    order: str = "pre",
    rate: Any = None,
) -> Layer:
    """A `transformer_block` that also looks at another sequence, between its two parts.

    Args:
        attention: Of x to itself, such as ``fnn.attention(8, causal=True)``.
        cross_attention: Of x to the memory, such as ``fnn.cross_attention(8)``.
        feed_forward: As in `transformer_block`.
        norm: Makes a normalisation.
        order: ``"pre"`` or ``"post"``, as in `transformer_block`.
        rate: The fraction of the output of each part that is dropped in training; may be traced. None: no dropout.

    Returns:
        A layer with the children ``attention``, ``cross_attention`` and ``feed_forward``, and a norm for each.

        - x: ``(batch, time, features)``; memory: ``(batch, keys, memory_features)``; then masks of the memory
        - y: the shape of x

    Raises:
        ValueError: when ``order`` is neither of the two.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> block = fnn.decoder_block(fnn.attention(2, causal=True), fnn.cross_attention(2), fnn.feed_forward(32))
        >>> x, memory, lengths = jnp.ones((2, 5, 8)), jnp.ones((2, 7, 8)), jnp.array([7, 4])
        >>> params, state = block.init(jax.random.key(0), x, memory, lengths)
        >>> block.apply(params, state, x, memory, lengths)[0].shape
        (2, 5, 8)
    """
    if order not in ORDERS[:2]:
        raise ValueError(f"order is one of {', '.join(ORDERS[:2])}, got {order!r}")
    parts = {"attention": attention, "cross_attention": cross_attention, "feed_forward": feed_forward}
    children = {**parts, **{f"{name}_norm": norm() for name in parts}}
    children |= {} if rate is None else {"drop": dropout(rate)}

    def forward(f: Any, x: jax.Array, memory: jax.Array, *masks: Any) -> jax.Array:
        more = {"attention": (), "cross_attention": (memory, *masks), "feed_forward": ()}
        for name in parts:
            own = f[f"{name}_norm"]
            y = f[name](own(x) if order == "pre" else x, *more[name])
            x = x + (y if rate is None else f.drop(y))
            x = x if order == "pre" else own(x)
        return x

    return wire(forward, **children)


def encoder(
    blocks: int,
    heads: int,
    hidden: int,
    *,
    norm: Callable[[], Layer] = layer_norm,
    rate: Any = None,
    attention_dropout_rate: Any = None,
    feed_forward_dropout_rate: Any = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu,
    gated: bool = False,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
    unroll: bool = False,
    **options: Any,
) -> Layer:
    """A stack of pre-norm blocks that see the whole sequence, and a norm at the end.

    Args:
        blocks: How many.
        heads: Heads of attention.
        hidden: Features inside the feed-forward parts.
        norm: Makes a normalisation.
        rate: Dropout of each part's output; may be traced. None: no dropout.
        attention_dropout_rate: Dropout of the weights of attention; may be traced. None: no dropout.
        feed_forward_dropout_rate: Dropout of the hidden features of the feed-forward parts; may be traced. None: no
            dropout.
        activation: Nonlinearity of the feed-forward parts, as in `feed_forward`.
        gated: Whether the feed-forward parts are gated; with ``activation=jax.nn.silu`` a SwiGLU.
        bias: Whether attention, feed-forward parts and `layer_norm` have biases. False: none of them; another ``norm``
            decides for itself.
        kernel_init: Initializer of the kernels of attention and feed-forward parts.
        bias_init: Initializer of their biases.
        dtype: Dtype of their parameters.
        unroll: As in `fnn.stack`: longer to compile, at times faster.
        **options: Of `fnn.attention`; ``causal=True`` and ``cache`` make it the trunk of a language model.

    Returns:
        A layer with the children ``blocks`` and ``norm``.

        - x: ``(batch, time, features)``; then masks, such as lengths
        - y: the shape of x

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.encoder(blocks=2, heads=2, hidden=32)
        >>> x, lengths = jnp.ones((2, 5, 8)), jnp.array([5, 3])
        >>> params, state = net.init(jax.random.key(0), x, lengths)
        >>> net.apply(params, state, x, lengths)[0].shape
        (2, 5, 8)

        As in Llama: RMSNorm, rotary positions, SwiGLU and no biases.

        >>> net = fnn.encoder(
        ...     2, 2, 32, causal=True, positions=fnn.Rotary(), norm=fnn.rms_norm, activation=jax.nn.silu, gated=True,
        ...     bias=False,
        ... )
        >>> params, state = net.init(jax.random.key(0), x)
        >>> sorted(params["blocks"]["feed_forward"])
        ['down_kernel', 'gate_kernel', 'up_kernel']
    """
    shared = {"bias": bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
    norm = _without_bias(norm, bias)
    block = transformer_block(
        attention(heads, rate=attention_dropout_rate, **shared, **options),
        feed_forward(hidden, activation=activation, gated=gated, rate=feed_forward_dropout_rate, **shared),
        norm=norm, rate=rate,
    )  # fmt: skip

    def forward(f: Any, x: jax.Array, *masks: Any) -> jax.Array:
        return f.norm(f.blocks(x, *masks))

    return wire(forward, blocks=stack(block, blocks, unroll=unroll), norm=norm())


def decoder(
    blocks: int,
    heads: int,
    hidden: int,
    *,
    norm: Callable[[], Layer] = layer_norm,
    rate: Any = None,
    attention_dropout_rate: Any = None,
    feed_forward_dropout_rate: Any = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu,
    gated: bool = False,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
    cache: int | None = None,
    unroll: bool = False,
    **options: Any,
) -> Layer:
    """A stack of pre-norm `decoder_block`, each causal and looking at the memory, and a norm at the end.

    Args:
        blocks: How many.
        heads: Heads of attention.
        hidden: Features inside the feed-forward parts.
        norm: Makes a normalisation.
        rate: Dropout of each part's output; may be traced. None: no dropout.
        attention_dropout_rate: Dropout of the weights of attention; may be traced. None: no dropout.
        feed_forward_dropout_rate: Dropout of the hidden features of the feed-forward parts; may be traced. None: no
            dropout.
        activation: Nonlinearity of the feed-forward parts, as in `feed_forward`.
        gated: Whether the feed-forward parts are gated; with ``activation=jax.nn.silu`` a SwiGLU.
        bias: Whether attention, feed-forward parts and `layer_norm` have biases. False: none of them; another ``norm``
            decides for itself.
        kernel_init: Initializer of the kernels of attention and feed-forward parts.
        bias_init: Initializer of their biases.
        dtype: Dtype of their parameters.
        cache: For how many time steps there is room in the cache of the causal attention. The keys and values of the
            memory are then kept too: another memory needs a new state. None: no cache.
        unroll: As in `fnn.stack`: longer to compile, at times faster.
        **options: Of the causal `fnn.attention`, such as ``positions``.

    Returns:
        A layer with the children ``blocks`` and ``norm``.

        - x: ``(batch, time, features)``; memory: ``(batch, keys, memory_features)``; then masks of the memory
        - y: the shape of x

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.decoder(blocks=2, heads=2, hidden=32)
        >>> x, memory = jnp.ones((2, 5, 8)), jnp.ones((2, 7, 8))
        >>> params, state = net.init(jax.random.key(0), x, memory)
        >>> net.apply(params, state, x, memory)[0].shape
        (2, 5, 8)
    """
    shared = {"bias": bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
    norm = _without_bias(norm, bias)
    block = decoder_block(
        attention(heads, causal=True, rate=attention_dropout_rate, cache=cache, **shared, **options),
        cross_attention(heads, rate=attention_dropout_rate, cache=cache is not None, **shared),
        feed_forward(hidden, activation=activation, gated=gated, rate=feed_forward_dropout_rate, **shared),
        norm=norm, rate=rate,
    )  # fmt: skip

    def forward(f: Any, x: jax.Array, memory: jax.Array, *masks: Any) -> jax.Array:
        return f.norm(f.blocks(x, memory, *masks))

    return wire(forward, blocks=stack(block, blocks, unroll=unroll), norm=norm())


def _without_bias(norm: Callable[[], Layer], bias: bool) -> Callable[[], Layer]:
    return partial(layer_norm, bias=False) if norm is layer_norm and not bias else norm


def language_model(
    vocabulary: int,
    features: int,
    trunk: Layer,
    *,
    positions: Layer | None = None,
    rate: Any = None,
    embedding_init: Callable[..., jax.Array] = TABLE_INIT,
) -> Layer:
    """Embed ids, run a causal trunk, and score every id as the next one, by the table that embeds them.

    Args:
        vocabulary: How many ids there are.
        features: Size of the vector of an id.
        trunk: What maps ``(batch, time, features)`` to the same shape, such as a causal `encoder`, or recurrent layers.
        positions: Such as `fnn.learned_positions`. None: the trunk knows the order.
        rate: Dropout of the embedded ids; may be traced. None: no dropout.
        embedding_init: Initializer of the table, such as ``jax.nn.initializers.normal(0.02)`` of GPT-2, with which all
            ids are about as probable at first.

    Returns:
        A layer with the children ``embedding``, ``positions`` and ``trunk``.

        - x: ids ``(batch, time)``; further inputs go to the trunk
        - y: logits ``(batch, time, vocabulary)``

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> def gpt(cache=None):
        ...     trunk = fnn.encoder(blocks=2, heads=2, hidden=32, causal=True, cache=cache)
        ...     return fnn.language_model(65, 16, trunk, positions=fnn.learned_positions(32, cache=cache is not None))
        >>> ids = jnp.zeros((2, 8), int)
        >>> params, state = gpt().init(jax.random.key(0), ids)
        >>> gpt().apply(params, state, ids)[0].shape
        (2, 8, 65)
        >>> fnn.generate(gpt(cache=32), params, ids, 4).ids.shape
        (2, 12)
    """
    children = {"embedding": embedding(vocabulary, features, embedding_init=embedding_init), "trunk": trunk}
    children |= {} if positions is None else {"positions": positions}
    children |= {} if rate is None else {"drop": dropout(rate)}

    def forward(f: Any, ids: jax.Array, *more: Any) -> jax.Array:
        x = f.embedding(ids)
        x = x if positions is None else f.positions(x)
        x = x if rate is None else f.drop(x)
        return linear(f.trunk(x, *more), f.embedding.params["embedding"].T)

    return wire(forward, **children)


def vision_transformer(
    classes: int,
    features: int,
    blocks: int,
    heads: int,
    hidden: int,
    *,
    patch: tuple[int, int] = (16, 16),
    length: int = 196,
    rate: Any = None,
    **options: Any,
) -> Layer:
    """Vision transformer (ViT): an encoder of image patches, with a class token.

    Args:
        classes: How many.
        features: Size of the vector of a patch.
        blocks: How many blocks of the `encoder`.
        heads: Heads of attention.
        hidden: Features inside the feed-forward parts.
        patch: Height and width of a patch.
        length: How many patches an image has at most.
        rate: Dropout of each part's output; may be traced. None: no dropout.
        **options: Of the `encoder`, such as ``norm``, ``activation`` or ``attention_dropout_rate``.

    Returns:
        A layer with the children ``patches``, ``token``, ``positions``, ``encoder`` and ``head``.

        - x: ``(batch, height, width, channels)``
        - y: logits ``(batch, classes)``

    Raises:
        LayerError: at init, when there are more patches than ``length``, or an image is smaller than one.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.vision_transformer(10, 16, blocks=2, heads=2, hidden=32, patch=(7, 7), length=16)
        >>> images = jnp.ones((2, 28, 28, 1))
        >>> params, state = net.init(jax.random.key(0), images)
        >>> net.apply(params, state, images)[0].shape
        (2, 10)

    References:
        Dosovitskiy et al., An image is worth 16x16 words, 2020, arXiv:2010.11929.
    """

    def forward(f: Any, x: jax.Array) -> jax.Array:
        x = f.patches(x)
        x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], features)
        token = jnp.broadcast_to(f.token().astype(x.dtype), (x.shape[0], 1, features))
        return f.head(f.encoder(f.positions(jnp.concatenate([token, x], 1)))[:, 0])

    return wire(
        forward,
        patches=conv(features, patch, strides=patch, padding="VALID"),
        token=parameter((1, 1, features), jax.nn.initializers.normal(0.02)),
        positions=learned_positions(length + 1),
        encoder=encoder(blocks, heads, hidden, rate=rate, **options),
        head=dense(classes),
    )
