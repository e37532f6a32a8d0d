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
        def conv_norm(x, channels, window, stride=1):
            y = hk.Conv2D(channels, window, stride, with_bias=False)(x)
            return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(y, is_training=train)

        x = jax.nn.relu(conv_norm(x, 16, 3))
        for channels, stride in BLOCKS:
            y = conv_norm(jax.nn.relu(conv_norm(x, channels, 3, stride)), channels, 3)
            x = jax.nn.relu(y + (x if stride == 1 else conv_norm(x, channels, 1, stride)))
        return hk.Linear(10)(x.mean((1, 2)))


def prepare(task: Task, arrays: Arrays) -> Program:
    network = {"cnn": CNN, "mlp": MLP, "resnet20": ResNet20}[task.network]
    if task.dtype == "bfloat16":
        policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        hk.mixed_precision.set_policy(network, policy)
    net = hk.without_apply_rng(hk.transform_with_state(lambda x, train: network()(x, train)))

    def init(key: jax.Array) -> Any:
        return net.init(key, arrays["x"], True)

    return compiled.program(task, arrays, compiled.supervised(task, init, net.apply))
