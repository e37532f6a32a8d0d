"""Learn to learn: first weights from which a few steps on a few examples are enough for a new task (MAML).

A task is small: ten points of one sine, with an amplitude and a phase of its own; or five images each of three digits
that the network has never seen (`few_shot`). Training from scratch on so little does not lead far. But there are many
such tasks, and what they have in common can be learned beforehand.

MAML asks of the first weights that they be good *after* a step of gradient descent on the few examples of a task, as
measured on more examples of it. What is made small is thus a function of training itself, and its gradient goes back
through the training step. In JAX that is nothing special: `adapt` is a ``jax.lax.scan`` over ``fnn.train_step``,
``jax.vmap`` runs it on many tasks, and ``jax.grad`` differentiates it. Since the step holds a gradient, this takes
second derivatives. ``--first-order`` leaves them out: the weights after the step are then taken for the first weights
plus a constant, which is cheaper and often about as good.

Beside it stand, each adapted to the same new tasks by as many steps:

- *joint training*: one network, trained in the ordinary way on the examples of all training tasks. Of sines it can
  only learn their mean. Of digits it learns which is which, and gets a new last layer, of zeros, for a new task;
- *from scratch*: random weights.

With digits there is also a rival that is no network, the class whose mean image is nearest. It beats all of them: six
digits to learn from are few kinds of tasks, and the pixels alone tell most images apart. Sines are where MAML shows
what it can do.

Each method takes the step size that is best for it on validation tasks: new sines, or images that were held out of the
digits to train on. Then the test tasks are looked at once: other sines, or digits of the four classes that were held
out altogether, other ones for each seed. All seeds are trained side by side.

References:
    Finn, Abbeel and Levine, Model-agnostic meta-learning for fast adaptation of deep networks, ICML 2017,
    arXiv:1703.03400.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from few_shot import Problem, Task, digits, sines
from matplotlib.figure import Figure

import fnn

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # step sizes to choose from
METHODS = ("MAML", "joint training", "from scratch")
COLORS = dict(zip(METHODS, ("tab:blue", "tab:orange", "tab:gray")))


def adapt(
    problem: Problem, params: Any, support: Any, steps: int, rate: Any, *, first_order: bool = False,
    watch: Callable[[Any], Any] = lambda params: None,
) -> tuple[Any, Any]:  # fmt: skip
    """Do some steps of gradient descent on the support of one task; everything here can be differentiated and mapped.

    Returns:
        The parameters after the steps, and what ``watch`` makes of those before each.
    """
    constant = optax.stateless(lambda grads, params: jax.lax.stop_gradient(grads))
    optimizer = optax.chain(constant, optax.sgd(rate)) if first_order else optax.sgd(rate)
    step = fnn.train_step(fnn.supervised(problem.net, problem.loss), optimizer)
    run = fnn.TrainState(params, {}, optimizer.init(params), jax.random.key(0), jnp.zeros((), jnp.int32))
    run, watched = jax.lax.scan(lambda run, _: (step(run, support)[0], watch(run.params)), run, length=steps)
    return run.params, watched


def trainer(
    problem: Problem, method: str, *, updates: int, tasks: int, first_order: bool
) -> Callable[[jax.Array, Any], Any]:
    """Make ``train(key, pool) -> params``: the parameters that adaptation starts from."""
    joint = method == "joint training"
    net, draw = (problem.joint, problem.draw_joint) if joint else (problem.net, problem.draw)
    on_examples = fnn.supervised(net, problem.loss)

    def after_adaptation(params: Any, state: Any, batch: Task, *, key: jax.Array, train: bool) -> Any:
        def loss(task: Task) -> jax.Array:
            adapted, _ = adapt(
                problem, params, task.support, problem.steps, problem.rate, first_order=first_order
            )  # fmt: skip
            return on_examples(adapted, state, task.query)[0]

        return jax.vmap(loss)(batch).mean(), (state, {})

    def examples(params: Any, state: Any, batch: Task, *, key: jax.Array, train: bool) -> Any:
        x, y = jax.tree.map(
            lambda *parts: jnp.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts]), *batch
        )
        return on_examples(params, state, (x, y), key=key, train=train)

    optimizer = optax.adam(1e-3)
    step = fnn.train_step(examples if joint else after_adaptation, optimizer)

    def train(key: jax.Array, pool: Any) -> Any:
        one = jax.eval_shape(lambda: draw(key, pool, 10))  # only its shape is read
        run = fnn.train_init(net, optimizer, key, one.support[0])

        def update(run: fnn.TrainState, _: None) -> tuple[fnn.TrainState, None]:
            keys = jax.random.split(jax.random.fold_in(fnn.fold(key, "tasks"), run.step), tasks)
            return step(run, jax.vmap(lambda key: draw(key, pool, 10))(keys))[0], None

        run, _ = jax.lax.scan(update, run, length=0 if method == "from scratch" else updates)
        return problem.from_joint(run.params) if joint else run.params

    return train


def errors(problem: Problem, params: Any, tasks: Task, rate: Any, *, steps: int) -> jax.Array:
    """The error on the query of each task before each step and after the last, ``(tasks, steps + 1)``."""
    answer = fnn.bind(problem.net, {})

    def of_task(task: Task) -> jax.Array:
        error = lambda params: problem.error(answer(params, task.query[0]), task.query[1]).mean()
        adapted, before = adapt(problem, params, task.support, steps, rate, watch=error)
        return jnp.append(before, error(adapted))

    return jax.vmap(of_task)(tasks)


def draw_errors(found: dict[str, np.ndarray], rival: float | None, title: str) -> Figure:
    """Error against steps: the mean over all tasks, and a band that holds the middle half of them."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in found.items():
        low, high = np.quantile(values, [0.25, 0.75], axis=0)
        steps = np.arange(values.shape[1])
        axes.fill_between(steps, low, high, color=COLORS[name], alpha=0.15, linewidth=0)
        axes.plot(steps, values.mean(axis=0), "o-", color=COLORS[name], markersize=4, label=name)
    if rival is not None:
        axes.axhline(rival, color="black", linestyle="--", label="nearest class mean")
    axes.set(xlabel="steps on the examples of a new task", ylabel=title, ylim=(0, None))
    axes.set_title("mean over test tasks, band: the middle half of them", fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    return figure


def draw_adaptation(
    problem: Problem, starts: dict[str, Any], rates: dict[str, float], task: Task, steps: int
) -> Figure:
    """One sine before, after one step and after all, for each of the first weights."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    order = jnp.argsort(task.query[0][:, 0])
    x, y = (part[order] for part in task.query)
    answer = fnn.bind(problem.net, {})

    @jax.jit
    def answers(params: Any, rate: float) -> jax.Array:
        adapted, before = adapt(problem, params, task.support, steps, rate, watch=lambda params: answer(params, x))
        return jnp.concatenate([before, answer(adapted, x)[None]])

    for panel, name in zip(figure.subplots(1, len(METHODS), sharey=True), METHODS):
        panel.plot(x, y, color="silver", linewidth=5, label="truth")
        curves = answers(starts[name], rates[name])
        for count, style in {0: ":", 1: "--", steps: "-"}.items():
            label = f"after {count} step{'s' * (count > 1)}" if count else "before"
            panel.plot(x, curves[count], style, color="tab:blue", label=label)
        panel.plot(*task.support, "k^", markersize=6, label="examples")
        panel.set(title=f"{name}, step size {rates[name]:g}", xlabel="x")
    figure.axes[0].set(ylabel="y")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=5)
    return figure


def main(
    data: str = "sines",
    *,
    updates: int | None = None,
    tasks: int = 25,
    shots: int | None = None,
    ways: int = 3,
    steps: int = 10,
    seeds: int = 3,
    first_order: bool = False,
    test_tasks: int = 300,
    seed: int = 0,
    output: str | Path = "outputs/meta_learning",
) -> dict[str, float]:
    """Learn first weights in each way, adapt them to test tasks, print the errors, and save the pictures.

    Args:
        data: ``"sines"`` or ``"digits"``.
        updates: Of MAML and of joint training; None: 20000 of sines, 2000 of digits.
        tasks: For each update.
        shots: Examples to adapt to, of digits for each class; None: 10 points, or 5 images.
        ways: Classes of a task of digits.
        steps: Up to which the errors on test tasks are reported.
        seeds: Repetitions with other weights and tasks; of digits, with other classes held out.
        first_order: Whether to take no second derivatives.
        test_tasks: For each seed, and as many to choose the step sizes by.
        seed: Decides all that is random.
        output: Folder of the pictures.

    Returns:
        The mean error on the test tasks after the last step, by method.
    """
    problem = digits(seeds, shots or 5, ways, seed) if data == "digits" else sines(seeds, shots or 10)
    key, updates = jax.random.key(seed), updates or (2_000 if data == "digits" else 20_000)
    order = "first" if first_order else "second"
    print(f"{data}: {updates} updates of {tasks} tasks, {problem.steps} steps of adaptation each, {order} order")
    keys = jax.random.split(fnn.fold(key, "train"), seeds)
    train_pool, validation_pool, test_pool = problem.pools

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array, pool: Any) -> Task:
        return jax.vmap(lambda key: problem.draw(key, pool, 20))(jax.random.split(key, test_tasks))

    validation = draw(jax.random.split(fnn.fold(key, "validation"), seeds), validation_pool)
    test = draw(jax.random.split(fnn.fold(key, "test"), seeds), test_pool)
    measure = jax.jit(jax.vmap(partial(errors, problem, steps=steps), (0, 0, None)))
    starts, rates, found = {}, {}, {}
    for name in METHODS:
        began = perf_counter()
        train = trainer(problem, name, updates=updates, tasks=tasks, first_order=first_order)
        starts[name] = jax.block_until_ready(jax.jit(jax.vmap(train))(keys, train_pool))
        seconds = perf_counter() - began
        over_steps = [float(measure(starts[name], validation, rate)[..., 1:].mean()) for rate in RATES]
        rates[name] = RATES[int(np.nanargmin(over_steps))]
        found[name] = np.asarray(measure(starts[name], test, rates[name]))  # (seeds, tasks, steps + 1)
        print(f"{name}: {seconds:.0f} s, step size {rates[name]:g} chosen by validation tasks", flush=True)

    shown = sorted({0, 1, steps // 2, steps})
    print(f"\n{problem.title}, mean over {test_tasks} test tasks for each of {seeds} seeds")
    print(f"{'steps':20}" + "".join(f"{count:>9}" for count in shown) + f"{'95 % interval':>20}")
    for name, values in found.items():
        line = f"{name:20}" + "".join(f"{values[..., count].mean():9.4f}" for count in shown)
        if seeds > 1:
            around = fnn.interval(values[..., -1].mean(axis=1))
            line += f"{around.low:11.4f} to {around.high:.4f}"
        print(line)
    rival = None
    if problem.rival is not None:
        rival = float(jax.jit(jax.vmap(jax.vmap(problem.rival)))(test).mean())
        print(f"{'nearest class mean':20}{rival:9.4f}")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: values.reshape(-1, steps + 1) for name, values in found.items()}
    draw_errors(flat, rival, problem.title).savefig(folder / f"{data}_steps.png", dpi=150)
    pictures = [f"{data}_steps.png"]
    if data == "sines":
        first = jax.tree.map(lambda leaf: leaf[0], starts)
        task = problem.draw(fnn.fold(key, "picture"), None, 200)
        draw_adaptation(problem, first, rates, task, steps).savefig(folder / "sines_adaptation.png", dpi=150)
        pictures.append("sines_adaptation.png")
    print(f"pictures: {folder}/{', '.join(pictures)}")
    return {name: float(values[..., -1].mean()) for name, values in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sines", choices=["sines", "digits"])
    parser.add_argument("--updates", type=int, help="of both trainings (default: 20000 of sines, 2000 of digits)")
    parser.add_argument("--tasks", type=int, default=25, help="for each update (default: 25)")
    parser.add_argument("--shots", type=int, help="examples to adapt to (default: 10 points, 5 images of each class)")
    parser.add_argument(
        "--ways", type=int, default=3, choices=[2, 3, 4], help="classes of a task of digits (default: 3)"
    )
    parser.add_argument("--steps", type=int, default=10, help="on the examples of a test task (default: 10)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions, side by side (default: 3)")
    parser.add_argument("--first-order", action="store_true", help="take no second derivatives")
    parser.add_argument("--test-tasks", type=int, default=300, help="for each seed (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/meta_learning", help="folder of the pictures")
    arguments = vars(parser.parse_args())
    main(arguments.pop("data"), **arguments)
