"""Oracles: models of both families that know the truth, for laws that need a perfect network.

    oracle             dense: class maps that decode to the truth
    oracle_detections  detections: every nucleus whose box lies wholly in the patch

Both also err on purpose, at stated rates, seeded by slide and nucleus: they drop nuclei, move them by a pixel,
split them, and (detections) find them twice. What the dense oracle says of a pixel never depends on the patch.
A detection jitters from patch to patch, as a real detector's does: two views of a nucleus may differ by a
pixel. Everything else is the same in every view.

Which shapes the dense oracle gives back exactly: nuclei in one 4-connected piece whose interior (pixels with
no 4-neighbour in another nucleus) is one 4-connected piece of at least `min_seed_px` pixels, and whose other
pixels lie nearer to that interior than to any other's, at most `grow_px` away. So: everything that touches no
other nucleus, slivers too; and touching nuclei three pixels thick or more. A sliver one pixel wide that touches
another nucleus cannot be told by two maps; use `oracle_detections` for such.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from slidebatch.errors import ModelError
from slidebatch.geometry import Box
from slidebatch.models.protocol import Card, Detections, Place
from slidebatch.models.truth import Truth, open_truth
from slidebatch.spec import Spec

MASK_PX = 28
REACH_PX = 4
"""The dense oracle looks this far around a window: a pixel of jitter, the split's band, the neighbours."""

Labels = npt.NDArray[np.int64]


class OracleSpec(Spec):
    """Settings of both oracles.

    truth    folder of label images named by slide id, or a path with {slide} in it; on the plan's pixels
    drop     share of nuclei that are not found
    jitter   share of nuclei (detections: of views of nuclei) that are moved by one pixel
    split    share of nuclei that are found as two halves
    double   share of nuclei that are found twice, the second a pixel aside and less sure; detections only
    """

    truth: str
    drop: float = Field(default=0.0, ge=0, le=1)
    jitter: float = Field(default=0.0, ge=0, le=1)
    split: float = Field(default=0.0, ge=0, le=1)
    double: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0


