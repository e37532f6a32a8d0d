"""The parameters of attention, by head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.attend import Pattern, attend
from fnn.ops.checks import check_floating, check_positive_int, check_shapes
from fnn.ops.cudnn import cudnn_attend, uses_cudnn
from fnn.ops.linear import linear
from fnn.ops.normalize import affine, unit_square

PARTS = ("query", "key", "value", "out")


@dataclass(frozen=True)
class Heads:
    """The parameters of attention: from x to queries, keys and values by head, and from heads back to features."""

    heads: int
    kv_heads: int
    head_features: int | None
    features: int | None
    norm: bool
    scale: Any
    bias: bool
    implementation: str | None
    kernel_init: Callable[..., jax.Array] = field(repr=False)
    bias_init: Callable[..., jax.Array] = field(repr=False)
    dtype: Any = field(repr=False)

    def __post_init__(self) -> None:
        check_positive_int("heads", self.heads)
        for name, value in (
            ("kv_heads", self.kv_heads),
            ("head_features", self.head_features),
            ("features", self.features),
        ):
            if value is not None:
                check_positive_int(name, value)
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} kv_heads do not divide {self.heads} heads; choose a divisor")
        if self.implementation not in (None, "xla", "cudnn"):
            raise ValueError(f"implementation is 'xla', 'cudnn' or None, got {self.implementation!r}")

    def sizes(self, features: int) -> tuple[int, int]:
        """Features of a head, and of the output."""
        if self.head_features is None and features % self.heads:
            raise ValueError(
                f"{self.heads} heads do not divide {features} features; choose a divisor, or pass head_features"
            )
        return self.head_features or features // self.heads, self.features or features

    def init(self, key_of: Callable[[str], jax.Array], x: Any, memory: Any) -> dict[str, jax.Array]:
        check_floating(x)
        check_floating(memory)
        size, out = self.sizes(x.shape[-1])
        inner, kv_inner = self.heads * size, self.kv_heads * size
        ins = (x.shape[-1], memory.shape[-1], memory.shape[-1], inner)
        params = {}
        for name, before, after in zip(PARTS, ins, (inner, kv_inner, kv_inner, out)):
            params[f"{name}_kernel"] = self.kernel_init(key_of(f"{name}_kernel"), (before, after), self.dtype)
            if self.bias:
                params[f"{name}_bias"] = self.bias_init(key_of(f"{name}_bias"), (after,), self.dtype)
        if self.norm:
            params |= {f"{name}_scale": jnp.ones((size,), self.dtype) for name in ("query", "key")}
        return params

    def check(self, params: Any, features: int) -> None:
        """Raise unless the parameters have the shapes that the configuration gives them."""
        size, out = self.sizes(features)
        inner, kv_inner = self.heads * size, self.kv_heads * size
        for name, after in zip(PARTS, (inner, kv_inner, kv_inner, out)):
            before = inner if name == "out" else None
            scale = (size,) if self.norm and name in PARTS[:2] else None
            bias = (after,) if self.bias else None
            check_shapes(params, **{f"{name}_kernel": (before, after), f"{name}_bias": bias, f"{name}_scale": scale})

    def project(self, params: Any, x: jax.Array, *names: str) -> list[jax.Array]:
        """The named ones of ``query``, ``key`` and ``value`` of x, each ``(batch, heads, time, head_features)``."""
        # One wide product is faster than three.
        joined = lambda kind: jnp.concatenate([params[f"{name}_{kind}"] for name in names], -1)
        wide = linear(x, joined("kernel"), joined("bias") if self.bias else None)
        ends = np.cumsum([params[f"{name}_kernel"].shape[-1] for name in names])[:-1]
        if "query" in names:
            self.check(params, x.shape[-1])

        def by_head(name: str, y: jax.Array) -> jax.Array:
            heads = self.heads if name == "query" else self.kv_heads
            y = y.reshape(*y.shape[:2], heads, y.shape[-1] // heads)
            if self.norm and name != "value":
                y = affine(unit_square(y, 1e-6), params[f"{name}_scale"], None, x.dtype)
            return y.transpose(0, 2, 1, 3)

        return [by_head(name, y) for name, y in zip(names, jnp.split(wide, ends, -1))]

    def attend(
        self, params: Any, query: jax.Array, key: jax.Array, value: jax.Array, biases: Sequence[jax.Array],
        pattern: Pattern, rate: Any, drop_key: jax.Array | None,
    ) -> jax.Array:  # fmt: skip
        """Attend, and join the heads to ``(batch, time, features)``."""
        batch, heads, time, _ = query.shape
        function = cudnn_attend if uses_cudnn(self.implementation, query, pattern, drop_key) else attend
        y = function(query, key, value, *biases, pattern=pattern, scale=self.scale, rate=rate, drop_key=drop_key)
        y = y.transpose(0, 2, 1, 3).reshape(batch, time, heads * value.shape[-1])
        return linear(y, params["out_kernel"], params.get("out_bias"))
