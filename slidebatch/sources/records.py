"""From single files with named fields to fields of plates: one `Source` of all files that belong together.

Whatever names the fields (a pattern, a manifest, an OME-Zarr plate) ends as `Record`s; here they are joined,
and what does not fit together is named as a `Fault` while the rest goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from slidebatch.slides.source import Source, SourceFile
from slidebatch.sources.names import column_digits, natural, row_letters, row_number, safe, split_well, unique
from slidebatch.sources.spec import Fault

PLACE = ("plate", "row", "column", "field", "image", "slide")
"""Fields that say which image a file belongs to."""

OWN = (*PLACE, "well", "channel", "z", "time", "mpp")
"""Fields with a meaning of their own; every other one is a fact."""

Key = tuple[str | None, ...]


@dataclass(frozen=True)
class Record:
    """One file and what is known of it; texts as found, made canonical by `canonical`.

    origin  the file's name relative to the input's root: ids and messages depend on it alone
    inner   path inside an OME-Zarr plate
    """

    path: str
    origin: str
    fields: dict[str, str]
    inner: str = ""


@dataclass(frozen=True)
class _Group:
    """All records of one image: its key, and its key with facts when it has no place."""

    key: dict[str, str]
    records: list[Record] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return sorted({r.fields[name] for r in self.records if name in r.fields}, key=natural)


def canonical(fields: dict[str, str]) -> dict[str, str] | str:
    """Fields in canonical form (row "A", column "01", field "1", a path-safe plate), or a sentence on what is wrong."""
    known = {name: text.strip() for name, text in fields.items() if text.strip()}
    well = known.pop("well", None)
    if well is not None:
        place = split_well(well)
        if place is None:
            return f"well {well!r} is not a letter and a number; expected a name such as A01"
        known = {"row": place[0], "column": place[1], **known}
    if "plate" in known:
        known["plate"] = safe(known["plate"])  # it becomes a folder of the results
    if "row" in known:
        known["row"] = row_letters(known["row"])
        if not known["row"].isalnum():
            return f"row {known['row']!r} is no name of a row; expected letters such as A, or a number"
    for name in ("column", "field", "z", "time"):
        if name in known and not known[name].isdigit():
            return f"{name} {known[name]!r} is not a number; expected digits"
    known |= {name: str(int(known[name])) for name in ("field", "z", "time", "image") if known.get(name, "").isdigit()}
    if "column" in known:
        known["column"] = column_digits(known["column"])
    if well is not None and split_well(well) != (known["row"], known["column"]):
        return f"well {well!r} contradicts row {known['row']} and column {known['column']}; leave one out"
    return known


def join(records: Sequence[Record], mpp: float | None) -> tuple[tuple[Source, ...], tuple[Fault, ...]]:
    """Sources in canonical order and faults by id; `records` are canonical, `mpp` is for those without.

    Every image must have every channel that any image has, each once, with the same focus planes.
    """
    groups = sorted(_grouped(records), key=_order)
    ids = unique([safe(name) for name in _names(groups)], ["/".join(g.key.values()) for g in groups])
    channels = sorted({r.fields.get("channel", "") for r in records}, key=natural)
    sources, faults = [], []
    for slide, group, number in zip(ids, groups, _numbers(groups), strict=True):
        wrong = _wrong(group, channels)
        if wrong:
            paths = tuple(sorted({r.path for r in group.records}))
            faults.append(Fault(slide, paths, f"{slide}: {wrong}"))
        else:
            sources.append(replace(_source(slide, group, mpp), field=number))
    return tuple(sources), tuple(faults)


def _grouped(records: Sequence[Record]) -> list[_Group]:
    groups: dict[tuple[tuple[str, str], ...], _Group] = {}
    for record in sorted(records, key=lambda r: natural(r.origin)):
        key = {name: record.fields[name] for name in PLACE if name in record.fields}
        if not set(key) - {"plate"}:
            key |= {name: text for name, text in sorted(record.fields.items()) if name not in OWN}
        groups.setdefault(tuple(key.items()), _Group(key)).records.append(record)
    return list(groups.values())


def _order(group: _Group) -> tuple[object, ...]:
    """By plate, row, column, field, then whatever else names the image."""
    key = group.key
    rest = "/".join(text for name, text in key.items() if name not in ("plate", "row", "column", "field"))
    row, column, number = key.get("row", ""), key.get("column", "0"), key.get("field", "0")
    return natural(key.get("plate", "")), row_number(row), row, int(column), int(number), natural(rest)


def _numbers(groups: Sequence[_Group]) -> list[int | None]:
    """The field of each image: as its files say; counted in order in wells where that does not tell all apart.

    So no two images of a well share a field, which is a folder of the results. None off plates.
    """
    wells: dict[Key, list[_Group]] = defaultdict(list)
    for group in groups:
        wells[_well(group)].append(group)
    numbers: list[int | None] = []
    for group in groups:
        mates = wells[_well(group)]
        said = {one.key.get("field") for one in mates}
        if "row" not in group.key or "column" not in group.key:
            numbers.append(int(group.key["field"]) if "field" in group.key else None)
        elif len(said) == len(mates) and None not in said:
            numbers.append(int(group.key["field"]))
        else:
            numbers.append(mates.index(group))
    return numbers


def _well(group: _Group) -> Key:
    return tuple(group.key.get(n) for n in ("plate", "row", "column"))


def _names(groups: Sequence[_Group]) -> list[str]:
    """Ids as people would write them: A01; A01_f2 with several fields a well; plate_A01 on several plates."""
    plates = len({g.key.get("plate") for g in groups}) > 1
    wells: dict[Key, set[Key]] = defaultdict(set)
    for group in groups:
        wells[_well(group)].add(tuple(group.key.get(n) for n in ("field", "image")))
    several = any(len(inner) > 1 for inner in wells.values())
    return [_name(group.key, plates, several) for group in groups]


def _name(key: dict[str, str], plates: bool, several: bool) -> str:
    if "slide" in key:
        return key["slide"]
    if "row" not in key or "column" not in key:
        return "_".join(key.values())
    parts = [key["plate"]] if plates and "plate" in key else []
    parts.append(key["row"] + key["column"])
    if several and "field" in key:
        parts.append(f"f{key['field']}")
    elif several and "image" in key:
        parts.append(f"i{key['image']}")
    return "_".join(parts)


def _wrong(group: _Group, channels: Sequence[str]) -> str | None:
    """What keeps the files from being one image; None if nothing does."""
    times = group.values("time")
    if len(times) > 1:
        return f"time series of {len(times)} points ({_some(times)}) are not read, expected one; keep one"
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in group.records:
        seen[record.fields.get("channel", ""), record.fields.get("z", "")].append(record.origin)
    for (channel, _), origins in sorted(seen.items()):
        if len(origins) > 1:
            of = f" of channel {channel}" if channel else ""
            return f"two files{of} for one field: {_some(origins)}; remove one, or name what tells them apart"
    missing = [c for c in channels if c not in {channel for channel, _ in seen}]
    if missing:
        return f"channel {_some(missing)} is missing of {_some(channels)}; restore it or narrow input.path"
    return _wrong_planes(group) or _wrong_mpp(group)


def _wrong_planes(group: _Group) -> str | None:
    every = group.values("z")
    if len(every) < 2:
        return None
    for channel in sorted({r.fields.get("channel", "") for r in group.records}, key=natural):
        there = {r.fields.get("z") for r in group.records if r.fields.get("channel", "") == channel}
        of = f"channel {channel}" if channel else "the image"
        missing = [z for z in every if z not in there]
        if missing:
            lacks = f"{of} lacks focus plane {_some(missing)} of {_some(every)}"
            return f"{lacks}, which other channels have; restore the missing files"
        if None in there:
            return f"{of} has a file without a focus plane beside files with one; remove one or the others"
    return None


def _wrong_mpp(group: _Group) -> str | None:
    stated = group.values("mpp")
    if len(stated) > 1:
        return f"its files state different mpp ({_some(stated)}), expected one value; correct the manifest"
    try:
        fine = not stated or 0 < float(stated[0]) < float("inf")
    except ValueError:
        fine = False
    return None if fine else f"mpp {stated[0]!r} is not a number above 0; correct the manifest"


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _source(slide: str, group: _Group, mpp: float | None) -> Source:
    stacked = len(group.values("z")) > 1
    ordered = sorted(group.records, key=lambda r: (natural(r.fields.get("channel", "")), int(r.fields.get("z", "0"))))
    files = tuple(_file(record, stacked) for record in ordered)
    stated = group.values("mpp")
    key = group.key
    return Source(
        slide=slide,
        files=files,
        mpp=float(stated[0]) if stated else mpp,
        plate=key.get("plate"),
        row=key.get("row"),
        column=key.get("column"),
        facts=_facts(group),
    )


def _file(record: Record, stacked: bool) -> SourceFile:
    z = int(record.fields["z"]) if stacked else None
    return SourceFile(record.path, record.inner, record.fields.get("channel"), z)


def _facts(group: _Group) -> tuple[tuple[str, str], ...]:
    """The image number, and every other field in which all files agree."""
    names = sorted({name for r in group.records for name in r.fields if name not in OWN or name == "image"})
    agreed = ((name, {r.fields.get(name) for r in group.records}) for name in names)
    return tuple((name, text) for name, texts in agreed if len(texts) == 1 for text in texts if text is not None)
