"""What is a dense network's own in a training: its loss, its scores, its calibration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch import Tensor, nn

from slidebatch.errors import ConfigError
from slidebatch.models import networks
from slidebatch.training.dataset import Example
from slidebatch.training.losses import check_weights, loss_of
from slidebatch.training.score import Fitted, Maps, held_out_score, judged, weighted, whole_maps
from slidebatch.training.spec import TrainSpec

CLASSES = 3
MAPS: tuple[str, ...] = ("nucleus", "contour")

SHIFTS: dict[str, tuple[float, ...]] = {
    "background": (-0.5, 0.0, 0.5, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.5),
    "contour": (-0.5, 0.0, 0.5, 1.0, 1.5),
}
"""Tried additions to the last layer's biases, in logits; 1.4 makes of a probability of 0.8 one of 0.5."""


def check(spec: TrainSpec) -> None:
    """ConfigError for a network that does not answer with what there are targets for."""
    architecture: Any = networks.architecture(spec.network.name, spec.network.settings)
    if architecture.classes != CLASSES:
        raise ConfigError(
            f"network.settings.classes is {architecture.classes}; there are targets for {CLASSES}: background, "
            "nucleus and contour."
        )
    check_weights(spec.loss, CLASSES)


def prepare(network: nn.Module, spec: TrainSpec) -> None:
    """Nothing: a dense network learns from every pixel."""


def losses(network: nn.Module, batch: Sequence[Any], spec: TrainSpec) -> dict[str, Tensor]:
    """The loss of a batch (images, classes, weights), by name."""
    images, classes, weights = batch
    logits = network(images)
    with torch.autocast(images.device.type, enabled=False):
        return {"loss": loss_of(logits.float(), classes.long(), weights, spec.loss)}


def scores(fitted: Fitted, examples: Sequence[Example]) -> dict[str, float]:
    """Data Science Bowl scores by modality and of all, at the decoder's defaults; nothing without images."""
    return held_out_score(fitted.maps, examples, fitted.margin_px, fitted.stride_px) if examples else {}


held_out = scores


def calibrated(fitted: Fitted, held: Sequence[Example], mix: dict[str, float]) -> tuple[Fitted, dict[str, float]]:
    """Set the last layer's biases so that 0.5 is the best threshold on the held-out images; the shifts used.

    The loss weighs rims and gaps more than their share, which makes nuclei too large and merges them at 0.5;
    a shift of the biases takes that back exactly. Images count by their modality's share in `mix`; where a shift
    is no better than none, or without held-out images, nothing is shifted. Changes the network.
    """
    if not held:
        return fitted, dict.fromkeys(SHIFTS, 0.0)
    logits = [whole_maps(fitted.logits, e, fitted.margin_px, fitted.stride_px) for e in held]
    choices = [dict(zip(SHIFTS, values, strict=True)) for values in itertools.product(*SHIFTS.values())]
    choices.sort(key=lambda choice: any(choice.values()))  # none first: a shift must be better than none

    def score(shift: dict[str, float]) -> float:
        return weighted([judged(shifted(z, shift), e) for z, e in zip(logits, held, strict=True)], held, mix)

    best = max(choices, key=score)
    head = fitted.network.head
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        head.bias.add_(torch.tensor([best["background"], 0.0, best["contour"]]))
    return fitted, best


def shifted(logits: npt.NDArray[np.float32], shift: dict[str, float]) -> Maps:
    """Class maps (2, Y, X) uint8 of logits (3, Y, X) after a shift of the biases."""
    biases = np.array([shift["background"], 0.0, shift["contour"]], np.float32)
    chance = softmax(logits + biases[:, None, None], axis=0)
    return np.rint(255 * chance[1:]).astype(np.uint8)
