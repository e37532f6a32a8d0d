"""JAX by hand: functions over dicts of arrays, each layer the textbook call."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.workloads import BLOCKS, Task


def conv(kernel: jax.Array, x: jax.Array, stride: int, padding: str) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def batch_norm(params: Any, state: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    if train:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        moved = {"mean": 0.9 * state["mean"] + 0.1 * mean, "var": 0.9 * state["var"] + 0.1 * var}
    else:
        mean, var, moved = state["mean"], state["var"], state
    return (x - mean) * lax.rsqrt(var + 1e-5) * params["scale"] + params["bias"], moved


def cnn(params: Any, state: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    for layer in ("conv_0", "conv_1"):
        x = max_pool(jax.nn.relu(conv(params[layer]["kernel"], x, 1, "VALID") + params[layer]["bias"]))
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense_0"]["kernel"] + params["dense_0"]["bias"])
    return x @ params["dense_1"]["kernel"] + params["dense_1"]["bias"], state


def mlp(params: Any, state: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    for layer in ("dense_0", "dense_1"):
        x = jax.nn.relu(x @ params[layer]["kernel"] + params[layer]["bias"])
    return x @ params["dense_2"]["kernel"] + params["dense_2"]["bias"], state


def resnet20(params: Any, state: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    moved = {}

    def unit(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        y, moved[name] = batch_norm(params[name], state[name], conv(params[name]["kernel"], x, stride, "SAME"), train)
        return y

    x = jax.nn.relu(unit("stem", x))
    for number, (_, stride) in enumerate(BLOCKS):
        y = unit(f"second_{number}", jax.nn.relu(unit(f"first_{number}", x, stride)))
        x = jax.nn.relu(y + (x if stride == 1 else unit(f"shortcut_{number}", x, stride)))
    return x.mean((1, 2)) @ params["dense"]["kernel"] + params["dense"]["bias"], moved


def _kernels(network: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the kernels, from the input on."""
    if network == "cnn":
        return {"conv_0": (3, 3, 1, 32), "conv_1": (3, 3, 32, 64), "dense_0": (1600, 128), "dense_1": (128, 10)}
    if network == "mlp":
        return {"dense_0": (784, 512), "dense_1": (512, 512), "dense_2": (512, 10)}
    shapes: dict[str, tuple[int, ...]] = {"stem": (3, 3, 3, 16)}
    before = 16
    for number, (channels, stride) in enumerate(BLOCKS):
        shapes[f"first_{number}"] = (3, 3, before, channels)
        shapes[f"second_{number}"] = (3, 3, channels, channels)
        if stride > 1:
            shapes[f"shortcut_{number}"] = (1, 1, before, channels)
        before = channels
    return {**shapes, "dense": (64, 10)}


def prepare(task: Task, arrays: Arrays) -> Program:
    network = {"cnn": cnn, "mlp": mlp, "resnet20": resnet20}[task.network]
    shapes = _kernels(task.network)

    def init(key: jax.Array) -> Any:
        params: dict[str, dict[str, jax.Array]] = {}
        state: dict[str, dict[str, jax.Array]] = {}
        for (name, shape), one in zip(shapes.items(), jax.random.split(key, len(shapes))):
            kernel = jax.random.normal(one, shape) / math.sqrt(math.prod(shape[:-1]))
            params[name] = {"kernel": kernel, "bias": jnp.zeros(shape[-1])}
            if task.network == "resnet20" and len(shape) == 4:
                params[name]["scale"] = jnp.ones(shape[-1])
                state[name] = {"mean": jnp.zeros(shape[-1]), "var": jnp.ones(shape[-1])}
        return params, state

    def apply(params: Any, state: Any, x: jax.Array, train: bool) -> Any:
        if task.dtype == "bfloat16":
            params, x = compiled.half((params, x))
        return network(params, state, x, train)

    return compiled.program(task, arrays, compiled.supervised(task, init, apply))
