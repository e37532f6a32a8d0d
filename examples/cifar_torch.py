"""PyTorch's twin of `cifar`: the same residual network, augmentation, schedule and average of weights, in its own way.

Only ``cifar.py --compare`` needs it, and PyTorch: ``pip install torch``.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

try:
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
except ImportError as error:
    raise ImportError("--compare needs PyTorch: pip install torch") from error

conv = partial(nn.Conv2d, bias=False)


class Block(nn.Module):
    """Two convolutions around which the input is passed."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(before, channels, 3, stride, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
            conv(channels, channels, 3, padding=1), nn.BatchNorm2d(channels),
        )  # fmt: skip
        shortcut = [] if stride == 1 else [conv(before, channels, 1, stride), nn.BatchNorm2d(channels)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(blocks: int, widths: Sequence[int]) -> nn.Module:
    """A residual network with ``6 * blocks + 2`` layers, and kernels that begin as those of fnn's."""
    layers, before = [conv(3, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]), nn.ReLU()], widths[0]
    for channels in widths:
        for number in range(blocks):
            layers.append(Block(before, channels, 2 if number == 0 and channels != widths[0] else 1))
            before = channels
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net


def augment(x: torch.Tensor) -> torch.Tensor:
    """Shift each picture by up to four pixels, and mirror every other one."""
    size = x.shape[-1]
    padded = nn.functional.pad(x, (4, 4, 4, 4))
    corners = torch.randint(0, 9, (len(x), 2)).tolist()
    x = torch.stack([image[:, top : top + size, left : left + size] for image, (top, left) in zip(padded, corners)])
    mirror = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirror, x.flip(-1), x)


def train(setting: Any, widths: Sequence[int], data: Any, test: Any) -> dict[str, float]:
    """Train by the same setting; returns test accuracies of the last and of the averaged weights."""
    torch.manual_seed(setting.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    to_device = lambda x: torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).to(device)
    x, y = to_device(data[0]), torch.from_numpy(data[1]).long().to(device)
    per_epoch = len(x) // setting.batch_size
    steps = setting.epochs * per_epoch
    warm_up = int(setting.warm_up * steps)

    net = resnet(setting.blocks, widths).to(device)
    kernels = [weight for weight in net.parameters() if weight.ndim > 1]
    others = [weight for weight in net.parameters() if weight.ndim == 1]
    groups = [{"params": kernels, "weight_decay": setting.decay}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=setting.learning_rate, momentum=0.9, nesterov=True)
    rise = lambda step: step / max(warm_up, 1)
    fall = lambda step: 0.5 * (1 + np.cos(np.pi * (step - warm_up) / max(steps - warm_up, 1)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rise(step) if step < warm_up else fall(step))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / per_epoch))
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=setting.bfloat16)

    for epoch in range(setting.epochs):
        total = 0.0
        net.train()
        for rows in torch.randperm(len(x))[: per_epoch * setting.batch_size].split(setting.batch_size):
            with autocast():
                loss = nn.functional.cross_entropy(net(augment(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
            total += loss.item()
        print(f"PyTorch, epoch {epoch + 1}: loss {total / per_epoch:.4f}", flush=True)
    update_bn(x.split(setting.batch_size)[:60], average)

    def accuracy(model: nn.Module) -> float:
        with torch.inference_mode(), autocast():
            parts = [model.eval()(part).argmax(1).cpu().numpy() for part in to_device(test[0]).split(256)]
        return float(np.mean(np.concatenate(parts) == test[1]))

    return {"last weights": accuracy(net), "averaged weights": accuracy(average)}
