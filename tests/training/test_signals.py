import signal
import threading

import pytest

from fnn.training.signals import interruption, termination


def test_sigterm_is_noted_where_the_caller_saves() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with termination(saves=True) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_the_process_where_nothing_is_saved() -> None:
    """A function without a folder took the signal in and returned as if nothing had come."""
    with pytest.raises(SystemExit) as ended, termination(saves=False):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143


def test_a_handler_of_the_program_stays_where_nothing_is_saved() -> None:
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with termination(saves=False) as asked:
            signal.raise_signal(signal.SIGTERM)
        assert came == [1]
        assert not asked()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_first_ctrl_c_is_noted_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruption(lambda: True) as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_raises_where_there_is_nothing_to_return() -> None:
    with interruption(lambda: False) as asked:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not asked()


def test_other_threads_cannot_handle_signals() -> None:
    found = []

    def run() -> None:
        with termination(saves=True) as asked, interruption(lambda: True):
            found.append(asked())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]
