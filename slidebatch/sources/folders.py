"""From the paths of the config to files on disk: globs, folders, what counts as an image."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slidebatch.errors import ConfigError
from slidebatch.sources.names import natural, stem

IMAGES = (
    ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms",
    ".vmu", ".czi", ".qptiff", ".png", ".jpg", ".jpeg", ".zarr",
)  # fmt: skip
"""Endings of images in a folder or glob; a file that is named itself may have any."""

WITH_SIDECARS = (".mrxs", ".vms", ".vmu")
"""Slides whose pixels lie in a folder, or in pictures, that begin with the slide's own name."""

EXAMPLES = 3
"""Names that a message shows of what was there."""


@dataclass(frozen=True)
class Entry:
    """One path that the config names, or that its glob found; `named`: by the user, letter for letter."""

    path: str
    named: bool


def entries(paths: str | Sequence[str]) -> list[Entry]:
    """What `input.path` names, in the order given, globs in natural order, each path once.

    ConfigError for a path that does not exist and for a glob that finds nothing.
    """
    found: dict[str, Entry] = {}
    for text in [paths] if isinstance(paths, str) else paths:
        for entry in _expand(os.path.abspath(os.path.expanduser(text)), text):
            found.setdefault(entry.path, entry)
    if not found:
        raise ConfigError("input.path is an empty list; name at least one file, folder or glob")
    return list(found.values())


def _expand(path: str, text: str) -> list[Entry]:
    if os.path.exists(path):  # first: names may hold brackets
        return [Entry(path, True)]
    if not glob.has_magic(path):
        raise ConfigError(f"input.path: {text} does not exist; {_nearby(path)}")
    hits = sorted(glob.glob(path, recursive=True), key=natural)
    if not hits:
        raise ConfigError(f"input.path: no file matches {text}; {_nearby(path)}")
    return [Entry(hit, False) for hit in hits]


def _nearby(path: str) -> str:
    """What there is, in the deepest folder of a path that exists."""
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return f"{folder} holds {shown(os.listdir(folder))}; check the path"


def shown(names: Sequence[str]) -> str:
    """Up to three names as a phrase, the first in natural order."""
    visible = sorted((n for n in names if not n.startswith(".")), key=natural)
    return "nothing" if not visible else ", ".join(visible[:EXAMPLES]) + (", ..." if len(visible) > EXAMPLES else "")


def listed(folder: str) -> list[os.DirEntry[str]]:
    """A folder's visible entries in natural order; ConfigError where it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: natural(e.name))
    except OSError as fault:
        raise ConfigError(f"input.path: {folder} cannot be listed ({fault.strerror}); check its rights") from fault


def below(folder: str, depth: int | None) -> Iterator[str]:
    """Files in a folder, as paths relative to it with "/": exactly `depth` folders down, or at any depth."""
    for entry in listed(folder):
        if entry.is_dir():
            if (depth is None or depth > 0) and not is_zarr(entry.path):
                for inner in below(entry.path, None if depth is None else depth - 1):
                    yield f"{entry.name}/{inner}"
        elif not depth:
            yield entry.name


def images(entry: Entry) -> list[str]:
    """The images that an entry stands for: itself, or those directly in a folder, no parts of others."""
    if not os.path.isdir(entry.path) or is_zarr(entry.path):
        return [entry.path] if entry.named or _counts(entry.path) else []
    if not entry.named:
        return []  # a folder among the hits of a glob: what it holds was not asked for
    return [e.path for e in listed(entry.path) if (e.is_file() or is_zarr(e.path)) and _counts(e.path)]


def is_zarr(path: str) -> bool:
    """Whether a folder is an OME-Zarr, by its metadata files."""
    return any(os.path.isfile(os.path.join(path, name)) for name in ("zarr.json", ".zgroup", ".zattrs"))


def _counts(path: str) -> bool:
    """An image by its ending, not hidden, and no part of another slide or array."""
    folder, name = os.path.split(path)
    if name.startswith(".") or not name.lower().endswith(IMAGES):
        return False
    return not _part_of_slide(folder, name) and not _in_zarr(folder)


def _part_of_slide(folder: str, name: str) -> bool:
    """A picture beside its .vms file, or anything inside the folder that belongs to a .mrxs file."""
    if name.lower().endswith((".jpg", ".jpeg")):
        owners = [n for n in os.listdir(folder) if n.lower().endswith((".vms", ".vmu"))]
        if any(name.startswith(stem(owner)) for owner in owners):
            return True
    return any(os.path.isfile(folder + ending) for ending in WITH_SIDECARS)


def _in_zarr(folder: str) -> bool:
    while os.path.dirname(folder) != folder:
        if folder.lower().endswith(".zarr"):
            return True
        folder = os.path.dirname(folder)
    return False
