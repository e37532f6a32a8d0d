"""The first number that is not finite is found, in every kind of program, forward and backward."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import fnn

X = jnp.ones((4, 6))
OPTIMIZER = optax.sgd(0.1)


def find(net: fnn.Layer, x: Any = X, target: Any = None) -> fnn.Finding | None:
    objective = fnn.supervised(net, lambda y, target: jnp.sum(y.reshape(len(y), -1), -1))
    run = fnn.train_init(net, OPTIMIZER, jax.random.key(0), x)
    return fnn.check(fnn.train_step(objective, OPTIMIZER), run, (x, jnp.ones(len(x))))


def log_of_zero(x: jax.Array) -> jax.Array:
    return jnp.log(x * 0)


def root_of_zero(x: jax.Array) -> jax.Array:
    return jnp.sqrt(x * 0)


NETS = {
    "dense": fnn.serial(fnn.dense(3), fnn.batch_norm(), jax.nn.relu, fnn.dropout(0.5)),
    "sequence": fnn.serial(fnn.reshape(3, 2), fnn.gru(2)),
    "stack": fnn.serial(fnn.stack(fnn.remat(fnn.dense(6)), 2)),
    "image": fnn.serial(fnn.reshape(3, 2, 1), fnn.conv(2, (2, 2), padding="SAME"), fnn.max_pool((2, 2))),
}


def test_a_good_step_is_good() -> None:
    assert find(NETS["dense"]) is None


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_bad_operation_after_any_network_is_found(net: fnn.Layer) -> None:
    found = find(fnn.serial(trunk=net, bad=log_of_zero))
    assert found is not None
    assert (found.operation, found.path, found.backward) == ("log", "bad/log_of_zero", False)
    assert "test_check.py" in found.source
    assert "of 0" in found.inputs[0]


def test_the_path_goes_into_stacks() -> None:
    block = fnn.serial(dense=fnn.dense(6), bad=log_of_zero)
    found = find(fnn.serial(blocks=fnn.stack(block, 3)))
    assert found is not None
    assert found.path.startswith("blocks")
    assert found.path.endswith("bad/log_of_zero")


def test_a_gradient_is_told_from_a_value() -> None:
    found = find(fnn.serial(fnn.dense(3), root_of_zero))
    assert found is not None
    assert (found.kind, found.operation, found.path) == ("infinite", "div", "root_of_zero_0/root_of_zero")
    assert str(found).startswith("an infinite number first comes from `div` of")


def test_programs_with_loops_and_branches_are_entered() -> None:
    def body(carry: Any) -> Any:
        return carry[0] + 1, jax.lax.cond(carry[0] == 2, lambda x: jnp.log(x - x), lambda x: x, carry[1])

    def step(x: jax.Array) -> Any:
        return jax.lax.while_loop(lambda carry: carry[0] < 5, body, (0, x))

    found = fnn.check(step, X)
    assert found is not None
    assert found.operation == "log"


def test_what_goes_in_must_be_finite() -> None:
    with pytest.raises(ValueError, match=r"arguments \[0\]\['a'\]"):
        fnn.check(lambda x: x, {"a": X * jnp.nan})
