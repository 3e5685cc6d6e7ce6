"""The training images: which ids may be seen, which are held out, and the pixels in memory."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from slidebatch.errors import ConfigError
from slidebatch.normalise import NormaliseSpec, sketch, window
from slidebatch.training.spec import TrainSpec


@dataclass(frozen=True)
class Example:
    """One image with truth: image (Y, X, 3) uint8, labels (Y, X) integer with 0 for background."""

    id: str
    modality: str
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]

    def normalised(self) -> npt.NDArray[np.float32]:
        """(3, Y, X) float32 in 0..1, as the engine shows an RGB image to a network."""
        image = np.ascontiguousarray(self.image.transpose(2, 0, 1))
        return window([sketch(image)], NormaliseSpec.model_validate({}), rgb=True).apply(image)


@dataclass(frozen=True)
class Split:
    """Ids to fit on, and ids of whole groups held out to choose epoch and thresholds; both sorted."""

    fit: tuple[str, ...]
    held: tuple[str, ...]


def read_column(path: Path, column: str) -> dict[str, str]:
    """One column of a tab-separated table by its column `id`."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing: a training set needs it, a table with columns id and {column}.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if rows and not {"id", column} <= set(rows[0]):
        raise ConfigError(f"{path} has columns {', '.join(rows[0])}; it must have id and {column}.")
    return {row["id"]: row[column] for row in rows}


def split(spec: TrainSpec) -> Split:
    """The ids a training may use: none of `exclude`, nor any image of their groups.

    A group is held out by a hash of its name, so that adding images moves no other group.
    """
    folder = Path(spec.dataset)
    modality = read_column(folder / "index.tsv", "modality")
    group = read_column(folder / "groups.tsv", "group")
    banned = {group[i] for i in excluded(spec)}
    usable = sorted(i for i in modality if group[i] not in banned and modality[i] in spec.mix)
    held = {g for g in set(group.values()) if _share(g, spec.seed) < spec.holdout}
    return Split(tuple(i for i in usable if group[i] not in held), tuple(i for i in usable if group[i] in held))


def excluded(spec: TrainSpec) -> set[str]:
    """The ids in the file `exclude` names."""
    if spec.exclude is None:
        return set()
    path = Path(spec.exclude)
    inside = Path(spec.dataset) / spec.exclude
    found = next((p for p in (path, inside) if p.is_file()), None)
    if found is None:
        raise ConfigError(f"exclude: neither {path} nor {inside} is a file; name a file of ids, one a line.")
    return set(found.read_text().split())


def load(folder: str, ids: Iterable[str]) -> list[Example]:
    """The examples with these ids, in order, decoded into memory."""
    modality = read_column(Path(folder) / "index.tsv", "modality")
    return [_read(Path(folder), i, modality[i]) for i in ids]


def by_modality(examples: Sequence[Example], mix: dict[str, float]) -> dict[str, list[int]]:
    """Row numbers of the examples of each modality in `mix`; an empty modality is a ConfigError."""
    rows = {name: [i for i, e in enumerate(examples) if e.modality == name] for name in mix}
    empty = [name for name in mix if not rows[name]]
    if empty:
        raise ConfigError(f"mix: the training set holds no {', '.join(empty)} images; leave these out of mix.")
    return rows


def _read(folder: Path, id: str, modality: str) -> Example:
    image = np.asarray(Image.open(folder / "images" / f"{id}.png").convert("RGB"))
    labels = np.asarray(Image.open(folder / "labels" / f"{id}.png")).astype(np.int32)
    if image.shape[:2] != labels.shape:
        raise ConfigError(f"{id}: image {image.shape[:2]} and labels {labels.shape} differ in size.")
    return Example(id, modality, image, labels)


def _share(name: str, seed: int) -> float:
    """A number in 0..1 that depends on name and seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
