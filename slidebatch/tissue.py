"""Where a slide has tissue, from a small overview of it.

Owns `TissueSpec` and the mask. The mask errs on the side of keeping: a place is blank only if it is as flat
as the noise and has the colour of the empty ground; whatever is not surely blank, and its surroundings, is
tissue.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from slidebatch.spec import Spec

GLASS = 0.75
"""Empty glass of an RGB slide is at least this bright in every channel, as a part of full range."""

GLASS_NEAR = 0.05
"""How far a place may be from the glass's own colour, as a part of full range."""

FLAT = 1.6
"""A flat place varies at most by this many times the noise (a window of pure noise stays well below)."""

DARK_NEAR = 4.0
"""How many standard deviations of noise a dark place may lie above the dark ground."""

Mask = npt.NDArray[np.bool_]


class TissueSpec(Spec):
    """How blank parts of a slide are told from tissue.

    enabled    "auto": on for slides, off for plates
    window_um  side of the window in which a place must be flat
    dilate_um  how far tissue is grown into what looked blank
    """

    enabled: Literal["auto", "on", "off"] = "auto"
    window_um: float = Field(default=16.0, gt=0)
    dilate_um: float = Field(default=32.0, ge=0)


def tissue_mask(overview: npt.NDArray[Any], rgb: bool, step_um: float, spec: TissueSpec) -> Mask:
    """True where the (C, y, x) overview shows tissue: bool (y, x).

    `step_um` is the side of an overview pixel in micrometres: level-0 pixels a step times mpp (take 0.5 where
    the mpp is not known). RGB values are in 0..255 (or 0..1). A slide without anything blank is all tissue; a
    blank one has none. Pixels that are not finite are blank.
    """
    image = np.nan_to_num(np.asarray(overview, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    size = max(3, 2 * round(spec.window_um / step_um / 2) + 1)
    blank = _blank_rgb(image, size) if rgb else _blank_dark(image, size)
    return grow_mask(_without_chance(~blank, size), spec.dilate_um / step_um)


def _blank_rgb(image: npt.NDArray[np.float64], size: int) -> Mask:
    """Blank places in colour: bright glass, or a dark ground (fluorescence saved as RGB)."""
    full = 1.0 if image.max() <= 1 else 255.0
    mean, spread = _local(image, size)
    flat = np.all(spread <= np.maximum(FLAT * _noise(image), 0.012 * full)[:, None, None], axis=0)
    bright = np.all(mean >= GLASS * full, axis=0) & flat
    padding = _never_scanned(image, mean, full)
    if not bright.any():
        return padding if image.mean() > 0.25 * full else _blank_dark(image, size)
    scanned = bright & ~padding
    if not scanned.any():
        return padding
    glass = np.percentile(mean[:, scanned], 90, axis=1)
    return padding | (scanned & np.all(mean >= glass[:, None, None] - GLASS_NEAR * full, axis=0))


def _never_scanned(image: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], full: float) -> Mask:
    """Places that the scanner left out and filled: pure black or pure white, brighter than scanned glass."""
    white = np.all(mean >= 0.997 * full, axis=0)
    return white | np.all((image <= 0) & (mean <= 0), axis=0)


def _blank_dark(image: npt.NDArray[np.float64], size: int) -> Mask:
    """Blank places of fluorescence: flat and near the dark ground in every channel."""
    blank = np.ones(image.shape[1:], bool)
    mean, spread = _local(image, size)
    for level, rough, noise in zip(mean, spread, _noise(image), strict=True):
        ground = np.percentile(level, 1)
        blank &= (rough <= FLAT * noise) & (level <= ground + DARK_NEAR * noise)
    return blank


def _noise(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard deviation of the noise per channel: from the lower quartile of steps between neighbours.

    The quartile, not the median: where tissue fills the slide the median would be its texture.
    """
    # Between two normal values of deviation s the step's lower quartile is 0.3186 * sqrt(2) * s.
    return np.array([_quartile(np.abs(np.diff(channel, axis=1))) for channel in image]) / (0.3186 * np.sqrt(2))


def _quartile(step: npt.NDArray[np.float64]) -> float:
    """Lower quartile of steps; whole-numbered ones are spread over half a step to each side.

    So rounding counts as noise: an even image of whole numbers has the deviation 0.28 of rounding itself.
    """
    if not step.size:
        return 0.0
    if not np.array_equal(step, np.round(step)):
        return float(np.percentile(step, 25))
    count = np.cumsum(np.bincount(np.minimum(step.ravel(), 2**16).astype(np.int64))) / step.size
    return float(np.interp(0.25, np.concatenate([[0.0], count]), np.concatenate([[0.0], np.arange(len(count)) + 0.5])))


def _local(image: npt.NDArray[np.float64], size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of every channel over a size x size window: both (C, y, x)."""
    mean = ndimage.uniform_filter(image, (0, size, size), mode="nearest")
    square = ndimage.uniform_filter(image * image, (0, size, size), mode="nearest")
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))


def _without_chance(mask: Mask, size: int) -> Mask:
    """The mask without specks: what is there fills a window around it, chance does not."""
    pieces, count = ndimage.label(mask)
    if not count:
        return mask
    large = np.bincount(pieces.ravel()) >= size * size / 8
    large[0] = False
    return np.asarray(large[pieces], bool)


def grow_mask(mask: Mask, radius_px: float) -> Mask:
    """The mask (y, x) with every place nearer than the radius, in its own pixels, to it."""
    if radius_px < 1 or mask.all() or not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask) <= radius_px
