"""What `chaos.py` runs on: images with their settings, and what an undisturbed run leaves of them."""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_law import contents, differences, task_seconds
from chaos_place import Place
from chaos_round import Broken, Round
from images import data_folder, real_slide, touching_field, write_mosaic, write_plain, write_truth
from timing import config, model_of

from slidebatch.plan import Plan, read_plan
from slidebatch.validate import validate

SHAPE, QUICK_SHAPE = (4096, 4608), (1024, 1536)
PICTURES = 8
"""Images of the Data Science Bowl beside the piece of a slide."""

DENSE_PX, SMALL_PX, NUCLEUS_PX = 2000, 200, 24
SMALL = 3
"""The oracle's fields: a large one and some small ones, and the distance of their nuclei."""


@dataclass(frozen=True)
class Calm:
    """The undisturbed run: its plan, what it left, and seconds of a task by stage."""

    plan: Plan
    left: Mapping[str, str]
    took: Mapping[str, float]


def write_images(folder: Path, quick: bool, oracle: bool) -> None:
    """The inputs, unless they are there: real ones, or for the oracle plain ones and their truth beside them."""
    if folder.exists():
        return
    if oracle:
        for name, side in {"field": DENSE_PX, **{f"small{i}": SMALL_PX for i in range(SMALL)}}.items():
            write_truth(folder.parent / "truth", name, touching_field(side, NUCLEUS_PX))
            write_plain(folder / f"{name}.tif", (side, side))
        return
    write_mosaic(folder / "piece.tif", real_slide(), QUICK_SHAPE if quick else SHAPE)
    pictures = sorted((data_folder() / "dsb2018" / "images").glob("*.png"))
    for path in pictures[:: len(pictures) // PICTURES][:PICTURES]:
        shutil.copy(path, folder)


def settings_of(place: Place, options: argparse.Namespace) -> dict[str, Any]:
    """The config of all runs but for its cluster: small cells, tiles and shards, so that there are many of each."""
    sections: dict[str, Any] = {"tiling": {"patch_px": 624, "core_px": 1024}, "model": model_of(options)}
    if options.oracle:
        sections = {
            "tiling": {"patch_px": 256, "core_px": 512, "largest_px": 64},
            "model": {"name": "oracle", "settings": {"truth": str(place.folder / "truth")}},
            "tissue": {"enabled": "off"},
        }
    output = {"path": str(place.results), "chunk_px": 128, "shard_px": 256}
    return config(place.folder / "images", place.results, output=output, **sections).model_dump(mode="json")


def run_calm(place: Place, settings: Mapping[str, Any]) -> Calm:
    """Run undisturbed, twice: the first run compiles, and both must leave the same."""
    found = []
    for _ in range(2):
        one = Round(place, settings, [], {}, random.Random(0), existing=False)
        one.begin()
        one.finish()
        found.append(contents(place.results))
    different, faults = differences(found[0], found[1]), validate(place.results)
    if different or faults:
        raise Broken(f"undisturbed runs differ in {different}, or are not valid: {faults}")
    return Calm(read_plan(place.work), found[1], task_seconds(one.log()))
