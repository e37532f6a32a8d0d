"""Learn by trial and error: keep a pole upright on a cart by pushing the cart left or right.

Nobody says which push was right. There is a reward of 1 for each fiftieth of a second in which the pole stands and the
cart is on its track, 500 at most; the sum of an episode's rewards is its return.

Two networks learn together. The *actor* sees position, velocity, angle and angular velocity and says how probable each
push should be. The *critic* sees the same and guesses the reward that is still to come, where a reward ``n`` steps on
counts ``discount ** n``. A push after which more came than was guessed, one with an *advantage*, becomes more probable,
and one after which less came less probable: this is the policy gradient. A small bonus for the entropy of the pushes
keeps the actor trying both.

The cart is JAX too (`cart_pole`), so that acting and learning are one compiled program: ``jax.lax.scan`` goes over time
and over updates, ``jax.vmap`` over many carts for each network and over many networks. Each network has a seed of its
own, and that matters: runs that differ in nothing but the seed differ widely, and a single curve says little. All soon
learn to balance. To stay on the track as well takes long, since the cart leaves it seconds after the wrong pushes, and
some have not learned it at the end.

Beside it stand pushing at random and two rules that need no learning. One of them, to push to where the pole will lean
in a moment, never fails: cart-pole is a problem to try a method on, not one that needs a network.

References:
    Sutton, McAllester, Singh and Mansour, Policy gradient methods for reinforcement learning with function
    approximation, NeurIPS 1999. Mnih et al., Asynchronous methods for deep reinforcement learning, ICML 2016,
    arXiv:1602.01783. Schulman et al., High-dimensional continuous control using generalized advantage estimation, ICLR
    2016, arXiv:1506.02438.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import cart_pole
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import fnn

RULES: dict[str, cart_pole.Policy] = {
    "random": lambda key, states: jax.random.bernoulli(key, 0.5, states.shape[:1]),
    "push to where the pole leans": lambda key, states: states[:, 2] > 0,
    "push to where it will lean": lambda key, states: states[:, 2] + 0.25 * states[:, 3] > 0,  # in 0.25 s
}


def network(hidden: int) -> fnn.Layer:
    """From states ``(..., 4)`` to the logits of the two pushes ``(..., 2)`` and the critic's guess ``(..., 1)``."""

    def body(outputs: int) -> fnn.Layer:
        return fnn.serial(fnn.dense(hidden), jnp.tanh, fnn.dense(hidden), jnp.tanh, fnn.dense(outputs))

    return fnn.parallel(actor=body(2), critic=body(1))


def policies(net: fnn.Layer, params: Any) -> tuple[cart_pole.Policy, cart_pole.Policy]:
    """Two ways to act: draw a push as probable as the actor says, or take the more probable one."""
    answer = fnn.bind(net, {})
    drawn = lambda key, states: jax.random.categorical(key, answer(params, states)[0])
    greedy = lambda key, states: jnp.argmax(answer(params, states)[0], axis=-1)
    return drawn, greedy


def advantages(
    value: jax.Array, value_after: jax.Array, seen: cart_pole.Transitions, discount: float, decay: float
) -> jax.Array:
    """How much more came than was guessed, ``(steps, carts)``: a mean over looking one step ahead, two, and so on.

    No reward comes after a failure. After an episode's limit more would have come: the guess stands in for it. A reward
    counts as ``1 - discount`` here, so that a pole which never falls is worth 1 whatever the discount is.
    """
    surprise = (1 - discount) + discount * jnp.where(seen.failed, 0, value_after) - value

    def back(later: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        surprise, done = row
        advantage = surprise + discount * decay * jnp.where(done, 0, later)
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(surprise[0]), (surprise, seen.done), reverse=True)[1]


