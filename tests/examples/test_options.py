"""What every script does with its command line: each option reaches the parameter of `main` that it names."""

import argparse
import ast
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if "ArgumentParser(" in path.read_text())
POSITIONAL = {"pretrained": ["folder"], "datasets": ["mnist"]}


Call = tuple[argparse.ArgumentParser, dict[str, Any], dict[str, Any]]


def called(script: str, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the lines of a script beneath ``if __name__ == "__main__"`` with `main` recorded.

    Returns:
        The parser, what `main` was given by name, and the defaults of all that it takes.
    """
    module, calls, parsers = importlib.import_module(script), [], []
    block = ast.parse((EXAMPLES / f"{script}.py").read_text()).body[-1]
    assert isinstance(block, ast.If)
    signature = inspect.signature(module.main)
    record = lambda *args, **kwargs: calls.append(signature.bind(*args, **kwargs))
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *args: Any) -> Any:
        parsers.append(self)
        return parse(self, *args)

    monkeypatch.setattr(sys, "argv", [f"{script}.py", *argv])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    program = compile(ast.Module([block], []), f"{script}.py", "exec")
    exec(program, {**vars(module), "main": record, "__name__": "__main__"})
    (parser,), (call,) = parsers, calls
    defaults = {name: one.default for name, one in signature.parameters.items() if one.kind != one.VAR_KEYWORD}
    given = dict(call.arguments)
    if "options" in given:  # those of a tuple of settings
        given |= given.pop("options")
        defaults |= module.Setting()._asdict()
    return parser, given, defaults


def sample(action: argparse.Action) -> tuple[list[str], Any]:
    """Something that an option takes, and what it is read as."""
    if isinstance(action, argparse._StoreTrueAction):
        return [], True
    if action.choices is not None:
        chosen = list(action.choices)[-1]
        value = chosen if action.default != chosen else next(iter(action.choices))
    else:
        value = {int: 7, float: 0.3125, None: "given", str: "given", Path: Path("given")}[action.type]
    several = action.nargs in ("+", "*")
    return [str(value)], [value] if several else value


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else tuple(value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_options_main_has_its_defaults(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    positional = POSITIONAL.get(script, [])
    _, given, defaults = called(script, positional, monkeypatch)
    for name, value in list(given.items())[len(positional) :]:
        assert plain(value) == plain(defaults[name]), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_reaches_main(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    positional = POSITIONAL.get(script, [])
    parser, _, defaults = called(script, positional, monkeypatch)
    actions = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    for action in actions:
        texts, wanted = sample(action)
        _, given, _ = called(script, [*positional, action.option_strings[-1], *texts], monkeypatch)
        assert plain(given[action.dest]) == plain(wanted), action.dest
    assert len(actions) + len(positional) == len(defaults), "a parameter of main has no option"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_the_script_and_fits_a_terminal(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        called(script, ["--help"], monkeypatch)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: {script}.py")
    assert max(map(len, lines)) <= 120
