"""Weights computed from other parameters: spectral and weight normalisation."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnn.core.errors import LayerError
from fnn.core.keys import fold
from fnn.core.layer import Layer, Plan, make_layer
from fnn.core.leaf import as_layer
from fnn.core.specs import Spec
from fnn.ops.checks import check_positive_int
from fnn.ops.dtypes import wide, widen

_WEIGHTS = ("kernel", "embedding")
_FIRST_ITERATIONS = 15  # at init, as many as PyTorch runs


def spectral_norm(
    layer: Any, *, names: Sequence[str] = _WEIGHTS, num_iterations: int = 1, epsilon: float = 1e-12
) -> Layer:
    """Spectral normalisation: divide weights of a layer by their largest singular value.

    A weight ``(..., features)`` counts as a matrix with ``features`` columns. The state holds its singular vectors, and
    power iteration updates them in each call with ``train=True``. The singular value is differentiated with respect to
    the weight, and the vectors are constants, as in PyTorch.

    Args:
        layer: A layer without children, such as `dense`, `conv`, `depthwise_conv`, `conv_transpose` or `embedding`. In
            a network, replace each by `fnn.map_layers`. Wrap the block of a `stack` and the member of an `ensemble`.
        names: Which parameters to divide; those that the layer lacks are ignored.
        num_iterations: Power iterations for each call with ``train=True``.
        epsilon: Smallest length that vectors are divided by.

    Returns:
        A layer with the name, parameters and initial values of ``layer``.

        - params: those of ``layer``, not normalised
        - state: that of ``layer``, and for each weight its singular vectors ``kernel/left (rows,)`` and
          ``kernel/right (features,)``

    Raises:
        TypeError: if ``names`` is a string.
        LayerError: if ``layer`` has children, or is a stack or an ensemble; at init, if it has no such weight, one with
            fewer than two axes, or one that is normalised already.

    Note:
        What reads parameters itself, such as tied embeddings in `fnn.wire`, reads those that are not normalised.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.spectral_norm(fnn.dense(8)), jax.nn.relu, fnn.spectral_norm(fnn.dense(1)))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> y, state = net.apply(params, state, jnp.ones((2, 4)), train=True)
        >>> state["dense_0"]["kernel"]["left"].shape
        (4,)

        The convolutions of a network:

        >>> net = fnn.serial(fnn.conv(8, (3, 3)), jax.nn.relu, fnn.conv(8, (3, 3)))
        >>> net = fnn.map_layers(lambda layer: fnn.spectral_norm(layer) if layer.name == "conv" else layer, net)

    References:
        Miyato, Kataoka, Koyama and Yoshida, Spectral normalization for generative adversarial networks, 2018,
        arXiv:1802.05957.
    """
    inner = _single("spectral_norm", layer, names)
    check_positive_int("num_iterations", num_iterations)

    def unit(vector: jax.Array) -> jax.Array:
        return vector / jnp.maximum(jnp.linalg.norm(vector), epsilon)

    def iterate(matrix: jax.Array, vectors: Any, count: int) -> Any:
        matrix, vectors = lax.stop_gradient((matrix, vectors))

        def once(_: Any, vectors: Any) -> Any:
            right = unit(jnp.matmul(vectors["left"], matrix, precision="highest"))
            return {"left": unit(jnp.matmul(matrix, right, precision="highest")), "right": right}

        return lax.fori_loop(0, count, once, vectors) if count else vectors

    def as_matrix(weight: jax.Array) -> jax.Array:
        return widen(weight).reshape(-1, weight.shape[-1])

    def plan(made: Layer, *xs: Any) -> Plan:
        one = inner._plan(*xs)
        weights = _weights("spectral_norm", inner, one.params, names, one.state)
        vectors = {
            name: {
                "left": Spec((math.prod(spec.shape[:-1]),), wide(spec.dtype)),
                "right": Spec(spec.shape[-1:], wide(spec.dtype)),
            }
            for name, spec in weights.items()
        }

        def make(key: jax.Array) -> Any:
            random = {
                name: {
                    side: unit(jax.random.normal(fold(key, f"{name}_{side}"), spec.shape, spec.dtype))
                    for side, spec in pair.items()
                }
                for name, pair in vectors.items()
            }
            params, state = one.make(key)
            found = {name: iterate(as_matrix(params[name]), pair, _FIRST_ITERATIONS) for name, pair in random.items()}
            return params, state | found

        return one._replace(layer=made, state=one.state | vectors, make=make)

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        normalised, vectors = {}, {}
        for name in [name for name in names if name in params]:
            _check_entry("state", state, name)
            matrix = as_matrix(params[name])
            found = vectors[name] = iterate(matrix, state[name], num_iterations if train else 0)
            largest = jnp.vdot(found["left"], jnp.matmul(matrix, found["right"], precision="highest"))
            normalised[name] = (widen(params[name]) / largest).astype(params[name].dtype)
        own = {name: tree for name, tree in state.items() if name not in vectors}
        y, own = inner.apply(params | normalised, own, *xs, key=key, train=train)
        return y, own | vectors

    return make_layer(inner.name, plan, apply, describe=lambda: f"spectral_norm({inner!r})")


def weight_norm(layer: Any, *, names: Sequence[str] = _WEIGHTS, axis: int | None = -1) -> Layer:
    """Weight normalisation: learn the length and the direction of weights apart.

    A weight v is used as ``scale * v / norm(v)``, with one norm for each index of ``axis``, over all other axes.

    Args:
        layer: A layer without children, such as `dense`, `conv`, `depthwise_conv`, `conv_transpose` or `embedding`. In
            a network, replace each by `fnn.map_layers`. Wrap the block of a `stack` and the member of an `ensemble`.
        names: Which parameters to normalise; those that the layer lacks are ignored.
        axis: The axis that has one scale for each index. -1: one scale for each feature. 0: one for each id of an
            embedding. None: one for the whole weight.

    Returns:
        A layer with the name, state and initial values of ``layer``.

        - params: those of ``layer``, and a scale for each weight, ``kernel_scale (features,)``, or ``()`` without axis;
          at init it is the norm of the weight

    Raises:
        TypeError: if ``names`` is a string.
        LayerError: if ``layer`` has children, or is a stack or an ensemble; at init, if it has no such weight, one with
            fewer than two axes, or one that is normalised already.

    Note:
        What reads parameters itself, such as tied embeddings in `fnn.wire`, reads those that are not normalised.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.weight_norm(fnn.dense(3))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> jax.tree.map(jnp.shape, params)
        {'bias': (3,), 'kernel': (4, 3), 'kernel_scale': (3,)}

    References:
        Salimans and Kingma, Weight normalization: a simple reparameterization to accelerate training of deep neural
        networks, 2016, arXiv:1602.07868.
    """
    inner = _single("weight_norm", layer, names)

    def squares(weight: jax.Array) -> jax.Array:
        """Sums of squares, with axes of size 1 where they were taken."""
        axes = [other for other in range(weight.ndim) if axis is None or other != axis % weight.ndim]
        return jnp.sum(widen(weight) ** 2, axes, keepdims=True)

    def scale_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if axis is not None and not -len(shape) <= axis < len(shape):
            raise LayerError(f"weight_norm got axis={axis}, and {name} has {len(shape)} axes")
        return () if axis is None else (shape[axis],)

    def plan(made: Layer, *xs: Any) -> Plan:
        one = inner._plan(*xs)
        scales = {
            f"{name}_scale": Spec(scale_shape(name, spec.shape), spec.dtype)
            for name, spec in _weights("weight_norm", inner, one.params, names, one.params, "_scale").items()
        }

        def make(key: jax.Array) -> Any:
            params, state = one.make(key)
            lengths = {
                name: jnp.sqrt(squares(params[name.removesuffix("_scale")])).reshape(spec.shape).astype(spec.dtype)
                for name, spec in scales.items()
            }
            return params | lengths, state

        return one._replace(layer=made, params=one.params | scales, make=make)

    def apply(params: Any, state: Any, xs: Any, key: Any, train: bool) -> Any:
        weights = {name: params[name] for name in names if name in params}
        own = {name: tree for name, tree in params.items() if name.removesuffix("_scale") not in weights}
        for name, weight in weights.items():
            _check_entry("params", params, f"{name}_scale")
            total = squares(weight)
            scale = widen(params[f"{name}_scale"]).reshape(total.shape)
            factor = jnp.where(total > 0, scale * lax.rsqrt(jnp.where(total > 0, total, 1)), 0)
            own[name] = (widen(weight) * factor).astype(weight.dtype)
        return inner.apply(own, state, *xs, key=key, train=train)

    return make_layer(inner.name, plan, apply, describe=lambda: f"weight_norm({inner!r})")


def _single(kind: str, layer: Any, names: Any) -> Layer:
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of names, got the string {names!r}; pass names=({names!r},)")
    inner = as_layer(layer)
    is_ensemble = "ensemble[" in repr(inner)  # it has the name and the children of its member
    if inner.children or inner.name == "stack" or is_ensemble:
        fix = "wrap its layers, by fnn.map_layers for example"
        fix = "wrap its member" if is_ensemble else "wrap its block" if inner.name == "stack" else fix
        raise LayerError(f"{kind} wants a layer without children, got {inner!r}; {fix}")
    return inner


def _check_entry(kind: str, tree: dict[str, Any], name: str) -> None:
    if name not in tree:
        have = ", ".join(map(repr, tree)) or "nothing"
        raise LayerError(
            f"{kind} lacks {name!r} (it has {have}); pass the trees that this network's init returned, not those of a "
            "layer without normalisation"
        )


def _weights(
    kind: str, inner: Layer, params: Any, names: Sequence[str], owned: dict[str, Any], suffix: str = ""
) -> dict[str, Any]:
    """The specs of the weights to normalise; ``owned`` lacks the entries that the normalisation adds."""
    found = {name: params[name] for name in names if name in params}
    if not found:
        have = ", ".join(params) or "nothing"
        raise LayerError(f"{kind} looks for {', '.join(names)}, and {inner.name} owns {have}; pass names=(...)")
    for name, weight in found.items():
        if isinstance(weight, dict) or len(weight.shape) < 2:
            raise LayerError(f"{kind} wants weights with two axes or more; {name} of {inner.name} has fewer")
        if name + suffix in owned:
            raise LayerError(f"{kind} finds {name} of {inner!r} normalised already; wrap the layer once")
    return found
