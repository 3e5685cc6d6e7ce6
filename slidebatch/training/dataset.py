"""The training set: which ids may be seen, which are held out, and their pixels in memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate.tables import Column, few, of_all, read_column, read_ids
from slidebatch.shipped import shipped
from slidebatch.training import readers
from slidebatch.training.readers import IGNORED
from slidebatch.training.spec import DataSpec

log = logging.getLogger(__name__)

ALL = "image"
"""The modality of images of which no table tells one."""


@dataclass(frozen=True)
class Example:
    """One image with truth.

    image   (C, Y, X) uint8: intensities as the engine shows them to a network, 255 for 1
    labels  (Y, X) int32, 0 for background, IGNORED for what does not count
    colour  whether the channels are red, green and blue of something stained, and not three times grey
    """

    id: str
    modality: str
    group: str
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    colour: bool

    def normalised(self) -> npt.NDArray[np.float32]:
        """(C, Y, X) float32 in 0..1."""
        return self.image.astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class Split:
    """Ids to fit on, ids of whole groups held out to choose by, and excluded ids to judge by; all sorted."""

    fit: tuple[str, ...]
    held: tuple[str, ...]
    excluded: tuple[str, ...]


def split(spec: DataSpec, seed: int) -> Split:
    """What a training may use: none of `exclude`, nor any image of their groups.

    A group is held out by a hash of its name, so that adding images moves no other group. ConfigError for missing
    files and unknown ids, and where no image is left.
    """
    every = [p.id for p in readers.find(spec)]
    ids = _listed(spec, "only", every) if spec.only else every
    modality, group = _column(spec, "modality", every), _column(spec, "group", every)
    excluded = _listed(spec, "exclude", every) if spec.exclude else []
    banned = {group[i] for i in excluded}
    usable = [i for i in ids if group[i] not in banned and (not spec.mix or modality[i] in spec.mix)]
    held = {g for g in set(group.values()) if _share(g, seed) < spec.holdout}
    fit = tuple(i for i in usable if group[i] not in held)
    if not fit:
        there = ", ".join(sorted({modality[i] for i in ids})) or "none"
        raise ConfigError(
            f"data: no image is left to fit on; check only, exclude, holdout and mix (modalities there are: {there})."
        )
    return Split(fit, tuple(i for i in usable if group[i] in held), tuple(excluded))


def _listed(spec: DataSpec, key: str, ids: Sequence[str]) -> list[str]:
    """The ids in the file that a key names, sorted. ConfigError for a missing file and for unknown ids."""
    name = getattr(spec, key)
    found = _beside(spec, name)
    if found is None:
        raise ConfigError(f"data.{key}: {name} is no file here nor in {spec.path}; name a file of ids.")
    told = read_ids(found)
    if unknown := sorted(set(told) - set(ids)):
        raise ConfigError(f"data.{key}: {found} names {few(unknown)} that are not in the training set.")
    return told


def load(spec: DataSpec, ids: Iterable[str]) -> list[Example]:
    """The examples with these ids, in order, decoded into memory. Broken ones are named in warnings and left out."""
    pictures = {p.id: p for p in readers.find(spec)}
    names = list(pictures)
    modality, group = _column(spec, "modality", names), _column(spec, "group", names)
    out = []
    for i in ids:
        try:
            out.append(_example(pictures[i], modality[i], group[i], spec.drop))
        except (InputError, OSError, ValueError) as error:
            log.warning("%s is left out of the training set: %s", i, error)
    return out


def diameters_px(examples: Sequence[Example]) -> npt.NDArray[np.float64]:
    """Diameters (M,) of the disks that have the area of each nucleus. ConfigError without any nucleus."""
    areas = [np.bincount(e.labels[e.labels > 0])[1:] for e in examples if (e.labels > 0).any()]
    area = np.concatenate([a[a > 0] for a in areas]) if areas else np.zeros(0)
    if not len(area):
        raise ConfigError("the training images hold no nucleus; check data.path, exclude and mix.")
    return np.asarray(2 * np.sqrt(area / np.pi))


def by_modality(examples: Sequence[Example], mix: dict[str, float]) -> dict[str, list[int]]:
    """Row numbers of the examples of each modality; ConfigError for one in `mix` without any."""
    names = list(mix) or sorted({e.modality for e in examples})
    rows = {name: [i for i, e in enumerate(examples) if e.modality == name] for name in names}
    if empty := [name for name in names if not rows[name]]:
        raise ConfigError(f"data.mix: the training set holds no {', '.join(empty)} images; leave these out of mix.")
    return rows


def cleaned(labels: npt.NDArray[np.int32], drop: Sequence[str]) -> npt.NDArray[np.int32]:
    """Labels in which nuclei with holes, or in pieces (that touch not even by corners), are IGNORED, holes too."""
    if not drop:
        return labels
    out = labels.copy()
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == i
        filled = ndimage.binary_fill_holes(mask)
        holed = "holes" in drop and filled.sum() > mask.sum()
        if holed or ("pieces" in drop and ndimage.label(mask, np.ones((3, 3)))[1] > 1):
            out[box][mask | (filled & (labels[box] == 0))] = IGNORED
    return out


def _example(picture: readers.Picture, modality: str, group: str, drop: Sequence[str]) -> Example:
    image, labels, rgb = readers.read(picture)
    colour = rgb and bool((image[0] != image[1]).any() or (image[1] != image[2]).any())
    return Example(picture.id, modality, group, image, cleaned(labels, drop), colour)


def _column(spec: DataSpec, column: str, ids: Sequence[str]) -> dict[str, str]:
    """Modality or group of each id: from the table that the settings name, or all of one, or each by itself."""
    field = {"modality": "modality", "group": "groups"}[column]
    name = getattr(spec, field)
    usual = name == DataSpec.model_fields[field].default
    found = None if name is None else _beside(spec, name, here=not usual)
    if found is None:
        if name is not None and not usual:
            raise ConfigError(f"data.{field}: the table {name} is neither here nor in {spec.path}.")
        return dict.fromkeys(ids, ALL) if column == "modality" else {i: i for i in ids}
    return of_all(read_column(Column(found, column), column), ids, found)


def _beside(spec: DataSpec, name: str, here: bool = True) -> Path | None:
    """The file of that name in the training set's folder, or else, if it may lie there, `here` or shipped."""
    path, named = Path(spec.path).expanduser(), Path(name).expanduser()
    inside = (path if path.is_dir() else path.parent) / named
    if inside.is_file():
        return inside
    if not here:
        return None
    return named if named.is_file() else shipped(name)


def _share(name: str, seed: int) -> float:
    """A number in 0..1 that depends on name and seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
