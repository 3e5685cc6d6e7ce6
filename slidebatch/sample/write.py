"""Writing a sample once: aside, then renamed; what is complete and of this version is left as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slidebatch.errors import ConfigError
from slidebatch.sample.plate import MPP as PLATE_MPP
from slidebatch.sample.plate import PLATE_PATTERN, write_plate
from slidebatch.sample.tissue import write_tissue
from slidebatch.sample.training import write_training

VERSION = 2
"""Raised whenever the pixels of a sample change."""

MARKER = "sample.json"
Kind = Literal["plate", "tissue", "training"]


@dataclass(frozen=True)
class Sample:
    """A sample on disk.

    folder  where it lies: `images/`, `truth/<slide id>.tif` (training: `labels/<id>.tif`), for plates `facts.csv`
    images  folder of the images
    truth   folder of the label images, named by slide id
    input   settings of the section `input` that make this sample the input, in place of `sample`
    """

    folder: Path
    images: Path
    truth: Path
    input: dict[str, Any]

    def __str__(self) -> str:
        return str(self.folder)


def write_sample(kind: Kind, folder: str | Path) -> Sample:
    """Write the sample `kind` as `folder`, unless it is there already, complete and of this version.

    ConfigError where the folder holds something else: nothing of a user's is ever replaced.
    """
    folder = Path(folder).absolute()
    found = _found(folder)
    if found != {"kind": kind, "version": VERSION}:
        if folder.exists() and found is None and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} is no slidebatch sample, and one was to be written there; name an empty or a new folder"
            )
        _replace(kind, folder)
    truth = folder / ("labels" if kind == "training" else "truth")
    return Sample(folder, folder / "images", truth, _input(kind, folder))


def _found(folder: Path) -> dict[str, Any] | None:
    """What the marker says; None without a readable one."""
    try:
        found: dict[str, Any] = json.loads((folder / MARKER).read_text())
        return found
    except (OSError, ValueError):
        return None


def _replace(kind: Kind, folder: Path) -> None:
    """Write the sample beside its place and rename it: a sample with a marker is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    kinds: dict[Kind, Callable[[Path], object]]
    kinds = {"plate": write_plate, "tissue": write_tissue, "training": write_training}
    try:
        kinds[kind](aside)
        (aside / MARKER).write_text(json.dumps({"kind": kind, "version": VERSION}))
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _input(kind: Kind, folder: Path) -> dict[str, Any]:
    if kind == "plate":
        facts = str(folder / "facts.csv")
        where = {"path": str(folder / "images"), "pattern": PLATE_PATTERN, "facts": facts}
        return {**where, "mpp": PLATE_MPP, "channels": ["DNA"]}
    return {"path": str(folder / "images")}
