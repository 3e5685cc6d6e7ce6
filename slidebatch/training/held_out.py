"""Losses on held-out crops, which no augmentation changes: the same crops after every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from slidebatch.errors import ConfigError
from slidebatch.models import networks
from slidebatch.training.dataset import Example
from slidebatch.training.families import family
from slidebatch.training.feed import Source, collated, source
from slidebatch.training.spec import AugmentSpec, CropsSpec, TrainSpec
from slidebatch.training.state import Row

UNCHANGED = AugmentSpec.model_validate(
    {
        **{"scale": (1, 1), "flips": False, "rotate_chance": 0, "elastic_chance": 0, "contrast": (1, 1)},
        **{"gamma": (1, 1), "brightness": 0, "tint": 0, "stain_chance": 0, "noise_chance": 0, "blur_chance": 0},
        **{"invert_chance": 0, "grey_chance": 0},
    }
)


@torch.no_grad()
def held_out_losses(network: nn.Module, held: Sequence[Example], spec: TrainSpec) -> Row:
    """The mean of each loss over `spec.held_out_crops` crops, as `held_out_<loss>`; nothing without crops or images.

    In eval mode, on whatever device the network lies; what losses draw at random is the same every time. Images are
    drawn as they come, whatever `data.mix` says. ConfigError where crops are cut by a grid.
    """
    if not spec.held_out_crops or not held:
        return {}
    crops, device = _plain(held, spec), next(network.parameters()).device
    network.eval()
    found, sizes = [], []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(spec.seed)
        for first in range(0, spec.held_out_crops, spec.batch):
            numbers = range(first, min(first + spec.batch, spec.held_out_crops))
            batch = collated([crops[i] for i in numbers])
            placed = [part.to(device) if isinstance(part, torch.Tensor) else part for part in batch]
            losses = family(spec.network.name).losses(network, placed, spec)
            found.append({name: float(loss) for name, loss in losses.items()})
            sizes.append(len(numbers))
    return {f"held_out_{name}": float(np.average([row[name] for row in found], weights=sizes)) for name in found[0]}


def _plain(held: Sequence[Example], spec: TrainSpec) -> Source:
    """Held-out crops by number."""
    if not isinstance(spec.sampling, CropsSpec):
        raise ConfigError("held_out_crops: a grid has no crops; set it to 0, or sampling.kind to crops.")
    as_they_come = spec.data.model_copy(update={"mix": {}})
    plain = spec.model_copy(update={"augment": UNCHANGED, "data": as_they_come})
    return source(held, plain, networks.architecture(spec.network.name, spec.network.settings).channels)
