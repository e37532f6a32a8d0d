"""PyTorch, eager: one network after another, or stacked ones as the tutorial of `torch.func` has it."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks.harness import Arrays
from benchmarks.study_peers import Outcome, Program, StudyTask

loss_fn = nn.CrossEntropyLoss()


def network(task: StudyTask, inputs: int) -> nn.Module:
    """The networks of the workloads; ``inputs`` is the number of columns."""
    hidden, classes = task.hidden, task.classes
    if task.network == "mlp":
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    return nn.Sequential(
        nn.Conv2d(1, hidden, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(hidden, 2 * hidden, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * hidden * 7 * 7, classes),
    )  # fmt: skip


def prepare(task: StudyTask, arrays: Arrays, stacked: bool) -> Program:
    def study(rates: Sequence[float], seed: int) -> Outcome:
        torch.manual_seed(seed)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        x, x_validation = (_inputs(arrays[name]).to(device) for name in ("x", "x_validation"))
        y, y_validation = (torch.from_numpy(arrays[name]).long().to(device) for name in ("y", "y_validation"))
        models = [network(task, x.shape[-1]).to(device) for _ in rates]
        if stacked:
            logits = _together(task, models, rates, x, y, seed)(x_validation)
        else:
            for number, (model, rate) in enumerate(zip(models, rates)):
                _train(task, model, rate, x, y, (seed, number))
            with torch.no_grad():
                logits = torch.stack([model(x_validation) for model in models])
        return Outcome((logits.argmax(-1) == y_validation).float().mean(-1).tolist(), task.steps)

    def parameters() -> int:
        return sum(parameter.numel() for parameter in network(task, arrays["x"].shape[-1]).parameters())

    return Program(study, parameters)


def _inputs(x: Any) -> torch.Tensor:
    tensor = torch.from_numpy(x)
    return tensor.movedim(-1, 1).contiguous() if tensor.ndim == 4 else tensor


def _train(
    task: StudyTask, model: nn.Module, rate: float, x: torch.Tensor, y: torch.Tensor, seed: Sequence[int]
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for rows in task.batches(len(x), seed):
        chosen = torch.from_numpy(rows)
        optimizer.zero_grad()
        loss_fn(model(x[chosen]), y[chosen]).backward()
        optimizer.step()


def _together(
    task: StudyTask, models: list[nn.Module], rates: Sequence[float], x: torch.Tensor, y: torch.Tensor, seed: int
) -> Any:
    """Train all models on the same batches, by Adam with a rate for each; a function of all of them is returned."""
    params, buffers = stack_module_state(models)
    params = {name: value.detach() for name, value in params.items()}
    skeleton = copy.deepcopy(models[0]).to("meta")
    predict = lambda params, buffers, x: functional_call(skeleton, (params, buffers), (x,))
    grads_of = vmap(
        grad(lambda params, buffers, x, y: loss_fn(predict(params, buffers, x), y)), in_dims=(0, 0, None, None)
    )
    rate = torch.tensor(rates, device=x.device)
    rate_of = {name: rate.reshape(-1, *(1 for _ in value.shape[1:])) for name, value in params.items()}
    first = {name: torch.zeros_like(value) for name, value in params.items()}
    second = {name: torch.zeros_like(value) for name, value in params.items()}
    for step, rows in enumerate(task.batches(len(x), (seed,)), start=1):
        chosen = torch.from_numpy(rows)
        for name, gradient in grads_of(params, buffers, x[chosen], y[chosen]).items():
            first[name].lerp_(gradient, 1 - 0.9)
            second[name].mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
            root = (second[name] / (1 - 0.999**step)).sqrt_().add_(1e-8)
            params[name] -= rate_of[name] / (1 - 0.9**step) * first[name] / root
    return lambda x: vmap(predict, in_dims=(0, 0, None))(params, buffers, x)
