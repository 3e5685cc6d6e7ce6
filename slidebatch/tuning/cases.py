"""The images of a tuning: class maps that a run kept, their truth, and the settings to start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slidebatch.decode import DecodeSpec
from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate.judge import grouped
from slidebatch.evaluate.sides import Side, open_side
from slidebatch.evaluate.tables import few, read_ids, read_shapes
from slidebatch.store import open_array
from slidebatch.tuning.spec import Choice
from slidebatch.tuning.trial import Case, Maps

ENDINGS = (".npy", ".zarr")


@dataclass(frozen=True)
class MapSource:
    """Class maps by id, the settings they were decoded with, and what must be said about them."""

    name: str
    ids: frozenset[str]
    base: DecodeSpec
    read: Callable[[str], Maps]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """What a tuning works on."""

    cases: tuple[Case, ...]
    base: DecodeSpec
    notes: tuple[str, ...]


def read_cases(source: str | Path, truth: str | Path, choice: Choice, overrides: Sequence[str] = ()) -> Given:
    """Maps and truth of all chosen images, in memory, in order of their ids. Errors: see `tune`."""
    maps = open_maps(source, overrides)
    theirs = open_side(truth, read_shapes(choice.shapes) if choice.shapes is not None else {})
    ids = _ids(maps, theirs, read_ids(choice.subset) if choice.subset is not None else None)
    heading = grouped(choice.groups, ids, "modality")
    cluster = grouped(choice.clusters, ids, "group") if choice.clusters else {i: i for i in ids}
    cases = tuple(_case(i, (heading[i], cluster[i]), maps, theirs) for i in ids)
    left = sorted((maps.ids ^ theirs.ids) - set(ids)) if choice.subset is None else []
    notes = [f"note: {few(left)} have maps or truth alone and are left out"] if left else []
    return Given(cases, maps.base, (*maps.notes, *notes))


def open_maps(source: str | Path, overrides: Sequence[str] = ()) -> MapSource:
    """The class maps that a config's run, a results folder or a folder of maps holds. ConfigError: there are none."""
    place = Path(source)
    if place.is_dir() and overrides:
        raise ConfigError(f"--set {overrides[0]} changes a config, and {source} is a folder; name the run's config.")
    if (place / "manifest.json").is_file():
        return _of_results(place, None)
    if place.is_dir():
        return _of_folder(place)
    from slidebatch.config import load

    config = load(str(source), overrides)
    return _of_results(Path(config.output.path), config.decode)


def _of_results(place: Path, base: DecodeSpec | None) -> MapSource:
    """Maps of the slides that the run has done; `base` or else the run's own settings to start from."""
    from slidebatch.plan import read_plan
    from slidebatch.results import open_results

    results = open_results(place)
    done = set(results.slides.loc[results.slides["state"] == "done", "slide"])
    folder = place / "work" / "maps"
    files = {p.stem: p for p in folder.glob("*.zarr") if p.stem in done}
    if not files or not (place / "work" / "plan.json").is_file():
        raise ConfigError(
            f"{place} keeps no class maps; run it again with output.keep_maps=true and another output.path "
            "(networks of the dense family alone leave class maps)."
        )
    plan = read_plan(place / "work")
    masked = sorted(s.slide for s in plan.slides if s.slide in files and (s.tissue or s.regions))
    notes = (f"note: {few(masked)} are tuned on everything in them, not on tissue or regions alone",) if masked else ()
    return MapSource(str(place), frozenset(files), base or plan.decode, lambda i: _read(files[i]), notes)


def _of_folder(place: Path) -> MapSource:
    files = {p.stem: p for p in sorted(place.iterdir()) if p.suffix in ENDINGS}
    if not files:
        raise ConfigError(f"{place} holds no class maps; expected (K, Y, X) uint8 as {' or '.join(ENDINGS)}.")
    return MapSource(str(place), frozenset(files), DecodeSpec.model_validate({}), lambda i: _read(files[i]))


def _read(path: Path) -> Maps:
    try:
        found = np.load(path) if path.suffix == ".npy" else np.asarray(open_array(path)[:])
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no class maps can be read ({error}); write it again or take it away.") from error
    if found.ndim != 3 or found.dtype != np.uint8 or not len(found):
        raise InputError(f"{path}: found {found.dtype} of shape {found.shape}; class maps are uint8 (K, Y, X).")
    return np.ascontiguousarray(found)


def _ids(maps: MapSource, theirs: Side, subset: Sequence[str] | None) -> list[str]:
    """The images with maps and truth; of a subset every one must have both."""
    both = maps.ids & theirs.ids
    if subset is None:
        if not both:
            raise InputError(f"{maps.name} and {theirs.name} have no image in common; their ids must agree.")
        return sorted(both)
    for name, there in ((maps.name, maps.ids), (theirs.name, theirs.ids)):
        lacking = sorted(set(subset) - there)
        if lacking:
            raise InputError(f"{name} lacks {few(lacking)} of the subset; leave these out of it.")
    return sorted(subset)


def _case(image: str, groups: tuple[str, str], maps: MapSource, theirs: Side) -> Case:
    found = maps.read(image)
    shape = found.shape[1], found.shape[2]
    labels = np.asarray(theirs.read(image, shape)[:])
    if labels.shape != shape:
        raise InputError(
            f"{image}: class maps are {shape}, the truth is {labels.shape} pixels (y, x); "
            "both must be on the same grid (run with input.scale=1)."
        )
    return Case(image, *groups, maps=found, truth=labels)
