"""Looking for the inputs: which of the ways to name them the config takes, and what comes of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from slidebatch.errors import ConfigError
from slidebatch.slides.source import Source, SourceFile
from slidebatch.sources import folders
from slidebatch.sources.names import apart, natural, safe, stem, unique
from slidebatch.sources.pattern import Pattern, compile_pattern, fitting, preset
from slidebatch.sources.plates import is_plate, plate_name, plate_records
from slidebatch.sources.propose import MOST_NAMES, Proposal, propose
from slidebatch.sources.records import Record, canonical, join
from slidebatch.sources.series import series
from slidebatch.sources.spec import Fault, Found, InputSpec
from slidebatch.sources.tables import join_facts, manifest_records


def find(spec: InputSpec) -> Found:
    """All inputs that a config names, in canonical order, with what is wrong with the others.

    Reads names and small metadata, never pixels. ConfigError where the section contradicts itself, names
    something that does not exist, or where nothing at all is found.
    """
    _check(spec)
    if spec.manifest is not None:
        found = _joined(*manifest_records(spec.manifest), spec)
    elif spec.pattern is not None or spec.preset is not None:
        found = _by_pattern(spec)
    else:
        found = _by_path(spec)
    if not found.sources and not found.faults:
        raise ConfigError(f"input: {spec.manifest or spec.path} holds no image; {_expected(spec)}{_deeper(spec)}")
    if spec.kind == "plate" and not found.plate:
        raise ConfigError(
            "input.kind is plate, but the images have no row and column; "
            "give input.pattern, input.preset, a manifest with wells, or an OME-Zarr plate"
        )
    if spec.facts is not None:
        found = replace(found, sources=join_facts(found.sources, spec.facts))
    return _restricted(_told_apart(found), spec)


def regions_path(spec: InputSpec, slide: str) -> str | None:
    """The GeoJSON file that restricts a slide: absolute; None where nothing does."""
    if spec.regions is None:
        return None
    text = spec.regions.get(slide) if isinstance(spec.regions, dict) else spec.regions.replace("{slide}", slide)
    return None if text is None else os.path.abspath(os.path.expanduser(text))


def _check(spec: InputSpec) -> None:
    """Refuse a section whose keys contradict each other."""
    ways = {"path": spec.path, "sample": spec.sample, "manifest": spec.manifest}
    given = [f"input.{name}" for name, value in ways.items() if value is not None]
    if len(given) != 1:
        what = " and ".join(given) or "none of them"
        raise ConfigError(f"input needs exactly one of path, sample and manifest, found {what}; keep one")
    if spec.sample is not None:
        raise ConfigError(f"input.sample {spec.sample} has not been written yet; write it and name its folder as path")
    if spec.pattern is not None and spec.preset is not None:
        raise ConfigError("input.pattern and input.preset both name the fields of files; keep one")
    if spec.manifest is not None and (spec.pattern or spec.preset):
        raise ConfigError("input.manifest names the fields itself; leave input.pattern and input.preset out")


def _expected(spec: InputSpec) -> str:
    if spec.manifest is not None:
        return "expected a row for every file"
    return f"expected files that end in {', '.join(folders.IMAGES)}, or a glob that names sub-folders"


def _deeper(spec: InputSpec) -> str:
    """How images in sub-folders could be read, where a folder holds none itself."""
    proposal = proposed(spec.path) if isinstance(spec.path, str) else None
    return "" if proposal is None else f"; {proposal.describe()}"


def _joined(records: Sequence[Record], faults: Sequence[Fault], spec: InputSpec) -> Found:
    """Found from records: a plate where every image has a row and a column."""
    sources, wrong = join(records, spec.mpp)
    places = all("row" in r.fields and "column" in r.fields for r in records)
    every = sorted((*faults, *wrong), key=lambda fault: (natural(fault.slide), fault.paths))
    return Found(sources, tuple(every), bool(records) and places and spec.kind != "slides")


def _by_pattern(spec: InputSpec) -> Found:
    pattern = preset(spec.preset) if spec.preset is not None else compile_pattern(spec.pattern or "")
    roots = _roots(folders.entries(spec.path or []), pattern)
    plates = unique([safe(_plate_name(root)) for root in roots], [_origin(root, list(roots)) for root in roots])
    records, faults, seen = [], [], []
    for (root, names), own in zip(roots.items(), plates, strict=True):
        plate = own if len(roots) > 1 else None
        for name in names:
            if pattern.ignore is not None and pattern.ignore.fullmatch(name):
                continue
            seen.append(name)
            record = _record(root, name, plate, pattern)
            if isinstance(record, Record):
                records.append(record)
            elif name.lower().endswith(pattern.suffixes):
                faults.append(Fault(safe(stem(name)), (f"{root}/{name}",), f"{name}: {record}"))
    if not records:
        raise ConfigError(_no_name(spec, roots, seen, pattern))
    return _joined(records, faults, spec)


def _no_name(spec: InputSpec, roots: dict[str, list[str]], seen: Sequence[str], pattern: Pattern) -> str:
    """What to say where no name fits: what there is, how far the first one fits, and how they could be read."""
    root = next(iter(roots))
    every = _images_below(root)
    what = f"input: no file below {', '.join(roots)} is named as {pattern.text}; found {folders.shown(seen or every)}"
    if spec.pattern is not None and (seen or every):
        fits, rest = fitting(spec.pattern, (seen or every)[0])
        what += f" (the first one fits {fits!r}, but what follows is not {rest!r})" if fits else ""
    proposal = propose(every)
    if proposal is None:
        return f"{what}; correct input.pattern or input.path"
    return f"{what}; {proposal.describe()}: give that, or correct input.pattern or input.path"


def _images_below(root: str) -> list[str]:
    """Images in a folder and those below it, as paths relative to it with "/"; not more than a proposal looks at."""
    names = (name for name in folders.below(root, None) if name.lower().endswith(folders.IMAGES))
    return sorted(islice(names, MOST_NAMES), key=natural)


def proposed(folder: str) -> Proposal | None:
    """How the names of the images in a folder, or below it, could be read; None where nothing fits most of them.

    None as well for anything but a plain folder.
    """
    if not os.path.isdir(folder) or folders.is_zarr(folder):
        return None
    return propose(_images_below(os.path.abspath(os.path.expanduser(folder))))


def _roots(entries: Sequence[folders.Entry], pattern: Pattern) -> dict[str, list[str]]:
    """Files by the folder that the pattern starts from, as paths relative to it."""
    roots: dict[str, list[str]] = {}
    for entry in entries:
        if os.path.isdir(entry.path):
            roots.setdefault(entry.path, []).extend(folders.below(entry.path, pattern.depth))
            continue
        root = os.path.dirname(entry.path)
        for _ in range(pattern.depth or 0):
            root = os.path.dirname(root)
        roots.setdefault(root, []).append(os.path.relpath(entry.path, root).replace(os.sep, "/"))
    return {root: sorted(set(names), key=natural) for root, names in sorted(roots.items(), key=lambda r: natural(r[0]))}


def _plate_name(root: str) -> str:
    """A plate is called as its folder, or as the folder above one that is only called Images."""
    name = os.path.basename(root)
    return os.path.basename(os.path.dirname(root)) if name == "Images" else name


def _record(root: str, name: str, plate: str | None, pattern: Pattern) -> Record | str:
    """The record of a file, or a sentence why it has none."""
    fields = pattern.match(name)
    if fields is None:
        return f"its name does not fit {pattern.text}; rename or remove it"
    known = canonical(fields if plate is None or "plate" in fields else {"plate": plate, **fields})
    if isinstance(known, str):
        return known
    return Record(os.path.join(root, *name.split("/")), f"{plate}/{name}" if plate else name, known)


def _by_path(spec: InputSpec) -> Found:
    """OME-Zarr plates, or else one slide per image."""
    paths = list(dict.fromkeys(p for entry in folders.entries(spec.path or []) for p in folders.images(entry)))
    plates = [p for p in paths if is_plate(p)]
    if not plates:
        return Found(_slides(paths, spec), (), False)
    if len(plates) < len(paths):
        other = next(p for p in paths if p not in plates)
        raise ConfigError(f"input.path names plates ({plates[0]}) and slides ({other}) together; run each alone")
    names = unique([safe(plate_name(p)) for p in plates], [_origin(p, plates) for p in plates])
    read = [plate_records(p, name) for p, name in zip(plates, names, strict=True)]
    found = _joined([r for records, _ in read for r in records], [f for _, faults in read for f in faults], spec)
    return found


def _slides(paths: Sequence[str], spec: InputSpec) -> tuple[Source, ...]:
    """One source per image, in natural order of their paths, and of the images inside a file in their order."""
    if not paths:
        return ()
    ordered = [(path, inner) for path in sorted(paths, key=natural) for inner in series(path) or [""]]
    several = Counter(path for path, _ in ordered)
    origins = [_origin(os.path.join(p, inner), paths) for p, inner in ordered]
    names = [stem(p) + (f"_{inner}" if several[p] > 1 else "") for p, inner in ordered]
    ids = unique([safe(name) for name in names], origins)
    files = [SourceFile(path, inner) for path, inner in ordered]
    return tuple(Source(slide, (file,), mpp=spec.mpp) for slide, file in zip(ids, files, strict=True))


def _origin(path: str, paths: Sequence[str]) -> str:
    """A path relative to the folder that holds all of the paths."""
    root = os.path.commonpath([os.path.dirname(p) for p in paths])
    return os.path.relpath(path, root).replace(os.sep, "/")


def _told_apart(found: Found) -> Found:
    """Faults under ids of their own: a stray file must not be taken for the image whose name it has."""
    origins = ["|".join((*fault.paths, fault.sentence)) for fault in found.faults]
    ids = apart([fault.slide for fault in found.faults], origins, [source.slide for source in found.sources])
    faults = tuple(replace(fault, slide=one) for fault, one in zip(found.faults, ids, strict=True))
    return replace(found, faults=faults)


def _restricted(found: Found, spec: InputSpec) -> Found:
    """Quarantine slides whose regions file is missing; refuse regions of slides that are not there."""
    ids = {source.slide for source in found.sources} | {fault.slide for fault in found.faults}
    if isinstance(spec.regions, dict) and set(spec.regions) - ids:
        unknown = sorted(set(spec.regions) - ids)
        raise ConfigError(f"input.regions names {unknown[0]!r}, but the slides are {folders.shown(sorted(ids))}")
    if (
        isinstance(spec.regions, str)
        and "{slide}" not in spec.regions
        and not os.path.isfile(regions_path(spec, "") or "")
    ):
        raise ConfigError(f"input.regions: {spec.regions} does not exist; expected a GeoJSON file; check the path")
    kept, faults = [], list(found.faults)
    for source in found.sources:
        path = regions_path(spec, source.slide)
        if path is None or os.path.isfile(path):
            kept.append(source)
        else:
            missing = f"{source.slide}: its regions file {path} does not exist; draw regions or leave it out"
            faults.append(Fault(source.slide, tuple(f.path for f in source.files), missing))
    return replace(found, sources=tuple(kept), faults=tuple(faults))
