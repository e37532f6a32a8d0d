"""One trial: what comes back from a folder, and what it is called.

Everything that a library does is done in a process of its own, which may be killed, crash or hang.
"""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.keepers import KEEPERS, same, tree_of

PATIENCE = 60  # seconds, after which a process hangs
CONTEXT = multiprocessing.get_context("forkserver")  # the libraries are imported once


class Outcome(Enum):
    """What became of the checkpoints, from good to bad."""

    WHOLE = 0  # the newest came back as it was saved
    OLDER = 1  # the newest was damaged: the one before came back, with a message
    TOLD = 2  # an error; the one before can be read by its step
    UNSAID = 3  # the newest was damaged: the one before came back, without a message
    HANG = 4
    CRASH = 5
    LOST = 6  # what had been saved, and was not damaged, does not come back
    WRONG = 7  # other values than were saved, and no error

    @property
    def bad(self) -> bool:
        """Whether it must not be."""
        return self.value > Outcome.TOLD.value

    @property
    def text(self) -> str:
        """The word in the table; what must not be is in capitals."""
        words = {Outcome.UNSAID: "older, unsaid", Outcome.WRONG: "silently wrong"}.get(self, self.name.lower())
        return words.upper() if self.bad else words


class Restored(NamedTuple):
    """What came back: its step, whether the values are those of the step, whether there was a message."""

    step: int
    right: bool
    said: bool


class Process:
    """A process that runs a generator and sends what it yields; with `with` it is killed at the end."""

    def __init__(self, function: Callable[..., Iterator[Any]], *arguments: Any):
        self._receiver, sender = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_send, args=(sender, function, arguments))
        self.process.start()
        sender.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._receiver.close()

    def next(self) -> Any:
        """What it yields next; an exception that it raised, or the outcome, when it hangs or has crashed."""
        try:
            return self._receiver.recv() if self._receiver.poll(PATIENCE) else Outcome.HANG
        except EOFError:
            return Outcome.CRASH

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _send(sender: Any, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        for message in function(*arguments):
            sender.send(message)
    except Exception as error:
        sender.send(RuntimeError(f"{type(error).__name__}: {error}"))


def ask(function: Callable[..., Iterator[Any]], *arguments: Any) -> Any:
    """The first that a generator yields in a process of its own."""
    with Process(function, *arguments) as process:
        return process.next()


def save(keeper: str, folder: Path, *steps: int) -> Iterator[int]:
    """Save some steps."""
    kept = KEEPERS[keeper](folder)
    for step in steps:
        kept.save(step, tree_of(step))
    yield steps[-1]


def restore(keeper: str, folder: Path, step: int | None = None, writer: int = 0) -> Iterator[Restored]:
    """Restore the newest, or a step, and compare it with what was saved."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, tree = KEEPERS[keeper](folder).restore(step)
    yield Restored(found, same(tree, tree_of(found, writer)), bool(said))


def judge(
    keeper: str, folder: Path, newest: int, *, whole: int | None = None, writer: int = 0, reply: Any = None
) -> Outcome:
    """Restore from a folder, and name what happens.

    Args:
        keeper: Name of the library.
        folder: Where.
        newest: The last step that the library said to be saved.
        whole: The last step that was saved and no fault has damaged; None: that is the newest.
        writer: Whose values they must be.
        reply: What was restored already.
    """
    whole = newest if whole is None else whole
    reply = ask(restore, keeper, folder, None, writer) if reply is None else reply
    if isinstance(reply, Outcome):
        return reply
    if isinstance(reply, Exception):
        by_step = ask(restore, keeper, folder, whole, writer)
        return Outcome.TOLD if isinstance(by_step, Restored) and by_step.right else Outcome.LOST
    if not reply.right:
        return Outcome.WRONG
    if reply.step >= newest:
        return Outcome.WHOLE
    if reply.step < whole:
        return Outcome.LOST
    return Outcome.OLDER if reply.said else Outcome.UNSAID


def go_on(keeper: str, folder: Path, newest: int) -> Outcome:
    """Judge, then save once more, as a run does that is started again, and judge that."""
    outcome = judge(keeper, folder, newest)
    if outcome is not Outcome.WHOLE:
        return outcome
    later = newest + 2  # a save that was broken off may have been of the step between
    reply = ask(save, keeper, folder, later)
    if isinstance(reply, Outcome):
        return reply
    return Outcome.TOLD if isinstance(reply, Exception) else judge(keeper, folder, later)
