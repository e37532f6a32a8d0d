"""Which id comes next, given a score for each."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.checks import check_positive_int, check_range


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p", "min_p", "repetition_penalty"],
    meta_fields=["top_k"],
)
@dataclass(frozen=True)
class Sampler:
    """Draw the next id at random, from scores that were first made sharper or cut.

    In this order: the penalty, the temperature, then each cut of what the one before it left. Numbers may be traced.

    Attributes:
        temperature: The scores are divided by it; near 0 the best id always wins.
        top_k: Only so many of the best ids may be drawn. None: all.
        top_p: Only the best ids that together have this probability, in (0, 1]. None: all.
        min_p: Only ids at least this many times as probable as the best one, in [0, 1]. None: all.
        repetition_penalty: Positive scores of ids that occur already are divided by it, negative ones multiplied. None:
            they stay.

    Raises:
        ValueError: when a concrete number is out of range.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> scores = jnp.array([[0.0, 5.0, 4.0, -2.0]])
        >>> fnn.Sampler(top_k=2).filtered(scores).tolist()
        [[-inf, 5.0, 4.0, -inf]]
        >>> int(fnn.Sampler(temperature=0.01)(jax.random.key(0), scores)[0])
        1

    References:
        Fan, Lewis and Dauphin, Hierarchical neural story generation, 2018, arXiv:1805.04833 (top-k).
        Holtzman et al., The curious case of neural text degeneration, 2019, arXiv:1904.09751 (top-p).
        Nguyen et al., Turning up the heat: min-p sampling, 2024, arXiv:2407.01082.
        Keskar et al., CTRL, 2019, arXiv:1909.05858 (penalty).
    """

    temperature: Any = 1.0
    top_k: int | None = None
    top_p: Any = None
    min_p: Any = None
    repetition_penalty: Any = None

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_positive_int("top_k", self.top_k)
        bounds = {"temperature": float("inf"), "top_p": 1.0, "min_p": 1.0, "repetition_penalty": float("inf")}
        for name, high in bounds.items():
            value = getattr(self, name)
            if isinstance(value, int | float):
                check_range(name, value, 0.0, high, closed=high == 1.0)
                if value == 0 and name != "min_p":
                    raise ValueError(
                        f"{name} must be positive, got {value}; leave out sample= for the best id each time"
                    )

    def filtered(self, scores: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """The scores that are drawn from, ``(batch, vocabulary)`` float32, ``-inf`` for ids that are cut.

        Args:
            scores: ``(batch, vocabulary)``.
            seen: Bools of that shape: which ids occur already. Only the penalty reads it.
        """
        scores = scores.astype(jnp.float32)
        if self.repetition_penalty is not None and seen is not None:
            lower = jnp.where(scores > 0, scores / self.repetition_penalty, scores * self.repetition_penalty)
            scores = jnp.where(seen, lower, scores)
        scores = scores / self.temperature
        if self.top_k is not None:
            least = jax.lax.top_k(scores, min(self.top_k, scores.shape[-1]))[0][:, -1:]
            scores = jnp.where(scores >= least, scores, -jnp.inf)
        if self.top_p is not None:
            best = jnp.sort(scores, -1, descending=True)
            before = jnp.cumsum(jax.nn.softmax(best, -1), -1) - jax.nn.softmax(best, -1)
            least = jnp.min(jnp.where(before < self.top_p, best, jnp.inf), -1, keepdims=True)
            scores = jnp.where(scores >= least, scores, -jnp.inf)
        if self.min_p is not None:
            least = jnp.max(scores, -1, keepdims=True) + jnp.log(self.min_p)
            scores = jnp.where(scores >= least, scores, -jnp.inf)
        return scores

    def __call__(self, key: jax.Array, scores: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """Draw an id for each row, ``(batch,)`` int32."""
        return jax.random.categorical(key, self.filtered(scores, seen)).astype(jnp.int32)
