"""Stopping when a measured value no longer improves."""

from dataclasses import dataclass
from typing import NamedTuple

from fnn.ops.checks import check_counts


class Patience(NamedTuple):
    """What early stopping remembers.

    Attributes:
        best: The best value so far.
        best_epoch: The epoch, counted from 1, that gave it; 0 before the first.
        waited: Epochs since then.
    """

    best: float
    best_epoch: int
    waited: int


@dataclass(frozen=True)
class EarlyStopping:
    """The rule of early stopping, as pure functions; made by `early_stopping`."""

    patience: int
    monitor: str
    maximize: bool
    minimum_change: float
    restore: bool

    def init(self) -> Patience:
        """What is remembered before the first epoch."""
        return Patience(float("-inf") if self.maximize else float("inf"), 0, 0)

    def update(self, memory: Patience, value: float, epoch: int) -> Patience:
        """Take in the value of one epoch; ``best_epoch == epoch`` afterwards means that it is the best so far."""
        gain = value - memory.best if self.maximize else memory.best - value
        if gain > self.minimum_change:
            return Patience(value, epoch, 0)
        return memory._replace(waited=memory.waited + 1)

    def is_over(self, memory: Patience) -> bool:
        """Whether the patience is used up."""
        return memory.waited >= self.patience


def early_stopping(
    patience: int,
    *,
    minimize: str | None = None,
    maximize: str | None = None,
    minimum_change: float = 0.0,
    restore: bool = True,
) -> EarlyStopping:
    """Stop `fit` when a value has not improved for some epochs.

    Exactly one of ``minimize`` and ``maximize`` is given: whether larger is better cannot be read from a name.

    Args:
        patience: Epochs without improvement after which to stop.
        minimize: A column of the history whose smallest value is best, such as ``"validation/loss"``.
        maximize: A column of the history whose largest value is best, such as ``"validation/accuracy"``.
        minimum_change: An improvement is more than this.
        restore: Whether `fit` returns the best state and not the last.

    Returns:
        A rule for ``fit(..., early_stopping=...)``; its ``init``, ``update`` and ``is_over`` serve custom loops.

    Raises:
        ValueError: when patience is below 1, or not exactly one of ``minimize`` and ``maximize`` is given.
        TypeError: when patience is no int, or the name of a metric no string.

    Example:
        >>> import fnn
        >>> rule = fnn.early_stopping(2, minimize="validation/loss")
        >>> memory = rule.init()
        >>> for epoch, loss in enumerate([1.0, 0.5, 0.6, 0.7], start=1):
        ...     memory = rule.update(memory, loss, epoch)
        >>> memory.best_epoch, rule.is_over(memory)
        (2, True)
    """
    check_counts(patience=(patience, 1))
    if (minimize is None) == (maximize is None):
        raise ValueError(
            'early_stopping needs the name of one metric and a direction: minimize="validation/loss" or '
            f'maximize="validation/accuracy", got {"neither" if minimize is None else "both"}'
        )
    for name in (minimize, maximize):
        if not isinstance(name, str | None):
            raise TypeError(f"minimize and maximize are names of metrics, such as 'validation/loss', got {name!r}")
    monitor = minimize if maximize is None else maximize
    assert monitor is not None
    return EarlyStopping(patience, monitor, maximize is not None, minimum_change, restore)
