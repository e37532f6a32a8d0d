"""Write ``docs/api.md``: every public name with its signature and the first line of its docstring.

``python docs/api.py`` after a name, a signature or a first line has changed; a test compares.
"""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).with_name("api.md")
PACKAGE = PAGE.parents[1] / "fnn"
BEGIN = """# All names

Every public name, its arguments and what it does. `help(fnn.NAME)` has shapes, errors, sources and an example.
Written by `python docs/api.py`.
"""


def page() -> str:
    """The text of the page."""
    parts = [
        BEGIN,
        *_sections("fnn", PACKAGE / "__init__.py"),
        *_sections("fnn.plot", PACKAGE / "plot" / "__init__.py"),
    ]
    return "\n".join(parts)


def _sections(package: str, source: Path) -> list[str]:
    """The names that a package imports, by the comments above the imports."""
    text, module = source.read_text(), importlib.import_module(package)
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and not node.names[0].name.startswith("_"):
            names = [alias.asname or alias.name for alias in node.names]
            if public := [name for name in names if not name.startswith("_")]:
                found.setdefault(_heading(lines, node.lineno - 1), []).extend(public)
    return [
        "\n".join(
            [
                f"## {heading}\n",
                *(row for name in names for row in _rows(f"{package}.{name}", getattr(module, name))),
                "",
            ]
        )
        for heading, names in found.items()
    ]


def _heading(lines: list[str], number: int) -> str:
    """The newest comment that begins a line above a line."""
    last = max(place for place in range(number) if lines[place].startswith("# "))
    first = last
    while lines[first - 1].startswith("# "):
        first -= 1
    return " ".join(line.removeprefix("# ") for line in lines[first : last + 1]).rstrip(".")


def _rows(name: str, thing: Any) -> list[str]:
    if isinstance(thing, ModuleType):
        own = {key: value for key, value in vars(thing).items() if getattr(value, "__module__", "") == thing.__name__}
        return [row for key, value in own.items() if not key.startswith("_") for row in _rows(f"{name}.{key}", value)]
    first = (inspect.getdoc(thing) or "").partition("\n")[0]
    return [f"* `{name}{_arguments(thing)}`: {first}"]


def _arguments(thing: Any) -> str:
    """The signature without types; defaults that are functions are left out, as their text has no meaning."""
    if isinstance(thing, type) or not callable(thing):
        return ""
    signature = inspect.signature(thing)
    parameters = [
        one.replace(annotation=one.empty, default=_default(one.default)) for one in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


class _Text:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _default(value: Any) -> Any:
    return _Text("...") if callable(value) and value is not inspect.Parameter.empty else value


if __name__ == "__main__":
    PAGE.write_text(page())
