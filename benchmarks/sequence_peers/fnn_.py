"""fnn: `language_model`, `lstm`, `train_step`; the network with caches for `generate`."""

import jax
import jax.numpy as jnp

import fnn
from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.peers.fnn_ import training
from benchmarks.sequence_peers import SequenceTask


def network(task: SequenceTask, cache: int | None = None) -> fnn.Layer:
    """The networks of the workloads."""
    if task.network == "lstm":
        return fnn.serial(fnn.embedding(task.vocabulary, task.width), fnn.lstm(task.width), fnn.dense(task.vocabulary))
    trunk = fnn.encoder(task.blocks, task.heads, 4 * task.width, causal=True, cache=cache)
    positions = fnn.learned_positions(task.positions, cache=cache is not None)
    table = jax.nn.initializers.normal(0.02)
    return fnn.language_model(task.vocabulary, task.width, trunk, positions=positions, embedding_init=table)


def prepare(task: SequenceTask, arrays: Arrays) -> Program:
    if task.mode == "generate":
        return _generating(task, arrays)
    return training(task, arrays, network(task))


def _generating(task: SequenceTask, arrays: Arrays) -> Program:
    net = network(task, cache=task.length + task.tokens)
    prompt = jnp.asarray(arrays["x"])
    params, _ = net.init(jax.random.key(0), prompt)
    if task.dtype == "bfloat16":
        params = compiled.half(params)

    def call() -> int:
        """How many ids were added; reading their number waits for the end."""
        found = fnn.generate(net, params, prompt, task.tokens)
        return int((found.lengths - task.length).sum())

    return Program(call, compiled.size(params))
