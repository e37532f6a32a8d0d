"""Flax NNX: `MultiHeadAttention`, `Embed.attend` and `RNN` in modules that change in place."""

from functools import partial

import jax.numpy as jnp
from flax import nnx

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.peers.flax_nnx import training
from benchmarks.sequence_peers import SequenceTask

small = nnx.initializers.normal(0.02)  # as GPT-2 begins


class Block(nnx.Module):
    def __init__(self, width, heads, dtype, rngs):
        self.norm1 = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, dtype=dtype, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x, mask):
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class GPT(nnx.Module):
    def __init__(self, task, dtype, rngs):
        embed = partial(nnx.Embed, embedding_init=small, dtype=dtype, rngs=rngs)
        self.embedding, self.positions = embed(task.vocabulary, task.width), embed(task.positions, task.width)
        self.blocks = nnx.List([Block(task.width, task.heads, dtype, rngs) for _ in range(task.blocks)])
        self.norm = nnx.LayerNorm(task.width, dtype=dtype, rngs=rngs)

    def __call__(self, ids):
        x = self.embedding(ids) + self.positions(jnp.arange(ids.shape[1]))
        mask = nnx.make_causal_mask(ids)
        for block in self.blocks:
            x = block(x, mask)
        return self.embedding.attend(self.norm(x))


class LSTM(nnx.Module):
    def __init__(self, task, dtype, rngs):
        self.embedding = nnx.Embed(task.vocabulary, task.width, dtype=dtype, rngs=rngs)
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(task.width, task.width, dtype=dtype, rngs=rngs))
        self.linear = nnx.Linear(task.width, task.vocabulary, dtype=dtype, rngs=rngs)

    def __call__(self, ids):
        return self.linear(self.rnn(self.embedding(ids)))


def prepare(task: SequenceTask, arrays: Arrays) -> Program:
    model = {"gpt": GPT, "lstm": LSTM}[task.network](task, jnp.dtype(task.dtype), nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, compiled.optimizer_of(task), wrt=nnx.Param)
    return training(model, optimizer, arrays)
