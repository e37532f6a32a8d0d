"""More to measure in each step: norms and the learning rate."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from fnn.trees import mask

Watch = Callable[[Any, Any, Any, Any], dict[str, jax.Array]]


def norms(*patterns: str) -> Watch:
    """Measure how large gradients, updates and parameters are, for ``fit(..., watch=...)`` and `train_step`.

    Args:
        *patterns: Of paths, such as ``"*kernel"``; each gets a norm of its own, over all that it matches. None: one
            norm of all.

    Returns:
        ``watch(params, grads, updates, opt_state)``, a dict with ``"gradient_norm"``, ``"update_norm"`` and
        ``"parameter_norm"``, each followed by a slash and the pattern where there is one.

    Raises:
        ValueError: when traced, if a pattern matches nothing.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> params = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.ones(1)}
        >>> found = fnn.norms("kernel")(params, params, params, ())
        >>> {name: float(value) for name, value in found.items()}
        {'gradient_norm/kernel': 5.0, 'update_norm/kernel': 5.0, 'parameter_norm/kernel': 5.0}
    """

    def watch(params: Any, grads: Any, updates: Any, opt_state: Any) -> dict[str, jax.Array]:
        trees = {"gradient_norm": grads, "update_norm": updates, "parameter_norm": params}
        found = {}
        for pattern in patterns or ("",):
            chosen = mask(params, pattern) if pattern else jax.tree.map(lambda _: True, params)
            for name, tree in trees.items():
                leaves = [leaf for leaf, use in zip(jax.tree.leaves(tree), jax.tree.leaves(chosen)) if use]
                found[f"{name}/{pattern}" if pattern else name] = optax.tree.norm(leaves)
        return found

    return watch


def learning_rate(params: Any, grads: Any, updates: Any, opt_state: Any) -> dict[str, jax.Array]:
    """Report the learning rate of each step, for ``fit(..., watch=...)`` and `train_step`.

    Args:
        params: Not read.
        grads: Not read.
        updates: Not read.
        opt_state: Of an optimizer that keeps its rate: ``optax.inject_hyperparams(optax.adam)(learning_rate=...)``.

    Returns:
        A dict with ``"learning_rate"``.

    Raises:
        ValueError: when the optimizer keeps none.

    Example:
        >>> import fnn, jax.numpy as jnp, optax
        >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
        >>> float(fnn.learning_rate(None, None, None, optimizer.init(jnp.ones(1)))["learning_rate"])
        0.5
    """
    kept = optax.tree.get(opt_state, "hyperparams", {})
    if "learning_rate" not in kept:
        raise ValueError(
            "the optimizer keeps no learning rate to report; make it by optax.inject_hyperparams(optax.adam)(...)"
        )
    return {"learning_rate": kept["learning_rate"]}
