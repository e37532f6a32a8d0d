import json
from pathlib import Path

import pytest

from benchmarks import report


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.5, "2.5 s"), (1234.5, "1234 s"), (0.0132, "13.2 ms"), (4.05e-5, "40.5 µs")]
)
def test_seconds_have_three_digits_and_a_unit(seconds: float, shown: str) -> None:
    assert report.show_seconds(seconds) == shown


def test_a_range_has_one_unit() -> None:
    assert report.show_range([0.0008, 0.002, 0.0012]) == "0.8 to 2 ms"


def test_ratios_are_of_medians_to_the_first() -> None:
    assert report.ratios({"a": [1.0, 2.0, 9.0], "b": [4.0, 3.0, 5.0]}) == {"a": 1.0, "b": 2.0}
    assert report.ratios({}) == {}


def test_a_table_is_markdown() -> None:
    assert report.markdown(["", "time"], [["a", "1 s"]]) == "|  | time |\n| --- | --- |\n| a | 1 s |"


def test_the_fastest_of_each_family_is_named() -> None:
    found = {"fnn": 1.0, "stax": 3.0, "linen": 2.0, "torch": 0.5}
    families = {"fnn": "JAX peer", "stax": "JAX peer", "linen": "JAX peer", "torch": "other"}
    sentence = report.fastest(found, families)
    assert (
        sentence == "Fastest JAX peer: linen, 2.00 of the time of fnn; fastest other: torch, 0.50 of the time of fnn."
    )
    assert report.fastest({"fnn": 1.0}, families) == ""


def test_json_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    report.write_json(None, {"a": 1})
    report.write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_the_plot_has_a_panel_for_each_workload(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    file = tmp_path / "plot.png"
    report.plot(file, {"cnn": {"fnn": [0.01, 0.02], "torch": [0.02]}, "nothing": {}}, "fnn")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    report.plot(tmp_path / "plot.png", {"cnn": {}}, "fnn")
    assert not (tmp_path / "plot.png").exists()
