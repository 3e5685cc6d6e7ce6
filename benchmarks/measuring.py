"""Nuclei measured per second on one core, beside scikit-image and beside reading their pixels once.

    OMP_NUM_THREADS=1 python benchmarks/measuring.py [--quick]

True nuclei of the 2018 Data Science Bowl with their images, and a dense touching field. The default set of the
config: shapes, intensities with quartiles in nucleus and ring, stains of RGB images, nearest neighbours, and the rows
encoded as a table. Labels and image lie in memory; they go by in bands of rows as in the stage. scikit-image
measures the same shapes and the mean, deviation and extremes inside nuclei (it has no rings and no percentiles). The
floor is one pass that reads every pixel of labels and image, from memory, in bands too. Processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from images import dsb_labels, dsb_mosaic, touching_field
from numba import njit
from skimage.measure import regionprops, regionprops_table
from timing import arguments, median, row, spread

from slidebatch.measure import BAND_PX, STORED, nearest
from slidebatch.measurements import Band, MeasureSpec, Nuclei, Recipe, columns_of, recipe, tally

PROPERTIES = (
    *("area", "perimeter", "eccentricity", "solidity", "orientation"),
    *("intensity_mean", "intensity_std", "intensity_min", "intensity_max"),
)
BAR = 10_000

Pixels = npt.NDArray[Any]
Case = tuple[npt.NDArray[np.uint32], Pixels]


def cases(quick: bool) -> dict[str, Case]:
    """Labels (Y, X) and images (C, Y, X) by name."""
    side, dense = (1000, 600) if quick else (6000, 4000)
    labels = dsb_labels(side, most=664)
    colour = np.ascontiguousarray(np.moveaxis(dsb_mosaic(side, most=664), -1, 0))
    field = touching_field(dense, 20).astype(np.uint32)
    random = np.random.default_rng(0)
    grey = random.integers(0, 4096, (2, dense, dense)).astype(np.uint16)
    wide = colour[:2].astype(np.uint16) * 37 + random.integers(0, 37, (2, side, side)).astype(np.uint16)
    return {
        "Data Science Bowl, RGB": (labels, colour),
        "the same, 2 channels of 8 bits": (labels, np.ascontiguousarray(colour[:2])),
        "the same, 2 channels of 14 bits": (labels, wide),
        "touching field, 2 channels of 12 bits": (field, grey),
    }


def bands(labels: npt.NDArray[np.uint32], image: Pixels, how: Recipe) -> Iterator[Band]:
    """Bands of rows, as the stage makes them."""
    halo = how.halo_px
    padded = np.pad(labels, ((halo, halo), (0, 0)))
    for y in range(0, len(labels), BAND_PX):
        part = np.ascontiguousarray(image[:, y : y + BAND_PX])
        yield Band(y, 0, padded[y : y + BAND_PX + 2 * halo], part, part if how.stains else None)


def measure(labels: npt.NDArray[np.uint32], image: Pixels, nuclei: Nuclei, how: Recipe) -> None:
    """All that a run measures of these nuclei, to the bytes of the table."""
    found = tally(bands(labels, image, how), nuclei, how)
    columns = columns_of(found, 0.5)
    far = nearest(found.moment[:, 1:3] / found.moment[:, :1] + nuclei.box[:, :2])
    table = pa.table({"label": nuclei.label, **columns, "nearest_px": far.astype(np.float32)})
    pq.write_table(table, pa.BufferOutputStream(), **STORED)


@njit(cache=True)
def read_once(labels, image):
    """A sum of every pixel: nothing that looks at all of them takes less."""
    total = np.int64(0)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            total += labels[y, x]
        for c in range(image.shape[0]):
            for x in range(labels.shape[1]):
                total += image[c, y, x]
    return total


def seconds(work: Callable[[], object]) -> float:
    """Processor time of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print nuclei per second of each case."""
    options = arguments(__doc__, repeats=5).parse_args()
    row("nuclei of", "nuclei", "px each", "nuclei/s", "scikit-image, nuclei/s", "times the floor", "bar")
    row(*["---"] * 7)
    for name, (labels, image) in cases(options.quick).items():
        found = regionprops(labels.astype(np.int64))
        nuclei = Nuclei(np.array([p.label for p in found]), np.array([p.bbox for p in found], np.int32))
        names = ["R", "G", "B"] if len(image) == 3 else [f"C{c}" for c in range(len(image))]
        how = recipe(MeasureSpec(), name, names, len(image) == 3, 0.5)
        measure(labels, image, nuclei, how)  # compiles
        read_once(labels, image)
        rates, floors = [], []
        for _ in range(options.repeats):
            took = seconds(lambda: measure(labels, image, nuclei, how))  # noqa: B023  (called at once)
            floors.append(took / seconds(lambda: read_once(labels, image)))  # noqa: B023
            rates.append(len(found) / took)
        some = slice(0, 600 if options.quick else 1200)
        part = labels[some].astype(np.int64)
        pixels = np.moveaxis(image[:, some], 0, -1)
        theirs = len(np.unique(part)) / seconds(lambda: regionprops_table(part, pixels, properties=PROPERTIES))  # noqa: B023
        px = round(np.count_nonzero(labels) / len(found))
        row(name, len(found), px, spread(rates), f"{theirs:.0f}", f"{median(floors):.0f}", BAR)


if __name__ == "__main__":
    main()
