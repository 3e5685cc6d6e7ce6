"""From a finished training to weights with their card: resolution, calibration, scores.

The calibration is chosen on the groups held out of the training, never on the excluded images; these are
scored once, at the end, with the weights as they ship and the decoder's defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slidebatch.errors import ConfigError
from slidebatch.models import networks
from slidebatch.models.weights_file import CardFile, write_weights
from slidebatch.training.dataset import diameters_px, load, split
from slidebatch.training.families import family
from slidebatch.training.score import Fitted
from slidebatch.training.spec import TrainSpec
from slidebatch.training.state import State

TYPICAL_NUCLEUS_UM = 10.0
"""Training images state no resolution; a nucleus of this diameter stands in for it."""

PATHS = (("network", "start"), *(("data", key) for key in ("modality", "groups", "only", "exclude")))
"""Settings that may be paths: cards tell the file's name alone."""


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
    own = family(spec.network.name)
    fitted, shift = own.calibrated(fitted, held, spec.data.mix) if spec.calibrate else (fitted, {})
    made = {"images": len(fit), "median_diameter_px": round(diameter, 2), "bias_shift": shift}
    return CardFile(
        network=spec.network.name,
        architecture=architecture_of(fitted),
        maps=own.MAPS,
        mpp=round(TYPICAL_NUCLEUS_UM / diameter, 3),
        diameter_um=TYPICAL_NUCLEUS_UM,
        licence=spec.licence,
        margin_px=fitted.margin_px,
        stride_px=fitted.stride_px,
        training=history(state, spec, command) | made | {"diameters_px_5_95": [round(low, 1), round(high, 1)]},
        scores={
            "measure": "2018 Data Science Bowl score, mean over images, whole-image forward",
            "held_out": {"images": len(held)} | _rounded(own.scores(fitted, held)),
            "excluded": {"images": len(rest)} | _rounded(own.scores(fitted, rest)),
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


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}
