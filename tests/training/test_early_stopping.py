from typing import Any

import pytest

import fnn


def best_epoch(values: list[float], **options: Any) -> tuple[int, int]:
    """The best epoch, and the one after which training stops (0: it does not)."""
    options = {"minimize": "loss"} | options
    rule = fnn.early_stopping(2, **options)
    memory = rule.init()
    for epoch, value in enumerate(values, start=1):
        memory = rule.update(memory, value, epoch)
        if rule.is_over(memory):
            return memory.best_epoch, epoch
    return memory.best_epoch, 0


def test_patience_counts_epochs_without_improvement() -> None:
    assert best_epoch([3, 2, 1, 4, 4]) == (3, 5)
    assert best_epoch([3, 4, 2, 4, 1]) == (5, 0)


def test_larger_may_be_better() -> None:
    assert best_epoch([1, 3, 2, 1], minimize=None, maximize="accuracy") == (2, 4)


def test_a_change_that_is_too_small_is_no_improvement() -> None:
    assert best_epoch([1.0, 0.95, 0.92], minimum_change=0.1) == (1, 3)


def test_a_value_that_is_not_a_number_is_no_improvement() -> None:
    assert best_epoch([1.0, float("nan"), float("nan")]) == (1, 3)


@pytest.mark.parametrize("patience", [0, -1, 1.5])
def test_patience_is_a_positive_int(patience: int) -> None:
    with pytest.raises((TypeError, ValueError), match=r"patience must be (an int|at least 1), got"):
        fnn.early_stopping(patience, minimize="loss")
