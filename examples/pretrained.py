"""Networks of the Hugging Face hub in fnn: GPT-2, Llama and BERT, with the weights of a checkpoint.

    python examples/pretrained.py FOLDER --prompt "Once upon a time"

FOLDER holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``, as ``hf download gpt2 --local-dir FOLDER``
leaves them. Without a tokenizer, ``--ids 1 2 3`` takes numbers. Each network is a few lines of fnn, and each map from
their names to ours says what is read, whether it is transposed, and where it goes.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn

Tensors = Mapping[str, np.ndarray]
Config = Mapping[str, Any]

ACTIVATIONS = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class Pretrained(NamedTuple):
    """A network and how to read its parameters from a checkpoint.

    Attributes:
        network: ``network(config, cache=None)``.
        params: ``params(config, tensors)``, the tree that the network's init would make.
    """

    network: Any
    params: Any


def dense(tensors: Tensors, name: str, to: str, *, transposed: bool = True) -> dict[str, np.ndarray]:
    """A linear layer: PyTorch keeps ``(out, in)`` and fnn ``(in, out)``; GPT-2 keeps fnn's order."""
    kernel = tensors[f"{name}.weight"]
    found = {f"{to}_kernel": kernel.T if transposed else kernel}
    return found | ({f"{to}_bias": tensors[f"{name}.bias"]} if f"{name}.bias" in tensors else {})


def norm(tensors: Tensors, name: str) -> dict[str, np.ndarray]:
    """A normalisation, with or without a bias."""
    found = {"scale": tensors[f"{name}.weight"]}
    return found | ({"bias": tensors[f"{name}.bias"]} if f"{name}.bias" in tensors else {})


def stacked(blocks: list[Any]) -> Any:
    """The trees of all blocks as one, as `fnn.stack` keeps it."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)


def gpt2(config: Config, cache: int | None = None) -> fnn.Layer:
    """Pre-norm blocks, learned positions, one table to embed and to score."""
    width, length = config["n_embd"], config["n_positions"]
    layer_norm = partial(fnn.layer_norm, epsilon=config["layer_norm_epsilon"])
    block = fnn.transformer_block(
        fnn.attention(config["n_head"], causal=True, cache=cache),
        fnn.feed_forward(config.get("n_inner") or 4 * width, activation=ACTIVATIONS[config["activation_function"]]),
        norm=layer_norm,
    )
    trunk = fnn.serial(blocks=fnn.stack(block, config["n_layer"]), norm=layer_norm())
    positions = fnn.learned_positions(length, cache=cache is not None)
    return fnn.language_model(config["vocab_size"], width, trunk, positions=positions)


def gpt2_params(config: Config, tensors: Tensors) -> dict[str, Any]:
    """``c_attn`` holds query, key and value side by side."""
    tensors = {name.removeprefix("transformer."): array for name, array in tensors.items()}

    def block(number: int) -> dict[str, Any]:
        at = f"h.{number}"
        parts = {}
        for kind in ("weight", "bias"):
            for part, array in zip("qkv", np.split(tensors[f"{at}.attn.c_attn.{kind}"], 3, -1)):
                parts[f"{part}.{kind}"] = array
        own = partial(dense, transposed=False)
        return {
            "attention": own(parts, "q", "query") | own(parts, "k", "key") | own(parts, "v", "value")
            | own(tensors, f"{at}.attn.c_proj", "out"),
            "attention_norm": norm(tensors, f"{at}.ln_1"),
            "feed_forward": own(tensors, f"{at}.mlp.c_fc", "up") | own(tensors, f"{at}.mlp.c_proj", "down"),
            "feed_forward_norm": norm(tensors, f"{at}.ln_2"),
        }  # fmt: skip

    return {
        "embedding": {"embedding": tensors["wte.weight"]},
        "positions": {"embedding": tensors["wpe.weight"]},
        "trunk": {"blocks": stacked([block(n) for n in range(config["n_layer"])]), "norm": norm(tensors, "ln_f")},
    }


def llama(config: Config, cache: int | None = None) -> fnn.Layer:
    """Pre-norm blocks with rotary positions, grouped heads and a gated feed-forward part; no biases."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    rms_norm = partial(fnn.rms_norm, epsilon=config["rms_norm_eps"])
    block = fnn.transformer_block(
        fnn.attention(
            heads, kv_heads=config.get("num_key_value_heads") or heads, head_features=config.get("head_dim"),
            causal=True, positions=rotary(config), bias=False, cache=cache,
        ),
        fnn.feed_forward(
            config["intermediate_size"], activation=ACTIVATIONS[config["hidden_act"]], gated=True, bias=False
        ),
        norm=rms_norm,
    )  # fmt: skip
    trunk = fnn.serial(blocks=fnn.stack(block, config["num_hidden_layers"]), norm=rms_norm())
    if config.get("tie_word_embeddings"):
        return fnn.language_model(config["vocab_size"], width, trunk)
    return fnn.serial(
        embedding=fnn.embedding(config["vocab_size"], width), trunk=trunk,
        head=fnn.dense(config["vocab_size"], bias=False),
    )  # fmt: skip


