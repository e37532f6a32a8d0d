"""Haiku: modules in a function, made pure by `hk.transform_with_state`."""

from typing import Any

import haiku as hk
import jax
import jmp

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.workloads import BLOCKS, Task


class CNN(hk.Module):
    def __call__(self, x, train):
        return hk.Sequential([
            hk.Conv2D(32, 3, padding="VALID"), jax.nn.relu, hk.MaxPool(2, 2, "VALID"),
            hk.Conv2D(64, 3, padding="VALID"), jax.nn.relu, hk.MaxPool(2, 2, "VALID"),
            hk.Flatten(), hk.Linear(128), jax.nn.relu, hk.Linear(10),
        ])(x)  # fmt: skip


class MLP(hk.Module):
    def __call__(self, x, train):
        return hk.nets.MLP([512, 512, 10])(x)


class ResNet20(hk.Module):
    def __call__(self, x, train):
        x = jax.nn.relu(self.norm(hk.Conv2D(16, 3, with_bias=False)(x), train))
        for channels, stride in BLOCKS:
            y = jax.nn.relu(self.norm(hk.Conv2D(channels, 3, stride, with_bias=False)(x), train))
            y = self.norm(hk.Conv2D(channels, 3, with_bias=False)(y), train)
            if stride > 1:
                x = self.norm(hk.Conv2D(channels, 1, stride, with_bias=False)(x), train)
            x = jax.nn.relu(x + y)
        return hk.Linear(10)(x.mean((1, 2)))

    def norm(self, x, train):
        return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=train)


def prepare(task: Task, arrays: Arrays) -> Program:
    network = {"cnn": CNN, "mlp": MLP, "resnet20": ResNet20}[task.network]
    if task.dtype == "bfloat16":
        policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        hk.mixed_precision.set_policy(network, policy)
    net = hk.without_apply_rng(hk.transform_with_state(lambda x, train: network()(x, train)))

    def init(key: jax.Array) -> Any:
        return net.init(key, arrays["x"], True)

    return compiled.program(task, arrays, compiled.supervised(task, init, net.apply))
