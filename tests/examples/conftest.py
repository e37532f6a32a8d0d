"""Examples are scripts, not a package: their folder is put on the path, as Python does when it runs one."""

import sys
from pathlib import Path

import pytest

_EXAMPLES = str(Path(__file__).parents[2] / "examples")
if _EXAMPLES not in sys.path:
    sys.path.insert(0, _EXAMPLES)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, no data folder, and no proxy between the test and its server."""
    monkeypatch.delenv("FNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "fnn"


@pytest.fixture
def given(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty data folder of the user's own."""
    monkeypatch.setenv("FNN_DATA", str(tmp_path / "given"))
    return tmp_path / "given"
