"""Random training crops: a pure function of the seed and the crop's number.

So a training that was stopped and started again sees exactly the crops it would have seen, whoever makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slidebatch.errors import ConfigError
from slidebatch.models import networks
from slidebatch.models.rois import Truth
from slidebatch.training import warp
from slidebatch.training.colour import recolour
from slidebatch.training.dataset import Example, by_modality
from slidebatch.training.spec import CropsSpec, TrainSpec
from slidebatch.training.targets import targets
from slidebatch.training.truths import truth

Crop = tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Truth]
"""Image (C, Y, X) float32 in 0..1; for dense networks classes (Y, X) uint8 and weights (Y, X) float32, for detectors
the nuclei."""


class Crops:
    """Crop by number: an image drawn by modality, group and size, a place, and all that may change."""

    def __init__(self, examples: Sequence[Example], spec: TrainSpec, channels: int) -> None:
        assert isinstance(spec.sampling, CropsSpec)
        self.spec = spec
        self.channels = channels
        self.examples = examples
        self.size = (spec.sampling.crop_px, spec.sampling.crop_px)
        self.chances = chances(examples, spec)

    def __len__(self) -> int:
        """Crops in an epoch."""
        return self.spec.batch * (self.spec.steps_per_epoch or 100)

    def __getitem__(self, number: int) -> Crop:
        rng = np.random.default_rng([self.spec.seed, number])
        example = self.examples[int(rng.choice(len(self.examples), p=self.chances))]
        drawn = warp.draw(self.size, self.spec.augment, rng)
        centre = warp.anywhere(example.labels.shape, drawn, rng)
        image, labels = warp.sample(example.image, example.labels, drawn, centre)
        image = recolour(image, self.spec.augment, example.colour, rng)
        return finished(image, labels, self.spec, self.channels)


def finished(image: Tensor, labels: npt.NDArray[np.int32], spec: TrainSpec, channels: int) -> Crop:
    """A crop with its targets; one channel is repeated to fill the network's."""
    image = fitted(image, channels).contiguous()
    if networks.family(spec.network.name) == "detections":
        return image, truth(labels, spec.detection.least_px)
    classes, weights = targets(labels, spec.targets)
    return image, torch.from_numpy(classes), torch.from_numpy(weights)


def fitted(image: Tensor, channels: int) -> Tensor:
    """An image (C, Y, X) with as many channels as the network: one is repeated. ConfigError for other numbers."""
    check_channels(image.shape[0], channels)
    return image.expand(channels, -1, -1)


def check_channels(found: int, channels: int) -> None:
    """ConfigError where a network of `channels` cannot take an image of as many as `found`."""
    if found not in (1, channels):
        raise ConfigError(
            f"network.settings.channels is {channels}, but there are images of {found} channels; set it to that, "
            "or leave these images out."
        )


def chances(examples: Sequence[Example], spec: TrainSpec) -> npt.NDArray[np.float64]:
    """How likely each example (N,) is to be drawn: shares of modalities, then of groups, then the root of its area.

    Larger images hold more to learn from, but not in proportion: their crops are alike.
    """
    out = np.zeros(len(examples))
    rows = by_modality(examples, spec.data.mix)
    shares = spec.data.mix or {name: float(len(of)) for name, of in rows.items()}
    for name, of in rows.items():
        out[of] = shares[name] / sum(shares.values()) * _within([examples[i] for i in of], spec.data.balance)
    return out / out.sum()


def _within(examples: Sequence[Example], balance: float) -> npt.NDArray[np.float64]:
    """Chances (N,) among the examples of a modality, adding up to 1."""
    groups, member, size = np.unique([e.group for e in examples], return_inverse=True, return_counts=True)
    area = np.sqrt([e.labels.size for e in examples])
    per_group = np.bincount(member, area, len(groups))
    weight = size[member] ** (1.0 - balance) * area / per_group[member]
    return np.asarray(weight / weight.sum())
