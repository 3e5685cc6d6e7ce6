"""Optimisers, the learning rate over the steps, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from slidebatch.training.spec import OptimiserSpec, ScheduleSpec


def optimiser(network: nn.Module, spec: OptimiserSpec) -> torch.optim.Optimizer:
    """The optimiser of all weights of a network."""
    weights = network.parameters()
    if spec.name == "sgd":
        nesterov = spec.momentum > 0
        return torch.optim.SGD(weights, spec.learning_rate, spec.momentum, 0, spec.weight_decay, nesterov)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name]
    return kind(weights, spec.learning_rate, weight_decay=spec.weight_decay)


def rate(step: int, total: int, spec: ScheduleSpec, falls: int = 0) -> float:
    """Share of the peak learning rate at a step of `total`.

    falls   how often `plateau` has lowered it
    cosine  falls to nearly 0 at the last step (Loshchilov and Hutter 2017, arXiv:1608.03983)
    """
    warm = spec.warmup * total
    if step < warm:
        return min(1.0, (step + 1) / warm)
    if spec.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))
    if spec.name == "steps":
        return float(spec.factor ** sum(step >= m * total for m in spec.milestones))
    return float(spec.factor**falls) if spec.name == "plateau" else 1.0


@torch.no_grad()
def average(mean: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move averaged weights towards the network's; faster at the start, when these are far off. Changes `mean`."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for kept, new in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, share)
        else:
            kept.copy_(new)


def kept(step: int, total: int, frozen: Mapping[str, float]) -> list[str]:
    """The parts of a network that stay as they are at a step of `total`; `frozen`: for what share of all steps."""
    return [name for name, share in frozen.items() if step < share * total]


def rest(network: nn.Module, frozen: Iterable[str], still: Sequence[str]) -> None:
    """Have the norms of `still` collect no statistics, and those of other once frozen parts do. Changes `network`."""
    for name in frozen:
        network.get_submodule(name).train(name not in still)


def forget(network: nn.Module, still: Sequence[str]) -> None:
    """Drop the gradients of parts, so that a step leaves their weights as they are. Changes `network`."""
    for name in still:
        for weight in network.get_submodule(name).parameters():
            weight.grad = None
