"""The Data Science Bowl's CSV: `ImageId,EncodedPixels`, a row per nucleus, runs down the columns from 1.

On the grid of the label images. No two nuclei share a pixel, as none do in a label image. An image without nuclei has
one row without runs. `slidebatch evaluate` reads it (`evaluate.dsb_csv`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slidebatch.export.nuclei import Part, levels, parts
from slidebatch.export.wish import Wish
from slidebatch.results import Results
from slidebatch.runlengths import down_columns


def write(results: Results, slides: tuple[str, ...], wish: Wish, path: Path) -> None:
    """Write some slides, in their order; nuclei in the order of `parts`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId", "EncodedPixels"])
        for slide in slides:
            rows = int(levels(results, slide)[0].shape[0])
            empty = True
            for text in (t for part in parts(results, slide, ()) for t in encoded(part, rows)):
                writer.writerow([slide, text])
                empty = False
            if empty:
                writer.writerow([slide, ""])


def encoded(part: Part, rows: int) -> Iterator[str]:
    """The runs of each nucleus of a part of an image of `rows` rows, as text."""
    window = part.window
    runs = down_columns(window.pixels, window.label, window.box, window.corner, rows)
    pairs = np.stack([runs.place + 1, runs.length], axis=1)
    for begin, end in zip(runs.start[:-1], runs.start[1:], strict=True):
        yield " ".join(map(str, pairs[begin:end].ravel().tolist()))
