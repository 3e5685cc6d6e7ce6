"""Megapixels of class maps that become nuclei per second, on one core.

    python benchmarks/decoding.py [--quick]

Real maps: what the shipped network leaves of a real slide, and of 2018 Data Science Bowl images laid side by
side. They are decoded in windows as large as the engine's tiles read, `decode_dense` and `extract` together, as
in the stage `decode`. Compilation is done before, on a small window. Pixels count once per window.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from images import dsb_mosaic, real_slide
from timing import arguments, model_of, row, spread

from slidebatch import models
from slidebatch.decode import DecodeSpec, decode_dense, extract
from slidebatch.models.protocol import DenseModel
from slidebatch.models.spec import ModelSpec
from slidebatch.normalise import NormaliseSpec, sketch, window
from slidebatch.tiling import patch_grid, tile_grid

CELL_PX, CORE_PX, LARGEST_PX = 512, 1024, 128

Maps = npt.NDArray[np.uint8]


def maps_of(network: DenseModel, image: npt.NDArray[np.uint8]) -> Maps:
    """The network's class maps (K, Y, X) of an image (Y, X, 3), normalised by its own statistics."""
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    scaled = window([sketch(planes[:, ::2, ::2].astype(np.float32), planes.dtype)], NormaliseSpec(), True).apply(planes)
    grid = patch_grid((CELL_PX, CELL_PX), network.card.margin_px, network.card.stride_px)
    height, width = image.shape[:2]
    edge, side = grid.margin_px, grid.patch[0]
    padded = np.pad(scaled, ((0, 0), (edge, edge + CELL_PX), (edge, edge + CELL_PX)), "symmetric")
    out = np.zeros((len(network.card.maps), height + CELL_PX, width + CELL_PX), np.uint8)
    for y in range(0, height, CELL_PX):
        for x in range(0, width, CELL_PX):
            found = network.maps(padded[None, :, y : y + side, x : x + side], [])[0]
            kept = found[:, edge : edge + CELL_PX, edge : edge + CELL_PX]
            out[:, y : y + CELL_PX, x : x + CELL_PX] = kept
    return np.ascontiguousarray(out[:, :height, :width])


def decoded(maps: Maps, spec: DecodeSpec) -> tuple[float, int, int, tuple[float, float]]:
    """Seconds, pixels read, nuclei found (once per window that sees them), and seconds of the two parts."""
    tiles = tile_grid(CORE_PX, LARGEST_PX, spec.reach_px).tiles(maps.shape[1:])
    pixels = nuclei = 0
    labels_s = extract_s = 0.0
    for tile in tiles:
        piece = maps[:, *tile.read.slices()].copy()
        start = time.process_time()
        found = decode_dense(piece, tile.read, spec)
        middle = time.process_time()
        nuclei += len(extract(found, tile.valid, spec))
        end = time.process_time()
        labels_s, extract_s = labels_s + middle - start, extract_s + end - middle
        pixels += tile.read.area
    return labels_s + extract_s, pixels, nuclei, (labels_s, extract_s)


def main() -> None:
    """Print megapixels per second of both kinds of maps."""
    options = arguments(__doc__, repeats=7).parse_args()
    network: Any = models.load(ModelSpec(**model_of(options)), "cpu")
    spec = DecodeSpec()
    slide, fields = real_slide(), dsb_mosaic(600 if options.quick else 3072)
    images = {"real slide": slide[:600, :700] if options.quick else slide, "Data Science Bowl": fields}
    stored = {name: maps_of(network, image) for name, image in images.items()}
    rates: dict[str, list[float]] = {name: [] for name in stored}
    shares: dict[str, list[float]] = {name: [] for name in stored}
    told = {}
    for maps in stored.values():  # compiles
        decoded(maps, spec)
    for _ in range(options.repeats):
        for name, maps in stored.items():
            took_s, pixels, nuclei, parts = decoded(maps, spec)
            rates[name].append(pixels / took_s / 1e6)
            shares[name].append(parts[0] / took_s)
            told[name] = (f"{pixels / 1e6:.1f} MP", nuclei)
    row("maps of", "read", "nuclei", "foreground", "megapixels/s", "of which decode_dense", "bar")
    row("---", "---", "---", "---", "---", "---", "---")
    for name, found in rates.items():
        share = float((stored[name].max(axis=0) > 127).mean())
        row(name, *told[name], f"{share:.0%}", spread(found), f"{np.median(shares[name]):.0%}", 40)


if __name__ == "__main__":
    main()
