"""The page of all names is current."""

import importlib.util
import re
from pathlib import Path

import pytest

import fnn

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_of_all_names_is_current() -> None:
    pytest.importorskip("matplotlib", reason="the page has the names of fnn.plot, and matplotlib is not installed")
    spec = importlib.util.spec_from_file_location("api", DOCS / "api.py")
    assert spec is not None
    assert spec.loader is not None
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    page = api.page()
    assert (DOCS / "api.md").read_text() == page, "docs/api.md is not current; write it again: python docs/api.py"
    assert " at 0x" not in page
    listed = re.findall(r"^\* `fnn\.(\w+)[`(.]", page, flags=re.MULTILINE)
    assert set(fnn.__all__) <= set(listed)
