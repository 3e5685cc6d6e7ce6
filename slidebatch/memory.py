"""Projected bytes: plain arithmetic, done before anything starts, so that a plan that cannot fit is refused.

Each function adds up what a worker holds at its worst moment in one stage, in bytes. Measured peaks must stay
below (`benchmarks/memory.py` compares them).
"""

from __future__ import annotations

from dataclasses import dataclass

from slidebatch.overlaps import Overlaps

BASE = 1_300_000_000
"""A worker before its first task: Python, torch, zarr, numba, distributed, their threads, and the reader's caches."""

ACTIVATION_PER_PX = 1_600
"""Bytes that a dense network of half a million parameters holds per patch pixel at its widest, in float32."""

GPU_BASE = 2_500_000_000
"""What CUDA and its libraries add to a worker that uses a GPU, in the machine's memory. A guess: not measured."""

NUCLEUS = 40
"""Bytes per nucleus of a slide that the seam stage holds."""

ROW = 80
"""Bytes of a row of the table of nuclei without what is measured; each measured column takes 4 more."""

NEIGHBOUR = 64
"""Bytes per nucleus of a slide while nearest neighbours are looked up: places, their tree, distances."""

TALLY = 600
"""Bytes per nucleus of a region while it is measured, and 100 for each channel: sums, and the rows of its box."""

MASKED = 160
"""Bytes per nucleus whose mask is held too, with the columns and temporary copies."""


@dataclass(frozen=True)
class Projection:
    """Bytes of one worker by stage, without `BASE`."""

    prepare: int
    infer: int
    decode: int
    seams: int
    paint: int
    measure: int

    @property
    def peak(self) -> int:
        """The most that a worker holds at any time."""
        stages = (self.prepare, self.infer, self.decode, self.seams, self.paint, self.measure)
        return BASE + max(stages)

    @property
    def peak_besides(self) -> int:
        """The most that a worker holds that runs no networks."""
        return BASE + max(self.prepare, self.decode, self.seams, self.paint, self.measure)

    @property
    def worst(self) -> str:
        """The stage that holds the most."""
        return max(("prepare", "infer", "decode", "seams", "paint", "measure"), key=lambda s: int(getattr(self, s)))


def prepare_bytes(channels: int, overview_px: int, strip_px: int) -> int:
    """An overview in float32 with three copies, and one strip of the level it is made from."""
    return channels * (overview_px * 4 * 4 + strip_px * 8)


def infer_bytes(patch_px: int, batch: int, channels: int, maps: int, block_px: int) -> int:
    """Patches as read, normalised and repeated, activations, and the block's maps with their encoded copy."""
    return batch * patch_px * (channels * 4 * 4 + ACTIVATION_PER_PX) + 3 * block_px * maps


def gpu_infer_bytes(batch_bytes: int, answer_bytes: int, block_bytes: int, way: Overlaps) -> int:
    """What a GPU's worker holds in the machine's memory; activations are on the GPU.

    Batches that are being made, that wait and that the GPU reads, and answers, in pinned memory, of which a power of
    two is taken; what the reading threads hold; the maps of blocks that fill up or wait, with an encoded copy.
    """
    pinned = 2 * ((way.reads + 3) * batch_bytes + 3 * answer_bytes)
    return GPU_BASE + pinned + 2 * batch_bytes + 3 * (way.stores + 3) * block_bytes


def decode_bytes(read_px: int, maps: int) -> int:
    """Maps, their sum, seeds as found and as kept, labels, two masks; a quarter as much for the packed nuclei."""
    return int(read_px * (maps + 1 + 4 + 4 + 4 + 2) * 1.25)


def seams_bytes(nuclei: int, candidates: int) -> int:
    """Columns of all nuclei (twice while they are put together) and masks of candidates."""
    return 2 * nuclei * NUCLEUS + candidates * MASKED


def paint_bytes(region_px: int, image_bytes_per_px: int) -> int:
    """The canvas and its encoded copy; the image's region likewise, with the wide sums of the pyramid."""
    return region_px * (4 * 3 + 4 * image_bytes_per_px)


def table_bytes(nuclei: int, band_nuclei: int, columns: int) -> int:
    """Rows of a band of regions: parts, put together, sorted, and encoded; places of all nuclei of the slide."""
    return 4 * band_nuclei * (ROW + 4 * columns) + nuclei * NEIGHBOUR


def measure_bytes(band_px: int, image_bytes_per_px: int, nuclei: int, channels: int) -> int:
    """Labels and image of a band of rows, with copies and whose pixel is whose; sums of a region's nuclei."""
    return band_px * (4 * 3 + 4 * 2 + 2 + 3 * image_bytes_per_px) + nuclei * (TALLY + 100 * channels)


def kept_bytes(region_px: int, image_bytes_per_px: int) -> int:
    """Every value of a region's nuclei and rings with its nucleus, twice for the channel that is being sorted."""
    return region_px * (4 + 2 * image_bytes_per_px)
