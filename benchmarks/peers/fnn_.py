"""fnn: `train_init`, `train_step`."""

from typing import Any

import jax
import optax

import fnn
from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.peers.compiled import Functions
from benchmarks.workloads import BLOCKS, Task


def _block(channels: int, stride: int) -> fnn.Layer:
    conv = lambda window, strides: fnn.conv(channels, window, strides=strides, bias=False)
    body = fnn.serial(conv((3, 3), stride), fnn.batch_norm(), jax.nn.relu, conv((3, 3), 1), fnn.batch_norm())
    shortcut = None if stride == 1 else fnn.serial(conv((1, 1), stride), fnn.batch_norm())
    return fnn.serial(fnn.residual(body, shortcut), jax.nn.relu)


def network(name: str) -> fnn.Layer:
    """The networks of the workloads."""
    if name == "cnn":
        return fnn.serial(
            fnn.conv(32, (3, 3), padding="VALID"), jax.nn.relu, fnn.max_pool((2, 2)),
            fnn.conv(64, (3, 3), padding="VALID"), jax.nn.relu, fnn.max_pool((2, 2)),
            fnn.flatten(), fnn.dense(128), jax.nn.relu, fnn.dense(10),
        )  # fmt: skip
    if name == "mlp":
        return fnn.serial(fnn.dense(512), jax.nn.relu, fnn.dense(512), jax.nn.relu, fnn.dense(10))
    return fnn.serial(
        fnn.conv(16, (3, 3), bias=False), fnn.batch_norm(), jax.nn.relu,
        *(_block(channels, stride) for channels, stride in BLOCKS),
        fnn.global_mean_pool(), fnn.dense(10),
    )  # fmt: skip


def prepare(task: Task, arrays: Arrays) -> Program:
    return training(task, arrays, network(task.network))


def training(task: Task, arrays: Arrays, net: fnn.Layer) -> Program:
    """Train any network that tells ids or classes apart, or apply it."""
    if task.dtype == "bfloat16":
        net = fnn.mixed_precision(net)
    objective = fnn.supervised(net, optax.losses.softmax_cross_entropy_with_integer_labels)
    optimizer = compiled.optimizer_of(task)
    train_step = fnn.train_step(objective, optimizer)

    def step(run: fnn.TrainState, batch: Any) -> tuple[fnn.TrainState, jax.Array]:
        run, metrics = train_step(run, batch)
        return run, metrics["loss"]

    functions = Functions(
        init=lambda key: fnn.train_init(net, optimizer, key, arrays["x"]),
        step=step,
        predict=lambda run, x: net.apply(run.params, run.state, x)[0],
        parameters=lambda run: run.params,
    )
    return compiled.program(task, arrays, functions)
