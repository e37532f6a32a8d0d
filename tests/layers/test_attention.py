"""Attention agrees with PyTorch, sees what it may see, and goes on where its cache ended."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

BATCH, TIME, FEATURES, HEADS = 2, 6, 16, 4
x = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
memory = np.random.default_rng(1).normal(size=(BATCH, 5, 12)).astype(np.float32)
PADDING = np.array([[True] * 6, [True] * 4 + [False] * 2])
normal = jax.nn.initializers.normal(0.5)


def torch_attention(memory_features: int = FEATURES) -> Any:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(FEATURES, HEADS, batch_first=True, kdim=memory_features, vdim=memory_features)
    torch.nn.init.normal_(module.in_proj_bias)
    torch.nn.init.normal_(module.out_proj.bias)
    return torch, module


def from_torch(module: Any) -> dict[str, Any]:
    array = lambda tensor: jnp.asarray(tensor.detach().numpy())
    if module.in_proj_weight is None:
        kernels = [array(getattr(module, f"{name}_proj_weight")).T for name in "qkv"]
    else:
        kernels = [kernel.T for kernel in jnp.split(array(module.in_proj_weight), 3)]
    biases = jnp.split(array(module.in_proj_bias), 3)
    params = {f"{name}_kernel": kernel for name, kernel in zip(("query", "key", "value"), kernels)}
    params |= {f"{name}_bias": bias for name, bias in zip(("query", "key", "value"), biases)}
    return params | {"out_kernel": array(module.out_proj.weight).T, "out_bias": array(module.out_proj.bias)}


@pytest.mark.parametrize("case", ["everything", "causal", "padding", "a bias", "a mask for each head"])
def test_self_attention_is_that_of_pytorch(case: str) -> None:
    torch, module = torch_attention()
    rng = np.random.default_rng(2)
    bias = rng.normal(size=(BATCH, HEADS, TIME, TIME)).astype(np.float32)
    seen = rng.random((BATCH, HEADS, TIME, TIME)) < 0.7
    seen[..., 0] = True
    flat = lambda array: torch.tensor(array.reshape(-1, TIME, TIME))
    theirs_options, masks, options = {
        "everything": ({}, (), {}),
        "causal": ({"attn_mask": torch.ones(TIME, TIME, dtype=bool).triu(1)}, (), {"causal": True}),
        "padding": ({"key_padding_mask": torch.tensor(~PADDING)}, (PADDING,), {}),
        "a bias": ({"attn_mask": flat(bias)}, (bias,), {}),
        "a mask for each head": ({"attn_mask": flat(~seen)}, (seen,), {}),
    }[case]
    tensor = torch.tensor(x)
    theirs, _ = module(tensor, tensor, tensor, **theirs_options)
    y, _ = fnn.attention(HEADS, **options).apply(from_torch(module), {}, x, *masks)
    np.testing.assert_allclose(y, theirs.detach(), atol=1e-5)


def test_cross_attention_is_that_of_pytorch() -> None:
    torch, module = torch_attention(memory.shape[-1])
    theirs, _ = module(torch.tensor(x), torch.tensor(memory), torch.tensor(memory))
    y, _ = fnn.cross_attention(HEADS).apply(from_torch(module), {}, x, memory)
    np.testing.assert_allclose(y, theirs.detach(), atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_heads_are_those_of_pytorch(kv_heads: int, key: jax.Array) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    net = fnn.attention(HEADS, kv_heads=kv_heads, causal=True)
    params, _ = net.init(key, x)
    assert params["key_kernel"].shape == (FEATURES, kv_heads * FEATURES // HEADS)

    def heads(name: str, count: int) -> Any:
        y = x @ np.asarray(params[f"{name}_kernel"])
        return torch.tensor(y.reshape(BATCH, TIME, count, -1).transpose(0, 2, 1, 3))

    theirs = torch.nn.functional.scaled_dot_product_attention(
        heads("query", HEADS), heads("key", kv_heads), heads("value", kv_heads), is_causal=True, enable_gqa=True
    )
    wanted = theirs.numpy().transpose(0, 2, 1, 3).reshape(BATCH, TIME, -1) @ np.asarray(params["out_kernel"])
    np.testing.assert_allclose(net.apply(params, {}, x)[0], wanted, atol=1e-5)


def test_lengths_are_a_padding_mask(key: jax.Array) -> None:
    net = fnn.attention(HEADS)
    params, _ = net.init(key, x)
    chex.assert_trees_all_equal(net.apply(params, {}, x, np.array([6, 4])), net.apply(params, {}, x, PADDING))


def test_padding_changes_nothing(key: jax.Array) -> None:
    net = fnn.attention(HEADS, positions=fnn.Rotary())
    params, _ = net.init(key, x)
    y, _ = net.apply(params, {}, x, np.array([6, 4]))
    alone, _ = net.apply(params, {}, x[1:, :4])
    np.testing.assert_allclose(y[1, :4], alone[0], atol=1e-6)


def test_a_query_that_sees_nothing_gets_the_bias_of_the_output(key: jax.Array) -> None:
    net = fnn.attention(HEADS, bias_init=normal)
    params, _ = net.init(key, x)
    nothing = jnp.zeros((BATCH, TIME), bool)
    y, pullback = jax.vjp(lambda params, x: net.apply(params, {}, x, nothing)[0], params, jnp.asarray(x))
    np.testing.assert_allclose(y, jnp.broadcast_to(params["out_bias"], y.shape), atol=1e-6)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(pullback(jnp.ones_like(y))))


def test_traced_lengths_that_do_not_fit_give_nan(key: jax.Array) -> None:
    net = fnn.attention(HEADS)
    params, _ = net.init(key, x)
    y = jax.jit(lambda lengths: net.apply(params, {}, x, lengths)[0])(jnp.array([7, 4]))
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


def test_normed_queries_and_keys_have_scores_no_larger_than_their_scales(key: jax.Array) -> None:
    net = fnn.attention(HEADS, norm=True)
    params, _ = net.init(key, x)
    assert params["query_scale"].shape == (FEATURES // HEADS,)
    large, _ = net.apply({**params, "query_kernel": 1e4 * params["query_kernel"]}, {}, x)
    np.testing.assert_allclose(large, net.apply(params, {}, x)[0], atol=1e-4)


CACHED = {
    "plain": {},
    "rotary": {"positions": fnn.Rotary()},
    "interleaved and partial": {"positions": fnn.Rotary(fraction=0.5, interleaved=True)},
    "alibi": {"positions": fnn.Alibi()},
    "a window": {"window": 3, "positions": fnn.Rotary()},
    "grouped": {"kv_heads": 2, "norm": True},
}


@pytest.mark.parametrize("case", CACHED)
def test_pieces_with_a_cache_are_the_whole(case: str, key: jax.Array) -> None:
    net = fnn.attention(HEADS, causal=True, **CACHED[case])
    cached = fnn.attention(HEADS, causal=True, cache=8, **CACHED[case])
    params, _ = net.init(key, x)
    whole, _ = net.apply(params, {}, x)
    first, state = cached.apply(params, fnn.init_state(cached, x[:, :3]), x[:, :3])

    def one(state: Any, step: jax.Array) -> Any:
        y, state = cached.apply(params, state, step[:, None])
        return state, y[:, 0]

    state, rest = jax.jit(lambda state: jax.lax.scan(one, state, jnp.swapaxes(x[:, 3:], 0, 1)))(state)
    y = jnp.concatenate([first, jnp.swapaxes(rest, 0, 1)], 1)
    np.testing.assert_allclose(y, whole, atol=1e-5)
    assert int(state["cache"]["position"]) == TIME


def test_steps_beyond_the_cache_give_nan(key: jax.Array) -> None:
    cached = fnn.attention(HEADS, causal=True, cache=4)
    params, state = cached.init(key, x[:, :1])
    for step in range(TIME):
        y, state = cached.apply(params, state, x[:, step : step + 1])
        assert bool(jnp.isnan(y).all()) == (step >= 4)


BACK = np.arange(TIME)[:, None] - np.arange(TIME)
OF_EACH = np.random.default_rng(5).random((BATCH, TIME, TIME)) < 0.6
HIDDEN = {
    "lengths": ({}, (np.array([6, 4]),), PADDING[:, None]),
    "a mask": ({}, (PADDING,), PADDING[:, None]),
    "a mask of each query": ({}, (OF_EACH,), OF_EACH),
    "a bias": ({}, (np.where(PADDING, 0, -np.inf).astype(np.float32),), PADDING[:, None]),
    "causal": ({"causal": True}, (), BACK >= 0),
    "a causal window": ({"causal": True, "window": 2}, (), (BACK >= 0) & (BACK < 2)),
    "a window": ({"window": 2}, (), np.abs(BACK) < 2),
    "causal and lengths": ({"causal": True}, (np.array([6, 4]),), (BACK >= 0) & PADDING[:, None]),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_nan_reaches_only_steps_that_see_it(case: str, key: jax.Array) -> None:
    # A weight of 0 times NaN is NaN: hidden steps made the values of all others NaN, and all gradients.
    options, masks, seen = HIDDEN[case]
    net = fnn.attention(HEADS, kv_heads=2, **options)
    params, _ = net.init(key, x)
    wrong = np.zeros((BATCH, TIME), bool)
    wrong[1, 4] = True
    seen = np.broadcast_to(seen, (BATCH, TIME, TIME))
    reached = (seen & wrong[:, None]).any(-1)
    others = ~reached & ~wrong

    @jax.jit
    def run(params: Any, x: Any) -> Any:
        def loss(params: Any, x: Any) -> Any:
            y, _ = net.apply(params, {}, x, *masks)
            return jnp.sum(jnp.sin(jnp.where(others[..., None], y, 0))), y

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    grads, y = run(params, jnp.where(wrong[..., None], jnp.nan, x))
    wanted, wanted_y = run(params, jnp.where(wrong[..., None], 1.0, x))
    # A step that no other sees is padding: its own output is finite too, so that no later layer meets NaN.
    np.testing.assert_array_equal(np.isnan(y).all(-1), reached | (wrong & seen.any(1)))
    np.testing.assert_allclose(y[others], wanted_y[others], atol=1e-6)
    chex.assert_trees_all_close(grads, wanted, atol=1e-5)


def test_nan_in_hidden_memory_reaches_nothing(key: jax.Array) -> None:
    # Cross-attention multiplied hidden keys and values by 0.
    net = fnn.cross_attention(HEADS)
    params, _ = net.init(key, x, memory)
    lengths = np.array([5, 3])
    padding = (np.arange(5) >= lengths[:, None])[..., None]

    @jax.jit
    def run(params: Any, memory: Any) -> Any:
        loss = lambda params: jnp.sum(jnp.sin(net.apply(params, {}, x, memory, lengths)[0]))
        return jax.value_and_grad(loss)(params)

    wanted = run(params, memory)
    chex.assert_trees_all_close(run(params, jnp.where(padding, jnp.nan, memory)), wanted, atol=1e-5)
    y, _ = net.apply(params, {}, x, jnp.asarray(memory).at[1, 2].set(jnp.inf), lengths)
    np.testing.assert_array_equal(np.isnan(y).all((1, 2)), [False, True])


def test_nan_in_a_cache_reaches_only_steps_that_see_it(key: jax.Array) -> None:
    # Steps that the window had left behind, and rows of a mask, still made all later ones NaN.
    net = fnn.attention(HEADS, causal=True, window=2, cache=TIME)
    params, state = net.init(key, x[:, :1])
    for step in range(TIME):
        now = jnp.asarray(x[:, step : step + 1]).at[1].multiply(jnp.nan if step == 2 else 1)
        y, state = net.apply(params, state, now)
        np.testing.assert_array_equal(np.isnan(y).all((1, 2)), [False, step in (2, 3)])


def test_a_cached_memory_is_read_once(key: jax.Array) -> None:
    # Every call projected the memory again.
    net, cached = fnn.cross_attention(HEADS, kv_heads=2), fnn.cross_attention(HEADS, kv_heads=2, cache=True)
    params, state = cached.init(key, x, memory)
    chex.assert_trees_all_equal(params, net.init(key, x, memory)[0])
    wrong = jnp.asarray(memory).at[1, 4].set(jnp.nan)
    first, state = cached.apply(params, state, x[:, :3], wrong, np.array([5, 4]))
    rest, state = jax.jit(cached.apply)(params, state, x[:, 3:], jnp.zeros_like(memory), np.array([5, 4]))
    whole, _ = net.apply(params, {}, x, memory, np.array([5, 4]))
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, atol=1e-6)
    shown, _ = cached.apply(params, state, x, memory)  # NaN was hidden by the lengths alone
    np.testing.assert_array_equal(np.isnan(shown).all((1, 2)), [False, True])
    with pytest.raises(fnn.LayerError, match="the cache holds 2 rows of 5 keys"):
        cached.apply(params, state, x, memory[:, :3])


def test_attention_and_positions_compute_in_float64_where_x_is_float64(key: jax.Array) -> None:
    # Scores, angles and slopes were float32: errors of 8e-8, and 2.7e-5 for an angle at position 2000.
    with jax.enable_x64(True):
        z = np.random.default_rng(4).normal(size=(2, 2100, 8))
        angles = np.arange(2100)[:, None] / 10_000 ** (np.arange(4) / 4)
        turned = (z[..., :4] + 1j * z[..., 4:]) * np.exp(1j * angles)
        wanted = np.concatenate([turned.real, turned.imag], -1)
        np.testing.assert_allclose(fnn.Rotary().turn(jnp.asarray(z)), wanted, atol=1e-11)
        added, _ = fnn.sinusoidal_positions().apply({}, {}, z)
        wanted = np.stack([np.sin(angles), np.cos(angles)], -1)[:, :, :].reshape(2100, 8)
        np.testing.assert_allclose(added - z, np.broadcast_to(wanted, z.shape), atol=1e-11)

        wide = x.astype(np.float64)
        net = fnn.attention(12, head_features=4, positions=fnn.Alibi(), dtype=jnp.float64)
        params, _ = net.init(key, wide)
        project = lambda name: (wide @ np.asarray(params[f"{name}_kernel"])).reshape(BATCH, TIME, 12, 4)
        slopes = 2.0 ** -np.concatenate([np.arange(1, 9), np.arange(0.5, 4)])
        scores = np.einsum("bqhf,bkhf->bhqk", project("query"), project("key")) / 2
        weights = np.exp(scores - slopes[:, None, None] * np.abs(BACK))
        weights /= weights.sum(-1, keepdims=True)
        y = np.einsum("bhqk,bkhf->bqhf", weights, project("value")).reshape(BATCH, TIME, 48)
        found, _ = net.apply(params, {}, wide)
        np.testing.assert_allclose(found, y @ np.asarray(params["out_kernel"]), atol=1e-13)


FLOATS = PADDING.astype(np.float32)


def test_a_traced_float_mask_of_zeros_and_ones_gives_nan(key: jax.Array) -> None:
    # It was added to the scores, which hides nothing.
    net = fnn.attention(HEADS)
    params, _ = net.init(key, x)
    apply = jax.jit(lambda mask: net.apply(params, {}, x, mask)[0])
    assert bool(jnp.isnan(apply(FLOATS)).all())
    for harmless in (np.zeros_like(FLOATS), np.ones_like(FLOATS)):
        np.testing.assert_allclose(apply(harmless), net.apply(params, {}, x)[0], atol=1e-5)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    turn = fnn.Rotary().turn
    a, b = np.random.default_rng(3).normal(size=(2, 1, 8)).astype(np.float32)
    score = lambda i, j: float((turn(a, i) * turn(b, j)).sum())
    np.testing.assert_allclose([score(2, 0), score(12, 10)], score(5, 3), rtol=1e-5)
    assert abs(score(5, 3) - score(5, 4)) > 1e-3


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_turns_pairs_by_angles(interleaved: bool) -> None:
    z = np.random.default_rng(4).normal(size=(5, 8)).astype(np.float32)
    pairs = (z[:, ::2], z[:, 1::2]) if interleaved else (z[:, :4], z[:, 4:])
    angles = (3 + np.arange(5))[:, None] / 10_000 ** (np.arange(4) / 4)
    turned = (pairs[0] + 1j * pairs[1]) * np.exp(1j * angles)
    both = (turned.real, turned.imag)
    wanted = np.stack(both, -1).reshape(5, 8) if interleaved else np.concatenate(both, -1)
    np.testing.assert_allclose(fnn.Rotary(interleaved=interleaved).turn(jnp.asarray(z), 3), wanted, atol=1e-5)


def test_alibi_has_the_slopes_of_the_paper() -> None:
    np.testing.assert_allclose(fnn.Alibi().slopes(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(fnn.Alibi().slopes(12)[8:], 0.5 ** np.array([0.5, 1.5, 2.5, 3.5]), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "xs", "message"),
    [
        (lambda: fnn.attention(4), (x[0],), r"wanted \(batch, time, features\)"),
        (lambda: fnn.attention(4), (x.astype(int),), "floating"),
        (lambda: fnn.attention(3), (x,), "3 heads do not divide 16 features"),
        (lambda: fnn.attention(4, positions=fnn.Rotary(fraction=0.7), head_features=5), (x,), "even"),
        (lambda: fnn.attention(4, causal=True, cache=3), (x,), "room for 3"),
        (lambda: fnn.attention(4), (x, PADDING[:, :5]), r"a mask has shape \(2, 5\)"),
        (lambda: fnn.attention(4), (x, np.array([7, 3])), "lengths hold 7"),
        (lambda: fnn.cross_attention(4), (x, memory, np.eye(6, 5, dtype=np.float32)[None]), "zeros and ones"),
        (lambda: fnn.cross_attention(4), (x, memory[0]), "memory has shape"),
    ],
)
def test_bad_input_is_told(make: Any, xs: Any, message: str, key: jax.Array) -> None:
    with pytest.raises(fnn.LayerError, match=message):
        use(make(), key, xs)


def use(net: fnn.Layer, key: jax.Array, xs: Any) -> None:
    """Shapes are checked at init; lengths have values only when running."""
    params, state = net.init(key, *xs)
    net.apply(params, state, *xs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_heads": 3}, "3 kv_heads do not divide 4 heads"),
        ({"cache": 5}, "must be causal"),
        ({"window": 0}, "window"),
        ({"rate": 1.0}, "rate"),
        ({"implementation": "torch"}, "implementation"),
    ],
)
def test_bad_options_are_told(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fnn.attention(4, **options)


def test_cudnn_is_asked_for_what_it_has(key: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to see what would be passed on: the same function of jax, by XLA."""
    asked: list[Any] = []
    real = jax.nn.dot_product_attention

    def by_xla(*arrays: Any, implementation: str, **options: Any) -> Any:
        asked.append(implementation)
        return real(*arrays, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    asked_for: list[dict[str, Any]] = [{}, {"causal": True}, {"causal": True, "window": 3}, {"kv_heads": 2}]
    for options in asked_for:
        net = fnn.attention(HEADS, implementation="cudnn", **options)
        params, _ = net.init(key, x)
        hidden = np.where(PADDING, 0.5, -np.inf).astype(np.float32)
        hidden[0] = -np.inf  # a row that floats hide whole was NaN, and is zeros
        for masks in ((), (PADDING,), (np.zeros_like(PADDING),), (hidden,)):
            wanted, _ = fnn.attention(HEADS, **options).apply(params, {}, x, *masks)
            np.testing.assert_allclose(net.apply(params, {}, x, *masks)[0], wanted, atol=1e-5)
    assert set(asked) == {"cudnn"}
    with pytest.raises(fnn.LayerError, match="cuDNN has no dropout"):
        fnn.attention(HEADS, implementation="cudnn", positions=fnn.Alibi()).init(key, x)
