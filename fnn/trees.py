"""Parameters by path: parts of a tree, masks for optax, sizes and penalties."""

import difflib
import fnmatch
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.dtypes import widen


def at(tree: dict[str, Any], path: str) -> Any:
    """Look up the subtree or the leaf at ``path``.

    A layer without parameters owns no entry in ``params``, and one without state none in ``state``: the path of such a
    layer cannot be told from a misspelt one, and raises too.

    Args:
        tree: Nested dicts, such as params or state.
        path: Names joined by slashes. An empty path is the tree itself.

    Returns:
        The subtree or the leaf.

    Raises:
        ValueError: when the tree has no such path; the message names the closest ones.
        TypeError: when ``tree`` is not a dict.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(body=fnn.serial(fnn.dense(8), jax.nn.relu), head=fnn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> fnn.at(params, "body/dense_0/kernel").shape
        (3, 8)
        >>> sorted(fnn.at(params, "head"))
        ['bias', 'kernel']
    """
    if not isinstance(tree, dict):
        raise TypeError(f"tree must be nested dicts, such as run.params, got {type(tree).__name__}")
    part: Any = tree
    for name in filter(None, path.split("/")):
        if not isinstance(part, dict) or name not in part:
            raise ValueError(f"the tree has no path {path!r}: {_hint_at(path, tree)}")
        part = part[name]
    return part


def mask(params: Any, *patterns: str) -> Any:
    """Mark the leaves whose path matches one of the patterns.

    A pattern is matched against the whole path of a leaf as a shell would match a name, upper and lower case told
    apart: ``*`` stands for any characters, slashes included, ``?`` for one, ``[ab]`` for one of a set. So ``"head/*"``
    is all that the head owns, ``"*kernel"`` every kernel at any depth and ``"*/attention/*"`` every attention.

    Args:
        params: Any tree of arrays or `jax.ShapeDtypeStruct`.
        *patterns: At least one; a leaf needs to match only one of them.

    Returns:
        The tree of ``params`` with Python bools for leaves, as ``optax.masked``, ``optax.multi_transform`` and the
        ``mask`` of ``optax.add_decayed_weights`` take it.

    Raises:
        ValueError: when a pattern matches no leaf, naming the closest paths.

    Example:
        Train the head and freeze the rest. XLA drops the computation of the frozen gradients.

        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> net = fnn.serial(body=fnn.dense(8), head=fnn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> fnn.mask(params, "head/*")
        {'body': {'bias': False, 'kernel': False}, 'head': {'bias': True, 'kernel': True}}
        >>> optimizer = optax.multi_transform(
        ...     {True: optax.adam(1e-3), False: optax.set_to_zero()}, lambda params: fnn.mask(params, "head/*")
        ... )
        >>> grads = jax.tree.map(jnp.ones_like, params)
        >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
        >>> bool(jnp.any(updates["body"]["kernel"])), bool(jnp.any(updates["head"]["kernel"]))
        (False, True)

        Decay the kernels and nothing else:

        >>> optimizer = optax.adamw(1e-3, weight_decay=1e-2, mask=lambda params: fnn.mask(params, "*kernel"))
    """
    if not patterns:
        raise ValueError('mask got no pattern; give at least one, such as "head/*", or "*" for every leaf')
    return jax.tree.unflatten(jax.tree.structure(params), _select(params, patterns))


def count(tree: Any) -> int:
    """Count the scalars of a tree.

    Args:
        tree: Any tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
        The sum of the sizes of its leaves.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> params, state = fnn.dense(3).init(jax.random.key(0), jnp.ones((8, 5)))
        >>> fnn.count(params)
        18
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Add up the bytes that the arrays of a tree hold.

    Args:
        tree: Any tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
        The sum over its leaves of size times bytes per element.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> params, state = fnn.dense(3).init(jax.random.key(0), jnp.ones((8, 5)))
        >>> fnn.nbytes(params)
        72
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def l1(params: Any, *patterns: str) -> jax.Array:
    """Sum the absolute values of the leaves that match, as a penalty that favours zeros.

    Args:
        params: Any tree of arrays.
        *patterns: As in `mask`; none: every leaf.

    Returns:
        A scalar, float32 also where leaves are bfloat16. Its gradient is the sign, 0 for a weight of 0.

    Raises:
        ValueError: when a pattern matches no leaf.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([10.0])}
        >>> float(fnn.l1(params, "*kernel"))
        3.0
    """
    # jnp.abs has gradient 1 at 0, which would move weights away from where the penalty wants them.
    return _total(lambda leaf: jnp.where(leaf == 0, 0, jnp.abs(leaf)), params, patterns)


def l2(params: Any, *patterns: str) -> jax.Array:
    """Sum the squares of the leaves that match: the squared Euclidean norm, not halved.

    ``1e-4 * fnn.l2(params, "*kernel")`` added to a loss leaves out biases and norms; its gradient is
    ``2e-4 * kernel``. Decoupled weight decay (AdamW) is another thing: the ``mask`` of ``optax.adamw`` takes `mask`.

    Args:
        params: Any tree of arrays.
        *patterns: As in `mask`; none: every leaf.

    Returns:
        A scalar, float32 also where leaves are bfloat16.

    Raises:
        ValueError: when a pattern matches no leaf.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([10.0])}
        >>> float(fnn.l2(params, "*kernel")), float(fnn.l2(params))
        (5.0, 105.0)

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, arXiv:1711.05101.
    """
    return _total(lambda leaf: jnp.real(leaf * jnp.conj(leaf)), params, patterns)


def _select(tree: Any, patterns: tuple[str, ...]) -> list[bool]:
    """Which leaves match one of the patterns; a pattern that matches none is a mistake."""
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]
    selected = [False] * len(paths)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f'a pattern is a string such as "head/*", got {pattern!r}; unpack several: *patterns')
        matched = [fnmatch.fnmatchcase(path, pattern) for path in paths]
        if not any(matched):
            raise ValueError(f"{pattern!r} matches no leaf; {_hint(pattern, paths)}")
        selected = [old or new for old, new in zip(selected, matched)]
    return selected


def _hint_at(path: str, tree: dict[str, Any]) -> str:
    leaves = [jax.tree_util.keystr(place, simple=True, separator="/") for place, _ in jax.tree.leaves_with_path(tree)]
    if not leaves:
        return "it has no leaves"
    paths = dict.fromkeys(
        itertools.chain.from_iterable(itertools.accumulate(leaf.split("/"), "{}/{}".format) for leaf in leaves)
    )
    closest = ", ".join(difflib.get_close_matches(path, paths, n=3, cutoff=0.0))
    return f"the closest are {closest}; a layer that owns no arrays has no entry"


def _hint(pattern: str, paths: list[str]) -> str:
    if not paths:
        return "the tree has none"
    if any(fnmatch.fnmatchcase(path, f"{pattern}/*") for path in paths):
        return f"for all leaves below it write '{pattern}/*'"
    return f"the closest paths are {', '.join(difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0))}"


def _total(term: Callable[[jax.Array], jax.Array], params: Any, patterns: tuple[str, ...]) -> jax.Array:
    leaves = jax.tree.leaves(params)
    selected = _select(params, patterns) if patterns else [True] * len(leaves)
    total = jnp.zeros((), jnp.float32)
    for leaf in itertools.compress(leaves, selected):
        total = total + jnp.sum(term(widen(leaf)))
    return total
