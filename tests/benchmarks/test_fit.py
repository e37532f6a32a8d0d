import pytest

from benchmarks import fit


def test_the_cold_time_is_without_the_warm_calls() -> None:
    assert fit.cold({"process": 5.0, "calls": [1.0, 0.5], "warm": 0.75}) == pytest.approx(3.5)


def test_the_table_has_both_times_and_the_result() -> None:
    def sample(process: float, warm: float) -> fit.Sample:
        return {"process": process, "calls": [warm], "warm": warm, "result": 0.5}

    shown = fit.table("regression", {"fnn": [sample(3.0, 1.0)], "pytorch": [sample(6.0, 2.0)]}, {})
    assert "| fnn | 2 s | 2 to 2 s | 1.00 | 1 s | 1 to 1 s | 1.00 | 0.5000 |" in shown
    assert "| PyTorch | 4 s | 4 to 4 s | 2.00 | 2 s | 2 to 2 s | 2.00 | 0.5000 |" in shown


def test_the_data_are_the_same_in_every_run() -> None:
    arrays, note = fit.points()
    assert (arrays["x"].shape, arrays["y"].shape) == ((1000, 10), (1000, 1))
    assert "1000" in note
    assert (arrays["x"] == fit.points()[0]["x"]).all()
