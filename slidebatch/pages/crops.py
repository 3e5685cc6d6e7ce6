"""Pieces of an image with the outlines of nuclei, at the resolution of their pixels: the image as it is, outlines as
vectors along the edges of pixels."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from slidebatch.outlines import trace
from slidebatch.pages.blocks import Drawing
from slidebatch.pages.page import filled

BARS_UM = (500, 200, 100, 50, 20, 10, 5, 2, 1)
"""Lengths that a scale bar may have."""


@dataclass(frozen=True)
class Crop:
    """A piece of an image.

    pixels  (Y, X) or (Y, X, 3) uint8, as shown
    labels  (Y, X) unsigned: 0 is background
    mpp     micrometres a pixel; None where it is not known
    """

    title: str
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.unsignedinteger]
    mpp: float | None


def crop_drawing(crop: Crop) -> Drawing:
    """The picture: losslessly packed pixels one to one, a path for every nucleus with its label and area."""
    height, width = crop.labels.shape
    bar_px, bar_text = _bar(width, crop.mpp)
    drawn = {
        "width": width,
        "height": height,
        "title": crop.title,
        "href": _packed(crop.pixels),
        "outlines": _outlines(crop.labels),
        "bar_px": bar_px,
        "bar_text": bar_text,
    }
    return Drawing(filled("crop.svg", **drawn), crop.title)


def _packed(pixels: npt.NDArray[np.uint8]) -> str:
    """Pixels as a data URI."""
    packed = io.BytesIO()
    # The least effort: noise would take seconds a piece otherwise, for a few bytes in a hundred.
    Image.fromarray(pixels).save(packed, format="WEBP", lossless=True, method=0, quality=0)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def _outlines(labels: npt.NDArray[np.unsignedinteger]) -> list[tuple[str, str]]:
    """Words and path of every nucleus of labels (Y, X), by label."""
    names, counts = np.unique(labels[labels > 0], return_counts=True)
    whole = np.tile(np.array([0, 0, *labels.shape], np.int64), (len(names), 1))
    y, x = np.nonzero(labels)
    row = np.searchsorted(names, labels[y, x])
    for axis, at in ((0, y), (1, x)):  # boxes: outlines are looked for in them alone
        low = np.full(len(names), labels.shape[axis])
        np.minimum.at(low, row, at)
        high = np.zeros(len(names), np.int64)
        np.maximum.at(high, row, at + 1)
        whole[:, axis], whole[:, axis + 2] = low, high
    rings = trace(labels, names.astype(np.int64), whole)
    paths = [""] * len(names)
    for owner, ring in zip(rings.owner, np.split(rings.point, rings.start[1:-1]), strict=False):
        paths[owner] += _path(ring)
    return [(f"nucleus {n}, {c} px here", path) for n, c, path in zip(names, counts, paths, strict=True)]


def _path(ring: npt.NDArray[np.int32]) -> str:
    """A ring of points (K, 2), every step of which goes along one axis, as a path of SVG."""
    steps = [f"v{dy}" if dy else f"h{dx}" for dy, dx in np.diff(ring, axis=0).tolist()]
    return f"M{ring[0, 1]} {ring[0, 0]}{''.join(steps)}z"


def _bar(width: int, mpp: float | None) -> tuple[float, str]:
    """Length in pixels and words of a scale bar of at most a third of the width; (0, "") where none can be told."""
    if mpp is None:
        return 0.0, ""
    fitting = next((um for um in BARS_UM if um / mpp <= width / 3), None)
    return (0.0, "") if fitting is None else (round(fitting / mpp, 2), f"{fitting} µm")
