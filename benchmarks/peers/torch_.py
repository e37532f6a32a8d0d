"""PyTorch, eager as in its tutorials; many networks at once with `torch.func`, where the layout allows it."""

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks.harness import Arrays
from benchmarks.peers import Program
from benchmarks.workloads import BLOCKS, Task

conv = partial(nn.Conv2d, bias=False)
loss_fn = nn.CrossEntropyLoss()


class Block(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.body = nn.Sequential(
            conv(before, channels, 3, stride, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
            conv(channels, channels, 3, padding=1), nn.BatchNorm2d(channels),
        )  # fmt: skip
        shortcut = [] if stride == 1 else [conv(before, channels, 1, stride), nn.BatchNorm2d(channels)]
        self.shortcut = nn.Sequential(*shortcut)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + self.shortcut(x))


def network(name: str) -> nn.Module:
    """The networks of the workloads."""
    if name == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 5 * 5, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip
    if name == "mlp":
        return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    befores = (16, *(channels for channels, _ in BLOCKS))
    return nn.Sequential(
        conv(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        *(Block(before, *block) for before, block in zip(befores, BLOCKS)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def prepare(task: Task, arrays: Arrays, layout: str) -> Program:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = torch.from_numpy(arrays["x"]).to(device), torch.from_numpy(arrays["y"]).long().to(device)
    memory = torch.channels_last if layout == "channels_last" and x.ndim == 4 else torch.contiguous_format
    if x.ndim == 4:
        x = x.movedim(-1, 1).contiguous(memory_format=memory)
    models = [network(task.network).to(device, memory_format=memory) for _ in range(task.repeats)]
    count = sum(parameter.numel() for parameter in models[0].parameters())
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=task.dtype == "bfloat16")
    if task.mode == "infer":
        return Program(partial(_infer, models[0].eval(), x, autocast), count)
    if task.mode == "vmap" and layout == "contiguous":
        return Program(_together(task, models, x, y, autocast), count)
    optimizers = [_optimizer(task, model.parameters()) for model in models]

    def call() -> float:
        """One model after another; all are waited for at the end."""
        losses = []
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            with autocast():
                loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss)
        return losses[-1].item()

    return Program(call, count)


def _optimizer(task: Task, parameters: Any) -> torch.optim.Optimizer:
    if task.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=1e-3)
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def _infer(model: nn.Module, x: torch.Tensor, autocast: Any) -> torch.Tensor:
    with torch.inference_mode(), autocast():
        y = model(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return y


def _together(task: Task, models: list[nn.Module], x: torch.Tensor, y: torch.Tensor, autocast: Any) -> Any:
    """Model ensembling as the tutorial of `torch.func` has it, with an optimizer over stacked parameters."""
    params, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    optimizer = _optimizer(task, params.values())

    def loss_of(params: Any, buffers: Any) -> torch.Tensor:
        with autocast():
            return loss_fn(functional_call(skeleton, (params, buffers), (x,)), y)

    step = vmap(grad_and_value(loss_of))

    def call() -> float:
        grads, losses = step({name: value.detach() for name, value in params.items()}, buffers)
        for name, value in params.items():
            value.grad = grads[name]
        optimizer.step()
        return losses.mean().item()

    return call
