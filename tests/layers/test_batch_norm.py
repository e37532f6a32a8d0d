from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

CHANNELS = 3


def normal(*shape: int, seed: int = 0, mean: float = 2.0, spread: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, shape).astype(np.float32)


def trees(net: fnn.Layer, x: Any, *more: Any) -> tuple[Any, Any]:
    """Parameters and state that are not the ones every layer starts from."""
    params, state = net.init(jax.random.key(0), x, *more)
    params = {name: leaf + jnp.asarray(normal(CHANNELS, seed=5, mean=0)) for name, leaf in params.items()}
    return params, {"mean": state["mean"] + 0.5, "var": state["var"] * 2}


def close(a: Any, b: Any, atol: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol), a, b)


def test_training_agrees_with_pytorch_in_values_and_gradients() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x, weight = normal(4, 5, 6, CHANNELS), normal(4, 5, 6, CHANNELS, seed=1)
    net = fnn.batch_norm(momentum=0.8, epsilon=1e-3)
    params, state = trees(net, x)

    def score(params: Any, x: Any) -> Any:
        y, new = net.apply(params, state, x, train=True)
        return jnp.vdot(y, weight), (y, new)

    (grads, x_grad), (y, new) = jax.jit(jax.grad(score, (0, 1), has_aux=True))(params, x)

    peer = torch.nn.BatchNorm2d(CHANNELS, eps=1e-3, momentum=0.2)
    with torch.no_grad():
        for name, leaf in (("weight", params["scale"]), ("bias", params["bias"])):
            getattr(peer, name).copy_(torch.from_numpy(np.array(leaf)))
        peer.running_mean.copy_(torch.from_numpy(np.array(state["mean"])))
        peer.running_var.copy_(torch.from_numpy(np.array(state["var"])))
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    out = peer(tensor)
    (out * torch.from_numpy(weight.transpose(0, 3, 1, 2).copy())).sum().backward()

    back = lambda tensor: tensor.detach().numpy().transpose(0, 2, 3, 1)
    close(y, back(out))
    close(x_grad, back(tensor.grad), atol=1e-4)
    close(grads["scale"], peer.weight.grad.numpy(), atol=1e-3)
    close(grads["bias"], peer.bias.grad.numpy(), atol=1e-3)
    close(new["mean"], peer.running_mean.numpy())
    count = x.size // CHANNELS
    unbiased = 0.8 * state["var"] + (new["var"] - 0.8 * state["var"]) * count / (count - 1)
    close(unbiased, peer.running_var.numpy())


def test_inference_agrees_with_the_formula_and_leaves_the_state() -> None:
    x = normal(4, CHANNELS)
    net = fnn.batch_norm(epsilon=1e-2)
    params, state = trees(net, x)
    y, new = net.apply(params, state, x)
    close(y, (x - 0.5) / np.sqrt(2 + 1e-2) * params["scale"] + params["bias"])
    assert new["mean"] is state["mean"]
    assert new["var"] is state["var"]


def test_running_statistics_are_the_moving_mean_of_biased_ones() -> None:
    net = fnn.batch_norm(momentum=0.7)
    params, state = net.init(jax.random.key(0), normal(6, 4, CHANNELS))
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    for seed in range(3):
        x = normal(6, 4, CHANNELS, seed=seed)
        _, state = net.apply(params, state, x, train=True)
        mean, var = 0.7 * mean + 0.3 * x.mean((0, 1)), 0.7 * var + 0.3 * x.var((0, 1))
    close(state, {"mean": mean, "var": var})


