import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.core.errors import LayerError, blame, within

X = jnp.ones((2, 3))
KEY = jax.random.key(0)
FNN = str(Path(fnn.__file__).parent)


def files(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


def notes(error: BaseException) -> list[str]:
    return [note for note in error.__notes__ if "JAX has removed" not in note]


def test_parents_prepend_their_names() -> None:
    with pytest.raises(LayerError) as caught, within("decoder"), within("block_3"), within("attention"):
        raise LayerError("too wide")
    assert caught.value.path == ("decoder", "block_3", "attention")
    assert str(caught.value) == "decoder/block_3/attention: too wide"


def test_a_mistake_in_a_layer_carries_the_layer_and_its_inputs() -> None:
    with pytest.raises(LayerError) as caught:
        fnn.serial(fnn.dense(8)).init(KEY, 1.0)
    assert caught.value.path == ("dense_0",)
    assert caught.value.layer.startswith("dense(")
    assert caught.value.got == "float32[]"


def test_the_innermost_layer_is_blamed() -> None:
    with pytest.raises(LayerError) as caught, blame(lambda: "outer", ()), within("inner"), blame(lambda: "inner", ()):
        raise LayerError("wrong")
    assert caught.value.layer == "inner"


def test_a_layer_error_is_a_value_error() -> None:
    assert issubclass(LayerError, ValueError)


MINE = KeyError("mine")


def fails(*_: Any, **__: Any) -> Any:
    raise MINE


USERS: dict[str, Callable[[], fnn.Layer]] = {
    "function_0": lambda: fnn.serial(fnn.dense(4), lambda x: fails(x)),
    "wire_0": lambda: fnn.serial(fnn.wire(lambda f, x: f.d(fails(x)), d=fnn.dense(2))),
    "own": lambda: fnn.serial(own=fnn.layer(lambda key, x: {"scale": jnp.ones(3)}, lambda params, x: fails(x))),
    "init": lambda: fnn.serial(init=fnn.layer(fails, lambda params, x: x)),
    "body/dense_0": lambda: fnn.serial(body=fnn.remat(fnn.serial(fnn.dense(2, kernel_init=fails)))),
    "glu_0": lambda: fnn.serial(fnn.glu(2, activation=fails)),
}


@pytest.mark.parametrize("path", USERS)
def test_an_exception_of_a_users_function_stays_itself_and_gets_one_note(path: str) -> None:
    # A KeyError of a user's function was turned into "params or state has no ...".
    MINE.__notes__ = []
    with pytest.raises(KeyError) as caught:
        USERS[path]().init(KEY, X)
    assert caught.value is MINE
    (note,) = notes(MINE)
    first, layer, got = note.split("\n")
    assert first == f"raised in {path}"
    assert layer.startswith("  layer: ")
    assert got.startswith("  got:   float32[2,")
    assert "params" not in note
    assert files(MINE)[-1] == __file__


def test_errors_of_jax_stay_themselves() -> None:
    # A user's `if` on a traced value was turned into a LayerError, which hides the page of JAX about it.
    net = fnn.serial(encoder=fnn.residual(lambda x: x if x.sum() > 0 else -x))
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        net.init(KEY, X)
    assert any(note.startswith("raised in encoder/body\n") for note in notes(caught.value))


def test_an_error_under_jit_and_grad_is_noted_once() -> None:
    net = fnn.serial(fnn.dense(4), lambda x: x @ jnp.ones((9, 9)) if x.ndim == 2 else x)
    params, state = net.init(KEY, X[0])
    loss = jax.jit(jax.grad(lambda params: net.apply(params, state, X)[0].sum()))
    with pytest.raises(TypeError) as caught:
        loss(params)
    assert notes(caught.value) == ["raised in function_0\n  layer: function()\n  got:   float32[2,4]"]


def scale() -> fnn.Layer:
    init = lambda key, x: {"scale": jnp.ones(x.shape[-1:]), "more": {"shift": jnp.zeros(())}}
    return fnn.layer(init, lambda params, x: x * params["scale"] + params["more"]["shift"], name="scale")


@pytest.mark.parametrize(
    ("make", "params", "first_line"),
    [
        (lambda: fnn.dense(2), {"kernel": jnp.ones((3, 2))}, "params lacks 'bias' (it has 'kernel')"),
        (lambda: fnn.batch_norm(), {}, "params lacks 'bias', 'scale' (it has nothing)"),
        (scale, {"scale": jnp.ones(3)}, "params lacks 'more/shift' (it has 'scale')"),
    ],
)
def test_a_missing_parameter_says_which_trees_to_pass(make: Any, params: Any, first_line: str) -> None:
    net = fnn.serial(only=make())
    state = net.init(KEY, X)[1]
    with pytest.raises(LayerError) as caught:
        net.apply({"only": params}, state, X)
    wanted = f"only: {first_line}; pass the trees that this network's init returned"
    assert str(caught.value).split("\n")[0] == wanted


def test_a_parameter_that_init_does_not_make_is_a_mistake_of_apply() -> None:
    net = fnn.layer(lambda key, x: {"scale": jnp.ones(3)}, lambda params, x: params["scael"] * x, name="scale")
    with pytest.raises(KeyError, match="scael"):
        net.init(KEY, X)


def run_of(net: fnn.Layer) -> fnn.TrainState:
    return fnn.train_init(net, optax.sgd(0.1), KEY, X)


def fit_with(loss: Any, x: Any) -> None:
    net = fnn.serial(fnn.dense(2))
    data = (x, np.zeros((len(x), 2), np.float32))
    fnn.fit(fnn.supervised(net, loss), optax.sgd(0.1), run_of(net), data, batch_size=2, progress=False)


def test_the_traceback_of_a_layer_that_fails_in_fit_is_short() -> None:
    # It had 86 lines, most of them of fnn and JAX, above the line that says what is wrong.
    with pytest.raises(LayerError) as caught:
        fit_with(optax.losses.squared_error, np.ones((4, 5), np.float32))
    assert str(caught.value).startswith("dense_0: x has 5 features on its last axis and the kernel was made for 3; ")
    assert caught.value.__suppress_context__
    found = files(caught.value)
    assert sum(file.startswith(FNN) for file in found) <= 2
    assert not any("jax" in Path(file).parts for file in found)
    assert found[:2] == [__file__, __file__]


def test_a_failure_of_a_users_loss_shows_the_users_line() -> None:
    def loss(y: Any, target: Any) -> Any:
        return y @ target[0, :1]

    with pytest.raises(TypeError) as caught:
        fit_with(loss, np.ones((4, 3), np.float32))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].line == "return y @ target[0, :1]"
    assert sum(frame.filename.startswith(FNN) for frame in frames) <= 2
    assert any("output and target are float32[2,2] and float32[2,2]" in note for note in notes(caught.value))


