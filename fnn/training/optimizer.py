"""What an optimizer is, and whether a state is of it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def check_optimizer(optimizer: Any) -> None:
    """Raise unless ``optimizer`` is one."""
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return
    name = getattr(optimizer, "__name__", None)
    if name is not None and getattr(optax, name, None) is optimizer:
        raise TypeError(f"optimizer is the function optax.{name}; call it: optax.{name}(1e-3)")
    got = repr(optimizer) if isinstance(optimizer, str) else f"a {type(optimizer).__name__}"
    raise TypeError(f"optimizer must be one of optax, such as optax.adam(1e-3), got {got}")


def check_opt_state(optimizer: optax.GradientTransformation, params: Any, opt_state: Any) -> None:
    """Raise where the state is that of another optimizer, or of other parameters."""
    wanted, found = jax.eval_shape(optimizer.init, params), opt_state
    if jax.tree.structure(wanted) != jax.tree.structure(found):
        kinds, others = (", ".join(_kinds(tree)) or "nothing" for tree in (found, wanted))
        fix = (
            "pass the optimizer that fnn.train_init was given, or start this one anew: "
            "run._replace(opt_state=optimizer.init(run.params))"
        )
        if kinds == others:
            raise ValueError(f"run.opt_state does not fit run.params: it is of an optimizer of other parameters; {fix}")
        raise ValueError(
            f"run.opt_state is of another optimizer: it holds {kinds}, this optimizer keeps {others}; {fix}"
        )
    for (path, leaf), (_, other) in zip(jax.tree.leaves_with_path(wanted), jax.tree.leaves_with_path(found)):
        if leaf.shape != jnp.shape(other):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"run.opt_state does not fit run.params: {name} has shape {jnp.shape(other)}, wanted {leaf.shape}; "
                "start the optimizer anew: run._replace(opt_state=optimizer.init(run.params))"
            )


def _kinds(state: Any) -> list[str]:
    """The types of an optimizer's states, such as ``ScaleByAdamState``, each with those within."""
    children = jax.tree_util.tree_flatten(state, is_leaf=lambda part: part is not state)[0]
    inner = [] if len(children) == 1 and children[0] is state else [kind for part in children for kind in _kinds(part)]
    if not hasattr(state, "_fields"):
        return inner
    return [f"{type(state).__name__}({', '.join(inner)})" if inner else type(state).__name__]
