"""Small cascades for tests: settings, networks, and the three trainings one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from slidebatch.models import networks
from slidebatch.models.cascade import Cascade
from slidebatch.training import train
from slidebatch.training.spec import TrainSpec
from tests.support.training_sets import PLAIN, STILL, settings

SMALL: dict[str, Any] = {
    **{"widths": (8, 8, 16, 32), "classifier_widths": (8, 8, 8, 16), "unet_widths": (4, 8, 8, 8)},
    **{"anchors_px": (8, 16, 32), "overlap_px": 96},
}
"""A cascade of 0.2 M parameters."""

PARTS = ("proposals", "classifier", "unet")


def small(**more: Any) -> Cascade:
    """A small cascade with random weights, always the same ones."""
    torch.manual_seed(0)
    made = networks.build("cascade", SMALL | more)
    assert isinstance(made, Cascade)
    return made


def spec_of(part: str, dataset: Path, output: Path, **more: Any) -> TrainSpec:
    """A quick training of one part on bright disks."""
    network = {"name": "cascade", "settings": {**SMALL, "last_part": part}, **more.pop("network", {})}
    still = {"augment": {**STILL, **PLAIN, "flips": True}, "ema": 0}
    detection = {"anchors": 100, "anchor_iou": (0.1, 0.5), "best_anchor": False, "regions_positive": 0.5, "regions": 48}
    return settings(
        dataset,
        output,
        **{"network": network, "sampling": {"kind": "crops", "crop_px": 96}, "held_out_crops": 4, **still},
        **{"detection": detection, "optimiser": {"name": "adam", "weight_decay": 0, "learning_rate": 0.003}, **more},
    )


def train_all(dataset: Path, folder: Path, **more: Any) -> Path:
    """All three parts, each from the weights of the one before; the weights of the whole."""
    made: Path | None = None
    for part in PARTS:
        start = {"start": str(made)} if made else {}
        spec = spec_of(part, dataset, folder / part, network=start, **more)
        path = folder / f"{part}.json"
        path.write_text(json.dumps(spec.model_dump(mode="json")))
        made = train(str(path))
        assert made is not None
    assert made is not None
    return made
