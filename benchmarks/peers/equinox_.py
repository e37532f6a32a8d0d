"""Equinox: models that are trees, `eqx.filter_jit` around a step, one example under `jax.vmap`, channels first."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.peers.compiled import Functions
from benchmarks.workloads import BLOCKS, Task

relu, flatten = eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel)


class Block(eqx.nn.StatefulLayer):
    body: eqx.nn.Sequential
    shortcut: eqx.nn.Sequential

    def __init__(self, before, channels, stride, key):
        keys = jax.random.split(key, 3)
        self.body = eqx.nn.Sequential([
            _conv(before, channels, 3, stride, keys[0]), _norm(channels), relu,
            _conv(channels, channels, 3, 1, keys[1]), _norm(channels),
        ])  # fmt: skip
        shortcut = [] if stride == 1 else [_conv(before, channels, 1, stride, keys[2]), _norm(channels)]
        self.shortcut = eqx.nn.Sequential(shortcut)

    def __call__(self, x, state, *, key=None):
        y, state = self.body(x, state)
        x, state = self.shortcut(x, state)
        return jax.nn.relu(x + y), state


def _conv(before: int, channels: int, window: int, stride: int, key: jax.Array) -> eqx.nn.Conv2d:
    return eqx.nn.Conv2d(before, channels, window, stride, padding=window // 2, use_bias=False, key=key)


def _norm(channels: int) -> eqx.nn.BatchNorm:
    return eqx.nn.BatchNorm(channels, axis_name="batch", momentum=0.9, mode="batch")


def network(name: str, key: jax.Array) -> eqx.nn.Sequential:
    """The networks of the workloads, for one example."""
    keys = jax.random.split(key, 12)
    if name == "cnn":
        return eqx.nn.Sequential([
            eqx.nn.Conv2d(1, 32, 3, key=keys[0]), relu, eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Conv2d(32, 64, 3, key=keys[1]), relu, eqx.nn.MaxPool2d(2, 2),
            flatten, eqx.nn.Linear(1600, 128, key=keys[2]), relu, eqx.nn.Linear(128, 10, key=keys[3]),
        ])  # fmt: skip
    if name == "mlp":
        return eqx.nn.Sequential([
            eqx.nn.Linear(784, 512, key=keys[0]), relu, eqx.nn.Linear(512, 512, key=keys[1]), relu,
            eqx.nn.Linear(512, 10, key=keys[2]),
        ])  # fmt: skip
    befores = (16, *(channels for channels, _ in BLOCKS))
    blocks = [Block(before, *block, key) for before, block, key in zip(befores, BLOCKS, keys)]
    mean = eqx.nn.Lambda(lambda x: x.mean((1, 2)))
    return eqx.nn.Sequential([
        _conv(3, 16, 3, 1, keys[9]), _norm(16), relu, *blocks, mean, eqx.nn.Linear(64, 10, key=keys[10]),
    ])  # fmt: skip


def prepare(task: Task, arrays: Arrays) -> Program:
    optimizer = compiled.optimizer_of(task)
    if arrays["x"].ndim == 4:
        arrays = {**arrays, "x": arrays["x"].transpose(0, 3, 1, 2).copy()}

    def create(key: jax.Array) -> Any:
        model, state = eqx.nn.make_with_state(network)(task.network, key)
        return model, state, optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    def forward(model: Any, state: Any, x: jax.Array) -> Any:
        if task.dtype == "bfloat16":
            arrays, rest = eqx.partition((model, x), eqx.is_array)
            model, x = eqx.combine(compiled.half(arrays), rest)
        return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    def loss_of(model: Any, state: Any, batch: Any) -> Any:
        x, y = batch
        logits, state = forward(model, state, x)
        return compiled.cross_entropy(logits, y), state

    def step(batch: Any, carry: Any) -> Any:
        model, state, opt_state = carry
        (loss, state), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model, state, batch)
        updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return (eqx.apply_updates(model, updates), state, opt_state), loss

    if task.mode in ("scan", "vmap"):
        return compiled.program(task, arrays, _partitioned(create, step))
    carry = create(jax.random.key(0))
    if task.mode == "infer":
        model, state = eqx.nn.inference_mode(carry[0]), carry[1]
        x, predict = jnp.asarray(arrays["x"]), eqx.filter_jit(forward)
        return Program(lambda: jax.block_until_ready(predict(model, state, x)[0]), _count(model))
    return training(step, carry, arrays)


def training(step: Any, carry: Any, arrays: Arrays) -> Program:
    """Compile ``step(batch, carry) -> (carry, loss)``; a carry begins with the model."""
    batch = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    jitted = eqx.filter_jit(step, donate="all-except-first")

    def call() -> jax.Array:
        nonlocal carry
        carry, loss = jitted(batch, carry)
        return jax.block_until_ready(loss)

    return Program(call, _count(carry[0]), lambda: jitted.lower(batch, carry).lowered)


def _count(model: Any) -> int:
    return compiled.size(eqx.filter(model, eqx.is_inexact_array))


def _partitioned(create: Any, step: Any) -> Functions:
    """Within `jax.lax.scan` and `jax.vmap` only arrays are carried; what is static is put back in each step."""
    static = eqx.partition(eqx.filter_eval_shape(create, jax.random.key(0)), eqx.is_array)[1]
    static = eqx.filter(static, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))

    def arrays_of(carry: Any) -> Any:
        return eqx.filter(carry, eqx.is_array)

    def step_arrays(carry: Any, batch: Any) -> Any:
        carry, loss = step(batch, eqx.combine(carry, static))
        return arrays_of(carry), loss

    return Functions(
        init=lambda key: arrays_of(create(key)),
        step=step_arrays,
        predict=lambda carry, x: jax.vmap(eqx.combine(carry, static)[0])(x),
        parameters=lambda carry: eqx.filter(carry[0], eqx.is_inexact_array),
    )
