"""A made-up tissue slide, stained with haematoxylin and eosin: purple nuclei in pink tissue on white glass.

Colour is made as light makes it: two stains absorb, their optical densities add up (Ruifrok and Johnston
2001, "Quantification of histochemical staining by color deconvolution", for the stains' colours).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from slidebatch.geometry import Box, whole
from slidebatch.sample.files import write_slide, write_truth
from slidebatch.sample.nuclei import Drawing, Nucleus, Real, Shapes, draw, per_nucleus, place, texture

TISSUE_NAME = "tissue"
MPP = 0.5
SHAPE_PX = (2048, 3072)
LEVELS = 3
BLOCK_PX = 256
"""Nuclei are placed block by block, so that the search for room stays short."""

NUCLEI = {"stroma": 14, "dense": 52}
"""Nuclei in a block of each kind of tissue."""

STROMA = Shapes(diameter_px=15.0, spread=0.18, elongation=4.0, bend=0.04, most_px=26.0)
DENSE = Shapes(diameter_px=19.0, spread=0.16, elongation=1.7, bend=0.06, most_px=30.0)
PRESSED = 0.24

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.07, 0.99, 0.11], np.float32)
GLASS = np.array([244.0, 243.0, 244.0], np.float32)


def write_tissue(folder: str | Path, seed: int = 0) -> tuple[Path, ...]:
    """Write `images/tissue.ome.tif` and `truth/tissue.tif` ; returns the image's path in a tuple.

    The image is uint8 RGB (2048, 3072), mpp 0.5, JPEG tiles, three levels; truth is uint16 with ids 1..n. The
    same seed, the same pixels before compression.
    """
    folder = Path(folder)
    image, labels = tissue_slide(SHAPE_PX, seed)
    path = folder / "images" / f"{TISSUE_NAME}.ome.tif"
    write_slide(path, image, MPP, LEVELS)
    write_truth(folder / "truth" / f"{TISSUE_NAME}.tif", labels)
    return (path,)


def tissue_slide(shape: tuple[int, int], seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """RGB uint8 (Y, X, 3) and labels int32 (Y, X); both sides at least one block."""
    rng = np.random.default_rng([seed, 1])
    tissue = _tissue(shape, rng)
    dense = tissue & (texture(shape, (90.0,), rng) > 0.1)
    drawing = draw(_nuclei(tissue, dense, rng), shape)
    blue = _nuclear_stain(drawing, rng)
    pink = _tissue_stain(tissue, dense, drawing, rng)
    density = blue[..., None] * HAEMATOXYLIN + pink[..., None] * EOSIN
    density = ndimage.gaussian_filter(density, (0.8, 0.8, 0))
    noise = rng.normal(0, 1.6, (*shape, 3)).astype(np.float32)
    image = np.clip(np.rint(GLASS * np.exp(-density) + noise), 0, 255).astype(np.uint8)
    return image, drawing.labels


def _tissue(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A ragged blob away from the slide's border, with holes: bool (Y, X)."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    edge = 0.82 - (np.abs(y) ** 3 + np.abs(x) ** 3) ** (1 / 3)
    blob = edge + 0.10 * texture(shape, (110.0,), rng) + 0.02 * texture(shape, (18.0,), rng) > 0
    holes = texture(shape, (60.0,), rng) > 2.3
    return np.asarray(blob & ~holes, bool)


def _nuclei(tissue: npt.NDArray[np.bool_], dense: npt.NDArray[np.bool_], rng: np.random.Generator) -> list[Nucleus]:
    """Nuclei of all blocks, those whose centre (and most of the body) lies in tissue."""
    found: list[Nucleus] = []
    inner = ndimage.distance_transform_edt(tissue) > 10
    for y in range(0, tissue.shape[0], BLOCK_PX):
        for x in range(0, tissue.shape[1], BLOCK_PX):
            # A strip is left free between blocks: neighbours know nothing of each other.
            box = Box(y, x, y + BLOCK_PX, x + BLOCK_PX).grow(-6).clip(whole((tissue.shape[0], tissue.shape[1])))
            for kind, shapes, where in (("dense", DENSE, inner & dense), ("stroma", STROMA, inner & ~dense)):
                if not where[box.slices()].any():
                    continue
                block = place(NUCLEI[kind], box, shapes, PRESSED if kind == "dense" else 0.1, rng)
                found += [n for n in block if where[int(n.y), int(n.x)]]
    return found


def _nuclear_stain(drawing: Drawing, rng: np.random.Generator) -> Real:
    """Optical density of haematoxylin (Y, X): nuclei with a dark rim, chromatin grains and nucleoli."""
    count = int(drawing.labels.max())
    strength = np.clip(np.exp(rng.normal(0.0, 0.22, count)), 0.7, 1.6)
    rim = 1 + 0.2 * np.exp(-(((drawing.depth - 0.12) / 0.12) ** 2))
    grain = 1 + 0.13 * texture(drawing.labels.shape, (1.4, 2.6), rng)
    edge = np.clip(drawing.depth * 5 + 0.3, 0, 1)
    return per_nucleus(strength, drawing.labels) * edge * rim * np.clip(grain, 0.45, 1.9)


def _tissue_stain(
    tissue: npt.NDArray[np.bool_], dense: npt.NDArray[np.bool_], drawing: Drawing, rng: np.random.Generator
) -> Real:
    """Optical density of eosin (Y, X): fibres in stroma, even where cells are dense, none on glass."""
    shape = tissue.shape
    fibre = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), (1.2, 9.0), mode="wrap")
    warp = 14 * texture((shape[0], shape[1]), (60.0,), rng)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    fibre = ndimage.map_coordinates(fibre / fibre.std(), (y + warp, x), order=1, mode="wrap")
    stroma = 0.30 + 0.04 * fibre
    cytoplasm = 0.27 + 0.03 * texture((shape[0], shape[1]), (2.0, 12.0), rng)
    pink = np.where(ndimage.gaussian_filter(dense.astype(np.float32), 6.0) > 0.5, cytoplasm, stroma)
    pink = np.clip(pink, 0.05, 0.8) * ndimage.gaussian_filter(tissue.astype(np.float32), 1.5)
    return np.asarray(np.where(drawing.labels > 0, 0.6 * pink, pink), np.float32)
