"""Equinox: `MultiheadAttention`, and `LSTMCell` in `jax.lax.scan`; models take one sequence, under `jax.vmap`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.peers.equinox_ import training
from benchmarks.sequence_peers import SequenceTask


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    norm2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width, heads, key):
        keys = jax.random.split(key, 3)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(
            heads, width, use_query_bias=True, use_key_bias=True, use_value_bias=True, use_output_bias=True, key=keys[0]
        )
        self.up = eqx.nn.Linear(width, 4 * width, key=keys[1])
        self.down = eqx.nn.Linear(4 * width, width, key=keys[2])

    def __call__(self, x, mask):
        h = jax.vmap(self.norm1)(x)
        x = x + self.attention(h, h, h, mask)
        return x + jax.vmap(lambda step: self.down(jax.nn.gelu(self.up(self.norm2(step)))))(x)


class GPT(eqx.Module):
    embedding: eqx.nn.Embedding
    positions: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm

    def __init__(self, task, key):
        keys = jax.random.split(key, task.blocks + 2)
        self.embedding = eqx.nn.Embedding(weight=_small(keys[0], task.vocabulary, task.width))
        self.positions = eqx.nn.Embedding(weight=_small(keys[1], task.positions, task.width))
        self.blocks = [Block(task.width, task.heads, key) for key in keys[2:]]
        self.norm = eqx.nn.LayerNorm(task.width)

    def __call__(self, ids):
        x = jax.vmap(self.embedding)(ids) + jax.vmap(self.positions)(jnp.arange(len(ids)))
        mask = jnp.tril(jnp.ones((len(ids), len(ids)), bool))
        for block in self.blocks:
            x = block(x, mask)
        return jax.vmap(self.norm)(x) @ self.embedding.weight.T


class LSTM(eqx.Module):
    embedding: eqx.nn.Embedding
    cell: eqx.nn.LSTMCell
    linear: eqx.nn.Linear

    def __init__(self, task, key):
        keys = jax.random.split(key, 3)
        self.embedding = eqx.nn.Embedding(task.vocabulary, task.width, key=keys[0])
        self.cell = eqx.nn.LSTMCell(task.width, task.width, key=keys[1])
        self.linear = eqx.nn.Linear(task.width, task.vocabulary, key=keys[2])

    def __call__(self, ids):
        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry[0]

        xs = jax.vmap(self.embedding)(ids)
        zeros = jnp.zeros(self.cell.hidden_size, xs.dtype)
        _, hs = jax.lax.scan(step, (zeros, zeros), xs)
        return jax.vmap(self.linear)(hs)


def _small(key: jax.Array, *shape: int) -> jax.Array:
    """A table as GPT-2 begins with: rows of unit variance would be too large where it also decodes."""
    return 0.02 * jax.random.normal(key, shape)


def prepare(task: SequenceTask, arrays: Arrays) -> Program:
    model = {"gpt": GPT, "lstm": LSTM}[task.network](task, jax.random.key(0))
    optimizer = compiled.optimizer_of(task)

    def loss_of(model: Any, batch: Any) -> jax.Array:
        ids, y = batch
        if task.dtype == "bfloat16":
            leaves, rest = eqx.partition(model, eqx.is_array)
            model = eqx.combine(compiled.half(leaves), rest)
        return compiled.cross_entropy(jax.vmap(model)(ids), y)

    def step(batch: Any, carry: Any) -> Any:
        model, opt_state = carry
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, batch)
        updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return (eqx.apply_updates(model, updates), opt_state), loss

    carry = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    return training(step, carry, arrays)
