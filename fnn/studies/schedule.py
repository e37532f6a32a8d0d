"""Which training goes on when: lanes of a fixed number are filled, advanced, read and filled again."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.studies.engine import Engine, replace
from fnn.studies.runs import OVER, Run, RunId
from fnn.studies.trial import Lane, Place
from fnn.training.early_stopping import EarlyStopping

Tree = Any


@dataclass
class Store:
    """What lies on the host.

    Attributes:
        parked: States of runs that wait to go on.
        kept: Parameters and state of runs that are over, as they are wanted.
        predictions: Outputs for the held-out rows of runs that are over, where they are wanted.
    """

    parked: dict[RunId, Lane] = field(default_factory=dict)
    kept: dict[RunId, Tree] = field(default_factory=dict)
    predictions: dict[RunId, Tree] = field(default_factory=dict)


@dataclass
class _Bank:
    """Lanes that are advanced together: which run is in which, and the call that is under way."""

    slots: list[Run | None]
    lanes: Any = None
    places: Any = None
    call: Any = None


@dataclass
class Schedule:
    """The loop over lanes of one engine, in as many banks as are advanced at the same time.

    Attributes:
        engine: What trains.
        hp: The traced hyperparameters of each trial by name.
        every: Steps between measurements.
        rule: Early stopping of each run, if any.
        wants_kept: Whether the parameters of runs that are over are read.
        wants_predictions: Whether their outputs for held-out rows are.
        store: Where that goes.
    """

    engine: Engine
    hp: Callable[[int], dict[str, Any]]
    every: int
    rule: EarlyStopping | None
    wants_kept: bool
    wants_predictions: bool
    store: Store
    _banks: list["_Bank"] = field(default_factory=list)
    _budget: Any = None
    _stays: bool = False

    def train(self, runs: Sequence[Run], budget: Callable[[Run], int], stays: bool) -> Iterator[list[Run]]:
        """Train runs up to their budgets.

        Args:
            runs: Those that are to go on; a state in ``store.parked`` is where one stands.
            budget: Steps after which a run is done.
            stays: Whether a run that reached its budget may go on later: then its state is parked.

        Yields:
            After each call of the executable the runs that ended in it.
        """
        self._budget, self._stays = budget, stays
        queue = deque(run for run in runs if run.status not in OVER)
        count = min(self.engine.workers, -(-len(queue) // self.engine.width))
        self._banks = [_Bank([None] * self.engine.width) for _ in range(count)]
        with ThreadPoolExecutor(max(count, 1)) as pool:
            while True:
                for bank in self._banks:
                    if bank.call is None and (queue or any(bank.slots)):
                        self._fill(bank, queue)
                        bank.places = self._places(bank.slots, budget)
                        bank.call = pool.submit(self._advance, bank.lanes, bank.places)
                calls = [bank.call for bank in self._banks if bank.call is not None]
                if not calls:
                    return
                wait(calls, return_when=FIRST_COMPLETED)
                landed = [bank for bank in self._banks if bank.call is not None and bank.call.done()]
                yield [run for bank in landed for run in self._land(bank)]

    def running(self) -> dict[RunId, Lane]:
        """States of the runs that are in the lanes, after waiting for the calls that are under way."""
        states: dict[RunId, Lane] = {}
        for bank in self._banks:
            if bank.call is not None:
                self._land(bank)
            if bank.lanes is not None:
                host = to_host(bank.lanes)
                states |= {run.id: at(host, number) for number, run in enumerate(bank.slots) if run is not None}
        return states

    def _advance(self, lanes: Lane, places: Place) -> tuple[Lane, Any]:
        """One call of the executable, in a thread: on a CPU several of them share its cores better than one."""
        lanes, measured = self.engine.advance(lanes, places, self.every)
        return lanes, jax.device_get((measured, lanes.step, lanes.finite, lanes.best_value, lanes.best_step))

    def _land(self, bank: "_Bank") -> list[Run]:
        """Read a call that has ended."""
        bank.lanes, found = bank.call.result()
        bank.call = None
        over = self._read(bank.slots, found, self._budget)
        if over:
            self._harvest(bank.lanes, bank.places, over, self._stays)
            bank.slots = [None if number in over else run for number, run in enumerate(bank.slots)]
        return list(over.values())

    def _fill(self, bank: "_Bank", queue: deque[Run]) -> None:
        """Give free lanes to runs that wait."""
        free = [number for number, run in enumerate(bank.slots) if run is None]
        filled = {number: queue.popleft() for number in free if queue}
        for number, run in filled.items():
            bank.slots[number], run.status = run, "running"
        parked = {number: run for number, run in filled.items() if run.id in self.store.parked}
        fresh = [number for number in filled if number not in parked]
        if fresh or bank.lanes is None:
            self._replace(bank, self.engine.start(self._places(bank.slots, lambda run: 0)), fresh)
        if parked:
            self._replace(bank, self._unpark(bank.lanes, parked), list(parked))

    def _replace(self, bank: "_Bank", new: Lane, numbers: list[int]) -> None:
        if bank.lanes is None or len(numbers) == self.engine.width:
            bank.lanes = new
            return
        which = np.zeros(self.engine.width, bool)
        which[numbers] = True
        bank.lanes = replace(bank.lanes, new, which)

    def _places(self, slots: Sequence[Run | None], budget: Callable[[Run], int]) -> Place:
        """An empty lane repeats a neighbour's place with no step to do."""
        example = next(run for run in slots if run is not None)
        budgets = [0 if run is None else budget(run) for run in slots]
        return places_of([run or example for run in slots], self.hp, budgets)

    def _read(self, slots: Sequence[Run | None], found: Any, budget: Callable[[Run], int]) -> dict[int, Run]:
        """Write down what was measured; the runs that are over, by lane."""
        measured, steps, finite, best_value, best_step = found
        over = {}
        for number, run in enumerate(slots):
            if run is None:
                continue
            step = int(steps[number])
            if step > run.step:
                run.add(step, {name: _number(values[number]) for name, values in measured.items()})
                run.step, run.best_value, run.best_step = step, float(best_value[number]), int(best_step[number])
                waited = run.has_waited(self.rule)
            else:
                waited = False
            if not finite[number]:
                run.status = "diverged"
            elif waited:
                run.status = "stopped"
            elif step >= budget(run):
                run.status = "finished"
            if run.status != "running":
                over[number] = run
        return over

    def _harvest(self, lanes: Lane, places: Place, over: dict[int, Run], stays: bool) -> None:
        """Read what is wanted of the lanes that are over."""
        if stays:
            host = to_host(lanes)
            self.store.parked |= {run.id: at(host, n) for n, run in over.items() if run.status == "finished"}
        if self.wants_kept:
            trees = to_host(lanes.best if self.engine.program.keeps_best else (lanes.params, lanes.state))
            for number, run in over.items():
                self.store.kept[run.id] = at(trees, number)
        if self.wants_predictions:
            outputs = to_host(self.engine.predict(lanes, places))
            for number, run in over.items():
                self.store.predictions[run.id] = at(outputs, number)

    def _unpark(self, lanes: Any, runs: dict[int, Run]) -> Lane:
        """Lanes that hold the parked states at their numbers, and anything elsewhere."""
        states = {number: self.store.parked.pop(run.id) for number, run in runs.items()}
        some = next(iter(states.values()))
        stacked = jax.tree.map(
            lambda *leaves: np.stack(leaves), *(states.get(number, some) for number in range(self.engine.width))
        )
        return to_device(stacked, lanes)


