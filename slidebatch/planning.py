"""From a config to a plan: find the inputs, open each, choose grids, project bytes, refuse what cannot be.

Nothing is written here but the sample images, if those are the input.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from slidebatch import sources
from slidebatch.config import RunConfig
from slidebatch.devices import place
from slidebatch.errors import ConfigError, InputError, PlanError
from slidebatch.measurements import MeasureSpec, Recipe, column_names, recipe
from slidebatch.models.protocol import Card
from slidebatch.networks_wanted import Network, networks, together
from slidebatch.patches import choose_cell, margin_px
from slidebatch.plan import Member, Plan, SlidePlan
from slidebatch.regions import read_regions
from slidebatch.sample import write_sample
from slidebatch.slides import Grid, Slide, open_slide, pick_grid
from slidebatch.slides.source import Source
from slidebatch.sources import Channels, Fault, Found, InputSpec
from slidebatch.store import digest
from slidebatch.tiling import Shape, patch_grid, tile_grid

SAMPLES = Path("sample")
"""Sample images are written below this folder of the working directory."""

READERS = 8
"""Files whose headers are read at a time."""

LARGE_PX = 16e6
"""Slides above this get tiles of 2048 instead of 1024 pixels."""

METADATA = {"zarr.json", ".zattrs", ".zarray", ".zgroup"}

MOST_BLOCKS = 2_000
"""Tasks that one slide's infer stage is cut into at most; beyond, a task owns several cells."""


@dataclass(frozen=True)
class Planned:
    """A plan and what did not come into it. `truth` is the folder of true labels where the input is a sample."""

    plan: Plan
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    plate: bool
    truth: Path | None


@dataclass(frozen=True)
class Cut:
    """What `auto` chose for a network: its patches' cell (y, x) in pixels, and cells along a block's side."""

    cell: Shape
    block_cells: int


@dataclass(frozen=True)
class Geometry:
    """What `auto` chose: how each network's patches are cut, and the tiles' core in pixels."""

    cuts: tuple[Cut, ...]
    core_px: int


def make_plan(config: RunConfig, earlier: Geometry | None = None) -> Planned:
    """Plan a run. `earlier` is what an earlier start of the same run chose: kept, so that its work counts.

    ConfigError where the input names nothing usable, PlanError where no input is left.
    """
    spec, truth = _input(config.input)
    found = sources.find(spec)
    if found.plate and config.output.image == "none":
        raise ConfigError("output.image is none, but a plate's labels need its images beside them; use auto or copy")
    device, told = place(config.model.device, config.cluster)
    runs = networks(config, device)
    card = runs[0].card if config.ensemble is None else together(runs, config.ensemble)
    slides, faults, notes = _slides(config, spec, found, card)
    _refuse_empty(slides, faults)
    geometry = _geometry(config, earlier or _choose(config, runs, device, [s.shape for s in slides]))
    members = [_member(run, cut, config) for run, cut in zip(runs, geometry.cuts, strict=True)]
    decoded = [config.decode] if card.family == "dense" else [m.decode for m in members if m.card.family == "dense"]
    reach = max((spec.reach_px for spec in decoded), default=0)
    plan = Plan(
        name=config.name,
        slides=tuple(slides),
        model=members[0].model,
        card=card,
        device=device,
        patches=members[0].patches,
        block_cells=members[0].block_cells,
        tiles=tile_grid(geometry.core_px, config.tiling.largest_px, reach),
        decode=config.decode,
        tissue=config.tissue,
        normalise=config.normalise,
        output=config.output,
        z=config.input.z,
        attempts=config.cluster.attempts,
        scratch=config.cluster.scratch,
        largest_px=config.tiling.largest_px,
        bundle=config.tiling.bundle,
        members=() if config.ensemble is None else tuple(members),
        fusion=None if config.ensemble is None else config.ensemble.fusion,
    )
    notes += [*_read_apart(spec, found), *([told] if told else [])]
    return Planned(plan, tuple(faults), tuple(notes), found.plate, truth)


