"""Examples are scripts, not a package: their folder is put on the path, as Python does when it runs one."""

import sys
from pathlib import Path

import pytest

_EXAMPLES = str(Path(__file__).parents[2] / "examples")
if _EXAMPLES not in sys.path:
    sys.path.insert(0, _EXAMPLES)


@pytest.fixture(scope="module", autouse=True)
def in_haste(compiled_in_haste: None) -> None:
    """Examples run once, and small."""