def test_a_large_mean_leaves_the_variance_exact() -> None:
    x = normal(32, 8, CHANNELS, mean=1e4, spread=1.0)
    net = fnn.batch_norm(momentum=0.0)
    y, state = net.apply(*net.init(jax.random.key(0), x), x, train=True)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(state["var"], exact.var((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(y, (exact - exact.mean((0, 1))) / exact.std((0, 1)), atol=5e-3)


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_is_normalised_in_float32(train: bool) -> None:
    x = jnp.asarray(normal(8, 5, CHANNELS, mean=50.0), jnp.bfloat16)
    net = fnn.batch_norm()
    params, state = trees(net, x)
    y, new = net.apply(params, state, x, train=train)
    wide, expected = net.apply(params, state, x.astype(jnp.float32), train=train)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))
    close(new, expected, atol=0)
    assert {leaf.dtype.name for leaf in new.values()} == {"float32"}


def test_float64_is_normalised_in_float64_and_the_state_stays_float32() -> None:
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(1e4, 1.0, (16, CHANNELS))
        net = fnn.batch_norm(epsilon=0.0)
        y, state = net.apply(*net.init(jax.random.key(0), x), x, train=True)
        np.testing.assert_allclose(y, (x - x.mean(0)) / x.std(0), atol=1e-9)
        assert {leaf.dtype.name for leaf in state.values()} == {"float32"}


def test_examples_that_the_mask_leaves_out_change_nothing() -> None:
    x = normal(6, 4, CHANNELS)
    outlier = x.copy()
    outlier[[1, 4]] = 1e6
    mask = np.array([True, False, True, True, False, True])
    net = fnn.batch_norm()
    params, state = trees(net, x, mask)
    y, new = net.apply(params, state, outlier, mask, train=True)
    expected_y, expected = net.apply(params, state, x[mask], train=True)
    close(y[mask], expected_y)
    close(new, expected)


def test_a_weight_of_two_counts_an_example_twice() -> None:
    x = normal(3, 4, CHANNELS)
    net = fnn.batch_norm()
    params, state = trees(net, x)
    y, new = net.apply(params, state, x, np.array([2.0, 1.0, 0.0], np.float32), train=True)
    expected_y, expected = net.apply(params, state, x[[0, 0, 1]], train=True)
    close(np.asarray(y)[[0, 0, 1]], expected_y)
    close(new, expected)


def test_a_mask_may_reach_over_space() -> None:
    x, mask = normal(2, 5, CHANNELS), np.arange(5) < np.array([[3], [5]])
    net = fnn.batch_norm(momentum=0.0)
    params, state = trees(net, x, mask)
    _, new = net.apply(params, state, np.where(mask[..., None], x, 1e6), mask, train=True)
    close(new, {"mean": x[mask].mean(0), "var": x[mask].var(0)})


def test_a_mask_that_counts_nothing_is_finite_and_keeps_the_state() -> None:
    x, mask = normal(4, CHANNELS), np.zeros(4, bool)
    net = fnn.batch_norm()
    params, state = trees(net, x, mask)

    def score(params: Any, x: Any) -> Any:
        y, new = net.apply(params, state, x, mask, train=True)
        return jnp.sum(jnp.sin(y)), new

    (loss, new), grads = jax.jit(jax.value_and_grad(score, (0, 1), has_aux=True))(params, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grads)))
    close(new, state, atol=0)


def test_inference_ignores_the_mask() -> None:
    x = normal(4, CHANNELS)
    net = fnn.batch_norm()
    params, state = trees(net, x)
    np.testing.assert_array_equal(
        net.apply(params, state, x)[0], net.apply(params, state, x, np.array([1, 0, 0, 1]))[0]
    )


@pytest.mark.parametrize("shape", [(), (3,), (4, 2), (4, 5, CHANNELS)])
def test_a_mask_that_does_not_fit_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(fnn.LayerError, match=r"mask has shape .*, wanted \(batch,\) or \(batch, \*space\)"):
        fnn.batch_norm().init(jax.random.key(0), np.ones((4, 5, CHANNELS), np.float32), np.ones(shape))