def _read_apart(spec: InputSpec, found: Found) -> list[str]:
    """A note on files that are taken as images of their own, but are named as channels of a plate's fields."""
    if found.plate or not isinstance(spec.path, str) or spec.pattern or spec.preset or len(found.sources) < 2:
        return []
    proposal = sources.proposed(spec.path)
    if proposal is None or proposal.fits < proposal.of or not {"column", "channel"} <= set(proposal.fields):
        return []
    return [f"each file is taken as an image of its own; as a plate, {proposal.describe()}"]


def _member(run: Network, cut: Cut, config: RunConfig) -> Member:
    """A network with the patches that were chosen for it."""
    margin = margin_px(run.card, config.tiling.largest_px)
    return Member(
        name=run.name,
        model=run.model,
        card=run.card,
        patches=patch_grid(cut.cell, margin, run.card.stride_px),
        block_cells=cut.block_cells,
        decode=run.decode,
        weight=run.weight,
        calibration=run.calibration,
    )


def _choose(config: RunConfig, runs: Sequence[Network], device: str, shapes: Sequence[Shape]) -> Geometry:
    """The geometry that suits slides of these shapes."""
    most = max(s[0] * s[1] for s in shapes)
    cells = [
        choose_cell(r.model, r.card, device, config.tiling.model_copy(update={"patch_px": r.patch_px}), shapes)
        for r in runs
    ]
    return Geometry(tuple(Cut(c, _block_cells(most, c)) for c in cells), 2048 if most > LARGE_PX else 1024)


def _geometry(config: RunConfig, chosen: Geometry) -> Geometry:
    """The chosen geometry, with the core that the config states."""
    core = config.tiling.core_px
    return chosen if core == "auto" else replace(chosen, core_px=core)


def _input(spec: InputSpec) -> tuple[InputSpec, Path | None]:
    """The input to look at; a sample is written first, and its truth named."""
    if spec.sample is None:
        return spec, None
    sample = write_sample(spec.sample, SAMPLES / spec.sample)
    own = {k: v for k, v in sample.input.items() if getattr(spec, k) is None}
    return spec.model_copy(update={"sample": None, **own}), sample.truth


def _block_cells(most_px: int, cell: Shape) -> int:
    """Cells along each side of a block, so that the largest slide is cut into `MOST_BLOCKS` at most."""
    cells = most_px / (cell[0] * cell[1])
    side = 1
    while cells / side**2 > MOST_BLOCKS:
        side += 1
    return side


def _refuse_empty(slides: Sequence[SlidePlan], faults: Sequence[Fault]) -> None:
    if slides:
        return
    shown = "; ".join(list(dict.fromkeys(f.sentence for f in faults))[:3])
    raise PlanError(f"none of the {len(faults)} inputs can be used ({shown}); mend them or name others")


def _slides(
    config: RunConfig, spec: InputSpec, found: Found, card: Card
) -> tuple[list[SlidePlan], list[Fault], list[str]]:
    """Every usable input as planned, the faults of all others, and notes for the user."""

    wanted = Wanted(config, spec, card, found.plate, len({s.plate for s in found.sources}) > 1)

    def planned(source: Source) -> SlidePlan | Fault:
        try:
            with open_slide(source, z=spec.z, staged=str(_work(config) / "staged")) as slide:
                return _slide_plan(wanted, slide)
        except (InputError, ConfigError) as error:
            return Fault(source.slide, tuple(f.path for f in source.files), str(error))

    with ThreadPoolExecutor(READERS) as pool:
        results = list(pool.map(planned, found.sources))
    slides = [r for r in results if isinstance(r, SlidePlan)]
    faults = [*found.faults, *(r for r in results if isinstance(r, Fault))]
    assumed = [s.slide for s in slides if s.grid.assumed]
    notes = []
    if assumed:
        shown = ", ".join(assumed[:3]) + (", ..." if len(assumed) > 3 else "")
        notes.append(
            f"{len(assumed)} of {len(slides)} images state no pixel size ({shown}); they are taken as they are. "
            f"{card.name} was trained at about {card.mpp} um per pixel: set input.mpp if yours differ"
        )
    return slides, faults, notes


def _work(config: RunConfig) -> Path:
    return Path(config.output.path) / "work"


@dataclass(frozen=True)
class Wanted:
    """What every input is planned by. `several`: whether there is more than one plate."""

    config: RunConfig
    spec: InputSpec
    card: Card
    plate: bool
    several: bool


