"""The Data Science Bowl's CSV: one row per nucleus, its pixels as runs counted down the columns, from 1.

    ImageId,EncodedPixels
    a1,6 3 16 3

is the nucleus of pixels 6-8 and 16-18 of an image whose first column is pixels 1..Y. An image without nuclei has one
row without runs. Columns `Height` and `Width`, which solutions have, give the shapes; images that a solution's
column `Usage` calls `Ignored` are left out. Source: https://www.kaggle.com/c/data-science-bowl-2018 (Evaluation).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slidebatch.errors import InputError

Labels = npt.NDArray[np.int64]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Runs:
    """A CSV in memory: `nuclei` the runs of each nucleus by image, `shapes` (Y, X) of images where it states them."""

    path: Path
    nuclei: dict[str, list[str]]
    shapes: dict[str, Shape]

    def labels(self, image: str, shape: Shape) -> Labels:
        """Label image (Y, X) int64: nuclei numbered 1..n in the order of their rows.

        :raises InputError: runs that are no pairs of whole numbers, leave the image, or share a pixel.
        """
        flat = np.zeros(shape[0] * shape[1], np.int64)
        for number, text in enumerate(self.nuclei[image], 1):
            for start, stop in self._spans(image, text, len(flat)):
                if flat[start:stop].any():
                    raise InputError(f"{self.path}: two nuclei of {image} share pixels; give each pixel to one.")
                flat[start:stop] = number
        return flat.reshape(shape[1], shape[0]).T

    def _spans(self, image: str, text: str, most: int) -> list[tuple[int, int]]:
        """Half-open spans of the column-major image."""
        try:
            values = [int(word) for word in text.split()]
            pairs = list(zip(values[::2], values[1::2], strict=True))
        except ValueError:
            raise InputError(
                f"{self.path}: {image} has runs {text[:40]!r}; expected pairs of whole numbers, start and length."
            ) from None
        if any(start < 1 or length < 1 or start - 1 + length > most for start, length in pairs):
            raise InputError(
                f"{self.path}: a run of {image} leaves the image of {most} pixels; starts count from 1, "
                "and the image's shape must be that of the truth."
            )
        return [(start - 1, start - 1 + length) for start, length in pairs]


def read_csv(path: Path) -> Runs:
    """Read a CSV. InputError: no text, the columns ImageId and EncodedPixels are missing, or a shape is no number."""
    csv.field_size_limit(sys.maxsize)  # a large nucleus has more runs than the default of 131,072 letters holds
    nuclei: dict[str, list[str]] = {}
    shapes: dict[str, Shape] = {}
    for row in _rows(path):
        if row.get("Usage") != "Ignored":
            _add(path, row, nuclei, shapes)
    return Runs(path, nuclei, shapes)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"ImageId", "EncodedPixels"} <= set(reader.fieldnames or []):
                raise InputError(
                    f"{path} has columns {', '.join(reader.fieldnames or [])}; expected ImageId and EncodedPixels."
                )
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV in UTF-8 ({error}); save it as one.") from error


def _add(path: Path, row: dict[str, str], nuclei: dict[str, list[str]], shapes: dict[str, Shape]) -> None:
    """Enter one row."""
    image = row["ImageId"]
    if row["EncodedPixels"] is None:
        raise InputError(f"{path}: the row of {image} ends after the id; without nuclei it still needs a comma.")
    text = row["EncodedPixels"].strip()
    nuclei.setdefault(image, [])
    if text:
        nuclei[image].append(text)
    if row.get("Height") and row.get("Width"):
        try:
            shapes[image] = int(row["Height"]), int(row["Width"])
        except ValueError as error:
            raise InputError(f"{path}: Height and Width of {image} must be whole numbers ({error}).") from error