@pytest.mark.parametrize("train", [False, True])
def test_nan_in_an_example_that_the_mask_leaves_out_reaches_nothing(train: bool) -> None:
    # It was multiplied by a weight of 0: statistics, running statistics and gradients were NaN.
    x, mask = jnp.asarray(normal(6, 4, CHANNELS)), np.array([True, False, True, True, False, True])
    net = fnn.batch_norm()
    params, state = trees(net, x, mask)

    @jax.jit
    def run(params: Any, x: Any) -> Any:
        def loss(params: Any, x: Any) -> Any:
            y, new = net.apply(params, state, x, mask, train=train)
            return jnp.sum(jnp.sin(jnp.where(mask[:, None, None], y, 0))), (y[mask], new)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    left_out = ~mask[:, None, None]
    close(run(params, jnp.where(left_out, jnp.inf, x)), run(params, jnp.where(left_out, 0, x)), atol=1e-6)


def test_a_batch_without_rows_keeps_the_running_statistics() -> None:
    # The mean of nothing is NaN, and so were the running statistics from then on.
    net = fnn.batch_norm()
    params, state = trees(net, normal(2, CHANNELS))
    y, new = net.apply(params, state, jnp.zeros((0, CHANNELS)), train=True)
    assert y.shape == (0, CHANNELS)
    close(new, state)


@pytest.mark.parametrize("masked", [False, True])
def test_axis_name_under_vmap_is_one_big_batch(masked: bool) -> None:
    x = jnp.asarray(normal(4, 3, 5, CHANNELS))
    weight = jnp.asarray(normal(4, 3, 5, CHANNELS, seed=1))
    mask = jnp.asarray(np.random.default_rng(2).random((4, 3)) < 0.6)
    whole, split = fnn.batch_norm(), fnn.batch_norm(axis_name="devices")
    params, state = trees(whole, x[0])

    def score(net: fnn.Layer, params: Any, x: Any, weight: Any, mask: Any) -> Any:
        y, new = net.apply(params, state, x, *((mask,) if masked else ()), train=True)
        return jnp.vdot(y, weight), (y, new)

    def one(params: Any, x: Any) -> Any:
        join = lambda array: array.reshape(-1, *array.shape[2:])
        return score(whole, params, join(x), join(weight), join(mask))

    def many(params: Any, x: Any) -> Any:
        parts = jax.vmap(lambda x, weight, mask: score(split, params, x, weight, mask), axis_name="devices")
        loss, aux = parts(x, weight, mask)
        return jnp.sum(loss), aux

    grads, (y, new) = jax.jit(jax.grad(one, (0, 1), has_aux=True))(params, x)
    split_grads, (split_y, split_new) = jax.jit(jax.grad(many, (0, 1), has_aux=True))(params, x)
    close(split_y.reshape(y.shape), y)
    close(split_grads, grads, atol=2e-4)
    for device in range(4):
        close(jax.tree.map(lambda leaf, device=device: leaf[device], split_new), new)


def test_axis_names_may_be_several_and_map_over_single_examples() -> None:
    x = jnp.asarray(normal(2, 4, CHANNELS))
    net = fnn.batch_norm(axis_name=("outer", "inner"))
    params, state = trees(net, x[0, 0])
    run = lambda x: net.apply(params, state, x, train=True)
    y, new = jax.jit(jax.vmap(jax.vmap(run, axis_name="inner"), axis_name="outer"))(x)
    expected_y, expected = fnn.batch_norm().apply(params, state, x, train=True)
    close(y, expected_y)
    close(jax.tree.map(lambda leaf: leaf[1, 3], new), expected)


