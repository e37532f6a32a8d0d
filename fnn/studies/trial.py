"""One training of a study as pure functions: how it starts, advances and is measured."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.data import pick, rows
from fnn.metrics.streaming import Metric
from fnn.ops.shuffle import ROUNDS, rows_of_step
from fnn.training.arguments import check_function
from fnn.training.objective import Supervised
from fnn.training.step import Augment, Objective, TrainState, check_optimizer, train_init, train_step

MEASURED_ROWS = 256  # of a validation set at a time


class Trial(NamedTuple):
    """What a trial function returns: a tuple of the first three will do.

    Attributes:
        net: The network.
        objective: What to make small, such as `supervised` makes.
        optimizer: From optax.
        augment: ``augment(key, batch) -> batch``, within the compiled step.
    """

    net: Layer
    objective: Objective
    optimizer: optax.GradientTransformation
    augment: Augment | None = None


class Table(NamedTuple):
    """The data of a study, on the device once for all of it.

    Attributes:
        data: ``(x, target)`` or ``(x, target, weight)`` with a common leading axis of rows.
        train: Rows of each fold to train on, ``(folds, rows)`` int32.
        train_sizes: How many of them count, ``(folds,)`` int32.
        held_out: Rows of each fold to validate on, likewise; None where there are none.
        held_out_sizes: How many of them count.
    """

    data: Any
    train: Any
    train_sizes: Any
    held_out: Any = None
    held_out_sizes: Any = None


class Place(NamedTuple):
    """Which training it is: its hyperparameters, seed and fold, and how far it goes.

    Attributes:
        hp: The traced hyperparameters by name, scalars.
        seed: Number of the seed, int32.
        fold: Number of the fold, int32.
        budget: Steps after which it is done, int32.
    """

    hp: dict[str, Any]
    seed: Any
    fold: Any
    budget: Any


class Lane(NamedTuple):
    """All that changes while one network of a study is trained: arrays only.

    Attributes:
        params: The network's parameters.
        state: The network's state.
        opt_state: The optimizer's state.
        step: Number of steps done, int32.
        words: Random bits that shuffle the rows, ``(2 * ROUNDS,)`` uint32.
        finite: Whether every loss so far was.
        best: The parameters and state at the best measurement; an empty tuple where they are not kept.
        best_value: That measurement, float32; NaN before the first.
        best_step: Its step, int32.
    """

    params: Any
    state: Any
    opt_state: Any
    step: jax.Array
    words: jax.Array
    finite: jax.Array
    best: Any
    best_value: jax.Array
    best_step: jax.Array


@dataclass(frozen=True)
class Program:
    """The trainings of one static choice, as pure functions of one of them; `engine` compiles them for many.

    Attributes:
        trial: ``trial(hp)``, the user's function.
        static: The static hyperparameters by name.
        batch_size: Rows of a batch.
        monitor: Name of the measurement that says which step is best.
        sign: 1 where it is maximized, -1 where it is minimized.
        keeps_best: Whether a lane keeps its parameters at the best measurement.
    """

    trial: Callable[[dict[str, Any]], Any]
    static: dict[str, Any]
    batch_size: int
    monitor: str
    sign: int
    keeps_best: bool

    def build(self, hp: dict[str, Any]) -> Trial:
        """Call the user's function, and check what it returns."""
        hp = {**self.static, **hp}
        try:
            made = self.trial(hp)
        except KeyError as error:
            if error.args and error.args[0] not in hp:
                error.add_note(f"hp holds {', '.join(map(repr, hp)) or 'nothing'}; give {error} a place in the space")
            raise
        if not isinstance(made, tuple) or len(made) not in (3, 4) or not isinstance(made[0], Layer):
            raise TypeError(
                f"the trial must return (net, objective, optimizer), or with augment as a fourth, got {_kind(made)}"
            )
        made = Trial(*made)
        _check_objective(made.objective)
        check_optimizer(made.optimizer)
        check_function("the trial's augment", made.augment, "key", "batch")
        return made

    def start(self, key: jax.Array, place: Place, table: Table) -> Lane:
        """The lane before its first step."""
        net, objective, optimizer, _ = self.build(place.hp)
        run = train_init(net, optimizer, run_key(key, place), *_inputs(objective, self._batch_specs(table)))
        best = (run.params, run.state) if self.keeps_best else ()
        words = jax.random.bits(fold(run.key, "shuffle"), (2 * ROUNDS,), jnp.uint32)
        nothing, zero = jnp.full((), jnp.nan, jnp.float32), jnp.zeros((), jnp.int32)
        return Lane(run.params, run.state, run.opt_state, run.step, words, jnp.array(True), best, nothing, zero)

    def advance(self, key: jax.Array, lane: Lane, place: Place, table: Table, steps: jax.Array) -> tuple[Lane, Any]:
        """Train for some steps, then measure.

        Steps beyond the budget change nothing, and a step whose loss is not finite ends the training before it.

        Returns:
            The lane, and measurements by name: means over the steps that were done, and ``"validation/..."``.
        """
        _, objective, optimizer, augment = self.build(place.hp)
        step = jax.jit(train_step(objective, optimizer, augment=augment))  # one trace, of its metrics and of the loop
        key = run_key(key, place)
        run = TrainState(lane.params, lane.state, lane.opt_state, key, lane.step)
        _, spec = jax.eval_shape(step, run, self._batch_specs(table))
        sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), spec)

        def body(_: Any, carry: Any) -> Any:
            old, finite, sums, done = carry
            params, state, opt_state, at = old
            new, metrics = step(TrainState(params, state, opt_state, key, at), self.batch(lane.words, at, place, table))
            wanted = finite & (at < place.budget)
            finite &= ~wanted | jnp.isfinite(metrics["loss"])
            taken = wanted & finite
            keep = lambda new, old: jnp.where(taken, new, old)
            new = jax.tree.map(keep, (new.params, new.state, new.opt_state, new.step), old)
            sums = jax.tree.map(lambda total, value: total + jnp.where(taken, value, 0), sums, metrics)
            return new, finite, sums, done + taken

        old = (lane.params, lane.state, lane.opt_state, lane.step)
        carry = (old, lane.finite, sums, jnp.zeros((), jnp.int32))
        (params, state, opt_state, at), finite, sums, done = jax.lax.fori_loop(0, steps, body, carry)
        measured = jax.tree.map(lambda total: jnp.where(done == 0, jnp.nan, total / jnp.maximum(done, 1)), sums)
        if table.held_out is not None:
            found = self.measure(objective, params, state, place, table)
            measured |= {f"validation/{name}": value for name, value in found.items()}
        lane = lane._replace(params=params, state=state, opt_state=opt_state, step=at, finite=finite)
        return self._compare(lane, measured, done), measured

    def batch(self, words: jax.Array, step: jax.Array, place: Place, table: Table) -> Any:
        """The batch of a step: each epoch goes through the fold's rows in another order, its remainder is dropped."""
        fold_number = _fold(place, table.train)
        size = table.train_sizes[fold_number]
        return pick(table.data, table.train[fold_number, rows_of_step(words, step, size, self.batch_size)])

    def measure(self, objective: Objective, params: Any, state: Any, place: Place, table: Table) -> dict[str, Any]:
        """Loss and metrics over the rows that are held out, exact however many there are."""
        if not isinstance(objective, Supervised):
            loss, (_, metrics) = objective(params, state, self._held_out(place, table), key=None, train=False)
            return {"loss": loss, **metrics}
        table_of = objective.streaming_metrics()

        def part(chunk: Any) -> Any:
            indices, seen = chunk
            return objective.statistics(params, state, pick(table.data, indices), seen)

        empty = {name: jax.tree.map(jnp.asarray, metric.init()) for name, metric in table_of.items()}
        stats = _over_chunks(part, self._chunks(place, table), lambda a, b: _merged(table_of, a, b), empty)
        return {name: metric.compute(stats[name]) for name, metric in table_of.items()}

    def predict(self, lane: Lane, place: Place, table: Table) -> Any:
        """Outputs for the rows that are held out, ``(rows, ...)``; what is beyond the fold's size is padding."""
        net, objective, _, _ = self.build(place.hp)
        params, state = lane.best if self.keeps_best else (lane.params, lane.state)
        indices, _ = self._chunks(place, table)

        def part(rows_of_chunk: jax.Array) -> Any:
            return net.apply(params, state, *_inputs(objective, pick(table.data, rows_of_chunk)))[0]

        parts = jax.lax.map(part, indices)
        held_out = 0 if table.held_out is None else table.held_out.shape[1]
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:held_out], parts)

    def _batch_specs(self, table: Table) -> Any:
        size = self.batch_size
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), table.data)

    def _chunks(self, place: Place, table: Table) -> tuple[jax.Array, jax.Array]:
        """Rows that are held out and whether they count, ``(chunks, rows)``."""
        assert table.held_out is not None
        assert table.held_out_sizes is not None
        fold_number = _fold(place, table.held_out)
        size = table.held_out.shape[1]
        chunk = -(-size // -(-size // MEASURED_ROWS))
        positions = jnp.arange(-(-size // chunk) * chunk).reshape(-1, chunk)
        indices = table.held_out[fold_number, jnp.minimum(positions, size - 1)]
        return indices, (positions < table.held_out_sizes[fold_number]).astype(jnp.float32)

    def _held_out(self, place: Place, table: Table) -> Any:
        assert table.held_out is not None
        return pick(table.data, table.held_out[_fold(place, table.held_out)])

    def _compare(self, lane: Lane, measured: dict[str, Any], done: jax.Array) -> Lane:
        """Remember this measurement if it is the best."""
        if self.monitor not in measured:
            wanted = "maximize" if self.sign > 0 else "minimize"
            validates = any(name.startswith("validation/") for name in measured)
            hint = "; give folds or validation" if self.monitor.startswith("validation/") and not validates else ""
            raise ValueError(f"{wanted}={self.monitor!r} is not measured; there is {', '.join(measured)}{hint}")
        value = jnp.asarray(measured[self.monitor], jnp.float32)
        if value.shape:
            raise ValueError(f"{self.monitor} is an array {value.shape}, which has no best; monitor a number")
        better = (done > 0) & ((self.sign * value > self.sign * lane.best_value) | jnp.isnan(lane.best_value))
        better &= jnp.isfinite(value)
        keep = lambda new, old: jnp.where(better, new, old)
        best = jax.tree.map(keep, (lane.params, lane.state), lane.best) if self.keeps_best else ()
        return lane._replace(
            best=best, best_value=keep(value, lane.best_value), best_step=keep(lane.step, lane.best_step)
        )


def run_key(key: jax.Array, place: Place) -> jax.Array:
    """The key of one training: of the study's key, the seed and the fold, the same for every configuration."""
    return jax.random.fold_in(jax.random.fold_in(fold(key, "seed"), place.seed), place.fold)


def _inputs(objective: Objective, batch: Any) -> tuple[Any, ...]:
    """The network's inputs in a batch."""
    x = batch["x"] if isinstance(batch, dict) else batch[0] if isinstance(batch, tuple) else batch
    pick_inputs = getattr(objective, "inputs", None)
    return (x,) if pick_inputs is None else pick_inputs(x)


def _fold(place: Place, sets: jax.Array) -> Any:
    """The fold's number; a constant where there is one fold, so that networks side by side share its rows."""
    return 0 if sets.shape[0] == 1 else place.fold


def _merged(table_of: dict[str, Metric], a: Any, b: Any) -> Any:
    return {name: metric.merge(a[name], b[name]) for name, metric in table_of.items()}


def _over_chunks(part: Callable[[Any], Any], chunks: Any, merge: Callable[[Any, Any], Any], empty: Any) -> Any:
    """Statistics of all chunks; those that keep their shape when they are merged are merged in a loop."""
    chunk_of = lambda tree, number: jax.tree.map(lambda leaf: leaf[number], tree)
    if rows(chunks) == 1:
        return part(chunk_of(chunks, 0))
    add = lambda total, chunk: merge(total, part(chunk))
    specs = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    if specs(jax.eval_shape(add, empty, chunk_of(chunks, 0))) == specs(empty):
        return jax.lax.scan(lambda total, chunk: (add(total, chunk), None), empty, chunks)[0]
    parts = jax.lax.map(part, chunks)
    return functools.reduce(merge, [chunk_of(parts, number) for number in range(rows(parts))])


def _kind(value: Any) -> str:
    if not isinstance(value, tuple | list):
        return type(value).__name__
    kinds = ", ".join(type(part).__name__ for part in value)
    return f"({kinds})" if isinstance(value, tuple) else f"a list [{kinds}]"


def _check_objective(objective: Any) -> None:
    """Raise where an objective cannot be called as one, such as a loss of predictions and targets."""
    if isinstance(objective, Supervised):
        return
    try:
        inspect.signature(objective).bind({}, {}, (), key=None, train=True)
    except TypeError:
        name = getattr(objective, "__name__", type(objective).__name__)
        raise TypeError(
            f"the trial's objective {name} cannot be called as objective(params, state, batch, key=key, train=True); a "
            f"loss(y, target) becomes one by fnn.supervised(net, {name})"
        ) from None
    except ValueError:  # it has no signature that Python knows
        return
