"""Layers that disturb training at random and are the identity otherwise."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_floating, check_range
from fnn.ops.drop import drop


def dropout(rate: Any, *, axes: int | Sequence[int] | None = None) -> Layer:
    """Set a random fraction of the entries to zero and scale the others by ``1 / (1 - rate)``; only in training.

    Each entry is drawn by itself, except that along ``axes`` one draw is shared: there entries are dropped or kept
    together. For images ``axes=(1, 2)`` drops whole channels (spatial dropout), for sequences ``axes=1`` drops a
    feature at every time step, ``axes=0`` drops the same entries of every example.

    Args:
        rate: The fraction dropped, in [0, 1), to a precision of 2**-16; may be traced.
        axes: Axes of x along which one draw is shared, or one such axis. None: no axis.

    Returns:
        A layer that owns nothing and needs a key when training.

        - x: any shape, floating
        - y: the shape and dtype of x

    Raises:
        ValueError: when a concrete rate is not in [0, 1).
        LayerError: at init, when x lacks one of the axes or has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.dropout(0.5)
        >>> y, _ = net.apply({}, {}, jnp.ones(1000), key=jax.random.key(0), train=True)
        >>> jnp.unique(y).tolist(), abs(float(y.mean()) - 1) < 0.1
        ([0.0, 2.0], True)
        >>> net.apply({}, {}, jnp.ones(3))[0].tolist()
        [1.0, 1.0, 1.0]

    References:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014, JMLR 15.
        Tompson et al., Efficient object localization using convolutional networks, 2014, arXiv:1411.4280.
    """
    check_range("rate", rate, 0.0, 1.0)
    shared = (axes,) if isinstance(axes, int) else tuple(axes or ())

    def apply(x: jax.Array, *, key: Any, train: bool) -> jax.Array:
        check_floating(x)
        if missing := [axis for axis in shared if not -x.ndim <= axis < x.ndim]:
            raise ValueError(f"x has {x.ndim} axes and so no axis {missing[0]}; choose axes of x, counted from 0")
        if not train:
            return x
        own = {axis % x.ndim for axis in shared}
        return drop(x, rate, key, tuple(1 if axis in own else size for axis, size in enumerate(x.shape)))

    return layer(None, apply)


def drop_path(rate: Any) -> Layer:
    """Set whole examples to zero at random and scale the others by ``1 / (1 - rate)``; only in training.

    As the last layer of a residual branch it skips the branch for those examples: stochastic depth. The paper scales
    by the chance of survival at inference; scaling in training has the same mean.

    Args:
        rate: The fraction of examples dropped, in [0, 1), to a precision of 2**-16; may be traced, so that
            ``fnn.stack`` can raise it with depth.

    Returns:
        A layer that owns nothing and needs a key when training.

        - x: ``(batch, *shape)``, floating
        - y: the shape and dtype of x

    Raises:
        ValueError: when a concrete rate is not in [0, 1).
        LayerError: at init, when x has no batch axis or an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.drop_path(0.5)
        >>> y, _ = net.apply({}, {}, jnp.ones((6, 2)), key=jax.random.key(1), train=True)
        >>> bool(jnp.all(y[:, 0] == y[:, 1]))
        True

    References:
        Huang et al., Deep networks with stochastic depth, 2016, arXiv:1603.09382.
    """
    check_range("rate", rate, 0.0, 1.0)

    def apply(x: jax.Array, *, key: Any, train: bool) -> jax.Array:
        check_floating(x)
        if not x.ndim:
            raise ValueError("x is a scalar, wanted (batch, *shape); add a batch axis: x[None]")
        return drop(x, rate, key, (x.shape[0],) + (1,) * (x.ndim - 1)) if train else x

    return layer(None, apply)


def gaussian_noise(stddev: Any) -> Layer:
    """Add normal noise of mean 0; only in training.

    Args:
        stddev: Standard deviation of the noise; may be traced.

    Returns:
        A layer that owns nothing and needs a key when training.

        - x: any shape, floating
        - y: the shape and dtype of x

    Raises:
        ValueError: when a concrete ``stddev`` is negative.
        LayerError: at init, when x has an integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.gaussian_noise(0.1)
        >>> y, _ = net.apply({}, {}, jnp.ones(1000), key=jax.random.key(0), train=True)
        >>> abs(float(y.std()) - 0.1) < 0.01
        True
    """
    check_range("stddev", stddev, 0.0, math.inf)

    def apply(x: jax.Array, *, key: Any, train: bool) -> jax.Array:
        check_floating(x)
        if not train:
            return x
        # Drawn in float32 at least: a normal drawn in bfloat16 ends at 2.5 standard deviations.
        noise = jax.random.normal(key, x.shape, x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32)
        return x + (stddev * noise).astype(x.dtype)

    return layer(None, apply)
