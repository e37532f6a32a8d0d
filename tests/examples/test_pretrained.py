"""GPT-2, Llama and BERT give the logits that transformers gives, from one file of weights."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fnn

pretrained = importlib.import_module("pretrained")
IDS = np.random.default_rng(0).integers(0, 50, (2, 9))

SMALL = {
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 16, "vocab_size": 50},
    "llama": {
        "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
        "intermediate_size": 48, "vocab_size": 50, "max_position_embeddings": 16, "rope_theta": 1000.0,
    },
    "bert": {
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 48,
        "vocab_size": 50, "max_position_embeddings": 16,
    },
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1000.0, "factor": 4.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
CLASSES = {"gpt2": "GPT2", "llama": "Llama", "bert": "Bert"}


def saved(kind: str, folder: Path, **options: Any) -> Any:
    """A small random network of transformers, saved as its own library does."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    torch.manual_seed(0)
    config = getattr(transformers, f"{CLASSES[kind]}Config")(**(SMALL[kind] | options))
    head = {"gpt2": "LMHeadModel", "llama": "ForCausalLM", "bert": "ForMaskedLM"}[kind]
    module = getattr(transformers, f"{CLASSES[kind]}{head}")(config).eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.2)
    module.save_pretrained(folder)
    return torch, module


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "head_dim": 16}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("bert", {}),
    ],
)
def test_logits_are_those_of_transformers(kind: str, options: Any, tmp_path: Path) -> None:
    torch, module = saved(kind, tmp_path, **options)
    config, how, params = pretrained.load(tmp_path)
    with torch.no_grad():
        theirs = module(torch.tensor(IDS)).logits.numpy()
    net = how.network(config)
    wanted, _ = net.init(fnn_key(), IDS)
    assert fnn.count(wanted) == fnn.count(params)
    np.testing.assert_allclose(net.apply(params, {}, IDS)[0], theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


def fnn_key() -> Any:
    import jax

    return jax.random.key(0)


def test_padding_of_bert_is_a_length(tmp_path: Path) -> None:
    torch, module = saved("bert", tmp_path)
    config, how, params = pretrained.load(tmp_path)
    lengths = np.array([9, 5])
    with torch.no_grad():
        theirs = module(torch.tensor(IDS), attention_mask=torch.tensor(np.arange(9) < lengths[:, None])).logits.numpy()
    y, _ = how.network(config).apply(params, {}, IDS, lengths)
    np.testing.assert_allclose(y[1, :5], theirs[1, :5], atol=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_generation_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    torch, module = saved(kind, tmp_path)
    config, how, params = pretrained.load(tmp_path)
    with torch.no_grad():
        theirs = module.generate(torch.tensor(IDS[:, :4]), max_new_tokens=10, do_sample=False, eos_token_id=None,
                                 pad_token_id=0)  # fmt: skip
    np.testing.assert_array_equal(fnn.generate(how.network(config, cache=14), params, IDS[:, :4], 10).ids, theirs)


def test_the_script_goes_on_from_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("gpt2", tmp_path)
    made = pretrained.main(tmp_path, ids=(1, 2, 3), tokens=5)
    assert len(made) == 5
    assert capsys.readouterr().out.split() == [str(number) for number in made]
    with pytest.raises(ValueError, match="nothing to go on from"):
        pretrained.main(tmp_path)


def test_an_unknown_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ValueError, match="there is gpt2, llama, bert"):
        pretrained.load(tmp_path)
