"""What is a detector's own in a training: its losses, its scores, its calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from slidebatch.decode import DecodeSpec
from slidebatch.geometry import whole
from slidebatch.infer import centred
from slidebatch.metrics import dsb_score
from slidebatch.models.detector import answer
from slidebatch.models.proposals import Sampling
from slidebatch.models.protocol import Detections
from slidebatch.paste import paste
from slidebatch.settle import label_image
from slidebatch.tiling import TilingSpec
from slidebatch.training.crops import fitted as with_channels
from slidebatch.training.dataset import Example
from slidebatch.training.readers import IGNORED
from slidebatch.training.score import Fitted, means, mirrored, weighted
from slidebatch.training.spec import TrainSpec

MAPS: tuple[str, ...] = ()

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Tried least scores of detections."""

SHIFTS = (0.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75)
"""Tried additions to the logits of masks, none first: a shift must be better than none."""

LARGEST_PX = int(TilingSpec.model_fields["largest_px"].default)


def check(spec: TrainSpec) -> None:
    """Nothing: `networks.flaw` has told what is wrong with a detector."""


def prepare(network: nn.Module, spec: TrainSpec) -> None:
    """Tell a detector how many anchors and proposals to learn from. Changes `network`."""
    told = spec.detection
    names = [field.name for field in fields(Sampling)]
    network.sample(Sampling(**{name: getattr(told, name) for name in names}))  # type: ignore[operator]


def losses(network: nn.Module, batch: Sequence[Any], spec: TrainSpec) -> dict[str, Tensor]:
    """The weighted losses of a batch (images, truths), by name."""
    images, truths = batch
    found = network(images, [t.to(images.device) for t in truths])
    return {name: getattr(spec.detection, name) * loss for name, loss in found.items()}


def held_out(fitted: Fitted, examples: Sequence[Example]) -> dict[str, float]:
    """Data Science Bowl scores by modality and of all, at the least score that gives the best of all."""
    found = [detected(fitted, e) for e in examples]
    tables = [means([judged(d, e, t) for d, e in zip(found, examples, strict=True)], examples) for t in THRESHOLDS]
    return max(tables, key=lambda table: table["all"])


def scores(fitted: Fitted, examples: Sequence[Example]) -> dict[str, float]:
    """Data Science Bowl scores by modality and of all, at the architecture's least score; nothing without images."""
    least = fitted.architecture.score_threshold  # type: ignore[attr-defined]
    return means([judged(detected(fitted, e), e, least) for e in examples], examples) if examples else {}


def calibrated(fitted: Fitted, held: Sequence[Example], mix: dict[str, float]) -> tuple[Fitted, dict[str, float]]:
    """The network with the least score and the shift of the masks' logits that score best on held-out images; both.

    First the least score (of several as good the middle one), then the shift. Images count by their modality's share in
    `mix`. Without held-out images, nothing is changed. Changes the network.
    """
    if not held:
        return fitted, {}
    found = [detected(fitted, e) for e in held]

    def score(least: float, shift: float) -> float:
        moved = [replace(d, mask=shifted(d.mask, shift)) for d in found]
        return weighted([judged(d, e, least) for d, e in zip(moved, held, strict=True)], held, mix)

    tried = [score(t, 0.0) for t in THRESHOLDS]
    best = [t for t, s in zip(THRESHOLDS, tried, strict=True) if s == max(tried)]
    least = best[len(best) // 2]
    shift = max(SHIFTS, key=lambda s: score(least, s))
    fitted.network.shift_masks(shift)  # type: ignore[operator]
    made = replace(fitted, architecture=replace(fitted.architecture, score_threshold=least))  # type: ignore[type-var]
    return made, {"score_threshold": least, "mask": shift}


def shifted(mask: npt.NDArray[np.uint8], shift: float) -> npt.NDArray[np.uint8]:
    """Soft masks (uint8, 255 for 1) after a shift of their logits."""
    chance = np.arange(256) / 255
    moved = chance * math.exp(shift) / (1 + chance * math.expm1(shift))
    return np.rint(255 * moved).astype(np.uint8)[mask]


def detected(fitted: Fitted, example: Example) -> Detections:
    """What a detector finds in a whole image, mirrored beyond its edges as the engine does; in the image's pixels."""
    image, before = mirrored(example, fitted.margin_px, fitted.stride_px)
    fitted.network.eval()
    found = answer(fitted.network, with_channels(torch.from_numpy(image)[0], fitted.architecture.channels)[None])
    moved = Detections(found.box - np.float32(before), found.score, found.mask)
    return centred(moved, whole(example.labels.shape), example.labels.shape)


def judged(found: Detections, example: Example, least: float) -> float:
    """Data Science Bowl score of an image's detections; what does not count is blank on both sides."""
    counts = example.labels != IGNORED
    spec = DecodeSpec.model_validate({"score_threshold": least})
    pasted = paste(found, whole(example.labels.shape))
    return dsb_score(label_image(pasted, example.labels.shape, spec, LARGEST_PX) * counts, example.labels * counts)
