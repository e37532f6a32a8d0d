"""Compare the three products of a convolution, as fnn computes them and as `jax.lax` does, over a grid of shapes.

    python -m benchmarks convolutions --json convolutions.json

For each shape the output as training computes it, the gradient with respect to the input and that with respect to the
kernel are compiled alone, and timed in one process, in turn.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness, machine, report
from benchmarks.stopper import STOPPED, Stopper

PRODUCTS = ("output", "input gradient", "kernel gradient")
SIDES = ("fnn", "lax")


class Shape(NamedTuple):
    """A convolution with as many spatial axes of one width as its rank says."""

    batch: int
    width: int
    channels: int
    features: int
    window: int
    stride: int = 1
    padding: str = "SAME"
    dilation: int = 1
    groups: int = 1
    rank: int = 2

    def __str__(self) -> str:
        window = " x ".join([str(self.window)] * self.rank)
        parts = [f"{self.batch} x {self.width}, {self.channels} to {self.features}, {window}, {self.padding}"]
        parts += [f"stride {self.stride}"] * (self.stride > 1)
        parts += [f"dilation {self.dilation}"] * (self.dilation > 1)
        parts += [f"{self.groups} groups"] * (self.groups > 1)
        return ", ".join(parts)


GRID = (
    # The convolutions of small networks on MNIST and CIFAR-10.
    Shape(1, 28, 1, 32, 3, padding="VALID"),
    Shape(32, 28, 1, 32, 3, padding="VALID"),
    Shape(128, 28, 1, 32, 3, padding="VALID"),
    Shape(32, 28, 1, 32, 3),
    Shape(128, 28, 1, 16, 5),
    Shape(1, 13, 32, 64, 3, padding="VALID"),
    Shape(8, 13, 32, 64, 3, padding="VALID"),
    Shape(32, 13, 32, 64, 3, padding="VALID"),
    Shape(128, 13, 32, 64, 3, padding="VALID"),
    Shape(32, 14, 32, 64, 3),
    Shape(128, 14, 32, 64, 3),
    Shape(32, 14, 16, 32, 5, padding="VALID"),
    Shape(128, 32, 3, 16, 3),
    Shape(32, 32, 3, 32, 3),
    Shape(32, 32, 3, 64, 5, padding="VALID"),
    # ResNets on CIFAR-10.
    Shape(1, 32, 16, 16, 3),
    Shape(8, 32, 16, 16, 3),
    Shape(32, 32, 16, 16, 3),
    Shape(128, 32, 16, 16, 3),
    Shape(128, 32, 16, 32, 3, stride=2),
    Shape(32, 16, 32, 32, 3),
    Shape(128, 16, 32, 32, 3),
    Shape(128, 16, 32, 64, 3, stride=2),
    Shape(32, 8, 64, 64, 3),
    Shape(128, 8, 64, 64, 3),
    Shape(128, 32, 16, 32, 1, stride=2),
    Shape(128, 16, 32, 64, 1, stride=2),
    # ResNets on ImageNet.
    Shape(1, 112, 3, 64, 7, stride=2),
    Shape(8, 112, 3, 64, 7, stride=2),
    Shape(1, 56, 64, 64, 3),
    Shape(8, 56, 64, 64, 3),
    Shape(8, 56, 64, 128, 3, stride=2),
    Shape(8, 28, 128, 128, 3),
    Shape(8, 14, 256, 256, 3),
    Shape(8, 7, 256, 256, 3),
    Shape(32, 7, 256, 256, 3, padding="VALID"),
    Shape(8, 56, 64, 256, 1),
    Shape(8, 28, 256, 128, 1),
    Shape(8, 56, 128, 256, 1, stride=2),
    Shape(1, 112, 16, 32, 3, stride=2),
    # Depthwise and grouped, dilated, one spatial axis.
    Shape(8, 56, 64, 64, 3, groups=64),
    Shape(32, 14, 128, 128, 3, groups=128),
    Shape(8, 28, 128, 128, 7, groups=128),
    Shape(8, 28, 64, 64, 3, groups=4),
    Shape(8, 28, 64, 64, 3, dilation=2),
    Shape(32, 16, 32, 32, 3, dilation=4, padding="VALID"),
    Shape(32, 112, 64, 64, 3, rank=1),
    Shape(32, 56, 128, 128, 7, stride=2, rank=1),
)


def quick(grid: Sequence[Shape]) -> Sequence[Shape]:
    """Every sixth shape."""
    return grid[::6]


def functions(side: str, shape: Shape) -> dict[str, Callable[..., Any]]:
    """The three products, each a function of ``(x, kernel, g)``, where g is shaped like the output.

    Those that are gradients are linear, so that nothing is left of the output in the compiled program.
    """
    import jax
    from jax import lax

    from fnn.ops.convolution import convolve

    axes = "HWD"[: shape.rank]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    several = lambda value: (value,) * shape.rank

    def with_fnn(x: Any, kernel: Any) -> Any:
        return convolve(
            x,
            kernel,
            strides=shape.stride,
            padding=shape.padding,
            dilation=shape.dilation,
            groups=shape.groups,
        )

    def with_lax(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            kernel,
            several(shape.stride),
            shape.padding,
            rhs_dilation=several(shape.dilation),
            dimension_numbers=numbers,
            feature_group_count=shape.groups,
        )

    forward = with_fnn if side == "fnn" else with_lax
    made = (
        lambda x, kernel, g: jax.vjp(forward, x, kernel)[0],
        lambda x, kernel, g: jax.vjp(lambda x: forward(x, kernel), x)[1](g)[0],
        lambda x, kernel, g: jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](g)[0],
    )
    return dict(zip(PRODUCTS, map(jax.jit, made)))


def measure(shape: Shape, dtype: str, calls: int) -> dict[str, dict[str, list[float]]]:
    """Times of every product, by product and side. The result of a call is kept until the next has ended."""
    import jax

    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (shape.batch, *[shape.width] * shape.rank, shape.channels), dtype)
    window = [shape.window] * shape.rank
    kernel = jax.random.normal(keys[1], (*window, shape.channels // shape.groups, shape.features), dtype)
    sides = {side: functions(side, shape) for side in SIDES}
    kept = {side: sides[side]["output"](x, kernel, None) for side in SIDES}
    g = jax.random.normal(keys[2], kept["fnn"].shape, dtype)
    found: dict[str, dict[str, list[float]]] = {product: {side: [] for side in SIDES} for product in PRODUCTS}
    for product in PRODUCTS:
        for number in range(calls + 1):
            for side in SIDES[:: 1 if number % 2 else -1]:  # in turn, since the first call after a pause is slower
                began = time.perf_counter()
                result = jax.block_until_ready(sides[side][product](x, kernel, g))
                seconds = time.perf_counter() - began
                kept[side] = result
                if number:  # the first compiles
                    found[product][side].append(seconds)
    return found


def compare(times: Mapping[str, Sequence[float]]) -> float:
    """How many times as long `lax` takes as fnn, by the medians."""
    return statistics.median(times["lax"]) / statistics.median(times["fnn"])


def summary(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """The geometric mean over the grid and the worst ratio, of each product and of all."""
    rows = []
    for name, products in [*((product, (product,)) for product in PRODUCTS), ("all", PRODUCTS)]:
        ratios = {
            f"{shape} ({product})": compare(times[product]) for shape, times in found.items() for product in products
        }
        worst = min(ratios, key=lambda place: ratios[place])
        mean = math.exp(statistics.mean(map(math.log, ratios.values())))
        rows.append([name, f"{mean:.2f}", f"{ratios[worst]:.2f}", worst])
    return report.markdown(["lax / fnn", "geometric mean", "worst", "where"], rows)


def row(shape: str, times: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """A line of the table: fnn's median and the ratio for each product."""
    cells = [shape]
    for product in PRODUCTS:
        middle = report.show_seconds(statistics.median(times[product]["fnn"]))
        cells += [middle, f"{compare(times[product]):.2f}"]
    return cells


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks convolutions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="every sixth shape only")
    parser.add_argument("--calls", type=int, default=9, help="how often each is timed, at least 7 (default: 9)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="what to compute in")
    harness.add_cores(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time there")
    options = parser.parse_args(arguments)
    if options.calls < 7 or options.cores < 1:
        parser.error("--calls must be at least 7 and --cores positive")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; stopped by Ctrl-C or SIGTERM, it sums up what was measured until then."""
    options = parse(arguments)
    machine.hold(options.cores)
    import jax

    facts = machine.facts(["jax", "jaxlib"]) | {"device": jax.devices()[0].device_kind, "dtype": options.dtype}
    report.print_facts(facts)
    heads = [cell for product in PRODUCTS for cell in (product, "lax / fnn")]
    print(report.markdown(["batch x width, channels, window", *heads], []), flush=True)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    with Stopper() as stopper:
        for shape in quick(GRID) if options.quick else GRID:
            if not stopper.stopped:
                found[str(shape)] = measure(shape, options.dtype, options.calls)
                print(report.markdown_row(row(str(shape), found[str(shape)])), flush=True)
    if found:
        print(f"\n{summary(found)}")
    report.write_json(options.json, {"facts": facts, "shapes": found})
    return STOPPED if stopper.stopped else 0


if __name__ == "__main__":
    sys.exit(main())
