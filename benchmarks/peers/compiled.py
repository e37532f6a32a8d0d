"""From the functions of a JAX library to a program: compiled once, the state donated and carried from call to call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.harness import Arrays
from benchmarks.peers import Program
from benchmarks.workloads import Task


class Functions(NamedTuple):
    """A training as pure functions.

    Attributes:
        init: ``init(key) -> carry``, a tree of arrays: all that training changes.
        step: ``step(carry, (x, y)) -> (carry, loss)``.
        predict: ``predict(carry, x) -> logits``.
        parameters: The trainable part of a carry.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[Any, Any], tuple[Any, jax.Array]]
    predict: Callable[[Any, jax.Array], jax.Array]
    parameters: Callable[[Any], Any]


def optimizer_of(task: Task) -> optax.GradientTransformation:
    """The optimizer of a network."""
    return {
        "adam": optax.adam(1e-3),
        "adamw": optax.adamw(6e-4, weight_decay=0.1),
        "sgd": optax.sgd(0.1, momentum=0.9),
    }[task.optimizer]


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The mean loss of a batch."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y).mean()


def supervised(task: Task, init: Callable[..., Any], apply: Callable[..., Any]) -> Functions:
    """Write the step for a library that leaves it to its user.

    Args:
        task: What is trained.
        init: ``init(key) -> (params, state)``.
        apply: ``apply(params, state, x, train) -> (logits, state)``.

    Returns:
        The functions; a carry is ``(params, state, opt_state)``.
    """
    optimizer = optimizer_of(task)

    def start(key: jax.Array) -> Any:
        params, state = init(key)
        return params, state, optimizer.init(params)

    def step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        params, state, opt_state = carry
        x, y = batch

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            logits, new_state = apply(params, state, x, True)
            return cross_entropy(logits, y), new_state

        (loss, state), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss

    def predict(carry: Any, x: jax.Array) -> jax.Array:
        params, state, _ = carry
        return apply(params, state, x, False)[0]

    return Functions(start, step, predict, lambda carry: carry[0])


def program(task: Task, arrays: Arrays, functions: Functions) -> Program:
    """Compile what the task asks for with `jax.jit`."""
    x, y = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    key = jax.random.key(0)
    if task.mode == "vmap":
        carry = jax.vmap(functions.init)(jax.random.split(key, task.repeats))
    else:
        carry = functions.init(key)
    count = size(functions.parameters(carry)) // (task.repeats if task.mode == "vmap" else 1)
    if task.mode == "infer":
        predict = jax.jit(functions.predict)
        return Program(lambda: jax.block_until_ready(predict(carry, x)), count)
    return stepping(jax.jit(_many(task, functions.step), donate_argnums=0), carry, (x, y), count)


def stepping(step: Callable[..., Any], carry: Any, batch: Any, count: int) -> Program:
    """Carry the state from call to call of a compiled step.

    Args:
        step: ``step(carry, batch) -> (carry, loss)``, with a method ``lower``.
        carry: Where it starts.
        batch: The same in every call.
        count: Number of trainable parameters.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), carry)

    def call() -> jax.Array:
        nonlocal carry
        carry, loss = step(carry, batch)
        return jax.block_until_ready(loss)  # what one program computes is ready at once

    return Program(call, count, lambda: step.lower(shapes, batch))


def _many(task: Task, step: Callable[..., Any]) -> Callable[..., Any]:
    if task.mode == "vmap":
        return jax.vmap(step, in_axes=(0, None))
    if task.mode == "scan":
        return lambda carry, batch: jax.lax.scan(lambda now, _: step(now, batch), carry, length=task.repeats)
    return step


def half(tree: Any) -> Any:
    """Cast what is floating to bfloat16, for libraries that leave it to their user."""
    cast = lambda leaf: leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    return jax.tree.map(cast, tree)


def size(tree: Any) -> int:
    """Number of elements of all arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
