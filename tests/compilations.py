"""How many programs JAX compiles within a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

_events: list[str] = []


def _note(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _events.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The block's compilations, one item each."""
    before, found = len(_events), []
    yield found
    found.extend(_events[before:])
