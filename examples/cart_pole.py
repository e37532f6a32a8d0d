"""The cart-pole, written in JAX: a cart on a track is pushed left or right so that the pole on it stays upright.

The reward is 1 for each step, a fiftieth of a second, up to and with the one in which the pole leans too far or the
cart leaves its track; after 500 steps the episode is over in any case. The return of an episode, the sum of its
rewards, is therefore the number of its steps.

All is made of pure functions, so that ``jax.vmap`` runs thousands of carts and ``jax.lax.scan`` runs them through time,
within one compiled program.

References:
    Barto, Sutton and Anderson, Neuronlike adaptive elements that can solve difficult learning control problems, IEEE
    Transactions on Systems, Man, and Cybernetics 13, 1983. Constants and limits are those of Gymnasium's CartPole-v1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn

GRAVITY = 9.8  # m/s²
CART, POLE = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, from the pivot to the pole's centre of mass
FORCE = 10.0  # N, to the left or to the right
SECONDS = 0.02  # a step
TRACK = 2.4  # m, to each side
LEAN = 12 * np.pi / 180  # to each side
LIMIT = 500  # steps of an episode

# policy(key, states) -> actions: from (carts, 4) to (carts,), where 1 or True pushes right, 0 or False left
Policy = Callable[[jax.Array, jax.Array], jax.Array]


def reset(key: jax.Array) -> jax.Array:
    """A start near the middle: position, velocity, angle to the right of upright, angular velocity; in SI units."""
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def push(state: jax.Array, force: jax.Array | float, seconds: jax.Array | float = SECONDS) -> jax.Array:
    """Move on by one Euler step. There is no friction."""
    _, velocity, angle, angular_velocity = state
    sin, cos, total = jnp.sin(angle), jnp.cos(angle), CART + POLE
    pushed = (force + POLE * HALF_LENGTH * angular_velocity**2 * sin) / total
    angular_acceleration = (GRAVITY * sin - cos * pushed) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / total))
    acceleration = pushed - POLE * HALF_LENGTH * angular_acceleration * cos / total
    return state + seconds * jnp.stack([velocity, acceleration, angular_velocity, angular_acceleration])


def has_failed(state: jax.Array) -> jax.Array:
    """Whether the cart has left its track or the pole leans too far."""
    return (jnp.abs(state[0]) > TRACK) | (jnp.abs(state[2]) > LEAN)


class Carts(NamedTuple):
    """Many carts, each in an episode of its own.

    Attributes:
        state: ``(carts, 4)``, as `reset` makes it.
        age: Steps of each one's episode so far.
        returned: The return of each one's last whole episode; NaN before the first has ended.
    """

    state: jax.Array
    age: jax.Array
    returned: jax.Array


class Transitions(NamedTuple):
    """What was lived through; the first axes are ``(steps, carts)``.

    Attributes:
        state: Before the push.
        action: 1 for a push to the right.
        after: The state that it led to.
        failed: Whether the episode ended there by a failure.
        done: Whether it ended there at all, by a failure or by its limit.
    """

    state: jax.Array
    action: jax.Array
    after: jax.Array
    failed: jax.Array
    done: jax.Array


def start(key: jax.Array, count: int) -> Carts:
    """So many carts at the beginning of an episode."""
    states = jax.vmap(reset)(jax.random.split(key, count))
    return Carts(states, jnp.zeros(count, jnp.int32), jnp.full(count, jnp.nan))


def rollout(policy: Policy, carts: Carts, key: jax.Array, steps: int) -> tuple[Carts, Transitions]:
    """Push all carts for some steps; a cart whose episode is done goes on with a new one."""

    def step(carts: Carts, number: jax.Array) -> tuple[Carts, Transitions]:
        now = jax.random.fold_in(key, number)
        action = policy(fnn.fold(now, "action"), carts.state)
        after = jax.vmap(push)(carts.state, jnp.where(action == 1, FORCE, -FORCE))
        age, failed = carts.age + 1, jax.vmap(has_failed)(after)
        done = failed | (age >= LIMIT)
        new = start(fnn.fold(now, "start"), len(age))
        state = jnp.where(done[:, None], new.state, after)
        moved = Carts(state, jnp.where(done, 0, age), jnp.where(done, age, carts.returned))
        return moved, Transitions(carts.state, action, after, failed, done)

    return jax.lax.scan(step, carts, jnp.arange(steps))


def episodes(policy: Policy, key: jax.Array, count: int) -> tuple[jax.Array, Transitions]:
    """Run so many episodes; the key decides their starts, whatever the policy.

    Returns:
        The return of each, ``(count,)``, and `LIMIT` transitions, of which the first so many are the episode's.
    """
    _, transitions = rollout(policy, start(fnn.fold(key, "start"), count), fnn.fold(key, "rollout"), LIMIT)
    return jnp.argmax(transitions.done, axis=0) + 1, transitions
