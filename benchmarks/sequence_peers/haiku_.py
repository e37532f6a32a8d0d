"""Haiku: `MultiHeadAttention` as in its transformer example, `LSTM` under `dynamic_unroll`."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jmp

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.sequence_peers import SequenceTask

small = hk.initializers.TruncatedNormal(stddev=0.02)  # as GPT-2 begins, near enough


class GPT(hk.Module):
    def __init__(self, task):
        super().__init__()
        self.task = task

    def __call__(self, ids):
        task, steps = self.task, ids.shape[1]
        w_init = hk.initializers.VarianceScaling(2 / task.blocks)
        norm = lambda x: hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(x)
        embedding = hk.Embed(task.vocabulary, task.width, w_init=small)
        positions = hk.get_parameter("positions", [task.positions, task.width], init=small)
        x, mask = embedding(ids) + positions[:steps], jnp.tril(jnp.ones((1, 1, steps, steps)))
        for _ in range(task.blocks):
            attention = hk.MultiHeadAttention(task.heads, task.width // task.heads, w_init=w_init)
            h = norm(x)
            x = x + attention(h, h, h, mask=mask)
            up, down = hk.Linear(4 * task.width, w_init=w_init), hk.Linear(task.width, w_init=w_init)
            x = x + down(jax.nn.gelu(up(norm(x))))
        return norm(x) @ embedding.embeddings.T


class LSTM(hk.Module):
    def __init__(self, task):
        super().__init__()
        self.task = task

    def __call__(self, ids):
        x, core = hk.Embed(self.task.vocabulary, self.task.width)(ids), hk.LSTM(self.task.width)
        start = jax.tree.map(lambda leaf: leaf.astype(x.dtype), core.initial_state(len(ids)))
        y, _ = hk.dynamic_unroll(core, x, start, time_major=False)
        return hk.Linear(self.task.vocabulary)(y)


def prepare(task: SequenceTask, arrays: Arrays) -> Program:
    network = {"gpt": GPT, "lstm": LSTM}[task.network]
    if task.dtype == "bfloat16":
        policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        hk.mixed_precision.set_policy(network, policy)
    net = hk.without_apply_rng(hk.transform(lambda ids: network(task)(ids)))

    def init(key: jax.Array) -> Any:
        return net.init(key, arrays["x"]), {}

    def apply(params: Any, state: Any, ids: jax.Array, train: bool) -> Any:
        return net.apply(params, ids), state

    return compiled.program(task, arrays, compiled.supervised(task, init, apply))
