"""Small training sets with known truth, in every layout that the training reads, and quick settings for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as run_lengths

from slidebatch.training.spec import AugmentSpec, TrainSpec
from tests.support.oracle import disks

Labels = npt.NDArray[np.int32]
Truth = Mapping[str, Labels]

TINY: dict[str, Any] = {
    "data": {"holdout": 0.3},
    "network": {"name": "unet", "settings": {"widths": (4, 8)}},
    "sampling": {"kind": "crops", "crop_px": 32},
    "epochs": 3,
    "steps_per_epoch": 2,
    "batch": 2,
    "score_every": 2,
    "threads": 1,
    "loaders": 0,
    "device": "cpu",
    "precision": "float32",
}
"""A training of a second."""

STILL: dict[str, Any] = {"scale": (1, 1), "flips": False, "rotate_chance": 0, "elastic_chance": 0}
"""No other positions: every crop is a plain cut."""

PLAIN: dict[str, Any] = {
    **{"gamma": (1, 1), "contrast": (1, 1), "brightness": 0, "tint": 0, "stain_chance": 0},
    **{"noise_chance": 0, "blur_chance": 0, "invert_chance": 0, "grey_chance": 0},
}
"""No other intensities."""


def settings(folder: Path, output: Path | str = "out", **more: Any) -> TrainSpec:
    """Tiny settings over a training set; sections are merged over `TINY`."""
    values: dict[str, Any] = {**TINY, "output": str(output), "data": {**TINY["data"], "path": str(folder)}}
    for name, value in more.items():
        merged = isinstance(value, dict) and name in ("data", "network")
        values[name] = {**values[name], **value} if merged else value
    return TrainSpec.model_validate(values)


def augment(**more: Any) -> AugmentSpec:
    """An augmentation that changes nothing, but for `more`."""
    return AugmentSpec.model_validate({**STILL, **PLAIN, **more})


def picture(labels: Labels, seed: int, stained: bool = False) -> npt.NDArray[np.uint8]:
    """An image (Y, X, 3) uint8 whose bright pixels are the labelled ones; dark violet on white where `stained`."""
    noise = np.random.default_rng(seed).normal(0, 4, labels.shape)
    shade = 30 + 150 * (labels > 0) + noise
    if not stained:
        return np.repeat(shade[..., None], 3, 2).clip(0, 255).astype(np.uint8)
    return (255 - shade[..., None] * np.array([0.8, 1.0, 0.5])).clip(0, 255).astype(np.uint8)


def write_folders(folder: Path, truth: Truth) -> Path:
    """images/<id>.png and labels/<id>.png; the folder."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i, (id, labels) in enumerate(truth.items()):
        Image.fromarray(picture(labels, i)).save(folder / "images" / f"{id}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / "labels" / f"{id}.png")
    return folder


def write_bowl(folder: Path, truth: Truth) -> Path:
    """<id>/images/<id>.png with an alpha channel, and one mask file for each nucleus; the folder."""
    for i, (id, labels) in enumerate(truth.items()):
        for name in ("images", "masks"):
            (folder / id / name).mkdir(parents=True)
        Image.fromarray(picture(labels, i)).convert("RGBA").save(folder / id / "images" / f"{id}.png")
        for label in np.unique(labels[labels > 0]):
            mask = Image.fromarray(np.where(labels == label, 255, 0).astype(np.uint8))
            mask.save(folder / id / "masks" / f"{label:04d}.png")
    return folder


def packed(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's packed run lengths of a mask."""
    told = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": told["counts"].decode()}


def unpacked(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's plain run lengths: down the columns, background first."""
    column = mask.T.ravel()
    ends = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff([0, *ends, column.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if column[0] else runs}


def polygon(mask: npt.NDArray[np.bool_]) -> list[list[int]]:
    """The outline of a rectangle as COCO's polygon (x, y, x, y, ...)."""
    y, x = np.nonzero(mask)
    y0, x0, y1, x1 = (int(v) for v in (y.min(), x.min(), y.max() + 1, x.max() + 1))
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def write_coco(folder: Path, truth: Truth, form: Callable[[npt.NDArray[np.bool_]], Any]) -> Path:
    """A COCO file with all nuclei in one form, its images in the same folder; the file."""
    folder.mkdir(parents=True)
    images, rows = [], []
    for i, (id, labels) in enumerate(truth.items()):
        Image.fromarray(picture(labels, i)).save(folder / f"{id}.png")
        images.append({"id": i, "file_name": f"{id}.png", "height": labels.shape[0], "width": labels.shape[1]})
        for label in np.unique(labels[labels > 0]):
            rows.append({"id": len(rows), "image_id": i, "iscrowd": 0, "segmentation": form(labels == label)})
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": []}))
    return path


def write_set(folder: Path) -> Path:
    """Twelve images in six groups; x00 and x01 are a group, and so on; every third is stained; x03 is excluded."""
    truth = {f"x{i:02d}": disks((90, 100), seed=i) for i in range(12)}
    write_folders(folder, truth)
    for i, (id, labels) in enumerate(truth.items()):
        if i % 3 == 0:
            Image.fromarray(picture(labels, i, stained=True)).save(folder / "images" / f"{id}.png")
    modality = [f"{id}\t{'fluorescence' if i % 3 else 'stained-purple'}" for i, id in enumerate(truth)]
    groups = [f"{id}\tg{i // 2}" for i, id in enumerate(truth)]
    (folder / "index.tsv").write_text("\n".join(["id\tmodality", *modality]))
    (folder / "groups.tsv").write_text("\n".join(["id\tgroup", *groups]))
    (folder / "validation.txt").write_text("x03\n")
    return folder
