from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.core.leaf import as_layer

X = jnp.ones((2, 3))


def scale(factor: float = 2.0) -> fnn.Layer:
    def init(key: jax.Array, x: Any) -> dict[str, Any]:
        return {"scale": jnp.full(x.shape[-1:], factor)}

    def apply(params: Any, x: Any) -> Any:
        return params["scale"].astype(x.dtype) * x

    return fnn.layer(init, apply)


def counter() -> fnn.Layer:
    def init(key: jax.Array, x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"calls": jnp.zeros((), jnp.float32)}

    def apply(params: Any, state: Any, x: Any, *, train: bool) -> tuple[Any, Any]:
        return x, {"calls": state["calls"] + train}

    return fnn.layer(init, apply, stateful=True)


def noise() -> fnn.Layer:
    return fnn.layer(None, lambda x, *, key: x + jax.random.normal(key, x.shape), name="noise")


def test_the_kind_is_the_name_of_the_constructor() -> None:
    assert scale().name == "scale"
    assert fnn.layer(None, jnp.tanh).name == "tanh"
    assert as_layer(partial(jnp.sum, axis=-1)).name == "sum"
    assert as_layer(lambda x: x).name == "function"


def test_the_configuration_is_shown() -> None:
    assert "factor=2.0" in repr(scale())
    assert "features=8" in repr(fnn.dense(8))


def test_a_stateful_leaf_returns_its_new_state(key: jax.Array) -> None:
    params, state = counter().init(key, X)
    _, state = counter().apply(params, state, X, train=True)
    _, state = counter().apply(params, state, X, train=False)
    assert float(state["calls"]) == 1


def test_a_leaf_that_takes_a_key_must_be_given_one(key: jax.Array) -> None:
    net = fnn.serial(fnn.dense(3), noise())
    params, state = net.init(key, X)
    with pytest.raises(fnn.LayerError, match=r"noise_0: noise needs random numbers: pass key=jax\.random\.key"):
        net.apply(params, state, X)


def test_a_default_lifts_the_need_of_a_key() -> None:
    net = fnn.layer(None, lambda x, *, key=None: x if key is None else x + 1, name="optional")
    assert float(net.apply({}, {}, X)[0].sum()) == 6


def test_a_state_that_changes_its_structure_is_an_error_at_init(key: jax.Array) -> None:
    def grow() -> fnn.Layer:
        init = lambda key, x: ({}, {"seen": jnp.zeros(x.shape)})
        apply = lambda params, state, x: (x, {"seen": x, "more": x})
        return fnn.layer(init, apply, stateful=True)

    with pytest.raises(fnn.LayerError, match="must keep the structure of state"):
        grow().init(key, X)


def test_an_init_that_returns_no_dict_is_an_error(key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match="init must return params, a dict"):
        fnn.layer(lambda key, x: jnp.ones(3), lambda params, x: x).init(key, X)


@pytest.mark.parametrize("bad", [3, "relu", None, int])
def test_what_is_no_layer_is_an_error(bad: Any) -> None:
    with pytest.raises(fnn.LayerError, match="wanted a Layer or a function"):
        as_layer(bad)


def test_a_layer_without_parameters_may_take_train() -> None:
    net = fnn.layer(None, lambda x, *, train: x * (2 if train else 1))
    assert float(net.apply({}, {}, 1.0, train=True)[0]) == 2


def test_a_plain_function_gets_its_inputs_whatever_it_calls_them(key: jax.Array) -> None:
    # Inputs called key, params or state were taken for the key, the parameters and the state of a layer.
    def attend(query: Any, key: Any, value: Any) -> Any:
        return jax.nn.softmax(query @ key.T) @ value

    def policy(params: Any, state: Any) -> Any:
        return params * state

    inputs = (X, 2 * X, 3 * X)
    assert jnp.array_equal(fnn.serial(attend).apply({}, {}, *inputs, key=key)[0], attend(*inputs))
    wired = fnn.wire(lambda f, q, k, v: f.policy(f.attend(q, k, v), q), attend=attend, policy=policy)
    assert wired.init(key, *inputs) == ({}, {})
    assert jnp.array_equal(wired.apply({}, {}, *inputs, train=True)[0], policy(attend(*inputs), X))


def test_the_inputs_of_a_layer_may_have_any_name(key: jax.Array) -> None:
    init = lambda key, x, other: {"scale": jnp.full((), 2.0)}
    net = fnn.layer(init, lambda weights, state, train: weights["scale"] * state + train, name="odd")
    params, state = net.init(key, X, 3 * X)
    assert state == {}
    assert jnp.array_equal(net.apply(params, state, X, 3 * X)[0], 5 * X)


def test_options_of_a_plain_function_stay_at_their_defaults() -> None:
    def shift(x: Any, by: float = 1.0, *, axis: int = 0, **rest: Any) -> Any:
        assert not rest
        return x + by + axis

    assert float(as_layer(shift).apply({}, {}, 1.0, train=True)[0]) == 2


def test_state_without_an_init_is_an_error() -> None:
    with pytest.raises(ValueError, match="stateful=True needs an init"):
        fnn.layer(None, lambda state, x: (x, state), stateful=True)


def test_planning_traces_each_leaf_once_and_making_none(key: jax.Array) -> None:
    traces = []

    def counted(x: Any) -> Any:
        traces.append(1)
        return x

    net = counted
    for _ in range(8):
        net = fnn.serial(net, net)
    plan = net._plan(X)  # pyright: ignore[reportFunctionMemberAccess]
    assert len(traces) == 2**8
    plan.make(key)
    assert len(traces) == 2**8


def test_hyperparameters_may_be_traced(key: jax.Array) -> None:
    def f(factor: Any) -> Any:
        net = fnn.serial(scale(factor), fnn.dropout(factor / 10))
        params, state = net.init(key, X)
        return net.apply(params, state, X, key=key, train=True)[0].sum()

    assert jax.jit(f)(2.0).shape == ()
    assert (
        float(jax.jit(jax.grad(lambda factor: scale(factor).apply(scale(factor).init(key, X)[0], {}, X)[0].sum()))(2.0))
        == 6
    )


def test_numpy_float64_is_float32_to_a_layer(key: jax.Array) -> None:
    x = np.ones((2, 3))
    params, state = fnn.dense(4).init(key, x)
    assert fnn.dense(4).apply(params, state, x)[0].dtype == jnp.float32