def test_axis_name_works_under_shard_map() -> None:
    x = jnp.asarray(normal(4, CHANNELS))
    net = fnn.batch_norm(axis_name="devices")
    params, state = trees(net, x)
    mesh = jax.make_mesh((1,), ("devices",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec
    run = lambda x: net.apply(params, state, x, train=True)
    sharded = jax.shard_map(run, mesh=mesh, in_specs=spec("devices"), out_specs=(spec("devices"), spec()))
    y, new = jax.jit(sharded)(x)
    expected_y, expected = fnn.batch_norm().apply(params, state, x, train=True)
    close(y, expected_y)
    close(new, expected)


def test_inference_needs_no_mapped_axis() -> None:
    x = normal(4, CHANNELS)
    net = fnn.batch_norm(axis_name="devices")
    params, state = trees(net, x)
    np.testing.assert_array_equal(net.apply(params, state, x)[0], fnn.batch_norm().apply(params, state, x)[0])


def test_momentum_and_epsilon_may_be_traced() -> None:
    x = normal(6, CHANNELS)
    params, state = trees(fnn.batch_norm(), x)

    @jax.jit
    @jax.vmap
    def run(momentum: Any, epsilon: Any) -> Any:
        net = fnn.batch_norm(momentum=momentum, epsilon=epsilon)
        net.init(jax.random.key(0), x)
        return net.apply(params, state, x, train=True)

    momenta, epsilons = np.array([0.5, 0.99], np.float32), np.array([1e-1, 1e-4], np.float32)
    many = run(momenta, epsilons)
    for number in range(2):
        net = fnn.batch_norm(momentum=float(momenta[number]), epsilon=float(epsilons[number]))
        one = net.apply(params, state, x, train=True)
        close(jax.tree.map(lambda leaf, number=number: leaf[number], many), one)


@pytest.mark.parametrize("momentum", [-0.1, 1.5, float("nan")])
def test_a_concrete_momentum_outside_its_range_is_an_error(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"momentum must lie in \[0\.0, 1\.0\]"):
        fnn.batch_norm(momentum=momentum)


def test_a_negative_epsilon_is_an_error() -> None:
    with pytest.raises(ValueError, match="epsilon must lie in"):
        fnn.batch_norm(epsilon=-1e-5)


@pytest.mark.parametrize(
    ("scale", "bias", "names"),
    [(False, False, set()), (True, False, {"scale"}), (False, True, {"bias"}), (True, True, {"scale", "bias"})],
)
def test_scale_and_bias_may_be_left_out(scale: bool, bias: bool, names: set[str]) -> None:
    x = normal(4, CHANNELS)
    net = fnn.batch_norm(scale=scale, bias=bias)
    params, state = net.init(jax.random.key(0), x)
    assert set(params) == names
    close(net.apply(params, state, x, train=True)[0], (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5))


def test_initializers_and_dtype_are_those_given() -> None:
    constant = jax.nn.initializers.constant
    net = fnn.batch_norm(scale_init=constant(2.0), bias_init=constant(-1.0), dtype=jnp.bfloat16)
    params, state = net.init(jax.random.key(0), normal(4, CHANNELS))
    assert params["scale"].tolist() == [2.0] * CHANNELS
    assert params["bias"].tolist() == [-1.0] * CHANNELS
    assert {leaf.dtype.name for leaf in params.values()} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in state.values()} == {"float32"}


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (jnp.ones(3), r"x has shape \(3,\), wanted \(batch, \*space, channels\)"),
        (jnp.ones((2, 3), jnp.uint8), r"x is uint8, wanted a floating dtype"),
        (jnp.ones((2, 3), jnp.complex64), r"x is complex64, wanted a real dtype"),
    ],
)
def test_a_wrong_input_is_an_error_at_init(x: Any, text: str) -> None:
    with pytest.raises(fnn.LayerError, match=text):
        fnn.batch_norm().init(jax.random.key(0), x)


def test_a_missing_scale_is_an_error() -> None:
    x = normal(4, CHANNELS)
    net = fnn.batch_norm()
    params, state = net.init(jax.random.key(0), x)
    with pytest.raises(fnn.LayerError, match="params lacks 'scale'"):
        net.apply({"bias": params["bias"]}, state, x)