def trainer(
    net: fnn.Layer, *, carts: int, steps: int, updates: int, learning_rate: float, entropy: float,
    discount: float = 0.99, decay: float = 0.95,
) -> Callable[[jax.Array], tuple[Any, jax.Array]]:  # fmt: skip
    """Make ``train(key) -> (params, curve)``: a whole training as one pure function, to be mapped over keys."""

    def objective(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> Any:
        states, actions, advantage, target = batch
        (logits, value), state = net.apply(params, state, states, key=key, train=train)
        surprise = optax.losses.softmax_cross_entropy_with_integer_labels(logits, actions)
        bonus = optax.losses.softmax_cross_entropy(logits, jax.nn.softmax(logits)).mean()
        standardized = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
        actor = (standardized * surprise).mean() - entropy * bonus
        critic = optax.losses.squared_error(value[..., 0], target).mean()
        return actor + critic, (state, {"entropy": bonus, "critic": critic})

    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, updates))
    step = fnn.train_step(objective, optimizer)

    def train(key: jax.Array) -> tuple[Any, jax.Array]:
        world = cart_pole.start(fnn.fold(key, "start"), carts)
        run = fnn.train_init(net, optimizer, key, world.state)

        def update(carry: tuple[fnn.TrainState, cart_pole.Carts], _: None) -> Any:
            run, world = carry
            drawn, _ = policies(net, run.params)
            now = jax.random.fold_in(fnn.fold(key, "rollout"), run.step)
            world, seen = cart_pole.rollout(drawn, world, now, steps)
            guess = lambda states: fnn.bind(net, run.state)(run.params, states)[1][..., 0]
            value = guess(seen.state)
            advantage = advantages(value, guess(seen.after), seen, discount, decay)
            run, _ = step(run, (seen.state, seen.action, advantage, advantage + value))
            return (run, world), jnp.nanmean(world.returned)

        (run, _), curve = jax.lax.scan(update, (run, world), length=updates)
        return run.params, curve

    return train


def draw_curves(curves: np.ndarray, steps: int, rivals: dict[str, float]) -> Figure:
    """Return against steps: a line for each seed, their median, and a band that holds the middle 80 %."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    x = steps * np.arange(1, curves.shape[1] + 1) / 1000
    low, middle, high = np.quantile(curves, [0.1, 0.5, 0.9], axis=0)  # NaN while a network has no whole episode
    axes.plot(x, curves.T, color="tab:blue", alpha=0.15, linewidth=0.6)
    axes.fill_between(x, low, high, color="tab:blue", alpha=0.25, linewidth=0, label="middle 80 % of the seeds")
    axes.plot(x, middle, color="tab:blue", linewidth=2, label=f"median of {len(curves)} seeds")
    for (name, value), style in zip(rivals.items(), (":", "--", "-.")):
        axes.axhline(value, color="black", linestyle=style, linewidth=1, label=name)
    axes.set(xlim=(0, x[-1]), ylim=(0, 1.04 * cart_pole.LIMIT))
    axes.set(xlabel="thousand steps of each network's carts", ylabel="return of the last episodes")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    return figure


def draw_policy(net: fnn.Layer, params: Any, path: np.ndarray, fallen: np.ndarray) -> Figure:
    """What the actor wants over angle and angular velocity, and an episode of it, beside a random one."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    plane, angles, places = figure.subplots(1, 3)
    degrees = 180 / np.pi
    angle, turning = np.meshgrid(np.linspace(-12, 12, 121), np.linspace(-60, 60, 121))
    states = np.stack([np.zeros_like(angle), np.zeros_like(angle), angle / degrees, turning / degrees], axis=-1)
    right = jax.nn.softmax(fnn.bind(net, {})(params, states.astype(np.float32))[0])[..., 1]
    image = plane.pcolormesh(angle, turning, right, cmap="coolwarm", vmin=0, vmax=1, shading="gouraud", rasterized=True)
    figure.colorbar(image, ax=plane, label="probability of a push to the right")
    plane.plot(degrees * path[:, 2], degrees * path[:, 3], color="black", linewidth=0.6, label="an episode")
    plane.legend(frameon=False, loc="lower left")
    plane.set(title="policy, cart at rest in the middle", xlabel="angle (degrees)")
    plane.set(ylabel="angular velocity (degrees / s)")
    for axes, column, scale, limit, label in (
        (angles, 2, degrees, 12, "angle of the pole (degrees)"),
        (places, 0, 1, cart_pole.TRACK, "position of the cart (m)"),
    ):
        for states, color, name in ((fallen, "tab:orange", "at random"), (path, "tab:blue", "learned")):
            seconds = cart_pole.SECONDS * np.arange(len(states))
            axes.plot(seconds, scale * states[:, column], color=color, linewidth=1, label=name)
            axes.plot(seconds[-1:], scale * states[-1:, column], "o", color=color, markersize=4)
        for edge in (-limit, limit):
            axes.axhline(edge, color="gray", linestyle=":")
        axes.set(title=label, xlabel="seconds")
    angles.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.95))
    return figure


