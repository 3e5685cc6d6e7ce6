"""Shapes and textures of made-up nuclei: outlines, who touches whom, and how they are placed.

A nucleus is an ellipse whose radius is bent by a few harmonics. Where two overlap, a pixel goes to the one in
which it lies deeper, so touching nuclei share a bent border as pressed nuclei do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from slidebatch.geometry import Box, whole

Real = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

HARMONICS = (2, 3, 4)
"""Waves around an outline; more than four would make it ragged."""


@dataclass(frozen=True)
class Nucleus:
    """One outline in pixels: centre, half axes along and across, angle, and the bend of each harmonic."""

    y: float
    x: float
    along_px: float
    across_px: float
    angle: float
    bend: tuple[float, ...]
    phase: tuple[float, ...]

    @property
    def reach_px(self) -> float:
        return max(self.along_px, self.across_px) * (1 + sum(abs(b) for b in self.bend))


@dataclass(frozen=True)
class Shapes:
    """What nuclei look like: diameters (geometric mean, log deviation), longest elongation, bends."""

    diameter_px: float
    spread: float
    elongation: float
    bend: float
    least_px: float = 12.0
    most_px: float = 30.0


@dataclass(frozen=True)
class Drawing:
    """A drawn field: `labels` (Y, X) int32, ids 1..n; `depth` (Y, X) float32, from 1 (centre) to 0."""

    labels: Labels
    depth: Real


def nucleus(at: tuple[float, float], shapes: Shapes, rng: np.random.Generator) -> Nucleus:
    """A random nucleus at (y, x)."""
    diameter = float(
        np.clip(shapes.diameter_px * np.exp(rng.normal(0, shapes.spread)), shapes.least_px, shapes.most_px)
    )
    ratio = float(np.sqrt(rng.uniform(1, shapes.elongation)))
    bend = rng.normal(0, shapes.bend, len(HARMONICS)) / np.arange(1, len(HARMONICS) + 1)
    phase = rng.uniform(0, 2 * np.pi, len(HARMONICS))
    return Nucleus(
        at[0], at[1], diameter / 2 * ratio, diameter / 2 / ratio, float(rng.uniform(0, np.pi)),
        tuple(bend.tolist()), tuple(phase.tolist()),
    )  # fmt: skip


def radius(nucleus: Nucleus, y: Real, x: Real) -> Real:
    """Distance of places from the centre, in radii of the outline: 0 at the centre, 1 on the outline."""
    cos, sin = np.cos(nucleus.angle), np.sin(nucleus.angle)
    along = ((x - nucleus.x) * cos + (y - nucleus.y) * sin) / nucleus.along_px
    across = (-(x - nucleus.x) * sin + (y - nucleus.y) * cos) / nucleus.across_px
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for wave, bend, phase in zip(HARMONICS, nucleus.bend, nucleus.phase, strict=True):
        outline += bend * np.cos(wave * theta + phase)
    return np.asarray(np.hypot(along, across) / outline, np.float32)


def draw(nuclei: Sequence[Nucleus], shape: tuple[int, int]) -> Drawing:
    """Draw nuclei into a (Y, X) field; ids follow the order of `nuclei`, those without pixels have none.

    What is cut off from its nucleus by a neighbour goes to the ground, so every id is one connected piece.
    """
    labels = np.zeros(shape, np.int32)
    nearest = np.ones(shape, np.float32)
    for number, one in enumerate(nuclei, start=1):
        box = _around(one).clip(whole(shape))
        if box.empty:
            continue
        y, x = np.mgrid[box.slices()].astype(np.float32)
        far = radius(one, y, x)
        deeper = far < nearest[box.slices()]
        nearest[box.slices()][deeper] = far[deeper]
        labels[box.slices()][deeper] = number
    labels = _renumbered(_one_piece(labels))
    return Drawing(labels, np.where(labels > 0, 1 - nearest, 0).astype(np.float32))


def _around(one: Nucleus) -> Box:
    y, x, reach = round(one.y), round(one.x), int(one.reach_px) + 2
    return Box(y, x, y + 1, x + 1).grow(reach)


def _one_piece(labels: Labels) -> Labels:
    """Keep the largest connected piece of every id, and only pieces of at least 30 pixels."""
    kept = np.zeros_like(labels)
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        pieces, count = ndimage.label(labels[where] == number)
        size = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        if size.max() >= 30:
            kept[where][pieces == 1 + size.argmax()] = number
    return kept


def _renumbered(labels: Labels) -> Labels:
    found, inverse = np.unique(labels, return_inverse=True)
    ids = np.arange(len(found)) + (0 if found[0] == 0 else 1)
    return ids[inverse].reshape(labels.shape).astype(np.int32)


def touching(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which of the nuclei 1..n have a pixel beside (or at a corner of) another nucleus's: bool (n,)."""
    touches = np.zeros(int(labels.max(initial=0)) + 1, bool)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = labels[: labels.shape[0] - dy, max(0, -dx) : labels.shape[1] - max(0, dx)]
        other = labels[dy:, max(0, dx) : labels.shape[1] - max(0, -dx)]
        pair = (one != other) & (one > 0) & (other > 0)
        touches[one[pair]] = touches[other[pair]] = True
    return touches[1:]