def places_of(runs: Sequence[Run], hp: Callable[[int], dict[str, Any]], budgets: Sequence[int]) -> Place:
    """The places of runs, one for each lane."""
    each = [hp(run.id.trial) for run in runs]
    ints = lambda values: np.asarray(values, np.int32)
    seeds, folds = ints([run.id.seed for run in runs]), ints([run.id.fold for run in runs])
    return Place({name: np.asarray([values[name] for values in each]) for name in each[0]}, seeds, folds, ints(budgets))


def bare(leaf: jax.Array) -> jax.Array:
    """An array; of typed keys their data."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def to_host(tree: Tree) -> Tree:
    """Arrays as NumPy's; typed keys as their data."""
    return jax.device_get(jax.tree.map(bare, tree))


def to_device(tree: Tree, like: Tree) -> Tree:
    """The same arrays on the device; ``like`` says which are keys."""

    def put(leaf: np.ndarray, like: jax.Array) -> jax.Array:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(leaf), impl=jax.random.key_impl(like))
        return jnp.asarray(leaf, like.dtype)

    return jax.tree.map(put, tree, like)


def at(tree: Tree, number: int) -> Tree:
    """One lane of NumPy arrays, with memory of its own."""
    return jax.tree.map(lambda leaf: np.array(leaf[number]), tree)


def _number(value: np.ndarray) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)
