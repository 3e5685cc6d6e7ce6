"""Larger real fields with truth, put together again from neighbouring crops of one micrograph."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Array = npt.NDArray[Any]
CONTINUES = 1.5
"""Steps across a seam are at most this many times those beside it where two crops continue into each other."""


@dataclass(frozen=True)
class Field:
    """Four crops in two rows: image (Y, X, 3) uint8, truth (Y, X) int32 joined across seams, and their shape.

    seam_labels   labels of the truth that lie on both sides of a seam
    """

    image: Array
    truth: Array
    crop: tuple[int, int]
    seam_labels: tuple[int, ...]

    def area_px(self, label: int) -> int:
        """Pixels of a true nucleus."""
        return int((self.truth == label).sum())


def groups_of_four(folder: Path) -> dict[str, list[str]]:
    """Image ids of the groups that hold exactly four crops."""
    members: dict[str, list[str]] = {}
    with open(folder / "groups.tsv") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            members.setdefault(row["group"], []).append(row["id"])
    return {group: ids for group, ids in members.items() if len(ids) == 4}


def assemble(folder: Path, ids: list[str]) -> Field:
    """The field of four crops. ValueError where no arrangement, or more than one, continues across all seams."""
    images = [np.asarray(Image.open(folder / "images" / f"{i}.png").convert("RGB")) for i in ids]
    labels = [np.asarray(Image.open(folder / "labels" / f"{i}.png")).astype(np.int64) for i in ids]
    order = arrangement(images)
    image = np.block([[[images[order[0]]], [images[order[1]]]], [[images[order[2]]], [images[order[3]]]]])
    truth = _joined([labels[i] for i in order])
    crop = images[0].shape[:2]
    seams = [
        (truth[crop[0] - 1], truth[crop[0]]),
        (truth[:, crop[1] - 1], truth[:, crop[1]]),
    ]
    across = {int(a) for first, second in seams for a, b in zip(first, second, strict=True) if a == b and a}
    return Field(image, truth, (crop[0], crop[1]), tuple(sorted(across)))


def arrangement(images: list[Array]) -> tuple[int, ...]:
    """Which crop is upper left, upper right, lower left, lower right."""
    costs = sorted((_cost([images[i] for i in order]), order) for order in permutations(range(4)))
    if costs[0][0] > CONTINUES or costs[1][0] <= CONTINUES:
        raise ValueError(f"the crops do not continue into each other in one way: {costs[:2]}")
    return costs[0][1]


def _cost(images: list[Array]) -> float:
    """The worst seam of an arrangement."""
    turned = [np.swapaxes(i, 0, 1) for i in images]
    beside = [(turned[0], turned[1]), (turned[2], turned[3])]
    return max(_seam(a, b) for a, b in [*beside, (images[0], images[2]), (images[1], images[3])])


def _seam(upper: Array, lower: Array) -> float:
    """Mean step from the last row of one crop to the first of the other, over the steps inside both."""
    a, b = upper[-2:].astype(float), lower[:2].astype(float)
    inside = (np.abs(a[0] - a[1]).mean() + np.abs(b[0] - b[1]).mean()) / 2
    return float(np.abs(a[1] - b[0]).mean() / max(inside, 1e-6))


def _joined(labels: list[Array]) -> Array:
    """Truth of the field: labels whose stretches along a seam face each other for the most part become one.

    Each label is then cut into its 4-connected pieces, because a nucleus is one piece.
    """
    shifted, top = [], 0
    for crop in labels:
        shifted.append(np.where(crop > 0, crop + top, 0))
        top += int(crop.max())
    field = np.block([[shifted[0], shifted[1]], [shifted[2], shifted[3]]])
    height, width = labels[0].shape
    pairs = [*_facing(field[height - 1], field[height]), *_facing(field[:, width - 1], field[:, width])]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    group = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(top + 1, top + 1)), directed=False)[1]
    return _pieces(np.where(field > 0, group[field] + 1, 0))


def _facing(first: Array, second: Array) -> list[tuple[int, int]]:
    """Pairs of labels of two facing lines that cover at least half of the longer one's pixels together."""
    length, other = Counter(first.tolist()), Counter(second.tolist())
    shared = Counter((a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True) if a and b)
    return [(a, b) for (a, b), n in shared.items() if 2 * n >= max(length[a], other[b])]


def _pieces(labels: Array) -> Array:
    """Every label's 4-connected pieces under labels of their own: int32, 1..n."""
    out, top = np.zeros(labels.shape, np.int32), 0
    names, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape)
    for i, box in enumerate(ndimage.find_objects(dense), 1):
        if names[i] == 0 or box is None:
            continue
        pieces, count = ndimage.label(dense[box] == i)
        out[box] += np.where(pieces > 0, pieces + top, 0).astype(np.int32)
        top += count
    return out
