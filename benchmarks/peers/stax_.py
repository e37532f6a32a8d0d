"""stax, of `jax.example_libraries`: its batch norm keeps no running statistics, its convolutions always have a bias."""

from typing import Any

import jax
from jax.example_libraries import stax

from benchmarks.harness import Arrays
from benchmarks.peers import Program, compiled
from benchmarks.workloads import BLOCKS, NETWORKS, Task


def _conv(features: int, window: int, stride: int = 1) -> Any:
    """`stax.Conv` without the bias that it always has, as a layer of stax is written: a pair of functions."""
    init_with_bias, _ = stax.Conv(features, (window, window), (stride, stride), padding="SAME")

    def init_fun(rng: jax.Array, input_shape: Any) -> Any:
        output_shape, (kernel, _) = init_with_bias(rng, input_shape)
        return output_shape, (kernel,)

    def apply_fun(params: Any, inputs: jax.Array, **kwargs: Any) -> jax.Array:
        return jax.lax.conv_general_dilated(
            inputs, params[0], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return init_fun, apply_fun


def _mean_over_space() -> Any:
    return lambda rng, shape: ((shape[0], shape[-1]), ()), lambda params, inputs, **kwargs: inputs.mean((1, 2))


def _block(channels: int, stride: int) -> Any:
    main = stax.serial(_conv(channels, 3, stride), stax.BatchNorm(), stax.Relu, _conv(channels, 3), stax.BatchNorm())
    shortcut = stax.Identity if stride == 1 else stax.serial(_conv(channels, 1, stride), stax.BatchNorm())
    return stax.serial(stax.FanOut(2), stax.parallel(main, shortcut), stax.FanInSum, stax.Relu)


def network(name: str) -> Any:
    """The networks of the workloads."""
    if name == "cnn":
        return stax.serial(
            stax.Conv(32, (3, 3)), stax.Relu, stax.MaxPool((2, 2), (2, 2)),
            stax.Conv(64, (3, 3)), stax.Relu, stax.MaxPool((2, 2), (2, 2)),
            stax.Flatten, stax.Dense(128), stax.Relu, stax.Dense(10),
        )  # fmt: skip
    if name == "mlp":
        return stax.serial(stax.Dense(512), stax.Relu, stax.Dense(512), stax.Relu, stax.Dense(10))
    blocks = (_block(channels, stride) for channels, stride in BLOCKS)
    return stax.serial(_conv(16, 3), stax.BatchNorm(), stax.Relu, *blocks, _mean_over_space(), stax.Dense(10))


def prepare(task: Task, arrays: Arrays) -> Program:
    init_fun, apply_fun = network(task.network)

    def init(key: jax.Array) -> Any:
        return init_fun(key, (-1, *NETWORKS[task.network].shape))[1], ()

    def apply(params: Any, state: Any, x: jax.Array, train: bool) -> Any:
        params, x = compiled.half((params, x)) if task.dtype == "bfloat16" else (params, x)
        return apply_fun(params, x), state

    return compiled.program(task, arrays, compiled.supervised(task, init, apply))
