"""The package itself: its public names, its version, and what `help` and `dir` show of it."""

import ast
import pydoc
import re
import tomllib
from pathlib import Path
from types import ModuleType

import fnn

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "fnn" / "__init__.py"


def imported() -> set[str]:
    """The names that the statements of the package import for its users."""
    found: set[str] = set()
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return {name for name in found if not name.startswith("_")}


def test_every_imported_name_is_public_and_no_other() -> None:
    """There was no `__all__`: `dir(fnn)` mixed the functions with the files they come from."""
    assert set(fnn.__all__) == imported()
    assert len(fnn.__all__) == len(set(fnn.__all__))
    shown = [name for name in dir(fnn) if not name.startswith("_")]
    assert sorted(shown) == sorted(fnn.__all__)
    names: dict[str, object] = {}
    exec("from fnn import *", names)
    assert set(fnn.__all__) <= set(names)


def test_help_lists_every_name_with_its_first_line() -> None:
    """`help(fnn)` printed the names of files and not one function."""
    text = pydoc.plain(pydoc.render_doc(fnn))
    lines = {
        line.split()[0]: line.strip() for line in text.partition("PACKAGE CONTENTS")[0].splitlines() if line.strip()
    }
    for name in fnn.__all__:
        thing = getattr(fnn, name)
        if not isinstance(thing, ModuleType):
            assert lines[name].startswith(name)
            assert lines[name].endswith((thing.__doc__ or "").splitlines()[0].strip()), name


def test_every_public_name_is_documented() -> None:
    for name in fnn.__all__:
        assert (getattr(fnn, name).__doc__ or "").strip(), name


def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert "version" in project["project"]["dynamic"]
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == SOURCE
    assert f'\n__version__ = "{fnn.__version__}"' in SOURCE.read_text()


def test_no_page_or_message_names_a_package_of_somebody_else() -> None:
    """Docs and errors said to install ``fnn[...]``, which is not on PyPI: pip would fetch somebody else's package."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("fnn/**/*.py"), *ROOT.glob("examples/*")]
    named = re.compile(r"pip install [^\n]*\bfnn\b")
    found = [f"{file.name}: {line}" for file in texts if file.is_file() for line in named.findall(file.read_text())]
    assert found == []
