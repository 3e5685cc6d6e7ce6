"""Label images with the truth, read by window: what the oracles know."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy import ndimage

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.store import open_array

ENDINGS = (".tif", ".tiff", ".npy", ".zarr", ".png")
BAND_PX = 4096


class Truth:
    """One label image (Y, X), integer, 0 = background; large ones stay on disk where the file allows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array = _open(path)
        if len(self.array.shape) != 2 or np.dtype(self.array.dtype).kind not in "iu":
            raise InputError(
                f"{path}: found {self.array.dtype} of shape {tuple(self.array.shape)}; "
                "a label image holds integer labels (Y, X)."
            )
        self.box = whole(self.array.shape)

    def read(self, box: Box) -> npt.NDArray[np.int64]:
        """Labels of a box (Y, X) int64; 0 outside the image."""
        out = np.zeros(box.shape, np.int64)
        inside = box.clip(self.box)
        if not inside.empty:
            out[inside.slices(box)] = self.array[inside.slices()]
        return out

    @cached_property
    def boxes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Labels (N,) ascending, and their boxes (N, 4); found once, a band of rows at a time."""
        return _all_boxes(self.array)


def truth_path(truth: str, slide: str) -> Path:
    """The label image of a slide: `truth` is a folder with <slide>.tif (.npy, .zarr, .png), or has {slide} in it."""
    if "{slide}" in truth:
        path = Path(truth.replace("{slide}", slide))
        if not path.exists():
            raise InputError(f"{path}: there is no truth for slide {slide}; check model.settings.truth.")
        return path
    found = [p for p in (Path(truth) / f"{slide}{e}" for e in ENDINGS) if p.exists()]
    if not found:
        raise InputError(
            f"{truth} holds no truth for slide {slide}; expected {slide} with one of {', '.join(ENDINGS)}."
        )
    return found[0]


@lru_cache(maxsize=16)
def open_truth(truth: str, slide: str) -> Truth:
    """The truth of a slide, kept open; a few per process."""
    return Truth(truth_path(truth, slide))


def _open(path: Path) -> Any:
    try:
        ending = path.suffix.lower()
        if ending == ".zarr":
            return open_array(path / "0" if (path / "0").is_dir() else path)
        if ending == ".npy":
            return np.load(path, mmap_mode="r")
        if ending == ".png":
            return np.asarray(Image.open(path))
        return _open_tiff(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as a label image ({error}); write it again.") from error


def _open_tiff(path: Path) -> npt.NDArray[Any]:
    with tifffile.TiffFile(path) as file:
        in_one_piece = file.series[0].dataoffset is not None
    return tifffile.memmap(path, mode="r") if in_one_piece else tifffile.imread(path)


def _all_boxes(array: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    labels, boxes = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.int64)]
    for y in range(0, array.shape[0], BAND_PX):
        band, boxes_here = _boxes_of(np.asarray(array[y : y + BAND_PX]))
        labels.append(band)
        boxes.append(boxes_here + np.array([y, 0, y, 0]))
    return _joined(np.concatenate(labels), np.concatenate(boxes))


def _boxes_of(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    values, dense = np.unique(labels, return_inverse=True)
    if not len(values) or values[0] != 0:
        values, dense = np.concatenate([[0], values]), dense + 1
    found = ndimage.find_objects(dense.reshape(labels.shape).astype(np.int32))
    boxes = [(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in found]
    return values[1:].astype(np.int64), np.array(boxes, np.int64).reshape(-1, 4)


def _joined(
    labels: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One box per label, around the pieces that bands of rows cut it into."""
    if not len(labels):
        return labels, boxes
    order = np.argsort(labels, kind="stable")
    names, first = np.unique(labels[order], return_index=True)
    low = np.minimum.reduceat(boxes[order, :2], first)
    high = np.maximum.reduceat(boxes[order, 2:], first)
    return names, np.concatenate([low, high], axis=1)
