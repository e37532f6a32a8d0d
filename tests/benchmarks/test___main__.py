import pytest

from benchmarks import __main__


@pytest.mark.parametrize(
    ("arguments", "script", "rest"),
    [
        ([], "steps", []),
        (["--rounds", "2"], "steps", ["--rounds", "2"]),
        (["fit", "--rounds", "2"], "fit", ["--rounds", "2"]),
        (["convolutions", "--quick"], "convolutions", ["--quick"]),
    ],
)
def test_the_first_argument_may_name_a_script(arguments: list[str], script: str, rest: list[str]) -> None:
    assert __main__.split(arguments) == (script, rest)
