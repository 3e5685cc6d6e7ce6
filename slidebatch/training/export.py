"""From a finished training to weights with their card: resolution, calibration, scores.

The calibration is chosen on the groups held out of the training, never on the excluded images; these are
scored once, at the end, with the weights as they ship and the decoder's defaults.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from slidebatch.errors import ConfigError
from slidebatch.metrics import dsb_score
from slidebatch.models.small_unet import Architecture, SmallUNet
from slidebatch.models.weights_file import CardFile, write_weights
from slidebatch.training.dataset import Example, excluded, load, split
from slidebatch.training.loop import State, forward_of, logits_of, reach
from slidebatch.training.score import DEFAULT, Maps, decoded, held_out_score, whole_maps
from slidebatch.training.spec import TrainSpec

TYPICAL_NUCLEUS_UM = 10.0
"""The training images state no resolution; a nucleus of this diameter stands in for it."""

LICENCE = "weights: BSD-3-Clause; training images: 2018 Data Science Bowl stage 1 (BBBC038), CC0"

SHIFTS: dict[str, tuple[float, ...]] = {
    "background": (0.0, 0.7, 1.1, 1.4, 1.8, 2.2),
    "contour": (-0.5, 0.0, 0.5, 1.0, 1.5),
}
"""Tried additions to the last layer's biases, in logits; 1.4 makes of a probability of 0.8 one of 0.5."""


def export(state: State, spec: TrainSpec, command: str) -> Path:
    """Write `<output>/small_unet.safetensors` and its card from the best averaged weights; the weights' path."""
    if state.best is None:
        raise ConfigError(f"{spec.output}: the training kept no weights yet; give the same command again.")
    network = SmallUNet(Architecture())
    network.load_state_dict(state.best)
    path = Path(spec.output) / "small_unet.safetensors"
    card = card_of(network, spec, command)
    write_weights(path, network.state_dict(), card)
    return path


def card_of(network: SmallUNet, spec: TrainSpec, command: str) -> CardFile:
    """Calibrate the network and write its card: scores on the held-out and on the excluded images."""
    parts = split(spec)
    held = load(spec.dataset, parts.held)
    diameter = median_diameter_px(load(spec.dataset, parts.fit))
    shift = calibrate(network, held, spec.mix)
    rest = load(spec.dataset, sorted(excluded(spec)))
    architecture = Architecture()
    return CardFile(
        network="small_unet",
        architecture={
            "channels": architecture.channels,
            "classes": architecture.classes,
            "widths": list(architecture.widths),
        },
        maps=("nucleus", "contour"),
        mpp=round(TYPICAL_NUCLEUS_UM / diameter, 3),
        diameter_um=TYPICAL_NUCLEUS_UM,
        margin_px=architecture.margin_px,
        stride_px=architecture.stride_px,
        licence=LICENCE,
        training=history(spec, command) | {"median_diameter_px": round(diameter, 2), "bias_shift": shift},
        scores={
            "measure": "2018 Data Science Bowl score, mean over images, whole-image forward",
            "held_out": {"images": len(held)} | rounded(held_out_score(forward_of(network), held, *reach())),
            "excluded": {"images": len(rest)} | rounded(held_out_score(forward_of(network), rest, *reach())),
        },
    )


def history(spec: TrainSpec, command: str) -> dict[str, Any]:
    """How the weights were made, without the paths of the machine that made them."""
    return {"command": command, "settings": spec.model_dump(mode="json", exclude={"dataset", "output"})}


def median_diameter_px(examples: Sequence[Example]) -> float:
    """Median diameter of the disks that have the area of each nucleus. ConfigError without any nucleus."""
    areas = [np.bincount(e.labels.ravel())[1:] for e in examples]
    area = np.concatenate([a[a > 0] for a in areas]) if areas else np.zeros(0)
    if not len(area):
        raise ConfigError("the training images hold no nucleus; check dataset, exclude and mix.")
    return float(np.median(2 * np.sqrt(area / np.pi)))


def calibrate(network: SmallUNet, held: Sequence[Example], mix: dict[str, float]) -> dict[str, float]:
    """Set the last layer's biases so that 0.5 is the best threshold on the held-out images; the shifts used.

    The loss weighs rims and gaps more than their share, which makes nuclei too large and merges them at 0.5;
    a shift of the biases takes that back exactly. Images count by their modality's share in `mix`; the first
    best of the grid wins; without held-out images nothing is shifted. Changes `network`.
    """
    if not held:
        return dict.fromkeys(SHIFTS, 0.0)
    logits = [whole_maps(logits_of(network), e, *reach()) for e in held]
    choices = [dict(zip(SHIFTS, values, strict=True)) for values in itertools.product(*SHIFTS.values())]
    scores = [weighted_score([shifted(z, c) for z in logits], held, mix) for c in choices]
    best = choices[int(np.argmax(scores))]
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias.add_(torch.tensor([best["background"], 0.0, best["contour"]]))
    return best


def shifted(logits: npt.NDArray[np.float32], shift: dict[str, float]) -> Maps:
    """Class maps (2, Y, X) uint8 of logits (3, Y, X) after a shift of the biases."""
    biases = np.array([shift["background"], 0.0, shift["contour"]], np.float32)
    chance = softmax(logits + biases[:, None, None], axis=0)
    return np.rint(255 * chance[1:]).astype(np.uint8)


def weighted_score(maps: Sequence[Maps], examples: Sequence[Example], mix: dict[str, float]) -> float:
    """Data Science Bowl score at the decoder's defaults: means by modality, weighted by their shares in `mix`."""
    scores = [dsb_score(decoded(m, DEFAULT), e.labels) for m, e in zip(maps, examples, strict=True)]
    names = sorted({e.modality for e in examples})
    means = [np.mean([s for s, e in zip(scores, examples, strict=True) if e.modality == n]) for n in names]
    return float(np.average(means, weights=[mix[n] for n in names]))


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}
