"""Hugging Face transformers on PyTorch: `GPT2LMHeadModel.generate` with its default cache."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.harness import Arrays
from benchmarks.peers import Program
from benchmarks.sequence_peers import SequenceTask


def prepare(task: SequenceTask, arrays: Arrays) -> Program:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = GPT2Config(
        vocab_size=task.vocabulary, n_positions=task.positions, n_embd=task.width, n_layer=task.blocks,
        n_head=task.heads, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    model = model.to(device, getattr(torch, task.dtype)).eval()
    prompt = torch.from_numpy(arrays["x"]).long().to(device)
    mask = torch.ones_like(prompt)

    def call() -> int:
        """How many ids were added; bringing them to the host waits for the end."""
        with torch.inference_mode():
            found = model.generate(
                prompt, attention_mask=mask, max_new_tokens=task.tokens, do_sample=False, use_cache=True
            )
        return found[:, task.length :].cpu().numel()

    return Program(call, sum(parameter.numel() for parameter in model.parameters()))
