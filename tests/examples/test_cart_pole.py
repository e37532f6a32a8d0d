"""The cart obeys the laws of mechanics, moves as Gymnasium's does, and its episodes end when they should."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np

cart_pole = importlib.import_module("cart_pole")


def energy(state: jax.Array) -> float:
    """Of a cart and of a rod that turns about its pivot, from textbook mechanics."""
    _, velocity, angle, angular_velocity = np.asarray(state, np.float64)
    cart, pole, half = cart_pole.CART, cart_pole.POLE, cart_pole.HALF_LENGTH
    inertia = pole * (2 * half) ** 2 / 3  # of a rod about its end
    moving = (cart + pole) * velocity**2 / 2 + pole * half * velocity * angular_velocity * np.cos(angle)
    return moving + inertia * angular_velocity**2 / 2 + pole * cart_pole.GRAVITY * half * np.cos(angle)


def test_energy_changes_by_the_work_of_the_force_alone() -> None:
    state = jnp.array([0.3, -0.4, 0.5, 1.2])
    for force in (0.0, 10.0, -10.0):
        fine = lambda state, _, force=force: (cart_pole.push(state, force, 1e-5), None)
        end = jax.lax.scan(fine, state, length=5000)[0]  # 0.05 s
        work = force * float(end[0] - state[0])
        np.testing.assert_allclose(energy(end) - energy(state), work, atol=2e-3)


def test_ten_pushes_end_where_gymnasium_ends() -> None:
    state = jnp.array([0.03, -0.02, 0.01, 0.04])
    for action in (1, 1, 0, 1, 0, 0, 0, 1, 1, 1):
        state = cart_pole.push(state, cart_pole.FORCE * (2 * action - 1))
    # CartPoleEnv of Gymnasium 1.4.0, from the same state by the same pushes
    np.testing.assert_allclose(state, [0.05334275, 0.37160556, -0.02354209, -0.57549702], atol=1e-6)


def test_a_cart_that_is_always_pushed_right_falls_when_gymnasiums_falls() -> None:
    for state, steps in (([0, 0, 0, 0], 9), ([0.02, -0.01, 0.03, 0.01], 10)):  # CartPoleEnv of Gymnasium 1.4.0
        state = jnp.array(state, jnp.float32)
        for _ in range(steps):
            assert not cart_pole.has_failed(state)
            state = cart_pole.push(state, cart_pole.FORCE)
        assert cart_pole.has_failed(state)


def test_the_edges_of_the_track_and_of_the_lean() -> None:
    inside = np.array([cart_pole.TRACK, 9, cart_pole.LEAN, 9], np.float32) * 0.999
    assert not cart_pole.has_failed(inside)
    for column in (0, 2):
        for sign in (-1, 1):
            outside = inside.copy()
            outside[column] *= sign * 1.01
            assert cart_pole.has_failed(outside)


def test_an_episode_that_is_done_is_followed_by_a_new_one() -> None:
    right = lambda key, states: jnp.ones(len(states), int)
    carts, seen = cart_pole.rollout(right, cart_pole.start(jax.random.key(0), 3), jax.random.key(1), 40)
    np.testing.assert_array_equal(seen.done, seen.failed)
    assert seen.done.any(axis=0).all()
    for cart in range(3):
        ends = np.flatnonzero(seen.done[:, cart])
        assert (np.diff(ends) >= 7).all()  # none falls at once
        assert carts.returned[cart] == ends[-1] - ends[-2]
        assert carts.age[cart] == 39 - ends[-1]
        fresh = np.asarray(seen.state[ends[:-1] + 1, cart])
        assert (np.abs(fresh) <= 0.05).all()
        assert len(np.unique(fresh)) == fresh.size
    going_on = np.asarray(~seen.done[:-1])
    np.testing.assert_array_equal(seen.state[1:][going_on], seen.after[:-1][going_on])


def test_a_pole_that_stands_is_done_after_500_steps_and_has_not_failed() -> None:
    steady = lambda key, states: states[:, 2] + 0.25 * states[:, 3] > 0
    returns, seen = jax.jit(lambda: cart_pole.episodes(steady, jax.random.key(0), 4))()
    np.testing.assert_array_equal(returns, 500)
    assert not seen.failed.any()
    np.testing.assert_array_equal(seen.done.sum(axis=0), 1)
    assert seen.done[-1].all()
