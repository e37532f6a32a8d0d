from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

KEY = jax.random.key(0)
NO_TORCH = "compares with PyTorch, which is not installed"
IDS = np.array([[0, 3, 1], [2, 2, 5]])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layers() -> dict[str, tuple[fnn.Layer, np.ndarray]]:
    images = normal(2, 5, 5, 3)
    return {
        "dense": (fnn.dense(4), normal(3, 6)),
        "conv": (fnn.conv(4, (3, 2)), images),
        "depthwise_conv": (fnn.depthwise_conv((3, 3), multiplier=2), images),
        "conv_transpose": (fnn.conv_transpose(4, (3, 3), strides=2), images),
        "embedding": (fnn.embedding(6, 4), IDS),
    }


def as_matrix(weight: Any) -> np.ndarray:
    return np.float64(weight).reshape(-1, weight.shape[-1])


def weight_of(params: Any) -> Any:
    return params["embedding" if "embedding" in params else "kernel"]


in_every_layer = pytest.mark.parametrize("name", list(layers()))


@in_every_layer
def test_spectral_norm_divides_by_the_largest_singular_value(name: str) -> None:
    layer, x = layers()[name]
    net = fnn.spectral_norm(layer, num_iterations=100)
    params, state = net.init(KEY, x)
    chex.assert_trees_all_equal(params, layer.init(KEY, x)[0])
    y, state = jax.jit(net.apply, static_argnames="train")(params, state, x, train=True)
    largest = np.linalg.svd(as_matrix(weight_of(params)), compute_uv=False)[0]
    scaled = {name: leaf if name == "bias" else leaf / largest for name, leaf in params.items()}
    np.testing.assert_allclose(y, layer.apply(scaled, {}, x)[0], rtol=1e-4, atol=1e-5)
    still, same = net.apply(params, state, x)
    np.testing.assert_allclose(still, y, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(same, state)


@in_every_layer
def test_weight_norm_begins_as_the_layer_and_learns_length_and_direction_apart(name: str) -> None:
    layer, x = layers()[name]
    net = fnn.weight_norm(layer)
    params, state = net.init(KEY, x)
    bare, _ = layer.init(KEY, x)
    np.testing.assert_allclose(net.apply(params, state, x)[0], layer.apply(bare, {}, x)[0], rtol=1e-4, atol=1e-5)
    (scale,) = (leaf for path, leaf in params.items() if path.endswith("_scale"))
    np.testing.assert_allclose(scale, np.linalg.norm(as_matrix(weight_of(params)), axis=0), rtol=1e-5)
    grown = {path: 5 * leaf if path in ("kernel", "embedding") else leaf for path, leaf in params.items()}
    np.testing.assert_allclose(net.apply(grown, state, x)[0], net.apply(params, state, x)[0], rtol=1e-4, atol=1e-5)


def from_conv(weight: np.ndarray) -> np.ndarray:
    return np.moveaxis(weight, (0, 1), (-1, -2))


def from_conv_transpose(weight: np.ndarray) -> np.ndarray:
    return np.moveaxis(weight[..., ::-1, ::-1], (0, 1), (-2, -1))


# The layer, the module of PyTorch, the axis of its weight with one matrix row each, and from its weight to ours.
Peer = tuple[fnn.Layer, Callable[[Any], Any], int, Callable[[np.ndarray], np.ndarray], np.ndarray]


def peers() -> dict[str, Peer]:
    images = normal(2, 5, 5, 3)
    return {
        "dense": (fnn.dense(4), lambda nn: nn.Linear(6, 4), 0, np.transpose, normal(3, 6)),
        "conv": (fnn.conv(4, (3, 3), padding=1), lambda nn: nn.Conv2d(3, 4, 3, padding=1), 0, from_conv, images),
        "depthwise_conv": (
            fnn.depthwise_conv((3, 3), padding=1),
            lambda nn: nn.Conv2d(3, 3, 3, padding=1, groups=3),
            0,
            from_conv,
            images,
        ),
        "conv_transpose": (
            fnn.conv_transpose(4, (3, 3), strides=2, padding="VALID"),
            lambda nn: nn.ConvTranspose2d(3, 4, 3, stride=2),
            1,
            from_conv_transpose,
            images,
        ),
        "embedding": (fnn.embedding(6, 4), lambda nn: nn.Embedding(6, 4), 1, np.asarray, IDS),
    }


def first(x: np.ndarray) -> Any:
    return np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x


@pytest.mark.parametrize("name", list(peers()))
@pytest.mark.parametrize("kind", ["spectral_norm", "weight_norm"])
def test_values_and_gradients_are_those_of_pytorch(kind: str, name: str) -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    layer, make, dim, port, x = peers()[name]
    torch.manual_seed(0)
    module = make(torch.nn)
    getattr(torch.nn.utils.parametrizations, kind)(module, "weight", dim=dim)
    learned = module.parametrizations.weight
    weight = "embedding" if name == "embedding" else "kernel"
    bias = {} if name == "embedding" else {"bias": jnp.asarray(module.bias.detach().numpy())}
    if kind == "spectral_norm":
        net = fnn.spectral_norm(layer)
        original = learned.original
        params = {weight: jnp.asarray(port(original.detach().numpy())), **bias}
        shape = list(np.delete(original.shape, dim))
        v = np.expand_dims(learned[0]._v.numpy().reshape(shape), dim)
        left = port(v).reshape(-1)
        state = {weight: {"left": jnp.asarray(left), "right": jnp.asarray(learned[0]._u.numpy().copy())}}
    else:
        net = fnn.weight_norm(layer)
        original = learned.original1
        scale = learned.original0.detach().numpy().reshape(-1)
        params = {weight: jnp.asarray(port(original.detach().numpy())), f"{weight}_scale": jnp.asarray(scale), **bias}
        state = {}
    chex.assert_trees_all_equal_shapes((params, state), net.init(KEY, x))
    x_theirs = torch.from_numpy(first(x))

    def loss(params: Any, state: Any) -> Any:
        y, state = net.apply(params, state, x, train=True)
        return jnp.sum(jnp.sin(3 * y)), (y, state)

    step = jax.jit(jax.grad(loss, has_aux=True))
    grads = theirs = None
    for _ in range(3):
        grads, (y, state) = step(params, state)
        theirs = module(x_theirs)
        np.testing.assert_allclose(first(np.asarray(y)), theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert grads is not None
    assert theirs is not None
    module.zero_grad()
    torch.sin(3 * theirs).sum().backward()
    np.testing.assert_allclose(grads[weight], port(original.grad.numpy()), rtol=2e-4, atol=2e-4)
    if kind == "weight_norm":
        wanted = learned.original0.grad.numpy().reshape(-1)
        np.testing.assert_allclose(grads[f"{weight}_scale"], wanted, rtol=2e-4, atol=2e-4)
    module.eval()
    y, same = net.apply(params, state, x)
    np.testing.assert_allclose(first(np.asarray(y)), module(x_theirs).detach().numpy(), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(same, state)


@pytest.mark.parametrize(("axis", "over"), [(None, (0, 1)), (0, 1), (-1, 0)])
def test_weight_norm_scales_along_the_axis_that_it_is_given(axis: int | None, over: Any) -> None:
    layer = fnn.embedding(6, 4)
    params, state = fnn.weight_norm(layer, axis=axis).init(KEY, IDS)
    table = np.float64(params["embedding"])
    lengths = np.sqrt(np.sum(table**2, over))
    np.testing.assert_allclose(params["embedding_scale"], lengths, rtol=1e-5)
    scaled = {**params, "embedding_scale": jnp.ones_like(params["embedding_scale"])}
    wanted = (table / np.sqrt(np.sum(table**2, over, keepdims=True)))[IDS]
    np.testing.assert_allclose(fnn.weight_norm(layer, axis=axis).apply(scaled, state, IDS)[0], wanted, rtol=1e-5)


def test_zeros_under_weight_norm_have_finite_gradients() -> None:
    net = fnn.weight_norm(fnn.dense(2, kernel_init=jax.nn.initializers.zeros))
    params, state = net.init(KEY, normal(3, 4))
    grads = jax.grad(lambda params: jnp.sum(net.apply(params, state, normal(3, 4))[0]))(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_a_network_is_normalised_layer_by_layer_within_stacks_and_ensembles_too() -> None:
    x = normal(3, 4)
    plain = fnn.serial(fnn.stack(fnn.residual(fnn.dense(4)), 2), fnn.ensemble(fnn.serial(fnn.dense(2)), 3))
    net = fnn.map_layers(lambda layer: fnn.spectral_norm(layer) if layer.name == "dense" else layer, plain)
    params, state = net.init(KEY, x)
    chex.assert_trees_all_equal(params, plain.init(KEY, x)[0])
    assert state["stack_0"]["0"]["body"]["kernel"]["left"].shape == (4,)
    assert state["serial_0"]["dense_0"]["kernel"]["right"].shape == (3, 2)
    step = jax.jit(lambda state: net.apply(params, state, x, train=True))
    for _ in range(40):
        _, state = step(state)
    y, _ = step(state)
    h = np.float64(x)
    divided = lambda matrix: np.float64(matrix) / np.linalg.svd(np.float64(matrix), compute_uv=False)[0]
    for kernel in params["stack_0"]["body"]["kernel"]:
        h = h + h @ divided(kernel)
    wanted = [h @ divided(kernel) for kernel in params["serial_0"]["dense_0"]["kernel"]]
    np.testing.assert_allclose(y, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("wrapper", [fnn.spectral_norm, fnn.weight_norm])
def test_half_precision_keeps_parameters_and_vectors_wide(wrapper: Any) -> None:
    net = fnn.mixed_precision(wrapper(fnn.dense(2)))
    params, state = net.init(KEY, normal(3, 4))
    y, new = net.apply(params, state, normal(3, 4), train=True)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, state, new, y))} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fnn.spectral_norm(fnn.serial(fnn.dense(2))),
            "spectral_norm wants a layer without children, got serial",
        ),
        (lambda: fnn.weight_norm(fnn.stack(fnn.dense(2), 2)), "weight_norm wants .*; wrap its block"),
        (
            lambda: fnn.spectral_norm(fnn.prelu()),
            r"looks for kernel, embedding, and prelu owns negative_slope; pass names",
        ),
        (lambda: fnn.weight_norm(fnn.dense(2), names=("bias",)), "wants weights with two axes or more; bias of dense"),
        (lambda: fnn.weight_norm(fnn.dense(2), axis=2), "weight_norm got axis=2, and kernel has 2 axes"),
        # All members shared one norm.
        (lambda: fnn.spectral_norm(fnn.remat(fnn.ensemble(fnn.dense(2), 3))), "spectral_norm wants .* wrap its member"),
        (lambda: fnn.weight_norm(fnn.ensemble(fnn.dense(2), 3)), "weight_norm wants .* wrap its member"),
        # Both were made, and apply failed on a name that was overwritten.
        (lambda: fnn.spectral_norm(fnn.spectral_norm(fnn.dense(2))), "finds kernel of .* normalised already"),
        (lambda: fnn.weight_norm(fnn.weight_norm(fnn.dense(2))), "finds kernel of .* normalised already"),
    ],
)
def test_what_cannot_be_normalised_is_an_error(make: Any, message: str) -> None:
    with pytest.raises(fnn.LayerError, match=message):
        make().init(KEY, normal(3, 4))


@pytest.mark.parametrize("wrapper", [fnn.spectral_norm, fnn.weight_norm])
def test_one_name_as_a_string_is_an_error(wrapper: Any) -> None:
    with pytest.raises(TypeError, match=r"names must be a sequence .* pass names=\('kernel',\)"):
        wrapper(fnn.dense(2), names="kernel")


def test_trees_of_the_layer_without_normalisation_are_an_error() -> None:
    # The message was "has no 'kernel'".
    x = normal(3, 4)
    params, state = fnn.dense(2).init(KEY, x)
    with pytest.raises(fnn.LayerError, match=r"state lacks 'kernel' \(it has nothing\); pass the trees"):
        fnn.spectral_norm(fnn.dense(2)).apply(params, state, x)
    with pytest.raises(fnn.LayerError, match=r"params lacks 'kernel_scale' \(it has .*'kernel'.*\); pass"):
        fnn.weight_norm(fnn.dense(2)).apply(params, state, x)