def rotary(config: Config) -> fnn.Rotary:
    """Older configurations keep this in ``rope_theta`` and ``rope_scaling``, newer ones in ``rope_parameters``."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = float(config.get("rope_theta") or found.get("rope_theta") or 10_000.0)
    kind = found.get("rope_type") or found.get("type") or "default"
    if kind == "default":
        return fnn.Rotary(base)
    if kind == "linear":
        return fnn.Rotary(base, scaling=lambda frequencies: frequencies / found["factor"])
    if kind == "llama3":
        return fnn.Rotary(base, scaling=partial(llama3_scaling, found))
    raise ValueError(f"this Llama scales its rotary positions as {kind!r}; there is default, linear, llama3")


def llama3_scaling(found: Config, frequencies: jax.Array) -> jax.Array:
    """Waves longer than the sequences of training are stretched, short ones stay, those between are mixed."""
    waves = found["original_max_position_embeddings"] * frequencies / (2 * jnp.pi)  # in the length of training
    low, high = found["low_freq_factor"], found["high_freq_factor"]
    share = jnp.clip((waves - low) / (high - low), 0, 1)
    return share * frequencies + (1 - share) * frequencies / found["factor"]


def llama_params(config: Config, tensors: Tensors) -> dict[str, Any]:
    """Every linear layer is transposed."""

    def block(number: int) -> dict[str, Any]:
        at = f"model.layers.{number}"
        pairs = {"q": "query", "k": "key", "v": "value", "o": "out"}
        attention = [dense(tensors, f"{at}.self_attn.{theirs}_proj", ours) for theirs, ours in pairs.items()]
        parts = [dense(tensors, f"{at}.mlp.{name}_proj", name) for name in ("gate", "up", "down")]
        return {
            "attention": {name: array for part in attention for name, array in part.items()},
            "attention_norm": norm(tensors, f"{at}.input_layernorm"),
            "feed_forward": {name: array for part in parts for name, array in part.items()},
            "feed_forward_norm": norm(tensors, f"{at}.post_attention_layernorm"),
        }

    blocks = stacked([block(n) for n in range(config["num_hidden_layers"])])
    params = {
        "embedding": {"embedding": tensors["model.embed_tokens.weight"]},
        "trunk": {"blocks": blocks, "norm": norm(tensors, "model.norm")},
    }
    return params if config.get("tie_word_embeddings") else params | {"head": {"kernel": tensors["lm_head.weight"].T}}


def bert(config: Config, cache: None = None) -> fnn.Layer:
    """Post-norm blocks that see both ways, and a score for what stands behind each mask.

    Inputs are ids, and lengths or a mask where some are padding. All tokens are of the first sentence.
    """
    if cache is not None:
        raise ValueError("BERT reads whole sentences; it does not go on from a prompt")
    layer_norm = partial(fnn.layer_norm, epsilon=config["layer_norm_eps"])
    activation = ACTIVATIONS[config["hidden_act"]]
    block = fnn.transformer_block(
        fnn.attention(config["num_attention_heads"]),
        fnn.feed_forward(config["intermediate_size"], activation=activation),
        norm=layer_norm,
        order="post",
    )

    def forward(f: Any, ids: jax.Array, *masks: Any) -> jax.Array:
        x = f.norm(f.positions(f.embedding(ids) + f.sentence()))
        x = f.head_norm(activation(f.head(f.blocks(x, *masks))))
        return x @ f.embedding.params["embedding"].T + f.bias()

    width, zeros = config["hidden_size"], jax.nn.initializers.zeros
    return fnn.wire(
        forward, embedding=fnn.embedding(config["vocab_size"], width), sentence=fnn.parameter((width,), zeros),
        positions=fnn.learned_positions(config["max_position_embeddings"]), norm=layer_norm(),
        blocks=fnn.stack(block, config["num_hidden_layers"]), head=fnn.dense(width), head_norm=layer_norm(),
        bias=fnn.parameter((config["vocab_size"],), zeros),
    )  # fmt: skip


def bert_params(config: Config, tensors: Tensors) -> dict[str, Any]:
    """Every linear layer is transposed."""

    def block(number: int) -> dict[str, Any]:
        at = f"bert.encoder.layer.{number}"
        own = [dense(tensors, f"{at}.attention.self.{name}", name) for name in ("query", "key", "value")]
        own.append(dense(tensors, f"{at}.attention.output.dense", "out"))
        return {
            "attention": {name: array for part in own for name, array in part.items()},
            "attention_norm": norm(tensors, f"{at}.attention.output.LayerNorm"),
            "feed_forward": dense(tensors, f"{at}.intermediate.dense", "up")
            | dense(tensors, f"{at}.output.dense", "down"),
            "feed_forward_norm": norm(tensors, f"{at}.output.LayerNorm"),
        }

    head = "cls.predictions.transform"
    return {
        "embedding": {"embedding": tensors["bert.embeddings.word_embeddings.weight"]},
        "sentence": {"value": tensors["bert.embeddings.token_type_embeddings.weight"][0]},
        "positions": {"embedding": tensors["bert.embeddings.position_embeddings.weight"]},
        "norm": norm(tensors, "bert.embeddings.LayerNorm"),
        "blocks": stacked([block(n) for n in range(config["num_hidden_layers"])]),
        "head": {"kernel": tensors[f"{head}.dense.weight"].T, "bias": tensors[f"{head}.dense.bias"]},
        "head_norm": norm(tensors, f"{head}.LayerNorm"),
        "bias": {"value": tensors["cls.predictions.bias"]},
    }


KINDS = {
    "gpt2": Pretrained(gpt2, gpt2_params),
    "llama": Pretrained(llama, llama_params),
    "bert": Pretrained(bert, bert_params),
}


def load(folder: str | Path) -> tuple[Config, Pretrained, dict[str, Any]]:
    """Read the configuration and the weights of a checkpoint.

    Args:
        folder: With ``config.json`` and ``model.safetensors``.

    Returns:
        The configuration, what makes the network, and its parameters.

    Raises:
        ValueError: when the checkpoint is of a kind that is not in `KINDS`.
    """
    config = json.loads(Path(folder, "config.json").read_text())
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{folder} is of the kind {kind!r}; there is {', '.join(KINDS)}")
    tensors = jax.tree.map(np.asarray, fnn.load(Path(folder, "model.safetensors")))
    params = KINDS[kind].params(config, tensors)
    return config, KINDS[kind], jax.tree.map(jnp.asarray, params)


def main(
    folder: str | Path, *, prompt: str = "", ids: tuple[int, ...] = (), tokens: int = 40, temperature: float = 0.8,
    seed: int = 0,
) -> list[int]:  # fmt: skip
    """Go on from a prompt, and show what comes as it comes.

    Args:
        folder: The checkpoint.
        prompt: A text; needs ``tokenizer.json`` in the folder and the package ``tokenizers``.
        ids: Numbers in its place.
        tokens: How many to add.
        temperature: Lower is safer, higher is wilder.
        seed: Decides what is drawn.

    Returns:
        The ids that were added.
    """
    config, pretrained, params = load(folder)
    tokenizer = None
    if prompt:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        ids = tuple(tokenizer.encode(prompt).ids)
    if not ids:
        raise ValueError("there is nothing to go on from; pass --prompt or --ids")
    net = pretrained.network(config, cache=len(ids) + tokens)
    sample, key = fnn.Sampler(temperature=temperature), jax.random.key(seed)
    end = config.get("eos_token_id")
    made: list[int] = []
    shown = prompt
    print(prompt, end="", flush=True)
    for token in fnn.stream(
        net, params, np.array([ids]), tokens, sample=sample, key=key, end=end if isinstance(end, int) else None
    ):
        made.append(int(token[0]))
        if tokenizer is None:
            print(made[-1], end=" ", flush=True)
            continue
        text = tokenizer.decode([*ids, *made])
        print(text[len(shown) :], end="", flush=True)
        shown = text
    print()
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="with config.json, model.safetensors and tokenizer.json")
    parser.add_argument("--prompt", default="", help="text to go on from")
    parser.add_argument("--ids", type=int, nargs="+", default=[], help="ids to go on from, in place of a text")
    parser.add_argument("--tokens", type=int, default=40, help="how many to add (default: 40)")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("folder"), ids=tuple(arguments.pop("ids")), **arguments)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
