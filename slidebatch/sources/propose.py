"""A way to read file names that fits a folder: the preset or pattern that people would write after looking at it.

Owns the guess. Nothing is ever read by it unasked: messages and `slidebatch plan FOLDER` show it, and the user gives
it back as a setting.

Names are cut at what is neither a letter nor a digit. What stands at one place in all names is a column: wells (A01),
letters with numbers (s3, ch2, r01c02), bare numbers, or words. Letters before a number say what it counts.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import get_args

from slidebatch.errors import ConfigError
from slidebatch.sources.names import natural
from slidebatch.sources.pattern import Pattern, compile_pattern, preset
from slidebatch.sources.records import PLACE, canonical
from slidebatch.sources.spec import Preset

MOST_NAMES = 20_000
"""Names that are looked at; folders with more are as regular as their beginning."""

MOST_CHANNELS = 8
"""Different words at one place that may still be channels."""

MOST_COLUMN = 48
"""Columns of the largest plates."""

NUMBERS = {
    "row": ("row", "r"),
    "column": ("column", "col"),
    "field": ("field", "fov", "site", "pos", "position", "tile", "xy", "fld", "f", "s"),
    "channel": ("channel", "chan", "ch", "c", "wavelength", "wave", "w"),
    "z": ("zstep", "slice", "plane", "z"),
    "time": ("timepoint", "time", "t"),
}
"""What the letters before a number say it counts."""

_WORD = re.compile(r"([A-Za-z0-9]+)")
_ENDING = re.compile(r"(?:\.ome)?\.[A-Za-z0-9]+$")
_WELL = re.compile(r"([A-Pa-p]|[Aa][A-Fa-f])(\d{1,2})")
_PAIRS = re.compile(r"(?:[A-Za-z]+\d+)+")
_PAIR = re.compile(r"([A-Za-z]+)(\d+)")


@dataclass(frozen=True)
class Proposal:
    """How names may be read: the key of `input` that says so, its value, and how the first name is read by it.

    fits, of   names that it reads, and names of images that there are
    """

    key: str
    value: str
    name: str
    fields: dict[str, str]
    fits: int
    of: int

    @property
    def setting(self) -> str:
        """The setting, as a shell takes it."""
        return shlex.join(["--set", f"input.{self.key}={self.value}"])

    def describe(self) -> str:
        """A sentence: how many files it reads, and how it reads one."""
        how = ", ".join(f"{name} {text}" for name, text in self.fields.items())
        some = f"all {self.of}" if self.fits == self.of else f"{self.fits} of {self.of}"
        return f"{self.setting} reads {some} names ({self.name}: {how})"


def propose(names: Sequence[str]) -> Proposal | None:
    """How the names of images could be read, as paths relative to their folder; None where nothing fits most of them.

    What is proposed tells channels or wells apart, and no two files the same.
    """
    names = sorted(names, key=natural)[:MOST_NAMES]
    known = [("preset", name, preset(name)) for name in get_args(Preset)]
    drawn = _drawn(names)
    compiled = None if drawn is None else _compiled(drawn)
    if drawn is not None and compiled is not None:
        known.append(("pattern", drawn, compiled))
    fitting = (_fitting(key, value, pattern, names) for key, value, pattern in known)
    return next((found for found in fitting if found is not None), None)


def _compiled(text: str) -> Pattern | None:
    try:
        return compile_pattern(text)
    except ConfigError:  # fields that nothing tells apart
        return None


def _fitting(key: str, value: str, pattern: Pattern, names: Sequence[str]) -> Proposal | None:
    """The proposal, where a pattern reads most of the names and no two of them the same."""
    names = [name for name in names if pattern.ignore is None or not pattern.ignore.fullmatch(name)]
    read = {name: canonical(fields) for name in names if (fields := pattern.match(name)) is not None}
    known = {name: fields for name, fields in read.items() if not isinstance(fields, str)}
    if not known or 2 * len(known) < len(names):
        return None
    told = {tuple(fields.get(f) for f in (*PLACE, "channel", "z", "time")) for fields in known.values()}
    if len(told) < len(known) or not _means_something(list(known.values())):
        return None
    first = next(iter(known))
    return Proposal(key, value, first, known[first], len(known), len(names))


def _means_something(read: Sequence[dict[str, str]]) -> bool:
    """Whether there are wells, or else channels that nearly every image has."""
    if all("column" in fields for fields in read):
        return True
    channels = {fields.get("channel") for fields in read}
    images = {tuple(fields.get(f) for f in (*PLACE, "z", "time")) for fields in read}
    return len(channels) > 1 and 10 * len(read) >= 9 * len(channels) * len(images)


# Drawing a pattern


@dataclass
class _Drawing:
    """A pattern in the making.

    columns  the words at each place, one of every name
    parts    what the pattern has there so far
    folders  which of these are whole names of folders
    used     its fields
    places   places whose words tell the well
    """

    columns: list[list[str]]
    parts: list[str | None]
    folders: list[bool]
    used: set[str] = field(default_factory=set)
    places: list[int] = field(default_factory=list)

    def open(self) -> list[int]:
        return [i for i, part in enumerate(self.parts) if part is None]

    def take(self, name: str) -> str:
        self.used.add(name)
        return "{" + name + "}"


def _drawn(names: Sequence[str]) -> str | None:
    """A pattern for the names of the commonest shape; None where what differs in them has no meaning."""
    shapes: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for name in names:
        separators, words = _cut(name)
        shapes[separators].append(words)
    if not shapes:
        return None
    separators, rows = max(shapes.items(), key=lambda shape: len(shape[1]))
    columns = [list(column) for column in zip(*rows, strict=True)]
    folders = [(not i or before.endswith("/")) and after.startswith("/") for i, (before, after) in _sides(separators)]
    drawing = _Drawing(columns, [None] * len(columns), folders)
    for draw in (_wells, _counted, _rows, _constant, _numbers, _words):  # what is surer first
        draw(drawing)
    if not drawing.used or drawing.open():
        return None
    return "".join(s + p for s, p in zip(separators, [*map(str, drawing.parts), ""], strict=True))


def _cut(name: str) -> tuple[tuple[str, ...], list[str]]:
    """What lies before, between and after the words of a name, its ending included; and the words."""
    ending = _ENDING.search(name)
    stem = name if ending is None else name[: ending.start()]
    cut = _WORD.split(stem)
    return (*cut[0:-1:2], cut[-1] + name[len(stem) :]), cut[1::2]


def _sides(separators: Sequence[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    """What lies before and after each word."""
    return enumerate(pairwise(separators))


def _wells(drawing: _Drawing) -> None:
    """The column that holds wells: of those that could, the one with most rows, then most wells."""
    could = []
    for i, column in enumerate(drawing.columns):
        found = [m for word in column if (m := _WELL.fullmatch(word)) and 0 < int(m[2]) <= MOST_COLUMN]
        rows = {m[1].lower() for m in found}
        counts = any(rows <= set(words) for words in NUMBERS.values())
        if len(found) == len(column) and (len(rows) > 1 or not counts):
            could.append((len(rows), len(set(column)), -i))
    if could:
        best = drawing.columns[-max(could)[2]]
        drawing.used |= {"row", "column"}
        for i, column in enumerate(drawing.columns):
            if column == best:  # a folder of the well, too
                drawing.parts[i] = drawing.take("well")
                drawing.places.append(i)


def _counted(drawing: _Drawing) -> None:
    """Letters with numbers: s3, ch2, r01c02; plates by their name."""
    for i in drawing.open():
        column = drawing.columns[i]
        letters = {tuple(pair[0] for pair in _PAIR.findall(word)) if _PAIRS.fullmatch(word) else () for word in column}
        words = letters.pop()
        if letters or not words:
            continue
        named = words[0].lower() == "plate" or (drawing.folders[i] and len(set(column)) > 1)
        if named and len(words) == 1 and "plate" not in drawing.used:
            drawing.parts[i] = drawing.take("plate")
            continue
        numbers = zip(*([pair[1] for pair in _PAIR.findall(word)] for word in column), strict=True)
        parts = [_count(drawing, word, list(values)) for word, values in zip(words, numbers, strict=True)]
        if all(part is not None for part in parts):
            drawing.parts[i] = "".join(map(str, parts))
            if "{row}" in str(drawing.parts[i]) or "{column}" in str(drawing.parts[i]):
                drawing.places.append(i)


def _count(drawing: _Drawing, letters: str, values: Sequence[str]) -> str | None:
    """Letters with what the number after them counts; the number itself where it is always the same."""
    name = next((name for name, words in NUMBERS.items() if letters.lower() in words), None)
    if letters.lower() == "c" and "row" in drawing.used and "column" not in drawing.used:
        name = "column"
    if len(set(values)) == 1 and name not in ("row", "column"):
        return letters + values[0]
    if name is None or name in drawing.used:
        name = next((n for n in ("field", "image") if n not in drawing.used), None)
    return None if name is None else letters + drawing.take(name)


def _rows(drawing: _Drawing) -> None:
    """A letter for the row with a number for the column after it, parted by something."""
    for i in drawing.open():
        after = i + 1
        if "row" in drawing.used or after not in drawing.open():
            continue
        letters, digits = set(drawing.columns[i]), drawing.columns[after]
        single = all(re.fullmatch("[A-Pa-p]|[Aa][A-Fa-f]", word) for word in letters)
        if len(letters) > 1 and single and all(d.isdigit() and 0 < int(d) <= MOST_COLUMN for d in digits):
            drawing.parts[i], drawing.parts[after] = drawing.take("row"), drawing.take("column")
            drawing.places += [i, after]


def _constant(drawing: _Drawing) -> None:
    """What is the same in all names stands as it is."""
    for i in drawing.open():
        if len(set(drawing.columns[i])) == 1:
            drawing.parts[i] = drawing.columns[i][0]


def _numbers(drawing: _Drawing) -> None:
    """Bare numbers: the field of a well, or the image, where the number says no more than the well."""
    for i in drawing.open():
        column = drawing.columns[i]
        if not all(word.isdigit() for word in column):
            continue
        wells = list(zip(*(drawing.columns[p] for p in drawing.places), strict=True)) or [()] * len(column)
        of_well = len(set(zip(wells, column, strict=True))) == len(set(wells))
        order = ("field", "image") if drawing.places and not of_well else ("image", "field")
        name = next((n for n in order if n not in drawing.used), None)
        drawing.parts[i] = None if name is None else drawing.take(name)


def _words(drawing: _Drawing) -> None:
    """Words: the channel is what differs least, and comes again and again; other words name plates or slides."""
    left = sorted(drawing.open(), key=lambda i: (len(set(drawing.columns[i])), -i))
    for i in left:
        different = len(set(drawing.columns[i]))
        if "channel" not in drawing.used and different <= MOST_CHANNELS and different < len(drawing.columns[i]):
            drawing.parts[i] = drawing.take("channel")
        else:
            name = "plate" if drawing.places else "slide"
            drawing.parts[i] = None if name in drawing.used else drawing.take(name)
