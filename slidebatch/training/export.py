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
from torch import nn

from slidebatch.errors import ConfigError
from slidebatch.models import networks
from slidebatch.models.weights_file import CardFile, write_weights
from slidebatch.training.dataset import Example, diameters_px, load, split
from slidebatch.training.score import Fitted, Maps, held_out_score, judged, whole_maps
from slidebatch.training.spec import TrainSpec
from slidebatch.training.state import State

TYPICAL_NUCLEUS_UM = 10.0
"""Training images state no resolution; a nucleus of this diameter stands in for it."""

MAPS = ("nucleus", "contour")
PATHS = (("network", "start"), *(("data", key) for key in ("modality", "groups", "only", "exclude")))
"""Settings that may be paths: cards tell the file's name alone."""

SHIFTS: dict[str, tuple[float, ...]] = {
    "background": (-0.5, 0.0, 0.5, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.5),
    "contour": (-0.5, 0.0, 0.5, 1.0, 1.5),
}
"""Tried additions to the last layer's biases, in logits; 1.4 makes of a probability of 0.8 one of 0.5."""


def export(state: State, spec: TrainSpec, command: str) -> Path:
    """Write the best averaged weights and their card into `spec.output`; the weights' path."""
    if state.best is None:
        raise ConfigError(f"{spec.output}: the training kept no weights yet; give the same command again.")
    network = networks.build(spec.network.name, spec.network.settings)
    network.load_state_dict(state.best)
    fitted = Fitted(network, networks.architecture(spec.network.name, spec.network.settings))
    path = Path(spec.output) / f"{spec.name or spec.network.name}.safetensors"
    card = card_of(fitted, state, spec, command)
    write_weights(path, network.state_dict(), card)
    return path


def card_of(fitted: Fitted, state: State, spec: TrainSpec, command: str) -> CardFile:
    """Calibrate the network and write its card: scores on the held-out and on the excluded images."""
    parts = split(spec.data, spec.seed)
    fit, held, rest = (load(spec.data, ids) for ids in (parts.fit, parts.held, parts.excluded))
    sizes = diameters_px(fit)
    low, diameter, high = (float(v) for v in np.percentile(sizes, [5, 50, 95]))
    shift = calibrate(fitted, held, spec.data.mix) if spec.calibrate else {}
    made = {"images": len(fit), "median_diameter_px": round(diameter, 2), "bias_shift": shift}
    return CardFile(
        network=spec.network.name,
        architecture=architecture_of(fitted),
        maps=MAPS,
        mpp=round(TYPICAL_NUCLEUS_UM / diameter, 3),
        diameter_um=TYPICAL_NUCLEUS_UM,
        licence=spec.licence,
        margin_px=fitted.margin_px,
        stride_px=fitted.stride_px,
        training=history(state, spec, command) | made | {"diameters_px_5_95": [round(low, 1), round(high, 1)]},
        scores={
            "measure": "2018 Data Science Bowl score, mean over images, whole-image forward",
            "held_out": {"images": len(held)} | scores(fitted, held),
            "excluded": {"images": len(rest)} | scores(fitted, rest),
        },
    )


def architecture_of(fitted: Fitted) -> dict[str, Any]:
    """All settings of the architecture, the defaults too: these may change."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(fitted.architecture).items()}


def history(state: State, spec: TrainSpec, command: str) -> dict[str, Any]:
    """How the weights were made, without the paths of the machine that made them."""
    settings = spec.model_dump(mode="json", exclude={"output": True, "licence": True, "data": {"path", "images"}})
    for section, key in PATHS:
        if settings[section][key] is not None:
            settings[section][key] = Path(settings[section][key]).name
    seconds = round(sum(row["seconds"] for row in state.rows))
    return {"command": command, "epochs": state.epoch, "seconds": seconds, "settings": settings}


def scores(fitted: Fitted, examples: Sequence[Example]) -> dict[str, float]:
    """Data Science Bowl scores by modality and of all; nothing without images."""
    if not examples:
        return {}
    found = held_out_score(fitted.maps, examples, fitted.margin_px, fitted.stride_px)
    return {name: round(value, 4) for name, value in found.items()}


def calibrate(fitted: Fitted, held: Sequence[Example], mix: dict[str, float]) -> dict[str, float]:
    """Set the last layer's biases so that 0.5 is the best threshold on the held-out images; the shifts used.

    The loss weighs rims and gaps more than their share, which makes nuclei too large and merges them at 0.5;
    a shift of the biases takes that back exactly. Images count by their modality's share in `mix`; where a shift
    is no better than none, or without held-out images, nothing is shifted. Changes the network.
    """
    if not held:
        return dict.fromkeys(SHIFTS, 0.0)
    logits = [whole_maps(fitted.logits, e, fitted.margin_px, fitted.stride_px) for e in held]
    choices = [dict(zip(SHIFTS, values, strict=True)) for values in itertools.product(*SHIFTS.values())]
    choices.sort(key=lambda choice: any(choice.values()))  # none first: a shift must be better than none
    found = [weighted_score([shifted(z, c) for z in logits], held, mix) for c in choices]
    best = choices[int(np.argmax(found))]
    head = fitted.network.head
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        head.bias.add_(torch.tensor([best["background"], 0.0, best["contour"]]))
    return best


def shifted(logits: npt.NDArray[np.float32], shift: dict[str, float]) -> Maps:
    """Class maps (2, Y, X) uint8 of logits (3, Y, X) after a shift of the biases."""
    biases = np.array([shift["background"], 0.0, shift["contour"]], np.float32)
    chance = softmax(logits + biases[:, None, None], axis=0)
    return np.rint(255 * chance[1:]).astype(np.uint8)


def weighted_score(maps: Sequence[Maps], examples: Sequence[Example], mix: dict[str, float]) -> float:
    """Data Science Bowl score at the decoder's defaults: means by modality, weighted by their shares in `mix`."""
    found = [judged(m, e) for m, e in zip(maps, examples, strict=True)]
    names = sorted({e.modality for e in examples})
    means = [np.mean([s for s, e in zip(found, examples, strict=True) if e.modality == n]) for n in names]
    shares = [mix.get(n, float(sum(e.modality == n for e in examples))) for n in names]
    return float(np.average(means, weights=shares))
