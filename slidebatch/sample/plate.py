"""A made-up plate: a reporter moves from cytoplasm to nucleus with dose, as in a translocation assay.

Twelve wells of two fields and two channels (GFP: the reporter; DNA: the nuclei). Rows differ in density,
columns in dose, the last well is empty; the second field of every well is out of focus.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from slidebatch.geometry import whole
from slidebatch.sample.files import write_image, write_truth
from slidebatch.sample.nuclei import Drawing, Real, Shapes, draw, per_nucleus, place, texture

PLATE_PATTERN = "{plate}_{well}_f{field}_{channel}.tif"
PLATE_NAME = "sample"
CHANNELS = ("DNA", "GFP")
MPP = 0.5
SHAPE_PX = (512, 512)
FIELDS = (1, 2)

NUCLEI = {"A": 45, "B": 95, "C": 160}
"""Nuclei in a field by row."""

DOSES_UM = {1: 0.0, 2: 0.1, 3: 1.0, 4: 10.0}
"""Dose by column, in micromoles per litre."""

HALF_DOSE_UM = 0.7
EMPTY_WELL = "C04"
BLUR_PX = {1: 0.8, 2: 1.5}
"""Width of the point spread by field: in focus, out of focus."""

SHAPES = Shapes(diameter_px=21.0, spread=0.18, elongation=1.7, bend=0.05)
PRESSED = 0.22
GROUND, GAIN = 180.0, 1900.0
"""Camera ground and the signal of a typical nucleus, in grey levels of 16 bits."""


@dataclass(frozen=True)
class Well:
    row: str
    column: int

    @property
    def name(self) -> str:
        return f"{self.row}{self.column:02d}"

    @property
    def empty(self) -> bool:
        return self.name == EMPTY_WELL

    @property
    def response(self) -> float:
        """The part of the reporter that has moved into the nucleus, 0..1 (one binding site)."""
        dose = DOSES_UM[self.column]
        return 0.08 + 0.84 * dose / (dose + HALF_DOSE_UM)


WELLS = tuple(Well(row, column) for row in NUCLEI for column in DOSES_UM)


def write_plate(folder: str | Path, seed: int = 0) -> tuple[Path, ...]:
    """Write `images/`, `truth/<slide id>.tif` and `facts.csv` ; returns the image paths in order.

    Images are uint16 (512, 512); truth is uint16 with ids 1..n, 0 for ground. The same seed, the same pixels.
    """
    folder = Path(folder)
    paths = [path for well in WELLS for field in FIELDS for path in _write_field(folder, well, field, seed)]
    _write_facts(folder / "facts.csv")
    return tuple(paths)


def _write_field(folder: Path, well: Well, field: int, seed: int) -> list[Path]:
    images, labels = plate_field(well, field, seed)
    write_truth(folder / "truth" / f"{well.name}_f{field}.tif", labels)
    paths = []
    for channel, image in zip(CHANNELS, images, strict=True):
        name = PLATE_PATTERN.format(plate=PLATE_NAME, well=well.name, field=field, channel=channel)
        paths.append(folder / "images" / name)
        write_image(paths[-1], image, MPP)
    return paths


def _write_facts(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["well", "dose_um", "control"])
        for well in WELLS:
            control = "empty" if well.empty else {1: "negative", 4: "positive"}.get(well.column, "")
            writer.writerow([well.name, DOSES_UM[well.column], control])


def plate_field(well: Well, field: int, seed: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """One field: (2, Y, X) uint16 images in the order of CHANNELS, and labels (Y, X) int32."""
    rng = np.random.default_rng([seed, WELLS.index(well), field])
    count = 0 if well.empty else NUCLEI[well.row]
    drawing = draw(place(count, whole(SHAPE_PX), SHAPES, PRESSED, rng), SHAPE_PX)
    cell = _cells(drawing, rng)
    nuclear = _nuclei(drawing, rng)
    dna = nuclear + 0.03 * cell
    gfp = _reporter(drawing, cell, well.response, rng)
    blur = BLUR_PX[field]
    return np.stack([_camera(dna, blur, rng), _camera(0.8 * gfp, blur, rng)]), drawing.labels


def _nuclei(drawing: Drawing, rng: np.random.Generator) -> Real:
    """Stained DNA: nuclei of different brightness, domed, with grains of chromatin."""
    brightness = np.exp(rng.normal(0, 0.28, int(drawing.labels.max())))
    # Edges of a dome are thin, so two nuclei pressed together leave a faint valley between them.
    dome = np.sqrt(np.clip(drawing.depth * 2.2 + 0.12, 0, 1))
    grain = 1 + 0.13 * texture(drawing.labels.shape, (1.3, 3.0), rng)
    signal: Real = per_nucleus(brightness, drawing.labels) * dome * np.clip(grain, 0.4, 1.8)
    return signal


def _cells(drawing: Drawing, rng: np.random.Generator) -> Real:
    """Bodies of the cells around the nuclei, each of its own brightness, fading outwards: (Y, X) float32."""
    labels = drawing.labels
    if not labels.any():
        return np.zeros(labels.shape, np.float32)
    away, (y, x) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    reach = 13.0 + 4.0 * texture(labels.shape, (6.0,), rng)
    body = np.clip(1.15 - (away / np.maximum(reach, 4.0)) ** 2, 0, 1)
    brightness = np.exp(rng.normal(0, 0.25, int(labels.max())))
    return np.asarray(body * per_nucleus(brightness, labels)[y, x], np.float32)


def _reporter(drawing: Drawing, cell: Real, response: float, rng: np.random.Generator) -> Real:
    """The reporter: in the cytoplasm at rest, in the nucleus after a response that varies by cell."""
    moved = np.clip(response + rng.normal(0, 0.07, int(drawing.labels.max())), 0, 1)
    nuclear = cell * (0.2 + 0.9 * per_nucleus(moved, drawing.labels))
    outside = cell * (0.85 - 0.65 * response)
    grain = 1 + 0.08 * texture(cell.shape, (1.5,), rng)
    return np.asarray(np.where(drawing.labels > 0, nuclear, outside) * grain, np.float32)


def _camera(signal: Real, blur_px: float, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """What a camera makes of a signal (Y, X): blur, haze, uneven light, shot and read noise, 12 bits."""
    sharp = ndimage.gaussian_filter(signal, blur_px)
    haze = 0.10 * ndimage.gaussian_filter(signal, 14.0)
    y, x = np.mgrid[-1 : 1 : signal.shape[0] * 1j, -1 : 1 : signal.shape[1] * 1j]
    light = 1 - 0.12 * (y * y + x * x) / 2
    photons = np.maximum((sharp + haze) * light * GAIN + GROUND, 0)
    grey = rng.poisson(photons / 2.0) * 2.0 + rng.normal(0, 6.0, signal.shape)
    return np.asarray(np.clip(np.rint(grey), 0, 4095), np.uint16)
