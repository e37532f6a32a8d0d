"""The loop over time has the derivatives of the plain one, and makes the kernel's gradient at once."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

from fnn.ops.linear import linear
from fnn.ops.recur import Recurrence, recur

TIME, BATCH, SIZE = 5, 3, 4


def step(params: Any, carry: Any, u: jax.Array, mixed: jax.Array) -> Any:
    h, c = carry
    c = jax.nn.sigmoid(u + mixed) * c + params["scale"] * jnp.tanh(mixed)
    h = jnp.sin(c)
    return (h, c), h


def arrays() -> tuple[Any, ...]:
    normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    carry = (normal(0, BATCH, SIZE), normal(1, BATCH, SIZE))
    return {"scale": normal(2, SIZE)}, normal(3, SIZE, SIZE), carry, normal(4, TIME, BATCH, SIZE)


def run(reverse: bool, valid: Any, *xs: Any) -> Any:
    params, kernel, carry, us = xs
    mix = lambda params, h: linear(h, params["kernel"])
    recurrence = Recurrence(step, lambda carry: carry[0], mix, True, reverse, 1)
    return recur(recurrence, {**params, "kernel": kernel}, carry, us, valid)


def plain(reverse: bool, valid: Any, *xs: Any) -> Any:
    """The same without the hidden states being told from the rest: what autodiff makes of a loop."""
    params, kernel, carry, us = xs
    whole = lambda params, carry, u: step(params, carry, u, carry[0] @ params["kernel"])
    recurrence = Recurrence(whole, None, linear, False, reverse, 1)
    return recur(recurrence, {**params, "kernel": kernel}, carry, us, valid)


def loss(function: Any, reverse: bool, valid: Any, xs: Any) -> jax.Array:
    (h, c), ys = function(reverse, valid, *xs)
    return jnp.sum(jnp.sin(ys)) + jnp.sum(h * c)


VALID = jnp.arange(TIME)[:, None] < jnp.array([5, 2, 0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("valid", [None, VALID], ids=["all steps", "ragged"])
def test_values_gradients_and_second_derivatives_are_those_of_the_plain_loop(reverse: bool, valid: Any) -> None:
    xs = arrays()
    chex.assert_trees_all_close(run(reverse, valid, *xs), plain(reverse, valid, *xs), atol=1e-6)

    def everything(function: Any) -> Any:
        value = lambda xs: loss(function, reverse, valid, xs)
        gradient = jax.grad(value)
        return {
            "reverse": gradient(xs),
            "forward": jax.jvp(value, (xs,), (xs,)),
            "forward over reverse": jax.jvp(gradient, (xs,), (xs,))[1],
            "reverse over reverse": jax.grad(lambda xs: sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(xs))))(xs),
            "vmap": jax.vmap(gradient)(jax.tree.map(lambda x: jnp.stack([x, 2 * x]), xs)),
        }

    chex.assert_trees_all_close(jax.jit(lambda: everything(run))(), jax.jit(lambda: everything(plain))(), atol=1e-3)


def test_the_gradient_of_the_kernel_is_one_product_after_the_loop() -> None:
    text = str(jax.make_jaxpr(jax.grad(lambda xs: loss(run, False, None, xs)))(arrays()))
    merged = f"{TIME * BATCH},{SIZE}"
    assert merged in text
    inside = text[text.index("scan[") : text.rindex("scan[")]
    assert f"f32[{SIZE},{SIZE}] = add_any" not in inside


def test_steps_that_are_not_valid_change_nothing() -> None:
    params, kernel, carry, us = arrays()
    for reverse in (False, True):
        last, ys = run(reverse, VALID, params, kernel, carry, us)
        noisy = jnp.where(VALID[..., None], us, 1e6)
        again, ys_again = run(reverse, VALID, params, kernel, carry, noisy)
        chex.assert_trees_all_equal((last, ys), (again, ys_again))
        chex.assert_trees_all_equal(jax.tree.map(lambda c: c[2], last), jax.tree.map(lambda c: c[2], carry))
        assert bool((ys[~VALID] == 0).all())