def main(
    *,
    seeds: int = 10,
    carts: int = 16,
    steps: int = 16,
    updates: int = 2000,
    hidden: int = 64,
    learning_rate: float = 3e-3,
    entropy: float = 0.01,
    episodes: int = 100,
    seed: int = 0,
    output: str | Path = "outputs/reinforcement",
) -> float:
    """Train all networks as one program, run them and their rivals on the same fresh episodes, and save two pictures.

    Args:
        seeds: Networks.
        carts: For each of them.
        steps: Of each cart between two updates.
        updates: Of each network.
        hidden: Units of both hidden layers, of the actor and of the critic.
        learning_rate: Of Adam at the beginning; it falls to 0 in a straight line.
        entropy: Weight of the bonus.
        episodes: To test each policy on.
        seed: Decides all that is random.
        output: Folder of the pictures.

    Returns:
        The mean return of the learned policies on the fresh episodes, each taking its more probable push.
    """
    key, net = jax.random.key(seed), network(hidden)
    train = trainer(
        net, carts=carts, steps=steps, updates=updates, learning_rate=learning_rate, entropy=entropy
    )  # fmt: skip
    keys = jax.random.split(fnn.fold(key, "train"), seeds)
    began = perf_counter()
    program = jax.jit(jax.vmap(train)).lower(keys).compile()
    compiled = perf_counter()
    params, curves = jax.block_until_ready(program(keys))
    seconds, total = perf_counter() - compiled, seeds * carts * steps * updates
    count = fnn.count(jax.tree.map(lambda leaf: leaf[0], params))
    print(f"{seeds} networks of {count} parameters, {carts} carts each, {updates} updates of {steps} steps")
    print(
        f"{total} steps in {seconds:.1f} s, {total / seconds:,.0f} a second, learning included; "
        f"compilation took {compiled - began:.1f} s"
    )

    # Every policy starts from the same states. Nothing is chosen by these episodes.
    test_key = fnn.fold(key, "test")
    run = lambda policy: cart_pole.episodes(policy, test_key, episodes)
    tests = {name: jax.jit(lambda policy=policy: run(policy))() for name, policy in RULES.items()}
    for which, name in enumerate(("actor, drawn", "actor, more probable")):
        tests[name] = jax.jit(jax.vmap(lambda params, which=which: run(policies(net, params)[which])))(params)

    print(f"\n{'policy':30}{'mean return':>12}{'worst seed':>12}{'full episodes':>15}")
    means = {}
    for name, (found, _) in tests.items():
        rows = np.asarray(found).reshape(-1, episodes)
        means[name] = float(rows.mean())
        worst = f"{rows.mean(1).min():.1f}" if len(rows) > 1 else ""
        print(f"{name:30}{means[name]:12.1f}{worst:>12}{(rows == cart_pole.LIMIT).mean():15.1%}")

    def path(name: str) -> np.ndarray:
        """The first episode of a policy, of the network of middling score where there are several."""
        found, seen = (jax.tree.map(np.asarray, part) for part in tests[name])
        states = seen.after[middle] if found.ndim == 2 else seen.after
        return states[: int(found[middle, 0] if found.ndim == 2 else found[0]), 0]

    learned = np.asarray(tests["actor, more probable"][0]).mean(1)
    middle = int(np.argsort(learned)[len(learned) // 2])
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    rivals = {name: means[name] for name in RULES}
    draw_curves(np.asarray(curves), carts * steps, rivals).savefig(folder / "curves.png", dpi=150)
    chosen = jax.tree.map(lambda leaf: leaf[middle], params)
    draw_policy(net, chosen, path("actor, more probable"), path("random")).savefig(folder / "policy.png", dpi=150)
    print(f"\npictures: {folder}/curves.png, policy.png")
    return means["actor, more probable"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="networks (default: 10)")
    parser.add_argument("--carts", type=int, default=16, help="for each network (default: 16)")
    parser.add_argument("--steps", type=int, default=16, help="of each cart between two updates (default: 16)")
    parser.add_argument("--updates", type=int, default=2000, help="of each network (default: 2000)")
    parser.add_argument("--hidden", type=int, default=64, help="units of each hidden layer (default: 64)")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--entropy", type=float, default=0.01, help="weight of its bonus (default: 0.01)")
    parser.add_argument("--episodes", type=int, default=100, help="to test each policy on (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/reinforcement", help="folder of the pictures")
    main(**vars(parser.parse_args()))
