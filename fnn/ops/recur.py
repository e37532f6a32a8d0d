"""Running a function over time, with the gradient of what it multiplies its carry by made at once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Recurrence(NamedTuple):
    """What happens in each step.

    Attributes:
        step: ``step(params, carry, u) -> (carry, y)``, where what is mixed is added to u; ``step(params, carry, u,
            mixed)`` where it is kept apart.
        hidden: ``hidden(carry) -> h``, what is mixed; None: nothing is.
        mix: ``mix(params, h) -> mixed``, the product with the hidden state, for any number of examples.
        apart: Whether what is mixed is kept apart.
        reverse: Whether time runs backwards.
        unroll: How many steps the compiled loop holds.
    """

    step: Callable[..., tuple[Any, Any]]
    hidden: Callable[[Any], jax.Array] | None
    mix: Callable[[Any, jax.Array], jax.Array]
    apart: bool
    reverse: bool
    unroll: int


def recur(recurrence: Recurrence, params: Any, carry: Any, us: Any, valid: jax.Array | None) -> tuple[Any, Any]:
    """Run over time.

    The gradient of what ``mix`` reads is made at once, from all hidden states and the gradients of what they were mixed
    into, after the last step. As autodiff writes it, every step adds a product as large as the kernel. Changing
    parameters changes to first order what is mixed in, by the derivative of ``mix`` at each hidden state, and that
    is how the derivative is stated here: so forward mode and higher derivatives hold too. What a step computes
    after mixing is computed again for the gradient, which is faster than to keep it.

    Args:
        recurrence: What happens in each step.
        params: Parameters that ``step`` and ``mix`` read.
        carry: The first carry.
        us: Inputs of all steps, ``(time, batch, ...)``.
        valid: ``(time, batch)``; where it is False the carry stays and y is 0. None: everywhere True.

    Returns:
        The last carry, and y of all steps, ``(time, batch, ...)``.
    """
    run = _run if recurrence.hidden is None else _mixed
    last, (ys, _) = run(recurrence, params, carry, us, valid)
    return last, ys


def _run(
    recurrence: Recurrence, params: Any, carry: Any, us: Any, valid: Any, fixed: Any = None, more: Any = None
) -> tuple[Any, tuple[Any, Any]]:
    """The loop; returns y of each step, and what was hidden before it.

    ``mix`` reads ``fixed`` in place of ``params`` where it is given, and ``more`` is added to what it makes.
    """
    step, hidden, mix, apart, reverse, unroll = recurrence

    def body(carry: Any, inputs: Any) -> Any:
        u, ok, extra = inputs
        h, arguments = None, (u,)
        if hidden is not None:
            h = hidden(carry)
            mixed = mix(params if fixed is None else fixed, h)
            mixed = mixed if extra is None else mixed + extra
            arguments = (u, mixed) if apart else (u + mixed,)
        new, y = step(params, carry, *arguments)
        if ok is not None:
            keep = lambda new, old: jnp.where(ok.reshape(ok.shape + (1,) * (new.ndim - 1)), new, old)
            new, y = jax.tree.map(keep, new, carry), jax.tree.map(lambda y: keep(y, jnp.zeros_like(y)), y)
        return new, (y, h)

    return lax.scan(body, carry, (us, valid, more), reverse=reverse, unroll=unroll)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mixed(recurrence: Recurrence, params: Any, carry: Any, us: Any, valid: Any) -> Any:
    return _run(recurrence, params, carry, us, valid)


@_mixed.defjvp
def _mixed_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    params, carry, us, valid = primals
    params_dot, carry_dot, us_dot, _ = tangents
    again = recurrence._replace(step=jax.checkpoint(recurrence.step, prevent_cse=False))
    time, hidden = jax.tree.leaves(us)[0].shape[0], recurrence.hidden
    assert hidden is not None

    def at_once(params: Any, hs: jax.Array) -> jax.Array:
        """Mix the hidden states of all steps as one batch."""
        mixed = recurrence.mix(params, hs.reshape(-1, *hs.shape[2:]))
        return mixed.reshape(*hs.shape[:2], *mixed.shape[1:])

    def changed(hs: jax.Array) -> jax.Array:
        return jax.jvp(lambda params: at_once(params, hs), (params,), (params_dot,))[1]

    if not recurrence.apart:
        run = lambda params_, carry, us: _run(again, params_, carry, us, valid, params)
        out, linear = jax.linearize(run, params, carry, us)
        return out, linear(params_dot, carry_dot, us_dot + changed(out[1][1]))

    run = lambda params_, carry, us, more: _run(again, params_, carry, us, valid, params, more)
    one = jax.eval_shape(lambda carry: recurrence.mix(params, hidden(carry)), carry)
    out, linear = jax.linearize(run, params, carry, us, jnp.zeros((time, *one.shape), one.dtype))
    return out, linear(params_dot, carry_dot, us_dot, changed(out[1][1]))
