"""Transformers agree with PyTorch's, and their programs do not grow with their depth."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

BATCH, TIME, FEATURES, HEADS, HIDDEN = 2, 5, 16, 4, 24
x = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
memory = np.random.default_rng(1).normal(size=(BATCH, 7, FEATURES)).astype(np.float32)
LENGTHS = np.array([7, 4])
exact_gelu = partial(jax.nn.gelu, approximate=False)


def array(tensor: Any) -> jax.Array:
    return jnp.asarray(tensor.detach().numpy())


def attention_from(module: Any) -> dict[str, Any]:
    kernels = jnp.split(array(module.in_proj_weight), 3)
    biases = jnp.split(array(module.in_proj_bias), 3)
    names = ("query", "key", "value")
    params = {f"{name}_kernel": kernel.T for name, kernel in zip(names, kernels)}
    params |= {f"{name}_bias": bias for name, bias in zip(names, biases)}
    return params | {"out_kernel": array(module.out_proj.weight).T, "out_bias": array(module.out_proj.bias)}


def norm_from(module: Any) -> dict[str, Any]:
    return {"scale": array(module.weight), "bias": array(module.bias)}


def feed_forward_from(module: Any) -> dict[str, Any]:
    up, down = module.linear1, module.linear2
    return {
        "up_kernel": array(up.weight).T, "up_bias": array(up.bias),
        "down_kernel": array(down.weight).T, "down_bias": array(down.bias),
    }  # fmt: skip


def torch_layer(kind: str, order: str) -> Any:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(FEATURES, HEADS, HIDDEN, 0.0, "gelu", batch_first=True, norm_first=order == "pre")
    for name, weight in module.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name and "weight" in name else 0.0, 0.3)
    return torch, module


@pytest.mark.parametrize("order", ["pre", "post"])
def test_a_block_is_an_encoder_layer_of_pytorch(order: str) -> None:
    torch, module = torch_layer("TransformerEncoderLayer", order)
    lengths = np.array([5, 3])
    theirs = module(torch.tensor(x), src_key_padding_mask=torch.tensor(np.arange(TIME) >= lengths[:, None]))
    block = fnn.transformer_block(fnn.attention(HEADS), fnn.feed_forward(HIDDEN, activation=exact_gelu), order=order)
    params = {
        "attention": attention_from(module.self_attn), "attention_norm": norm_from(module.norm1),
        "feed_forward": feed_forward_from(module), "feed_forward_norm": norm_from(module.norm2),
    }  # fmt: skip
    y, _ = block.apply(params, {}, x, lengths)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(y[row, :length], theirs.detach()[row, :length], atol=1e-5)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_a_decoder_block_is_a_decoder_layer_of_pytorch(order: str) -> None:
    torch, module = torch_layer("TransformerDecoderLayer", order)
    theirs = module(
        torch.tensor(x), torch.tensor(memory), tgt_mask=torch.ones(TIME, TIME, dtype=bool).triu(1),
        memory_key_padding_mask=torch.tensor(np.arange(7) >= LENGTHS[:, None]),
    )  # fmt: skip
    block = fnn.decoder_block(
        fnn.attention(HEADS, causal=True), fnn.cross_attention(HEADS),
        fnn.feed_forward(HIDDEN, activation=exact_gelu), order=order,
    )  # fmt: skip
    params = {
        "attention": attention_from(module.self_attn), "attention_norm": norm_from(module.norm1),
        "cross_attention": attention_from(module.multihead_attn), "cross_attention_norm": norm_from(module.norm2),
        "feed_forward": feed_forward_from(module), "feed_forward_norm": norm_from(module.norm3),
    }  # fmt: skip
    y, _ = block.apply(params, {}, x, memory, LENGTHS)
    np.testing.assert_allclose(y, theirs.detach(), atol=1e-5)


def test_a_parallel_block_has_one_norm(key: jax.Array) -> None:
    block = fnn.transformer_block(fnn.attention(HEADS), fnn.feed_forward(HIDDEN), order="parallel", norm=fnn.rms_norm)
    params, _ = block.init(key, x)
    h, _ = fnn.rms_norm().apply(params["attention_norm"], {}, x)
    wanted = x + fnn.attention(HEADS).apply(params["attention"], {}, h)[0]
    wanted += fnn.feed_forward(HIDDEN).apply(params["feed_forward"], {}, h)[0]
    np.testing.assert_allclose(block.apply(params, {}, x)[0], wanted, atol=1e-5)
    assert set(params) == {"attention", "attention_norm", "feed_forward"}


def test_no_step_sees_a_later_one(key: jax.Array) -> None:
    net = fnn.encoder(2, HEADS, HIDDEN, causal=True)
    params, _ = net.init(key, x)
    apply = jax.jit(lambda x: net.apply(params, {}, x)[0])
    for step in range(TIME):
        moved = apply(x + (np.arange(TIME) == step)[:, None].astype(np.float32)) != apply(x)
        np.testing.assert_array_equal(np.asarray(moved).any((0, 2)), np.arange(TIME) >= step)


def test_padding_that_is_nan_spoils_no_gradient(key: jax.Array) -> None:
    # Ids that are padded with -1 are NaN when embedded: the gradients of norms and feed-forward parts were NaN.
    ids, lengths = np.array([[1, 2, 3, 4], [5, 6, 0, 0]]), np.array([4, 2])
    net = fnn.language_model(7, FEATURES, fnn.encoder(2, HEADS, HIDDEN), positions=fnn.learned_positions(4))
    params, _ = net.init(key, ids, lengths)
    inside = (np.arange(4) < lengths[:, None])[..., None]

    @jax.jit
    def run(params: Any, ids: Any) -> Any:
        loss = lambda params: jnp.sum(jnp.sin(jnp.where(inside, net.apply(params, {}, ids, lengths)[0], 0)))
        return jax.value_and_grad(loss)(params)

    wanted = run(params, ids)
    for got, leaf in zip(*map(jax.tree.leaves, (run(params, np.where(inside[..., 0], ids, -1)), wanted))):
        np.testing.assert_allclose(got, leaf, atol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "decoder", "vision_transformer"])
def test_no_bias_means_none_anywhere(name: str, key: jax.Array) -> None:
    # encoder(bias=False) left the biases of its feed-forward parts and norms.
    nets = {
        "encoder": (fnn.encoder(1, HEADS, HIDDEN, bias=False), (x,)),
        "decoder": (fnn.decoder(1, HEADS, HIDDEN, bias=False), (x, memory)),
        "vision_transformer": (
            fnn.vision_transformer(5, FEATURES, 1, HEADS, HIDDEN, patch=(2, 2), length=4, bias=False),
            (np.ones((1, 4, 4, 1), np.float32),),
        ),
    }
    net, xs = nets[name]
    params = jax.eval_shape(net.init, key, *xs)[0]
    params = params["encoder"] if name == "vision_transformer" else params
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
    assert len(paths) > 5
    assert not [path for path in paths if "bias" in path]


def test_an_encoder_and_a_decoder_pass_options_to_their_parts(key: jax.Array) -> None:
    # Dropout of attention and options of feed-forward parts could not be reached.
    options = {"activation": jax.nn.silu, "gated": True, "bias": False, "norm": fnn.rms_norm}
    attention = partial(fnn.attention, HEADS, bias=False)
    feed_forward = fnn.feed_forward(HIDDEN, activation=jax.nn.silu, gated=True, bias=False)
    cross = fnn.cross_attention(HEADS, bias=False)
    pairs = [
        (fnn.encoder(1, HEADS, HIDDEN, **options),
         fnn.transformer_block(attention(), feed_forward, norm=fnn.rms_norm), (x,)),
        (fnn.decoder(1, HEADS, HIDDEN, **options),
         fnn.decoder_block(attention(causal=True), cross, feed_forward, norm=fnn.rms_norm), (x, memory)),
    ]  # fmt: skip
    for net, block, xs in pairs:
        params, _ = net.init(key, *xs)
        y, _ = block.apply(jax.tree.map(lambda leaf: leaf[0], params["blocks"]), {}, *xs)
        wanted, _ = fnn.rms_norm().apply(params["norm"], {}, y)
        np.testing.assert_allclose(net.apply(params, {}, *xs)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("option", ["rate", "attention_dropout_rate", "feed_forward_dropout_rate"])
def test_each_dropout_of_a_transformer_drops_in_training_alone(option: str, key: jax.Array) -> None:
    options: dict[str, Any] = {option: 0.5}
    for make, xs in ((fnn.encoder, (x,)), (fnn.decoder, (x, memory))):
        net, plain = make(1, HEADS, HIDDEN, **options), make(1, HEADS, HIDDEN)
        params, _ = net.init(key, *xs)
        y, _ = plain.apply(params, {}, *xs)
        np.testing.assert_allclose(net.apply(params, {}, *xs)[0], y, atol=1e-6)
        dropped, _ = net.apply(params, {}, *xs, key=jax.random.key(1), train=True)
        assert not np.allclose(dropped, y, atol=1e-2)


@pytest.mark.parametrize("shape", [(0, 5, FEATURES), (2, 0, FEATURES)])
def test_batches_without_rows_and_sequences_without_steps_are_taken(shape: Any, key: jax.Array) -> None:
    # A reshape divided by zero.
    for net in (fnn.encoder(1, HEADS, HIDDEN), fnn.encoder(1, HEADS, HIDDEN, causal=True)):
        params, _ = net.init(key, x)
        assert net.apply(params, {}, jnp.zeros(shape))[0].shape == shape
    net = fnn.vision_transformer(5, FEATURES, 1, HEADS, HIDDEN, patch=(4, 4), length=6)
    params, _ = net.init(key, jnp.zeros((2, 8, 12, 3)))
    assert net.apply(params, {}, jnp.zeros((0, 8, 12, 3)))[0].shape == (0, 5)


def test_the_program_does_not_grow_with_depth(key: jax.Array) -> None:
    def size(blocks: int) -> int:
        net = fnn.language_model(11, FEATURES, fnn.encoder(blocks, HEADS, HIDDEN, causal=True))
        ids = np.zeros((2, 4), int)
        optimizer = optax.adam(1e-3)
        run = jax.eval_shape(lambda key: fnn.train_init(net, optimizer, key, ids), key)
        step = fnn.train_step(fnn.supervised(net, optax.losses.softmax_cross_entropy_with_integer_labels), optimizer)
        return len(jax.jit(step).lower(run, (ids, ids)).as_text().splitlines())

    assert size(48) == size(4)


def test_a_language_model_ties_its_table_and_learns_a_cycle(key: jax.Array) -> None:
    ids = (np.arange(8)[:, None] + np.arange(12)) % 7
    trunk = fnn.encoder(1, 2, 32, causal=True, positions=fnn.Rotary())
    net = fnn.language_model(7, 16, trunk, rate=0.1)
    objective = fnn.supervised(net, optax.losses.softmax_cross_entropy_with_integer_labels)
    optimizer = optax.adam(1e-2)
    run = fnn.train_init(net, optimizer, key, ids)
    assert set(run.params) == {"embedding", "trunk"}
    run, _ = fnn.fit(objective, optimizer, run, (ids[:, :-1], ids[:, 1:]), batch_size=8, epochs=150, progress=False)

    cached = fnn.language_model(7, 16, fnn.encoder(1, 2, 32, causal=True, positions=fnn.Rotary(), cache=20), rate=0.1)
    found = fnn.generate(cached, run.params, ids[:2, :3], 9)
    np.testing.assert_array_equal(found.ids, ids[:2])


def test_a_vision_transformer_reads_the_class_from_its_token(key: jax.Array) -> None:
    images = np.random.default_rng(2).normal(size=(2, 8, 12, 3)).astype(np.float32)
    net = fnn.vision_transformer(5, FEATURES, 2, HEADS, HIDDEN, patch=(4, 4), length=6)
    params, _ = net.init(key, images)
    assert params["patches"]["kernel"].shape == (4, 4, 3, FEATURES)
    patches = images.reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 48)
    tokens = patches @ params["patches"]["kernel"].reshape(48, -1) + params["patches"]["bias"]
    tokens = jnp.concatenate([jnp.broadcast_to(params["token"]["value"], (2, 1, FEATURES)), tokens], 1)
    tokens = tokens + params["positions"]["embedding"]
    y, _ = fnn.encoder(2, HEADS, HIDDEN).apply(params["encoder"], {}, tokens)
    wanted = y[:, 0] @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(net.apply(params, {}, images)[0], wanted, atol=1e-4)
    with pytest.raises(fnn.LayerError, match="there are 6 positions"):
        fnn.vision_transformer(5, FEATURES, 2, HEADS, HIDDEN, patch=(4, 4), length=5).init(key, images)


def test_bad_options_are_told() -> None:
    with pytest.raises(ValueError, match="order is one of"):
        fnn.transformer_block(fnn.attention(2), fnn.feed_forward(4), order="middle")
    with pytest.raises(ValueError, match="order is one of"):
        fnn.decoder_block(fnn.attention(2), fnn.cross_attention(2), fnn.feed_forward(4), order="parallel")
