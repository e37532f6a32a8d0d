import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.workloads import BLOCKS, NETWORKS, TASKS, Task


def test_operations_of_the_cnn_are_those_counted_by_hand() -> None:
    first = 26 * 26 * 9 * 1 * 32  # 28 - 3 + 1 = 26
    second = 11 * 11 * 9 * 32 * 64  # 26 / 2 - 3 + 1 = 11
    dense = 5 * 5 * 64 * 128 + 128 * 10
    forward = first + second + dense
    assert forward == 2_631_040
    assert workloads.operations(TASKS["infer-1"]) == 2 * forward
    assert workloads.operations(TASKS["cnn-32"]) == 2 * 32 * (2 * first + 3 * second + 3 * dense)


def test_operations_of_resnet20_are_those_of_the_paper() -> None:
    # He et al., arXiv:1512.03385, have 40.55 million for three stages without convolutions in the shortcuts.
    task = Task("resnet20", 1, "infer")
    shortcuts = 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64
    assert workloads.operations(task) // 2 - shortcuts == 40_551_040


def test_operations_of_the_mlp_are_those_counted_by_hand() -> None:
    assert workloads.operations(TASKS["mlp-128"]) == 2 * 128 * (2 * 784 * 512 + 3 * 512 * 512 + 3 * 512 * 10)


def test_many_steps_or_networks_in_a_call_are_counted_one_by_one() -> None:
    assert workloads.operations(TASKS["scan-20"]) == workloads.operations(TASKS["cnn-32"])
    assert workloads.operations(TASKS["vmap-8"]) == workloads.operations(TASKS["cnn-32"])


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_those_of_the_products(name: str) -> None:
    """Kernels, and a bias for each feature; batch norm has two numbers for each, and no bias before it."""
    network = NETWORKS[name]
    kernels = sum(product.window * product.channels * product.features for product in network.products)
    features = [product.features for product in network.products]
    each = [2] * (len(features) - 1) + [1] if name == "resnet20" else [1] * len(features)
    assert network.parameters == kernels + sum(map(math.prod, zip(features, each)))


def test_resnet20_has_nine_blocks_and_halves_twice() -> None:
    assert [channels for channels, _ in BLOCKS] == [16] * 3 + [32] * 3 + [64] * 3
    assert [stride for _, stride in BLOCKS] == [1, 1, 1, 2, 1, 1, 2, 1, 1]


def test_arrays_are_the_same_in_every_process() -> None:
    task = replace(TASKS["cnn-32"], batch=4)
    first, second = workloads.arrays(task), workloads.arrays(task)
    assert first["x"].shape == (4, 28, 28, 1)
    assert (first["x"].dtype, first["y"].dtype) == (np.float32, np.int32)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is(name: str) -> None:
    assert f"batch {TASKS[name].batch}" in workloads.describe(TASKS[name])
