"""Where a token stands: turned into its queries and keys, or added to the scores of attention."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.dtypes import wide


@dataclass(frozen=True)
class Rotary:
    """Turn pairs of features of each query and key by angles that grow with the position.

    The product of a query and a key then depends on how far apart they stand. Give it to `fnn.attention`.

    Attributes:
        base: Wavelengths go from ``2 * pi`` up to ``2 * pi * base``; may be traced.
        fraction: The share of the features of a head that is turned, from its start; the rest stays.
        interleaved: Whether neighbours are pairs, 0 with 1 and 2 with 3, as in the paper and in GPT-J. Otherwise a
            feature of the first half goes with one of the second, as in Llama.
        scaling: Changes the angles of one step of position, ``scaling(frequencies) -> frequencies``, fastest first: how
            a network that was trained on short sequences is made to read longer ones. None: they stay.

    Raises:
        ValueError: when the fraction is not in (0, 1]; at init, when the features that are turned are not even.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.attention(heads=2, causal=True, positions=fnn.Rotary())
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5, 8)))
        >>> net.apply(params, state, jnp.ones((1, 5, 8)))[0].shape
        (1, 5, 8)

    References:
        Su et al., RoFormer: enhanced transformer with rotary position embedding, 2021, arXiv:2104.09864.
    """

    base: Any = 10_000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")

    def size(self, features: int) -> int:
        """How many of the features of a head are turned."""
        size = int(features * self.fraction)
        if size % 2 or not size:
            raise ValueError(
                f"rotary positions turn pairs of features, and {size} of {features} features of a head is not an even "
                "number of at least 2; choose other heads, features or fraction"
            )
        return size

    def turn(self, x: jax.Array, start: Any = 0) -> jax.Array:
        """Turn ``(..., time, features)``, whose first row stands at position ``start``."""
        size, dtype = self.size(x.shape[-1]), wide(x.dtype)
        frequencies = jnp.asarray(self.base, dtype) ** -(jnp.arange(0, size, 2, dtype=dtype) / size)
        frequencies = frequencies if self.scaling is None else self.scaling(frequencies)
        angles = (start + jnp.arange(x.shape[-2]))[:, None].astype(dtype) * frequencies
        sine, cosine = jnp.sin(angles).astype(x.dtype), jnp.cos(angles).astype(x.dtype)
        turned, rest = x[..., :size], x[..., size:]
        if self.interleaved:
            a, b = turned[..., ::2], turned[..., 1::2]
            turned = jnp.stack([a * cosine - b * sine, b * cosine + a * sine], -1).reshape(turned.shape)
        else:
            a, b = jnp.split(turned, 2, -1)
            turned = jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], -1)
        return jnp.concatenate([turned, rest], -1) if rest.shape[-1] else turned


@dataclass(frozen=True)
class Alibi:
    """Lower the score of a key by its distance from the query, in each head at another slope.

    Give it to `fnn.attention`. Nothing is learned, and sequences longer than those of training keep their meaning.

    Example:
        >>> import fnn
        >>> fnn.Alibi().slopes(8)[:3].tolist()
        [0.5, 0.25, 0.125]

    References:
        Press, Smith and Lewis, Train short, test long: attention with linear biases enables input length
        extrapolation, 2021, arXiv:2108.12409.
    """

    def slopes(self, heads: int) -> np.ndarray:
        """The slope of each head, ``(heads,)``; for heads that are no power of two as in the authors' code."""
        whole = 2 ** int(math.log2(heads))
        powers = lambda count: 2.0 ** (-8.0 * np.arange(1, count + 1) / count)
        return np.concatenate([powers(whole), powers(2 * whole)[::2][: heads - whole]])


def sinusoids(start: Any, x: jax.Array) -> jax.Array:
    """Sines and cosines of the position at geometric wavelengths, for ``x (batch, time, features)``."""
    _, time, features = x.shape
    dtype = wide(x.dtype)
    frequencies = 10_000.0 ** (-jnp.arange(0, features, 2, dtype=dtype) / features)
    angles = (start + jnp.arange(time))[:, None].astype(dtype) * frequencies
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
    return pairs.reshape(time, 2 * frequencies.size)[:, :features].astype(x.dtype)
