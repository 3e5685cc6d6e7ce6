"""From a finished training to weights with their card: resolution, decoder thresholds, scores.

Thresholds are chosen on the groups held out of the training, never on the excluded images; these are scored
once, at the end, with the thresholds as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slidebatch.decode import DecodeSpec
from slidebatch.errors import ConfigError
from slidebatch.metrics import dsb_score
from slidebatch.models.small_unet import Architecture, SmallUNet
from slidebatch.models.weights_file import CardFile, write_weights
from slidebatch.training.dataset import Example, excluded, load, split
from slidebatch.training.loop import State, forward_of, reach
from slidebatch.training.score import Maps, decoded, held_out_score, whole_maps
from slidebatch.training.spec import TrainSpec

TYPICAL_NUCLEUS_UM = 10.0
"""The training images state no resolution; a nucleus of this diameter stands in for it."""

LICENCE = "weights: BSD-3-Clause; training images: 2018 Data Science Bowl stage 1 (BBBC038), CC0"

GRID: dict[str, tuple[float, ...]] = {
    "seed_threshold": (0.4, 0.5, 0.6, 0.7),
    "foreground_threshold": (0.3, 0.4, 0.5, 0.6),
}


def export(state: State, spec: TrainSpec, command: str) -> Path:
    """Write `<output>/small_unet.safetensors` and its card from the best averaged weights; the weights' path."""
    if state.best is None:
        raise ConfigError(f"{spec.output}: the training kept no weights yet; give the same command again.")
    network = SmallUNet(Architecture())
    network.load_state_dict(state.best)
    path = Path(spec.output) / "small_unet.safetensors"
    write_weights(path, state.best, card_of(network, spec, command))
    return path


def card_of(network: SmallUNet, spec: TrainSpec, command: str) -> CardFile:
    """The card: measured on the images the network was fitted on, on the held-out, and on the excluded ones."""
    parts = split(spec)
    held = load(spec.dataset, parts.held)
    diameter = median_diameter_px(load(spec.dataset, parts.fit))
    decode, score = tune(network, held)
    kept = DecodeSpec.model_validate(decode)
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
        decode=decode,
        licence=LICENCE,
        training=history(spec, command) | {"median_diameter_px": round(diameter, 2)},
        scores={
            "measure": "2018 Data Science Bowl score, mean over images, whole-image forward",
            "held_out": {"images": len(held), "all": round(score, 4)},
            "excluded": {"images": len(rest)} | rounded(held_out_score(forward_of(network), rest, *reach(), kept)),
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


def tune(network: SmallUNet, held: Sequence[Example]) -> tuple[dict[str, float], float]:
    """The decoder's thresholds with the best score on the held-out images, and that score.

    The first best of the grid wins; without held-out images the decoder's defaults stay.
    """
    if not held:
        return {}, float("nan")
    maps = [whole_maps(forward_of(network), e, *reach()) for e in held]
    choices = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    scores = [mean_score(maps, held, DecodeSpec.model_validate(c)) for c in choices]
    best = int(np.argmax(scores))
    return choices[best], scores[best]


def mean_score(maps: Sequence[Maps], examples: Sequence[Example], spec: DecodeSpec) -> float:
    """Mean Data Science Bowl score of maps that are there already."""
    return float(np.mean([dsb_score(decoded(m, spec), e.labels) for m, e in zip(maps, examples, strict=True)]))


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}
