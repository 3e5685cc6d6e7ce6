"""Where training images and their truth lie: folders, the Data Science Bowl's layout, COCO JSON.

Each reader lists ids with what is needed to read them, and reads no pixels; `read` gives the pixels of one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as run_lengths

from slidebatch.errors import ConfigError, InputError
from slidebatch.geometry import whole
from slidebatch.models.truth import Truth, truth_path
from slidebatch.normalise import NormaliseSpec, sketch, window
from slidebatch.slides import Source, SourceFile, open_slide
from slidebatch.training.spec import DataSpec

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
Labels = npt.NDArray[np.int32]

IGNORED = -1
"""Label of pixels that do not count: crowds, and masks that `data.drop` takes out."""


@dataclass(frozen=True)
class Picture:
    """One image with truth, not yet read: its id, its file, and what gives its labels for a shape (Y, X)."""

    id: str
    image: Path
    labels: Callable[[tuple[int, int]], Labels]


def find(spec: DataSpec) -> list[Picture]:
    """All images of a training set, by id. ConfigError where there are none or the layout is another."""
    path = Path(spec.path).expanduser()
    if not path.exists():
        raise ConfigError(f"data.path: {path} does not exist; name a folder of images with truth, or a COCO file.")
    layout = _layout(path) if spec.layout == "auto" else spec.layout
    found = {"folders": _folders, "dsb": _bowl, "coco": _coco}[layout](path, spec)
    if not found:
        raise ConfigError(f"data.path: {path} holds no images as the layout {layout} has them.")
    found.sort(key=lambda p: p.id)
    if alike := [one for one, other in pairwise(found) if one.id == other.id]:
        raise ConfigError(f"data.path: {path} has two images with the id {alike[0].id}; rename or remove one.")
    return found


def read(picture: Picture) -> tuple[npt.NDArray[np.uint8], Labels, bool]:
    """Image (C, Y, X) uint8 as the engine shows it to networks (255 for 1), labels (Y, X), whether it is in colour."""
    source = Source(picture.id, (SourceFile(str(picture.image.resolve())),))
    with open_slide(source) as slide:
        image, rgb = slide.read(whole(slide.shape)), slide.rgb
    shown = window([sketch(image)], NormaliseSpec.model_validate({}), rgb=rgb).apply(image)
    labels = picture.labels(image.shape[1:])
    if labels.shape != image.shape[1:]:
        raise InputError(f"{picture.id}: its image has {image.shape[1:]} px (y, x), its labels {labels.shape}.")
    return (255 * shown).round().astype(np.uint8), labels, rgb


def _layout(path: Path) -> str:
    if path.is_file():
        return "coco"
    return "folders" if (path / "images").is_dir() else "dsb"


# Folders of images and of label images


def _folders(path: Path, spec: DataSpec) -> list[Picture]:
    for name in ("images", "labels"):
        if not (path / name).is_dir():
            raise ConfigError(f"data.path: {path / name} is missing; the layout folders has images/ and labels/.")
    files = [f for f in sorted((path / "images").iterdir()) if f.suffix.lower() in ENDINGS]
    return [Picture(f.stem, f, partial(_label_file, str(path / "labels"), f.stem)) for f in files]


def _label_file(folder: str, id: str, shape: tuple[int, int]) -> Labels:
    truth = Truth(truth_path(folder, id))
    return numbered(truth.read(truth.box))


def numbered(labels: npt.NDArray[np.int64]) -> Labels:
    """Label image (Y, X) with its values above 0 as 1, 2, ... in their order; the others are background."""
    values, places = np.unique(np.maximum(labels, 0), return_inverse=True)
    first = int(values[0] > 0) if len(values) else 0
    return (places.reshape(labels.shape) + first).astype(np.int32)


# <id>/images/<id>.png and <id>/masks/*.png


def _bowl(path: Path, spec: DataSpec) -> list[Picture]:
    found = []
    for folder in sorted(f for f in path.iterdir() if (f / "images").is_dir()):
        files = [f for f in sorted((folder / "images").iterdir()) if f.suffix.lower() in ENDINGS]
        image = files[0] if len(files) == 1 else folder / "images"  # none or several: left out when it is read
        found.append(Picture(folder.name, image, partial(_mask_files, folder / "masks")))
    return found


def _mask_files(folder: Path, shape: tuple[int, int]) -> Labels:
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in ENDINGS]
    return _stacked(shape, [np.asarray(Image.open(f).convert("L")) > 0 for f in files], str(folder))


# COCO


def _coco(path: Path, spec: DataSpec) -> list[Picture]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        images, annotations = told["images"], told["annotations"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"data.path: {path} is no COCO file ({type(error).__name__}); it must have images and annotations."
        ) from error
    by_image: dict[Any, list[Any]] = {}
    for row in annotations:
        by_image.setdefault(row["image_id"], []).append(row)
    folder = Path(spec.images).expanduser() if spec.images else path.parent
    return [
        Picture(Path(i["file_name"]).stem, folder / i["file_name"], partial(_shapes, by_image.get(i["id"], [])))
        for i in images
    ]


def _shapes(rows: list[Any], shape: tuple[int, int]) -> Labels:
    """Labels of an image's annotations; crowds, which are no single nuclei, do not count."""
    try:
        masks = [_shape(row, shape) for row in rows if not row.get("iscrowd")]
        crowds = [_shape(row, shape) for row in rows if row.get("iscrowd")]
    except Exception as error:  # pycocotools raises whatever comes, bare exceptions too
        raise InputError(f"an annotation holds no polygons and no run lengths ({error!r}).") from error
    labels = _stacked(shape, masks, "annotations")
    return np.where((labels == 0) & (_stacked(shape, crowds, "annotations") > 0), IGNORED, labels)


def _shape(row: Any, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask (Y, X) of one annotation: polygons, or run lengths, packed or not."""
    told = row["segmentation"]
    if isinstance(told, list):
        packed = run_lengths.merge(run_lengths.frPyObjects(told, *shape))
    elif isinstance(told["counts"], list):
        packed = run_lengths.frPyObjects(told, *shape)
    else:
        packed = told
    return np.asarray(run_lengths.decode(packed), bool)


def _stacked(shape: tuple[int, int], masks: list[npt.NDArray[np.bool_]], where: str) -> Labels:
    """Masks as labels from 1; a pixel of several belongs to the first."""
    labels = np.zeros(shape, np.int32)
    for i, mask in enumerate(masks):
        if mask.shape != shape:
            raise InputError(f"{where}: a mask has {mask.shape} px (y, x), its image {shape}.")
        labels[mask & (labels == 0)] = i + 1
    return labels