class DenseOracle:
    """Class maps from the truth. Margin 0, stride 1: it needs no surroundings of its own."""

    def __init__(self, spec: OracleSpec, card: Card) -> None:
        self.spec, self.card = spec, card

    def maps(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> npt.NDArray[np.uint8]:
        """(N, C, Y, X) and N places -> (N, 2, Y, X) uint8: nucleus (interior), contour; 0 or 255."""
        answers = [self._one(place) for place in places]
        shape = (0, 2, *patches.shape[2:])
        return np.stack(answers) if answers else np.zeros(shape, np.uint8)

    def _one(self, place: Place) -> npt.NDArray[np.uint8]:
        truth = open_truth(self.spec.truth, place.slide)
        box = place.box.grow(REACH_PX)
        labels, gap = self._labels(truth, place.slide, box)
        interior = (labels > 0) & ~_touches_another(labels) & ~gap
        maps = np.stack([interior, (labels > 0) & ~interior]) * np.uint8(255)
        return maps[:, REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]

    def _labels(self, truth: Truth, slide: str, box: Box) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """Labels of a box after all errors, and the pixels where a nucleus is split."""
        labels = truth.read(box)
        names, index = np.unique(labels, return_inverse=True)
        chance = Chances(self.spec.seed, slide, names)
        kept = np.where(chance.of("drop") < self.spec.drop, 0, names)
        parted = (names > 0) & (chance.of("split") < self.spec.split)
        gap = _split_band(names, index.reshape(labels.shape), parted, truth, box)
        moved = np.where(chance.of("jitter") < self.spec.jitter, 1 + (chance.of("way") * 4).astype(int), 0)
        way = moved[index].reshape(labels.shape)
        labels = kept[index].reshape(labels.shape)
        return _moved(labels, way), _moved(np.where(gap, labels, 0), way) > 0


class DetectionOracle:
    """Detections from the truth, with masks of 28 x 28."""

    def __init__(self, spec: OracleSpec, card: Card) -> None:
        self.spec, self.card = spec, card

    def detect(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> list[Detections]:
        """(N, C, Y, X) and N places -> one `Detections` each: nuclei wholly inside the patch's box."""
        return [self._one(place) for place in places]

    def _one(self, place: Place) -> Detections:
        truth = open_truth(self.spec.truth, place.slide)
        names, boxes = truth.boxes
        y0, x0, y1, x1 = place.box.tuple()
        here = np.flatnonzero((boxes[:, :2] >= (y0, x0)).all(1) & (boxes[:, 2:] <= (y1, x1)).all(1))
        pieces: list[Piece] = []
        for row, found in zip(here, self._found(place, names[here]), strict=True):
            pieces += _pieces(truth, int(names[row]), Box(*boxes[row].tolist()), found)
        return _detections(pieces)

    def _found(self, place: Place, names: Labels) -> list[Found]:
        """What this view makes of each nucleus."""
        chance, spec = Chances(self.spec.seed, place.slide, names), self.spec
        view = Chances(self.spec.seed, f"{place.slide}@{place.box.y0},{place.box.x0}", names)
        moved = np.where(view.of("jitter") < spec.jitter, 1 + (view.of("way") * 4).astype(int), 0)
        return [
            Found(*values)
            for values in zip(
                chance.of("drop") < spec.drop,
                chance.of("split") < spec.split,
                chance.of("double") < spec.double,
                moved.tolist(),
                0.5 + 0.5 * chance.of("score"),
                strict=True,
            )
        ]


class Found(NamedTuple):
    """What a view makes of a nucleus; `way` 0 stays, 1..4 moves up, down, left, right."""

    drop: bool
    split: bool
    double: bool
    way: int
    score: float


WAYS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


class Chances:
    """Numbers in 0..1 for nuclei, fixed by seed, slide and label alone: (N,) float64 by purpose."""

    def __init__(self, seed: int, slide: str, labels: Labels) -> None:
        self.key, self.labels = f"{seed}:{slide}", labels.astype(np.uint64)

    def of(self, purpose: str) -> npt.NDArray[np.float64]:
        """One number per nucleus for one purpose."""
        salt = int.from_bytes(hashlib.sha256(f"{self.key}:{purpose}".encode()).digest()[:8], "big")
        x = self.labels * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
        # The finisher of SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195), on all labels at once.
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
        return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def oracle_card(settings: Mapping[str, Any], device: str = "cpu", threads: int = 1) -> Card:
    """The dense oracle's card; device and threads do not matter."""
    spec = _settings("oracle", settings)
    if spec.double:
        raise ModelError("oracle: double is for oracle_detections; class maps cannot show a nucleus twice.")
    return _card("oracle", "dense", ("nucleus", "contour"), spec)


def oracle_detections_card(settings: Mapping[str, Any], device: str = "cpu", threads: int = 1) -> Card:
    """The detection oracle's card; device and threads do not matter."""
    return _card("oracle_detections", "detections", (), _settings("oracle_detections", settings))


def load_oracle(settings: Mapping[str, Any], device: str = "cpu", threads: int = 1) -> DenseOracle:
    """The dense oracle."""
    return DenseOracle(_settings("oracle", settings), oracle_card(settings))


def load_oracle_detections(settings: Mapping[str, Any], device: str = "cpu", threads: int = 1) -> DetectionOracle:
    """The detection oracle."""
    return DetectionOracle(_settings("oracle_detections", settings), oracle_detections_card(settings))


def _settings(name: str, settings: Mapping[str, Any]) -> OracleSpec:
    try:
        return OracleSpec.model_validate(dict(settings))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        allowed = ", ".join(OracleSpec.model_fields)
        raise ModelError(f"{name}: its settings are wrong ({faults}); it takes {allowed}.") from error


def _card(name: str, family: Any, maps: tuple[str, ...], spec: OracleSpec) -> Card:
    digest = hashlib.sha256(json.dumps([name, 1, spec.model_dump()], sort_keys=True).encode()).hexdigest()
    return Card(name, family, channels=1, maps=maps, margin_px=0, stride_px=1, mpp=None, digest=digest)


# Dense: from labels to maps


def _touches_another(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels with a 4-neighbour in another nucleus."""
    out = np.zeros(labels.shape, bool)
    first, rest, every = slice(None, -1), slice(1, None), slice(None)
    for a, b in (((rest, every), (first, every)), ((every, rest), (every, first))):
        other = (labels[a] != labels[b]) & (labels[a] > 0) & (labels[b] > 0)
        out[a] |= other
        out[b] |= other
    return out


def _moved(labels: Labels, way: npt.NDArray[np.int64]) -> Labels:
    """Every nucleus moved its own way; where two meet the one that stays wins, then the larger label."""
    out = np.where(way == 0, labels, 0)
    free = out == 0
    for i, (dy, dx) in enumerate(WAYS[1:], 1):
        step = np.roll(np.where(way == i, labels, 0), (dy, dx), (0, 1))
        out = np.where(free, np.maximum(out, step), out)
    return out


def _split_band(
    names: Labels, index: npt.NDArray[np.intp], parted: npt.NDArray[np.bool_], truth: Truth, box: Box
) -> npt.NDArray[np.bool_]:
    """The two rows or columns across the middle of each split nucleus, its longer side halved."""
    band = np.zeros(index.shape, bool)
    if not parted.any():
        return band
    all_names, boxes = truth.boxes
    for i in np.flatnonzero(parted):
        own = Box(*boxes[np.searchsorted(all_names, names[i])].tolist())
        rows = own.height >= own.width
        middle = (own.y0 + own.y1) // 2 - box.y0 if rows else (own.x0 + own.x1) // 2 - box.x0
        line = slice(max(0, middle - 1), max(0, middle + 1))
        part = (line, slice(None)) if rows else (slice(None), line)
        band[part] |= index[part] == i
    return band


# Detections: from labels to boxes and masks


class Piece(NamedTuple):
    """One detection before it is packed: its box, its pixels (bool, the shape of the box), its score."""

    box: Box
    mask: npt.NDArray[np.bool_]
    score: float


def _pieces(truth: Truth, label: int, box: Box, found: Found) -> list[Piece]:
    """The detections of one nucleus: none, one, two halves, and a double."""
    if found.drop:
        return []
    mask = truth.read(box) == label
    pieces = _halves(box, mask, found.score) if found.split else [Piece(box, mask, found.score)]
    dy, dx = WAYS[found.way]
    pieces = [p._replace(box=p.box.shift(dy, dx)) for p in pieces]
    if found.double:
        pieces += [Piece(p.box.shift(1, 1), p.mask, p.score * 0.9) for p in pieces]
    return pieces


def _halves(box: Box, mask: npt.NDArray[np.bool_], score: float) -> list[Piece]:
    """The two halves of a nucleus across its longer side; what has no pixel is left out."""
    rows = box.height >= box.width
    half = (box.height if rows else box.width) // 2
    first, second = (mask[:half], mask[half:]) if rows else (mask[:, :half], mask[:, half:])
    corner = (half, 0) if rows else (0, half)
    parts = [(box.y0, box.x0, first), (box.y0 + corner[0], box.x0 + corner[1], second)]
    return [
        Piece(Box(y, x, y + m.shape[0], x + m.shape[1]), m, score * (1 - 0.01 * i))
        for i, (y, x, m) in enumerate(parts)
        if m.any()
    ]


def _detections(pieces: Sequence[Piece]) -> Detections:
    n = len(pieces)
    return Detections(
        box=np.array([p.box.tuple() for p in pieces], np.float32).reshape(n, 4),
        score=np.array([p.score for p in pieces], np.float32),
        mask=np.array([_soft(p.mask) for p in pieces], np.uint8).reshape(n, MASK_PX, MASK_PX),
    )


def _soft(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """A bool crop (Y, X) sampled bilinearly at 28 x 28 points spread evenly over its box, 0..255."""
    rows, columns = _weights(mask.shape[0]), _weights(mask.shape[1])
    return np.rint(255 * (rows @ mask.astype(np.float64) @ columns.T)).astype(np.uint8)


def _weights(size: int) -> npt.NDArray[np.float64]:
    """(28, size): the share of each of `size` pixels in each sample, clamped at the ends."""
    at = np.clip((np.arange(MASK_PX) + 0.5) * size / MASK_PX - 0.5, 0, size - 1)
    return np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(size)[None, :]))
