"""The images of a tuning: what networks left of them in a run, their truth, and the settings to start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slidebatch.decode import DecodeSpec
from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate.judge import grouped, on_both
from slidebatch.evaluate.sides import Side, open_side
from slidebatch.evaluate.tables import few, read_ids, read_shapes
from slidebatch.fusion import EnsembleSpec
from slidebatch.store import open_array
from slidebatch.tuning.ensemble import kept_slides, open_ensemble
from slidebatch.tuning.network import Network
from slidebatch.tuning.spec import Choice
from slidebatch.tuning.trial import Case, Decoder, Kept, Maps

if TYPE_CHECKING:
    from slidebatch.config import RunConfig

ENDINGS = (".npy", ".zarr")


@dataclass(frozen=True)
class KeptOutput:
    """What networks left, with its shape (Y, X), by id; the settings to start from; what must be said about them."""

    name: str
    ids: frozenset[str]
    base: Decoder
    read: Callable[[str], tuple[Kept, tuple[int, int]]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """What a tuning works on."""

    cases: tuple[Case, ...]
    base: Decoder
    notes: tuple[str, ...]


def read_cases(source: str | Path, truth: str | Path, choice: Choice, overrides: Sequence[str] = ()) -> Given:
    """Maps and truth of all chosen images, in memory, in order of their ids. Errors: see `tune`."""
    maps = open_maps(source, overrides)
    theirs = open_side(truth, read_shapes(choice.shapes) if choice.shapes is not None else {})
    ids, alone = on_both(maps, theirs, read_ids(choice.subset) if choice.subset is not None else None)
    heading = grouped(choice.groups, ids, "modality")
    cluster = grouped(choice.clusters, ids, "group") if choice.clusters else {i: i for i in ids}
    cases = tuple(_case(i, (heading[i], cluster[i]), maps, theirs) for i in ids)
    return Given(cases, maps.base, (*maps.notes, *maps.base.notes, *alone))


def open_maps(source: str | Path, overrides: Sequence[str] = ()) -> KeptOutput:
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
    return _of_results(Path(config.output.path), config)


def _of_results(place: Path, config: RunConfig | None) -> KeptOutput:
    """Output of the slides that the run has done; the config's or else the run's own settings to start from."""
    from slidebatch.plan import read_plan
    from slidebatch.results import open_results

    results = open_results(place)
    done = set(results.slides.loc[results.slides["state"] == "done", "slide"])
    work = place / "work"
    plan = read_plan(work) if (work / "plan.json").is_file() else None
    ids = frozenset() if plan is None else kept_slides(work) & done
    if plan is None or not ids or not (plan.members or plan.joins_maps):
        raise ConfigError(
            f"{place} keeps no class maps; run it again with output.keep_maps=true and another output.path "
            "(of single networks those of the dense family alone leave class maps)."
        )
    masked = sorted(s.slide for s in plan.slides if s.slide in ids and (s.tissue or s.regions))
    notes = (f"note: {few(masked)} are tuned on everything in them, not on tissue or regions alone",) if masked else ()
    wanted = None if config is None else config.ensemble
    if config is not None and (wanted is None) == bool(plan.members):
        raise ConfigError(f"{place} is of {plan.card.name}, the config asks for other networks; run it again.")
    decode = None if config is None else config.decode
    if plan.members:
        stored = EnsembleSpec.model_validate(results.manifest["config"]["ensemble"])
        base = open_ensemble(work, stored, wanted, decode)
        return KeptOutput(str(place), ids, base, base.reader(work), notes)
    return KeptOutput(
        str(place), ids, Network(decode or plan.decode), lambda i: _read(work / "maps" / f"{i}.zarr"), notes
    )


def _of_folder(place: Path) -> KeptOutput:
    files = {p.stem: p for p in sorted(place.iterdir()) if p.suffix in ENDINGS}
    if not files:
        raise ConfigError(f"{place} holds no class maps; expected (K, Y, X) uint8 as {' or '.join(ENDINGS)}.")
    return KeptOutput(str(place), frozenset(files), Network(DecodeSpec.model_validate({})), lambda i: _read(files[i]))


def _read(path: Path) -> tuple[tuple[Maps], tuple[int, int]]:
    try:
        found = np.load(path) if path.suffix == ".npy" else np.asarray(open_array(path)[:])
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no class maps can be read ({error}); write it again or take it away.") from error
    if found.ndim != 3 or found.dtype != np.uint8 or not len(found):
        raise InputError(f"{path}: found {found.dtype} of shape {found.shape}; class maps are uint8 (K, Y, X).")
    return (np.ascontiguousarray(found),), (found.shape[1], found.shape[2])


def _case(image: str, groups: tuple[str, str], maps: KeptOutput, theirs: Side) -> Case:
    kept, shape = maps.read(image)
    labels = np.asarray(theirs.read(image, shape)[:])
    if labels.shape != shape:
        raise InputError(
            f"{image}: class maps are {shape}, the truth is {labels.shape} pixels (y, x); "
            "both must be on the same grid (run with input.scale=1)."
        )
    return Case(image, *groups, kept=kept, truth=labels)
