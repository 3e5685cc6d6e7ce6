"""From sums to the columns of the table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from slidebatch.measurements.spec import Recipe
from slidebatch.measurements.stains import unmixing
from slidebatch.measurements.tally import Floats, Nuclei, Tally, Values

Columns = dict[str, npt.NDArray[np.generic]]
Column = tuple[str, npt.NDArray[np.generic]]


def columns_of(found: Tally, mpp: float | None) -> Columns:
    """The measured columns of N nuclei by name: (N,) each, float32 but for ring_area (uint32).

    mpp  micrometres per pixel of the label image; NaN in columns in micrometres where it is None
    """
    return dict(_columns(found, mpp))


def _columns(found: Tally, mpp: float | None) -> Iterator[Column]:
    recipe = found.recipe
    if recipe.shape:
        yield from _shape(found, mpp)
    inside = found.inside.statistics()
    if "intensity" in recipe.sets:
        yield from _intensities(recipe, found.inside, inside, ("mean", ""))
    if recipe.ring:
        around = found.ring.statistics()
        yield "ring_area", found.ring.count.astype(np.uint32)
        yield from _intensities(recipe, found.ring, around, ("ring", "ring_"))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = inside["mean"] / np.where(around["mean"] == 0, np.nan, around["mean"])
        yield from ((f"nucleus_to_ring_{name}", _real(ratio[:, c])) for c, name in enumerate(recipe.names))
    if recipe.stains:
        yield from _stains(found)


@lru_cache(maxsize=64)
def column_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the measured columns in order, one that several measurements share as often as they do."""
    nobody = Nuclei(np.zeros(0, np.int64), np.zeros((0, 4), np.int32))
    return tuple(name for name, _ in _columns(Tally.of(nobody, recipe), None))


def _real(values: Floats) -> npt.NDArray[np.float32]:
    return values.astype(np.float32)


def _shape(found: Tally, mpp: float | None) -> Iterator[Column]:
    """Perimeter, eccentricity, orientation and solidity, as scikit-image defines them."""
    perimeter = found.steps @ np.array([1.0, np.sqrt(2), (1 + np.sqrt(2)) / 2])
    eccentricity, orientation = ellipse(found.moment)
    yield "perimeter", _real(perimeter)
    yield "perimeter_um", _real(perimeter * (np.nan if mpp is None else mpp))
    yield "eccentricity", _real(eccentricity)
    yield "solidity", _real(found.moment[:, 0] / np.maximum(found.hulls(), 1))
    yield "orientation", _real(orientation)


def ellipse(moment: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Eccentricity and orientation of the ellipse with the same second moments: (N,) each.

    moment  (N, 6): pixels, sums of y, x, yy, xx, yx

    Orientation is the angle in radians from the y axis to the long axis, towards x, in [-pi/2, pi/2]; where no axis
    is longer, it is what scikit-image says: -pi/4.
    """
    n, y, x, yy, xx, yx = moment.astype(np.float64).T
    # Times n^2: whole numbers, exact for nuclei of ordinary size, so that what is symmetric comes out so.
    tall, wide, both = n * yy - y * y, n * xx - x * x, n * yx - y * x
    middle, apart = (tall + wide) / 2, np.hypot((tall - wide) / 2, both)
    most = middle + apart
    with np.errstate(invalid="ignore", divide="ignore"):
        least = np.clip((tall * wide - both * both) / most, 0, None)
        eccentricity = np.where(most > 0, np.sqrt(np.clip(1 - least / most, 0, None)), 0)
    level = np.where(both > 0, np.pi / 4, -np.pi / 4)
    return eccentricity, np.where(tall == wide, level, 0.5 * np.arctan2(2 * both, tall - wide))


def _intensities(recipe: Recipe, values: Values, told: dict[str, Floats], prefix: tuple[str, str]) -> Iterator[Column]:
    """Columns of every channel; `prefix` of the mean, and of all others."""
    quantiles = values.percentiles(recipe.percentiles) if recipe.percentiles else None
    for c, name in enumerate(recipe.names):
        yield f"{prefix[0]}_{name}", _real(told["mean"][:, c])
        for statistic in ("std", "min", "max"):
            yield f"{prefix[1]}{statistic}_{name}", _real(told[statistic][:, c])
        for p, percent in enumerate(recipe.percentiles):
            assert quantiles is not None
            yield f"{prefix[1]}p{percent:g}_{name}", _real(quantiles[:, c, p])


def _stains(found: Tally) -> Iterator[Column]:
    """Mean optical density of every stain."""
    area = np.maximum(found.moment[:, :1], 1)
    unmixed = (found.density / area) @ unmixing([vector for _, vector in found.recipe.stains])
    yield from ((f"od_{name}", _real(unmixed[:, s])) for s, (name, _) in enumerate(found.recipe.stains))
