"""Flax Linen: `MultiHeadDotProductAttention`, `Embed.attend` and `RNN` in compact modules."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.sequence_peers import SequenceTask

small = nn.initializers.normal(0.02)  # as GPT-2 begins


class Block(nn.Module):
    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x, mask):
        dense, norm = partial(nn.Dense, dtype=self.dtype), partial(nn.LayerNorm, dtype=self.dtype)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(norm()(x), mask=mask)
        return x + dense(self.width)(nn.gelu(dense(4 * self.width)(norm()(x))))


class GPT(nn.Module):
    task: SequenceTask
    dtype: Any

    @nn.compact
    def __call__(self, ids):
        task, embed = self.task, partial(nn.Embed, embedding_init=small, dtype=self.dtype)
        embedding = embed(task.vocabulary, task.width)
        positions = embed(task.positions, task.width)(jnp.arange(ids.shape[1]))
        x, mask = embedding(ids) + positions, nn.make_causal_mask(ids)
        for _ in range(task.blocks):
            x = Block(task.width, task.heads, self.dtype)(x, mask)
        return embedding.attend(nn.LayerNorm(dtype=self.dtype)(x))


class LSTM(nn.Module):
    task: SequenceTask
    dtype: Any

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(self.task.vocabulary, self.task.width, dtype=self.dtype)(ids)
        x = nn.RNN(nn.OptimizedLSTMCell(self.task.width, dtype=self.dtype))(x)
        return nn.Dense(self.task.vocabulary, dtype=self.dtype)(x)


def prepare(task: SequenceTask, arrays: Arrays) -> Program:
    net = {"gpt": GPT, "lstm": LSTM}[task.network](task, jnp.dtype(task.dtype))

    def init(key: jax.Array) -> Any:
        return net.init(key, arrays["x"])["params"], {}

    def apply(params: Any, state: Any, ids: jax.Array, train: bool) -> Any:
        return net.apply({"params": params}, ids), state

    return compiled.program(task, arrays, compiled.supervised(task, init, apply))
