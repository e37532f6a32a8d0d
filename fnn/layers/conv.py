"""Convolution: the same small kernel at every place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_positive_int, check_shapes
from fnn.ops.convolution import convolve, convolve_transpose
from fnn.ops.windows import CONV_BY_NAME, Padding, check_geometry, check_groups, check_rank


def conv(
    features: int,
    window: tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Slide a window over space and mix the channels beneath it.

    The length of ``window`` decides the number of spatial axes. Channels come last. The kernel is not flipped: this is
    a cross-correlation, as everywhere in machine learning.

    Args:
        features: Channels out.
        window: Extent of the kernel along each spatial axis; ``(3, 3)`` for images, ``(3,)`` for sequences.
        strides: Step of the window; one int, or one for each axis.
        padding: Zeros around x, in the spelling of Flax.

            - ``"SAME"``: so many that ``space' = ceil(space / strides)``, the odd one at the end.
            - ``"VALID"``: none.
            - ``"CAUSAL"``: all before the first element, so that an output depends on no later time step; for windows
              with one axis.
            - ``"REFLECT"``, ``"CIRCULAR"``: elements of x in place of zeros, mirrored at the edges without repeating
              them, or from the other end. With ``extent = (window - 1) * dilation + 1`` there are ``(extent - 1) // 2``
              before and ``extent // 2`` after, whatever the strides.
            - An int: at both ends of every axis. A sequence: an int or a pair ``(low, high)`` for each axis.
        dilation: Distance between neighbouring elements of the window; one int, or one for each axis.
        groups: Number of equal parts of the channels, each of which makes its own part of the features.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. The arithmetic is done in the dtype of x.

    Returns:
        A layer without state.

        - x: ``(batch, *space, channels)``, floating
        - y: ``(batch, *space', features)``, with
          ``space' = (space + low + high - (window - 1) * dilation - 1) // strides + 1``; ``ceil(space / strides)`` for
          all names but ``"VALID"``
        - params: ``kernel (*window, channels // groups, features)``, ``bias (features,)``

    Raises:
        ValueError: when window, strides, padding or dilation is none of the above.
        LayerError: at init, when x has another rank or an integer dtype, ``groups`` does not divide the channels and
            the features, the window is larger than the padded x, or x is too small for ``"REFLECT"``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.conv(8, (3, 3), strides=2)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 28, 28, 1)))
        >>> y, state = net.apply(params, state, jnp.ones((2, 28, 28, 1)))
        >>> y.shape, params["kernel"].shape
        ((2, 14, 14, 8), (3, 3, 1, 8))

    References:
        Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv:1603.07285.
    """
    check_positive_int("features", features)
    check_positive_int("groups", groups)
    check_geometry(window, strides, padding, dilation, names=CONV_BY_NAME)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_rank(x, len(window))
        check_groups(x.shape[-1], features, groups)
        params = {"kernel": kernel_init(fold(key, "kernel"), (*window, x.shape[-1] // groups, features), dtype)}
        return params | {"bias": bias_init(fold(key, "bias"), (features,), dtype)} if bias else params

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        check_shapes(params, kernel=(*window, None, features), bias=(features,) if bias else None)
        y = convolve(x, params["kernel"], strides=strides, padding=padding, dilation=dilation, groups=groups)
        return y + params["bias"].astype(x.dtype) if bias else y

    return layer(init, apply)


def depthwise_conv(
    window: tuple[int, ...],
    *,
    multiplier: int = 1,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Slide a window over each channel by itself.

    It is `conv` with as many groups as x has channels. Channel c makes the features
    ``c * multiplier, ..., c * multiplier + multiplier - 1``.

    Args:
        window: Extent of the kernel along each spatial axis.
        multiplier: Features made of each channel.
        strides: Step of the window; one int, or one for each axis.
        padding: Zeros around x, as in `conv`.
        dilation: Distance between neighbouring elements of the window; one int, or one for each axis.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. The arithmetic is done in the dtype of x.

    Returns:
        A layer without state.

        - x: ``(batch, *space, channels)``, floating
        - y: ``(batch, *space', channels * multiplier)``, with the space' of `conv`
        - params: ``kernel (*window, 1, channels * multiplier)``, ``bias (channels * multiplier,)``

    Raises:
        ValueError: when window, multiplier, strides, padding or dilation is none of the above.
        LayerError: at init, when x has another rank or an integer dtype, the window is larger than the padded x, or x
            is too small for ``"REFLECT"``.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.depthwise_conv((3, 3)), fnn.conv(16, (1, 1)))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 8, 8, 4)))
        >>> params["depthwise_conv_0"]["kernel"].shape
        (3, 3, 1, 4)

    References:
        Chollet, Xception: deep learning with depthwise separable convolutions, 2016, arXiv:1610.02357.
    """
    check_positive_int("multiplier", multiplier)
    check_geometry(window, strides, padding, dilation, names=CONV_BY_NAME)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_rank(x, len(window))
        features = x.shape[-1] * multiplier
        params = {"kernel": kernel_init(fold(key, "kernel"), (*window, 1, features), dtype)}
        return params | {"bias": bias_init(fold(key, "bias"), (features,), dtype)} if bias else params

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        features = params["kernel"].shape[-1]
        check_shapes(params, kernel=(*window, 1, features), bias=(features,) if bias else None)
        groups = features // multiplier
        y = convolve(x, params["kernel"], strides=strides, padding=padding, dilation=dilation, groups=groups)
        return y + params["bias"].astype(x.dtype) if bias else y

    return layer(init, apply)


def conv_transpose(
    features: int,
    window: tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Callable[..., jax.Array] = jax.nn.initializers.lecun_normal(),
    bias_init: Callable[..., jax.Array] = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Layer:
    """Enlarge space by the transpose of a strided convolution.

    Every place of x puts a copy of the kernel, weighted by its channels, into the output, ``strides`` apart; copies
    that overlap add up. Along an axis this gives ``full = (space - 1) * strides + (window - 1) * dilation + 1``.

    The kernel has the layout of Flax: a checkpoint of ``flax.linen.ConvTranspose`` fits as it is. A weight of PyTorch's
    ``ConvTranspose2d``, ``(channels, features, height, width)``, becomes
    ``weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)``, where its ``groups`` is 1; one of Keras, with axes
    ``(height, width, features, channels)``, becomes ``kernel[::-1, ::-1].swapaxes(2, 3)``.

    Args:
        features: Channels out.
        window: Extent of the kernel along each spatial axis.
        strides: Factor by which space grows; one int, or one for each axis.
        padding: What is cut off the full output. ``"SAME"``: all but ``space * strides``, the odd one at the end.
            ``"VALID"``: nothing. Where strides are larger than the dilated window, both add zeros at the end, up to
            ``space * strides``. An int: from both ends of every axis. A sequence: an int or a pair ``(low, high)`` for
            each axis; a negative number adds zeros. PyTorch's ``padding=p, output_padding=q`` is ``(p, p - q)``.
        dilation: Distance between neighbouring elements of the window; one int, or one for each axis.
        groups: Number of equal parts of the channels, each of which makes its own part of the features.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters. The arithmetic is done in the dtype of x.

    Returns:
        A layer without state.

        - x: ``(batch, *space, channels)``, floating
        - y: ``(batch, *space', features)``; space' is ``space * strides`` for ``"SAME"``, ``max(full, space *
          strides)`` for ``"VALID"``, ``full - low - high`` for numbers
        - params: ``kernel (*window, channels // groups, features)``, ``bias (features,)``

    Raises:
        ValueError: when window, strides, padding or dilation is none of the above.
        LayerError: at init, when x has another rank or an integer dtype, ``groups`` does not divide the channels and
            the features, or padding cuts everything off.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.conv_transpose(3, (4, 4), strides=2)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 7, 7, 16)))
        >>> net.apply(params, state, jnp.ones((2, 7, 7, 16)))[0].shape
        (2, 14, 14, 3)

    References:
        Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv:1603.07285.
    """
    check_positive_int("features", features)
    check_positive_int("groups", groups)
    check_geometry(window, strides, padding, dilation, may_be_negative=True)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        check_rank(x, len(window))
        check_groups(x.shape[-1], features, groups)
        params = {"kernel": kernel_init(fold(key, "kernel"), (*window, x.shape[-1] // groups, features), dtype)}
        return params | {"bias": bias_init(fold(key, "bias"), (features,), dtype)} if bias else params

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        check_shapes(params, kernel=(*window, None, features), bias=(features,) if bias else None)
        y = convolve_transpose(x, params["kernel"], strides=strides, padding=padding, dilation=dilation, groups=groups)
        return y + params["bias"].astype(x.dtype) if bias else y

    return layer(init, apply)
