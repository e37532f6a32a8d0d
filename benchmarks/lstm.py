"""Time an LSTM layer of fnn and that of cuDNN, which `jax.experimental.rnn` calls: forward, and the gradients.

    python -m benchmarks lstm --json lstm.json

It needs a GPU, and says by which of the two ways fnn's layer is compiled there.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, report

PASSES = ("forward", "gradients")
CUDNN = "cudnn_rnn"  # the custom call of `jax.experimental.rnn` in a compiled program


class Shape(NamedTuple):
    """A layer with as many units as its input has features."""

    batch: int
    time: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.time} x {self.width}"


SHAPES = (Shape(32, 64, 256), Shape(32, 512, 512), Shape(128, 256, 512), Shape(128, 128, 1024))


def pack(params: Mapping[str, Any]) -> Any:
    """fnn's parameters as cuDNN keeps them: the same order of gates, kernels transposed, a second bias of zeros."""
    import jax.numpy as jnp

    kernels = params["kernel"].T, params["recurrent_kernel"].T
    return jnp.concatenate([part.ravel() for part in (*kernels, params["bias"], jnp.zeros_like(params["bias"]))])


def layers(shape: Shape) -> dict[str, tuple[Callable[..., Any], Any]]:
    """By side ``forward(params, x) -> y`` and its parameters, the same numbers on both."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import rnn

    import fnn

    batch, time, width = shape
    net = fnn.lstm(width)
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    zeros, lengths = jnp.zeros((1, batch, width)), jnp.full(batch, time, jnp.int32)
    options: dict[str, Any] = {"num_layers": 1, "dropout": 0.0, "bidirectional": False}

    def cudnn(weights: Any, x: Any) -> Any:
        return rnn.lstm(x, zeros, zeros, weights, lengths, input_size=width, hidden_size=width, **options)[0]

    return {"fnn": (lambda params, x: net.apply(params, state, x)[0], params), "cuDNN": (cudnn, pack(params))}


def measure(shape: Shape, seconds: float) -> dict[str, Any]:
    """Times of both sides by pass, how far their outputs are apart, and whether fnn's programs call cuDNN's LSTM."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(jax.random.key(1), shape)
    found: dict[str, Any] = {name: {} for name in PASSES}
    ys, calls = [], []
    for side, (forward, params) in layers(shape).items():
        total = lambda params, x, forward=forward: jnp.sum(jnp.square(forward(params, x)))
        for name, function in zip(PASSES, (forward, jax.grad(total, (0, 1)))):
            program = jax.jit(function).lower(params, x).compile()
            call = lambda program=program, params=params: jax.block_until_ready(program(params, x))
            found[name][side] = machine.times(call, seconds)
            if name == PASSES[0]:
                ys.append(call())
            if side == "fnn":
                calls.append(CUDNN in program.as_text())
    return {**found, "difference": float(jnp.max(jnp.abs(ys[0] - ys[1]))), "cudnn": all(calls)}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each shape, and what fnn's layer is compiled to."""
    rows = []
    for shape, taken in found.items():
        middles = [{side: statistics.median(times) for side, times in taken[name].items()} for name in PASSES]
        cells = [
            cell
            for both in middles
            for cell in (*map(report.show_seconds, both.values()), f"{both['cuDNN'] / both['fnn']:.2f}")
        ]
        rows.append([shape, *cells, f"{taken['difference']:.1e}"])
    heads = [head for name in PASSES for head in (f"{name}, fnn", "cuDNN", "cuDNN / fnn")]
    route = "cuDNN's LSTM" if all(taken["cudnn"] for taken in found.values()) else "a loop of its own"
    shown = report.markdown(["batch x time x width", *heads, "difference"], rows)
    return f"{shown}\n\nfnn's layer is compiled to {route}."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks lstm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each call is repeated (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time there")
    options = parser.parse_args(arguments)
    import jax

    if jax.default_backend() != "gpu":
        print(f"Nothing is measured: cuDNN needs a GPU, and JAX computes on a {jax.default_backend()} here.")
        return 1
    facts = machine.facts(["jax", "jaxlib"]) | {"device": jax.devices()[0].device_kind}
    report.print_facts(facts)
    found = {str(shape): measure(shape, options.seconds) for shape in SHAPES}
    print(table(found))
    report.write_json(options.json, {"facts": facts, "shapes": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
