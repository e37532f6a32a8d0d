"""PyTorch, eager or compiled: the blocks of nanoGPT around `F.scaled_dot_product_attention`, and `nn.LSTM`."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812, its usual name

from benchmarks.harness import Arrays
from benchmarks.peers import Program
from benchmarks.sequence_peers import SequenceTask


class CausalSelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x):
        batch, steps, width = x.shape
        parts = self.c_attn(x).split(width, dim=2)
        q, k, v = (part.view(batch, steps, self.heads, -1).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(batch, steps, width))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.wte = nn.Embedding(task.vocabulary, task.width)
        self.wpe = nn.Embedding(task.positions, task.width)
        self.h = nn.ModuleList([Block(task.width, task.heads) for _ in range(task.blocks)])
        self.ln_f = nn.LayerNorm(task.width)
        self.lm_head = nn.Linear(task.width, task.vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class LSTM(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.embedding = nn.Embedding(task.vocabulary, task.width)
        self.lstm = nn.LSTM(task.width, task.width, batch_first=True)
        self.linear = nn.Linear(task.width, task.vocabulary)

    def forward(self, ids):
        return self.linear(self.lstm(self.embedding(ids))[0])


def prepare(task: SequenceTask, arrays: Arrays, compiled: bool = False) -> Program:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ids, y = (torch.from_numpy(arrays[name]).long().to(device) for name in "xy")
    model = {"gpt": GPT, "lstm": LSTM}[task.network](task).to(device)
    optimizer = _optimizer(task, model, device)

    def loss_of(ids, y):
        logits = model(ids)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))

    forward = torch.compile(loss_of) if compiled else loss_of

    def call() -> float:
        """Reading the loss waits for all that was queued before, the optimizer's update too."""
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=task.dtype == "bfloat16"):
            loss = forward(ids, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(call, sum(parameter.numel() for parameter in model.parameters()))


def _optimizer(task: SequenceTask, model: nn.Module, device: str) -> torch.optim.Optimizer:
    if task.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=1e-3)
    return torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.1, fused=device == "cuda")
