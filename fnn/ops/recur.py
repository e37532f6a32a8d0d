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
        step: ``step(params, carry, u, mixed) -> (carry, y)``.
        hidden: ``hidden(carry) -> h``; None: nothing is mixed, and ``step`` gets None.
        mix: ``mix(h, kernel) -> mixed``, linear in both, for any number of examples.
        reverse: Whether time runs backwards.
        unroll: How many steps the compiled loop holds.
    """

    step: Callable[..., tuple[Any, Any]]
    hidden: Callable[[Any], jax.Array] | None
    mix: Callable[[jax.Array, jax.Array], jax.Array]
    reverse: bool
    unroll: int


def recur(
    recurrence: Recurrence, params: Any, kernel: jax.Array | None, carry: Any, us: Any, valid: jax.Array | None
) -> tuple[Any, Any]:
    """Run over time.

    The gradient of ``kernel`` is one product of all hidden states with the gradients of what they were mixed into,
    after the last step. As autodiff writes it, every step adds a product as large as the kernel. Changing the kernel
    by ``d`` is to first order changing what is mixed in by ``mix(h, d)``, and that is how the derivative is stated
    here: so forward mode and higher derivatives hold too.

    Args:
        recurrence: What happens in each step.
        params: Parameters that ``step`` reads.
        kernel: What hidden states are mixed with; None where nothing is.
        carry: The first carry.
        us: Inputs of all steps, ``(time, batch, ...)``.
        valid: ``(time, batch)``; where it is False the carry stays and y is 0. None: everywhere True.

    Returns:
        The last carry, and y of all steps, ``(time, batch, ...)``.
    """
    if kernel is None:
        last, ys, _ = _run(recurrence, params, None, carry, us, valid, None)
    else:
        last, ys, _ = _mixed(recurrence, params, kernel, carry, us, valid)
    return last, ys


def _run(
    recurrence: Recurrence, params: Any, kernel: Any, carry: Any, us: Any, valid: Any, more: Any
) -> tuple[Any, Any, Any]:
    """The loop; ``more`` is added to what is mixed in. Returns the hidden states before each step as well."""
    step, hidden, mix, reverse, unroll = recurrence

    def body(carry: Any, inputs: Any) -> Any:
        u, ok, extra = inputs
        h = None if hidden is None else hidden(carry)
        mixed = None if h is None else mix(h, kernel)
        mixed = mixed if extra is None else mixed + extra
        new, y = step(params, carry, u, mixed)
        if ok is not None:
            keep = lambda new, old: jnp.where(ok.reshape(ok.shape + (1,) * (new.ndim - 1)), new, old)
            new, y = jax.tree.map(keep, new, carry), jax.tree.map(lambda y: keep(y, jnp.zeros_like(y)), y)
        return new, (y, h)

    last, (ys, hs) = lax.scan(body, carry, (us, valid, more), reverse=reverse, unroll=unroll)
    return last, ys, hs


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mixed(recurrence: Recurrence, params: Any, kernel: jax.Array, carry: Any, us: Any, valid: Any) -> Any:
    return _run(recurrence, params, kernel, carry, us, valid, None)


@_mixed.defjvp
def _mixed_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    params, kernel, carry, us, valid = primals
    params_dot, kernel_dot, carry_dot, us_dot, _ = tangents
    hidden = recurrence.hidden
    assert hidden is not None
    at_all = lambda hs, kernel: _at_once(recurrence.mix, hs, kernel)
    one = jax.eval_shape(lambda carry: recurrence.mix(hidden(carry), kernel), carry)
    time = jax.tree.leaves(us)[0].shape[0]
    nothing = jnp.zeros((time, *one.shape), one.dtype)

    def run(params: Any, carry: Any, us: Any, more: Any) -> Any:
        return _run(recurrence, params, kernel, carry, us, valid, more)

    out, linear = jax.linearize(run, params, carry, us, nothing)
    return out, linear(params_dot, carry_dot, us_dot, at_all(out[2], kernel_dot))


def _at_once(mix: Any, hs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Mix the hidden states of all steps as one batch."""
    mixed = mix(hs.reshape(-1, *hs.shape[2:]), kernel)
    return mixed.reshape(*hs.shape[:2], *mixed.shape[1:])
