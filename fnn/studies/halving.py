"""Successive halving: all configurations get a few steps, the best ones more."""

import math
from dataclasses import dataclass

from fnn.ops.checks import check_counts


@dataclass(frozen=True)
class Halving:
    """When configurations are compared and how many continue; made by `halving`.

    Attributes:
        factor: One configuration of so many continues.
        first: Steps before the first comparison.
    """

    factor: int
    first: int

    def rungs(self, steps: int, every: int) -> list[int]:
        """Steps at which configurations are compared, at measurements; the last is the end."""
        found, rung = [], self.first
        while rung < steps:
            found.append(math.ceil(rung / every) * every)
            rung *= self.factor
        return [*dict.fromkeys(rung for rung in found if rung < steps), steps]

    def survivors(self, count: int) -> int:
        """How many of so many go on: at least one."""
        return max(1, count // self.factor)


def halving(factor: int = 3, *, first: int) -> Halving:
    """Stop the worse configurations early, so that the better ones get the time.

    After ``first`` steps the best of every ``factor`` configurations continue, after ``first * factor`` steps the best
    of these, and so on. A configuration is compared by the mean over its seeds and folds.

    Args:
        factor: One configuration of so many continues.
        first: Steps before the first comparison; rounded up to a measurement.

    Returns:
        A rule for ``halving`` of `fnn.study`.

    Raises:
        TypeError: when one of them is no int.
        ValueError: when factor is below 2 or first below 1.

    Example:
        >>> import fnn
        >>> fnn.halving(3, first=100).rungs(1000, every=50)
        [100, 300, 900, 1000]

    References:
        Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016,
        arXiv:1502.07943.
    """
    check_counts(factor=(factor, 2), first=(first, 1))
    return Halving(factor, first)