def test_a_generator_shortens_its_tracebacks_and_works_as_before() -> None:
    net = fnn.serial(fnn.dense(2))
    batches = [(X, X[:, :2]), (jnp.ones((2, 5)), X[:, :2])]
    step = fnn.train_step(fnn.supervised(net, optax.losses.squared_error), optax.sgd(0.1))
    with pytest.raises(LayerError, match="dense_0: x has 5 features") as caught:
        list(fnn.training(step, run_of(net), batches))
    assert sum(file.startswith(FNN) for file in files(caught.value)) <= 2


def test_exceptions_travel_between_processes_with_their_notes() -> None:
    with pytest.raises(KeyError) as caught:
        USERS["own"]().init(KEY, X)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.__notes__ == caught.value.__notes__
    with pytest.raises(LayerError) as failed:
        fnn.serial(fnn.dense(8)).init(KEY, 1.0)
    assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)


def test_the_cause_of_an_error_is_shortened_too() -> None:
    def trial(hp: Any) -> Any:
        net = fnn.serial(lambda x: x[: int(hp["rows"])], fnn.dense(1))
        return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(0.1)

    data = (np.ones((8, 3), np.float32), np.ones((8, 1), np.float32))
    space = fnn.grid({"rows": [2, 3]})
    with pytest.raises(ValueError, match="mark it as static") as caught:
        fnn.study(trial, space, data=data, steps=2, batch_size=4, key=KEY, minimize="loss", progress=False)
    cause = caught.value.__cause__
    assert cause is not None
    assert sum(file.startswith(FNN) for file in files(cause)) <= 2
    assert files(cause)[-1] == __file__


@pytest.fixture
def all_frames() -> Iterator[None]:
    before = jax.config.values["jax_traceback_filtering"]
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


@pytest.mark.usefixtures("all_frames")
def test_all_frames_and_the_cause_are_there_when_jax_shows_all() -> None:
    with pytest.raises(LayerError) as caught:
        fit_with(optax.losses.squared_error, np.ones((4, 5), np.float32))
    assert sum(file.startswith(FNN) for file in files(caught.value)) > 10
    assert isinstance(caught.value.__cause__, ValueError)
