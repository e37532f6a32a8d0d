import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest

import fnn
from fnn.data import is_arrays, pick, rows

X, Y = jnp.arange(10.0), jnp.arange(10)


def test_an_epoch_shows_every_row_once_but_for_the_remainder(key: jax.Array) -> None:
    seen = np.concatenate([np.asarray(x) for x, _ in fnn.batches((X, Y), 3, key=key)])
    assert len(seen) == 9
    assert len(set(seen.tolist())) == 9


def test_rows_of_all_arrays_stay_together(key: jax.Array) -> None:
    for batch in fnn.batches({"x": X, "target": Y}, 4, key=key, epochs=2):
        np.testing.assert_array_equal(batch["x"], batch["target"])


@pytest.mark.parametrize("size", [7, 1000])
def test_every_epoch_shows_each_row_once_in_another_order(size: int, key: jax.Array) -> None:
    data = fnn.batches((jnp.arange(size),), 1, key=key, epochs=3)
    first, second, third = np.concatenate([np.asarray(x) for (x,) in data]).reshape(3, size)
    for epoch in (first, second, third):
        assert sorted(epoch.tolist()) == list(range(size))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_no_row_is_left_out_for_good(key: jax.Array) -> None:
    data = fnn.batches((X,), 4, key=key, epochs=20)
    assert {float(value) for (x,) in data for value in x} == set(range(10))


def test_a_batch_costs_its_own_rows_only(key: jax.Array) -> None:
    """Each batch shuffled the whole data set: 117 ms for one of 300 000 rows."""
    data = fnn.batches((jnp.zeros(100_003),), 4, key=key)
    program = str(jax.make_jaxpr(lambda step: data[step])(0))
    assert "[4]" in program
    assert set(re.findall(r"\w+\[100003\S*\]", program)) == {"f32[100003]"}


def test_indices_are_the_rows_of_the_batch_and_the_step_may_be_traced(key: jax.Array) -> None:
    data = fnn.batches((X, Y), 3, key=key, epochs=2)
    for step, (_, y) in enumerate(data):
        np.testing.assert_array_equal(data.indices(step), y)
        np.testing.assert_array_equal(jax.jit(lambda step: data[step])(step)[1], y)


def test_without_a_key_the_order_stays() -> None:
    (first,), (second,) = fnn.batches((X,), 5)
    np.testing.assert_array_equal(jnp.concatenate([first, second]), X)


def test_a_later_start_goes_on_with_the_same_batches(key: jax.Array) -> None:
    whole = [x for (x,) in fnn.batches((X,), 4, key=key, epochs=3)]
    rest = [x for (x,) in fnn.batches((X,), 4, key=key, epochs=2, start=2)]
    np.testing.assert_array_equal(np.stack(whole[2:]), np.stack(rest))


def test_mistakes_in_data_are_errors_that_say_the_fix(key: jax.Array) -> None:
    with pytest.raises(ValueError, match="batch_size is 11, the data has 10 rows; choose batch_size=10 or smaller"):
        fnn.batches((X, Y), 11)
    with pytest.raises(ValueError, match="data is empty"):
        fnn.batches((X[:0], Y[:0]), 1)
    with pytest.raises(ValueError, match="data is empty"):
        fnn.batches((), 1)
    with pytest.raises(ValueError, match=r"data\[0\] has 10, data\[1\] has 9; cut them to the same length"):
        fnn.batches((X, Y[:9]), 1)
    with pytest.raises(ValueError, match=r"\[1\] has no leading axis"):
        fnn.batches((X, 1.0), 1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        fnn.batches((X, Y), 0)


def test_arrays_are_told_from_iterables_of_batches() -> None:
    assert is_arrays((np.ones(3), np.ones(3)))
    assert is_arrays({"x": np.ones(3)})
    assert not is_arrays([(np.ones(3), np.ones(3))])
    assert not is_arrays(iter([np.ones(3)]))
    assert not is_arrays(fnn.batches((X,), 2))


def test_rows_and_pick_read_any_tree() -> None:
    tree = {"a": X, "b": (Y, X[:, None])}
    assert rows(tree) == 10
    assert pick(tree, jnp.array([3, 1]))["b"][1].tolist() == [[3.0], [1.0]]


RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(12, 3)).astype(np.float32), RNG.integers(0, 2, 12)
NET, SGD = fnn.dense(2), optax.sgd(0.1)
OBJECTIVE = fnn.supervised(NET, optax.losses.softmax_cross_entropy_with_integer_labels)
TABLE = pandas.DataFrame(INPUTS, columns=["a", "b", "c"])


