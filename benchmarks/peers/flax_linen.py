"""Flax Linen: compact modules, `init` and `apply`, a step under `jax.jit`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.workloads import BLOCKS, Task


class CNN(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(32, (3, 3), padding="VALID", dtype=self.dtype)(x))
        x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(64, (3, 3), padding="VALID", dtype=self.dtype)(x))
        x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(128, dtype=self.dtype)(x))
        return nn.Dense(10, dtype=self.dtype)(x)


class MLP(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(512, dtype=self.dtype)(x))
        x = nn.relu(nn.Dense(512, dtype=self.dtype)(x))
        return nn.Dense(10, dtype=self.dtype)(x)


class Block(nn.Module):
    channels: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x):
        y = nn.relu(self.norm()(self.conv(self.channels, (3, 3), strides=self.stride)(x)))
        y = self.norm()(self.conv(self.channels, (3, 3))(y))
        if self.stride > 1:
            x = self.norm()(self.conv(self.channels, (1, 1), strides=self.stride)(x))
        return nn.relu(x + y)


class ResNet20(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = nn.relu(norm()(conv(16, (3, 3))(x)))
        for channels, stride in BLOCKS:
            x = Block(channels, stride, conv, norm)(x)
        return nn.Dense(10, dtype=self.dtype)(x.mean(axis=(1, 2)))


def prepare(task: Task, arrays: Arrays) -> Program:
    net = {"cnn": CNN, "mlp": MLP, "resnet20": ResNet20}[task.network](jnp.dtype(task.dtype))

    def init(key: jax.Array) -> Any:
        variables = dict(net.init(key, arrays["x"], train=False))
        return variables.pop("params"), variables

    def apply(params: Any, state: Any, x: jax.Array, train: bool) -> Any:
        return net.apply({"params": params, **state}, x, train=train, mutable=["batch_stats"])

    return compiled.program(task, arrays, compiled.supervised(task, init, apply))
