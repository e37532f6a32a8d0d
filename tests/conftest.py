"""What every test needs: fresh keys are told from used ones, and real data is found."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_debug_key_reuse", True)
# What a program computes is tested, and it runs once: optimizing its machine code takes longer than running it.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("FNN_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set FNN_DATA to a folder of data sets")
    return Path(folder)