@pytest.fixture
def tensors() -> Any:
    """Inputs and targets as tensors of PyTorch."""
    torch = pytest.importorskip("torch")
    return torch.from_numpy(INPUTS), torch.from_numpy(TARGETS)


def loader_of(*tensors: Any) -> Any:
    """A loader of PyTorch, which yields lists of tensors."""
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(data.TensorDataset(*tensors), batch_size=4)


def trained(data: Any, x: Any, **options: Any) -> tuple[Any, float]:
    run = fnn.train_init(NET, SGD, jax.random.key(0), x)
    run, history = fnn.fit(OBJECTIVE, SGD, run, data, progress=False, epochs=2, **options)
    assert history["validation/loss"][-1] == fnn.evaluate(OBJECTIVE, run.params, run.state, data)["loss"]
    return run, history["loss"][-1]


@pytest.mark.parametrize("kind", ["pandas", "torch", "mixed", "big-endian"])
def test_tables_and_tensors_are_arrays_everywhere(kind: str, request: pytest.FixtureRequest) -> None:
    """Tensors trained, but init refused them and printed all of their numbers."""
    x, target = {
        "pandas": lambda: (TABLE, pandas.Series(TARGETS)),
        "torch": lambda: request.getfixturevalue("tensors"),
        "mixed": lambda: (INPUTS, request.getfixturevalue("tensors")[1]),
        "big-endian": lambda: (INPUTS.astype(">f4"), TARGETS.astype(">i4")),
    }[kind]()
    wanted, loss = trained((INPUTS, TARGETS), INPUTS, batch_size=4, validation=(INPUTS, TARGETS))
    run, found = trained((x, target), x, batch_size=4, validation=(x, target))
    assert found == loss
    np.testing.assert_array_equal(run.params["kernel"], wanted.params["kernel"])
    predictions = fnn.predict(NET, run.params, run.state, x)
    np.testing.assert_allclose(predictions, NET.apply(run.params, run.state, INPUTS)[0], atol=1e-6)
    (batch,) = fnn.batches((x, target), 12)
    np.testing.assert_array_equal(batch[0], INPUTS)
    assert isinstance(batch[1], jax.Array)


def test_a_loader_of_pytorch_gives_batches_everywhere(tensors: Any) -> None:
    """It yields lists of tensors, which neither the loop nor an objective took."""
    loader = loader_of(*tensors)
    arrays = [(INPUTS[first : first + 4], TARGETS[first : first + 4]) for first in (0, 4, 8)]
    wanted, loss = trained(arrays, INPUTS, validation=arrays)
    run, found = trained(loader, tensors[0], validation=loader)
    assert found == loss
    np.testing.assert_array_equal(run.params["kernel"], wanted.params["kernel"])
    start = fnn.train_init(NET, SGD, jax.random.key(0), TABLE)
    step = fnn.train_step(OBJECTIVE, SGD)
    *_, last = fnn.training(step, start, loader)
    np.testing.assert_array_equal(
        last.run.params["kernel"], [*fnn.training(step, start, arrays)][-1].run.params["kernel"]
    )


def test_a_study_takes_tensors_and_tables(tensors: Any) -> None:
    def trial(hp: Any) -> Any:
        return NET, OBJECTIVE, optax.sgd(hp["rate"])

    options: Any = {"key": jax.random.key(0), "batch_size": 4, "steps": 3, "minimize": "loss", "progress": False}
    both = (INPUTS, TARGETS), (TABLE, tensors[1])
    results = [fnn.study(trial, [{"rate": 0.1}], data=data, **options) for data in both]
    assert results[0].runs[0].last("loss") == results[1].runs[0].last("loss")


def test_a_loss_that_is_not_finite_is_explained_for_tensors_too(tensors: Any) -> None:
    spoiled = tensors[0].clone()
    spoiled[5] = np.nan
    run = fnn.train_init(NET, SGD, jax.random.key(0), spoiled)
    loader = loader_of(spoiled, tensors[1])
    with pytest.raises(fnn.NonFiniteError, match=r"batch\[0\]"):
        fnn.fit(OBJECTIVE, SGD, run, loader, progress=False)


def test_a_tensor_that_needs_gradients_is_named(tensors: Any) -> None:
    with pytest.raises(TypeError, match=r"data\[0\] is of type Tensor, which NumPy cannot read.*detach"):
        fnn.batches((tensors[0].clone().requires_grad_(), tensors[1]), 4)
