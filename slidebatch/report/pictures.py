"""Pieces of slides with their nuclei outlined, at the pixels that were segmented: never shrunk, never many bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ResultsError
from slidebatch.pages import Drawing, Gallery, Section, Text
from slidebatch.pages.crops import Crop, crop_drawing
from slidebatch.report.told import Told

MOST_BYTES = 3_000_000
"""Of all pictures together."""

Corner = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """A piece of a slide: its corner (y, x) in pixels of the labels, pixels (C, Y, X) and labels (Y, X)."""

    entry: dict[str, Any]
    corner: Corner
    pixels: npt.NDArray[Any]
    labels: npt.NDArray[np.uint32]


def pictures(told: Told) -> Section | None:
    """The gallery, from the emptiest to the fullest; None where no slide is done or none is asked for."""
    if not told.done or not told.spec.thumbnails:
        return None
    pieces, faults = _pieces(told)
    drawings: list[Drawing] = []
    used = 0
    for crop in _crops(pieces, told):
        made = crop_drawing(crop)
        if used + len(made.markup) > MOST_BYTES:
            break
        used += len(made.markup)
        drawings.append(made)
    side = told.spec.thumbnail_px
    text = (
        f"Pieces of at most {side} x {side} pixels of the segmented image, a pixel for a pixel, from the emptiest to "
        "the fullest slides or fields. Grey is stretched alike for all pieces of a plate or of a slide."
    )
    blocks: list[Text | Gallery] = [Text(text)]
    if len(drawings) < len(pieces):
        blocks.append(Text(f"{len(pieces) - len(drawings)} more are left out to keep the page light."))
    blocks += [Text(fault, warning=True) for fault in faults]
    return Section("Pictures", [*blocks, Gallery(drawings, outlined=True)])


def _pieces(told: Told) -> tuple[list[Piece], list[str]]:
    """The pieces to be shown, and why others cannot be."""
    pieces, faults = [], []
    for entry, count in chosen(told.done, told.spec.thumbnails):
        try:
            pieces += list(_of_slide(told, entry, count))
        except ResultsError as error:
            faults.append(str(error))
    return pieces, faults


def chosen(entries: Sequence[dict[str, Any]], most: int) -> list[tuple[dict[str, Any], int]]:
    """Which slides are shown with how many pieces: evenly from the fewest nuclei to the most; fewer slides, more of
    each but for fields of a plate, which have one."""
    order = sorted(entries, key=lambda e: (e.get("nuclei") or 0, e["slide"]))
    if len(order) >= most:
        return [(order[round(place)], 1) for place in np.linspace(0, len(order) - 1, most)]
    each = [most // len(order) + (place < most % len(order)) for place in range(len(order))]
    return [(e, 1 if e.get("well") else count) for e, count in zip(order, each, strict=True)]


def _of_slide(told: Told, entry: dict[str, Any], count: int) -> Iterator[Piece]:
    slide, side = entry["slide"], told.spec.thumbnail_px
    labels, image = told.results.labels(slide), told.results.image(slide)
    table = told.results.instances(slide, ["y", "x"])
    centres = (table.to_numpy(np.float64).reshape(-1, 2) + 0.5) * (entry.get("scale") or 1.0)
    for y, x in corners(centres, (labels.shape[0], labels.shape[1]), side, count):
        window = (slice(y, y + side), slice(x, x + side))
        yield Piece(entry, (y, x), np.asarray(image[:, *window]), np.asarray(labels[window]))


def corners(centres: npt.NDArray[np.float64], shape: tuple[int, int], side: int, count: int) -> list[Corner]:
    """Corners (y, x) of at most `count` squares of a grid that lie evenly between the emptiest and the fullest of those
    with nuclei; without nuclei the one in the middle.

    centres  (N, 2) of nuclei, pixels of an image of this shape
    """
    cells = [max(1, size // side) for size in shape]
    place = np.minimum(centres.astype(np.int64) // side, np.array(cells) - 1)
    if not len(place):
        return [(max(0, (shape[0] - side) // 2), max(0, (shape[1] - side) // 2))]
    found, nuclei = np.unique(place[:, 0] * cells[1] + place[:, 1], return_counts=True)
    order = found[np.lexsort((found, nuclei))]
    count = min(count, len(order))
    at = [order[int((k + 0.5) / count * len(order))] for k in range(count)]
    return [(int(one) // cells[1] * side, int(one) % cells[1] * side) for one in at]


def _crops(pieces: Sequence[Piece], told: Told) -> Iterator[Crop]:
    """The pieces as they are shown, grey stretched by plate or slide."""
    flat = [_channels(piece, told) for piece in pieces]
    keys = [piece.entry.get("plate") or piece.entry["slide"] for piece in pieces]
    windows = {key: _window([f for f, k in zip(flat, keys, strict=True) if k == key]) for key in set(keys)}
    for piece, pixels, key in zip(pieces, flat, keys, strict=True):
        low, high = windows[key]
        shown = np.nan_to_num(np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1) * 255)
        n = len(np.unique(piece.labels[piece.labels > 0]))
        y, x = piece.corner
        mpp = piece.entry.get("mpp")
        title = f"{piece.entry['slide']}: {n} nuclei here; from row {y:,}, column {x:,}"
        mpp = None if mpp is None else mpp / (piece.entry.get("scale") or 1.0)
        height, width = (min(a, b) for a, b in zip(pixels.shape, piece.labels.shape, strict=False))
        yield Crop(title, shown.astype(np.uint8)[:height, :width], piece.labels[:height, :width], mpp)


def _channels(piece: Piece, told: Told) -> npt.NDArray[Any]:
    """What is shown of a piece: (Y, X, 3) for colour, else (Y, X) of the channel that was segmented."""
    names = list(piece.entry.get("channels") or range(len(piece.pixels)))
    if names == ["R", "G", "B"]:
        return np.moveaxis(piece.pixels, 0, -1)
    asked = ((told.results.manifest.get("config") or {}).get("input") or {}).get("channels") or [0]
    place = names.index(asked[0]) if asked[0] in names else asked[0] if isinstance(asked[0], int) else 0
    return np.asarray(piece.pixels[place if place < len(names) else 0])


def _window(pieces: Sequence[npt.NDArray[Any]]) -> tuple[float, float]:
    """The values shown as black and white: all of 8 bits for colour, else from the 1st to the 99.8th percentile."""
    if pieces[0].ndim == 3 and pieces[0].dtype == np.uint8:
        return 0.0, 255.0
    values = np.concatenate([piece[np.isfinite(piece)].ravel() for piece in pieces]).astype(np.float64)
    low, high = np.percentile(values, [1, 99.8]) if len(values) else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9))
