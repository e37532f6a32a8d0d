"""Flax NNX: modules that change in place, `nnx.jit` around a step; `nnx.split` and `nnx.merge` within scan and vmap."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.peers.compiled import Functions
from benchmarks.workloads import BLOCKS, Task

halve = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))


class CNN(nnx.Module):
    def __init__(self, dtype, rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", dtype=dtype, rngs=rngs)
        self.linear1 = nnx.Linear(1600, 128, dtype=dtype, rngs=rngs)
        self.linear2 = nnx.Linear(128, 10, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = halve(nnx.relu(self.conv1(x)))
        x = halve(nnx.relu(self.conv2(x)))
        x = x.reshape(x.shape[0], -1)
        return self.linear2(nnx.relu(self.linear1(x)))


class MLP(nnx.Module):
    def __init__(self, dtype, rngs):
        self.linear1 = nnx.Linear(784, 512, dtype=dtype, rngs=rngs)
        self.linear2 = nnx.Linear(512, 512, dtype=dtype, rngs=rngs)
        self.linear3 = nnx.Linear(512, 10, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.linear3(nnx.relu(self.linear2(nnx.relu(self.linear1(x)))))


class Block(nnx.Module):
    def __init__(self, before, channels, stride, dtype, rngs):
        conv = partial(nnx.Conv, use_bias=False, dtype=dtype, rngs=rngs)
        norm = partial(nnx.BatchNorm, channels, momentum=0.9, dtype=dtype, rngs=rngs)
        self.conv1, self.norm1 = conv(before, channels, (3, 3), strides=stride), norm()
        self.conv2, self.norm2 = conv(channels, channels, (3, 3)), norm()
        shortcut = () if stride == 1 else (conv(before, channels, (1, 1), strides=stride), norm())
        self.shortcut = nnx.Sequential(*shortcut)

    def __call__(self, x):
        y = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(y + self.shortcut(x))


class ResNet20(nnx.Module):
    def __init__(self, dtype, rngs):
        self.conv = nnx.Conv(3, 16, (3, 3), use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, dtype=dtype, rngs=rngs)
        befores = (16, *(channels for channels, _ in BLOCKS))
        self.blocks = nnx.List([Block(before, *block, dtype, rngs) for before, block in zip(befores, BLOCKS)])
        self.linear = nnx.Linear(64, 10, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.linear(x.mean(axis=(1, 2)))


def prepare(task: Task, arrays: Arrays) -> Program:
    network = {"cnn": CNN, "mlp": MLP, "resnet20": ResNet20}[task.network]

    def create(key: jax.Array) -> tuple[nnx.Module, nnx.Optimizer]:
        model = network(jnp.dtype(task.dtype), nnx.Rngs(key))
        model.train()
        return model, nnx.Optimizer(model, compiled.optimizer_of(task), wrt=nnx.Param)

    if task.mode in ("scan", "vmap"):
        return compiled.program(task, arrays, _functional(create))
    model, optimizer = create(jax.random.key(0))
    if task.mode == "infer":
        model.eval()
        x, predict = jnp.asarray(arrays["x"]), nnx.jit(lambda model, x: model(x))
        return Program(lambda: jax.block_until_ready(predict(model, x)), compiled.size(nnx.state(model, nnx.Param)))
    return training(model, optimizer, arrays)


def training(model: nnx.Module, optimizer: nnx.Optimizer, arrays: Arrays) -> Program:
    """Compile the step, which changes both in place."""
    x, y = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    step = nnx.jit(train_step, donate_argnums=(0, 1))
    call = lambda: jax.block_until_ready(step(model, optimizer, x, y))
    return Program(call, compiled.size(nnx.state(model, nnx.Param)), lambda: step.lower(model, optimizer, x, y))


def train_step(model: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    """The step of the tutorials."""
    loss, grads = nnx.value_and_grad(lambda model: compiled.cross_entropy(model(x), y))(model)
    optimizer.update(model, grads)
    return loss


def _functional(create: Any) -> Functions:
    """The functional API: modules are split into a definition and a tree of arrays, and merged within the step."""
    definition, _ = nnx.split(nnx.eval_shape(lambda: create(jax.random.key(0))))

    def step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        model, optimizer = nnx.merge(definition, carry)
        loss = train_step(model, optimizer, *batch)
        return nnx.state((model, optimizer)), loss

    return Functions(
        init=lambda key: nnx.state(create(key)),
        step=step,
        predict=lambda carry, x: nnx.merge(definition, carry)[0](x),
        parameters=lambda carry: nnx.filter_state(carry, nnx.Param),
    )