def place(count: int, box: Box, shapes: Shapes, pressed: float, rng: np.random.Generator) -> list[Nucleus]:
    """Up to `count` nuclei inside a box: a part `pressed` of them against an earlier one, the rest apart."""
    placed: list[Nucleus] = []
    for _ in range(count * 20):
        if len(placed) == count:
            break
        beside = bool(placed) and rng.random() < pressed
        at = (rng.uniform(box.y0, box.y1), rng.uniform(box.x0, box.x1))
        one = nucleus(at, shapes, rng)
        if beside:
            one = _against(placed[rng.integers(len(placed))], one, rng)
        if box.contains(Box(round(one.y), round(one.x), round(one.y) + 1, round(one.x) + 1)) and _fits(
            one, placed, beside
        ):
            placed.append(one)
    return placed


def _against(other: Nucleus, one: Nucleus, rng: np.random.Generator) -> Nucleus:
    """`one` moved against `other`, pressed in by up to a tenth."""
    theta = rng.uniform(0, 2 * np.pi)
    gap = (_extent(other, theta) + _extent(one, theta + np.pi)) * rng.uniform(0.9, 1.0)
    return Nucleus(
        other.y + gap * np.sin(theta), other.x + gap * np.cos(theta),
        one.along_px, one.across_px, one.angle, one.bend, one.phase,
    )  # fmt: skip


def _extent(one: Nucleus, theta: float) -> float:
    """How far the outline (without its bends) reaches from the centre in a direction."""
    turned = theta - one.angle
    return 1 / float(np.hypot(np.cos(turned) / one.along_px, np.sin(turned) / one.across_px))


def _fits(one: Nucleus, placed: Sequence[Nucleus], beside: bool) -> bool:
    """Whether no placed nucleus is too near: nothing overlaps by more than about a tenth."""
    for other in placed:
        dy, dx = one.y - other.y, one.x - other.x
        if abs(dy) > 80 or abs(dx) > 80:
            continue
        theta = float(np.arctan2(dy, dx))
        if np.hypot(dy, dx) < (0.88 if beside else 1.08) * (_extent(one, theta + np.pi) + _extent(other, theta)):
            return False
    return True


def texture(shape: tuple[int, int], sigmas_px: Sequence[float], rng: np.random.Generator) -> Real:
    """Smooth noise (Y, X) float32 of mean 0 and deviation about 1, the sum of grains of the given sizes."""
    total = np.zeros(shape, np.float32)
    for sigma in sigmas_px:
        # Large grains are drawn small and magnified: the same look at a fraction of the work.
        factor = max(1, int(sigma // 4))
        small = (shape[0] // factor + 2, shape[1] // factor + 2)
        grain = ndimage.gaussian_filter(rng.standard_normal(small, np.float32), sigma / factor, mode="wrap")
        total += _magnified(grain / grain.std(), factor, shape)
    return total / np.float32(np.sqrt(len(sigmas_px)))


def _magnified(small: Real, factor: int, shape: tuple[int, int]) -> Real:
    """Linear magnification by a whole factor, rows first, cut to a shape."""
    if factor == 1:
        return small[: shape[0], : shape[1]]
    for axis, length in enumerate(shape):
        at = np.arange(length) / factor
        low = at.astype(np.intp)
        part = (at - low).astype(np.float32)
        part = part[:, None] if axis == 0 else part[None, :]
        small = np.take(small, low, axis) * (1 - part) + np.take(small, low + 1, axis) * part
    return small


def per_nucleus(values: npt.NDArray[np.float64], labels: Labels) -> Real:
    """An image (Y, X) float32 of one value (n,) per nucleus, 0 on the ground."""
    return np.concatenate([[0.0], values]).astype(np.float32)[labels]