def _slide_plan(wanted: Wanted, slide: Slide) -> SlidePlan:
    """One input as planned. InputError where it does not fit the network."""
    source, config, spec, card, plate = slide.source, wanted.config, wanted.spec, wanted.card, wanted.plate
    there = sources.called(slide.channels, spec.channel_names)
    channels = _channels(spec, card, slide, there)
    grid = pick_grid(slide, card.mpp, spec.scale, source.slide)
    measured, recipe = _measured(config.measure, slide, there, grid)
    copied = config.output.image == "copy" or (config.output.image == "auto" and plate)
    base = _plate_path(source, wanted.several) if plate else source.slide
    regions = sources.regions_path(spec, source.slide)
    if regions is not None:
        read_regions(regions)  # a broken file is found now, not after the networks have run
    per_plate = config.normalise.per == "plate" or (config.normalise.per == "auto" and plate)
    return SlidePlan(
        source=source,
        digest=file_digest(Path(f.path) / f.inner if f.inner else Path(f.path) for f in source.files),
        grid=grid,
        channels=channels,
        names=there.names,
        rgb=slide.rgb and len(channels) == 3,
        dtype=str(slide.dtype),
        mpp=slide.mpp,
        group=f"plate:{source.plate or ''}" if per_plate else source.slide,
        tissue=config.tissue.enabled == "on" or (config.tissue.enabled == "auto" and not plate),
        labels=f"{base}/labels/nuclei" if copied else base,
        image=base if copied else None,
        regions=regions,
        regions_digest=None if regions is None else digest(Path(regions).read_text()),
        measured=measured,
        recipe=recipe,
    )


def _measured(spec: MeasureSpec, slide: Slide, there: Channels, grid: Grid) -> tuple[tuple[int, ...], Recipe]:
    """Which channels of an image are measured, and how. ConfigError where two columns would have one name."""
    measured = there.choose(spec.channels, "measure.channels")
    mpp = None if slide.mpp is None else slide.mpp / grid.scale
    how = recipe(spec, slide.source.slide, [there.names[c] for c in measured], slide.rgb, mpp)
    columns = Counter(column_names(how))
    twice = [name for name, times in columns.items() if times > 1]
    if twice:
        raise ConfigError(
            f"{slide.source.slide}: two measurements would be the column {twice[0]}; "
            "give its channels other names by input.channel_names"
        )
    return measured, how


def _channels(spec: InputSpec, card: Card, slide: Slide, there: Channels) -> tuple[int, ...]:
    """Indices of the channels for the network: those asked for, or all if there are as many as it takes."""
    if spec.channels is not None:
        chosen = there.choose(spec.channels)
    elif len(slide.channels) in {1, card.channels} and (slide.rgb or len(slide.channels) == 1):
        chosen = tuple(range(len(slide.channels)))
    else:
        raise ConfigError(
            f"{slide.source.slide} has the channels {', '.join(there.names)}; say which of them shows the "
            f"nuclei, as in --set 'input.channels=[{there.names[-1]}]'"
        )
    if len(chosen) not in {1, card.channels}:
        raise ConfigError(
            f"input.channels names {len(chosen)} channels, but {card.name} takes 1 or {card.channels}; name as many"
        )
    return chosen


def _plate_path(source: Source, several: bool) -> str:
    """Where a field lies inside labels.zarr, which is the plate itself unless there are several."""
    plate = source.plate if several else None
    return "/".join(p for p in (plate, source.row, source.column, str(source.field or 0)) if p is not None)


def file_digest(paths: Iterable[Path]) -> str:
    """A digest of files by name, size, time of change and both ends; of folders (OME-Zarr) by all files below.

    Of a folder's files the metadata is read as well; of its chunks name, size and time must do.
    """
    found = hashlib.sha256()
    for path in paths:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            stat = file.stat()
            found.update(f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}".encode())
            if file is path or file.name in METADATA:
                found.update(_ends(file, stat.st_size))
    return found.hexdigest()[:24]


def _ends(file: Path, size: int, length: int = 1 << 16) -> bytes:
    with open(file, "rb") as stream:
        head = stream.read(length)
        stream.seek(max(size - length, 0))
        return head + stream.read(length)
