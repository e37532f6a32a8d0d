from typing import Any

import jax
import pytest
from jax.experimental import rnn

from benchmarks import __main__, lstm
from benchmarks.lstm import PASSES, Shape


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference that JAX has for cuDNN's LSTM stands in for it."""

    def reference(x: Any, h: Any, c: Any, weights: Any, lengths: Any, **options: Any) -> Any:
        sizes = options["input_size"], options["hidden_size"], options["num_layers"]
        parts = rnn.unpack_lstm_weights(weights, *sizes, options["bidirectional"])
        return rnn.lstm_ref(x, h, c, *parts, lengths, *sizes, options["dropout"], options["bidirectional"])

    monkeypatch.setattr(rnn, "lstm", reference)


@pytest.mark.usefixtures("cudnn")
def test_both_sides_are_timed_and_are_one_function() -> None:
    found = lstm.measure(Shape(2, 4, 3), seconds=0)
    assert all(len(found[name][side]) >= 5 for name in PASSES for side in ("fnn", "cuDNN"))
    assert found["difference"] < 1e-6
    assert not found["cudnn"]


def test_the_table_has_both_passes_and_what_fnn_compiles_to() -> None:
    taken: dict[str, Any] = {name: {"fnn": [0.002], "cuDNN": [0.001, 0.003, 0.001]} for name in PASSES}
    shown = lstm.table({"a": taken | {"difference": 1e-3, "cudnn": False}})
    assert "| a | 2 ms | 1 ms | 0.50 | 2 ms | 1 ms | 0.50 | 1.0e-03 |" in shown
    assert "compiled to a loop of its own" in shown
    assert "compiled to cuDNN's LSTM" in lstm.table({"a": taken | {"difference": 1e-3, "cudnn": True}})


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert lstm.main([]) == 1
    assert "cuDNN needs a GPU" in capsys.readouterr().out


def test_the_command_line_has_it() -> None:
    assert __main__.split(["lstm", "--seconds", "1"]) == ("lstm", ["--seconds", "1"])
