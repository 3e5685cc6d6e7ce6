"""File names with named fields: the pattern language, and the names that microscopes write.

A pattern is literal text with fields in braces. Each field matches what such a field can hold:

    {row}                             one or two letters, or a one- or two-digit number
    {column} {field} {z} {time} {image}   digits
    {well}                            letters and digits together, A01
    {channel} {plate} {slide} others  any text without a slash, as little as fits
    *                                 anything without a slash, not kept

Slashes are sub-folders. A field named twice must hold the same text twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slidebatch.errors import ConfigError
from slidebatch.sources.spec import Preset

DIGITS = ("column", "field", "z", "time", "image")
_TOKEN = re.compile(r"\{([^{}]*)\}|(\*)")


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern.

    text     as the user wrote it, or the preset's name
    regex    full match of a path relative to its root, with "/" between folders
    depth    folders below the root; None: any
    suffixes endings (lower case) that mark a file as one that should have matched
    ignore   names that are known and left out (thumbnails, corrections), or None
    """

    text: str
    regex: re.Pattern[str]
    depth: int | None
    suffixes: tuple[str, ...]
    ignore: re.Pattern[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the pattern tells."""
        return tuple(self.regex.groupindex)

    def match(self, relative: str) -> dict[str, str] | None:
        """Fields by name of a path relative to the root; None where it does not match."""
        found = self.regex.fullmatch(relative)
        return None if found is None else {k: v for k, v in found.groupdict().items() if v is not None}


def compile_pattern(text: str) -> Pattern:
    """Compile a user's pattern; ConfigError for stray braces, bad names, fields that run together."""
    text = text.removeprefix("./")
    regex, seen = _regex(text)
    if not seen - {"*"}:
        raise ConfigError(f"input.pattern {text!r} has no field in braces; name at least one, such as {{well}}")
    suffix = re.search(r"\.[^.{}*/]+$", text)
    return Pattern(
        text,
        re.compile(regex),
        text.count("/"),
        (suffix.group().lower(),) if suffix else (),
    )


def fitting(text: str, name: str) -> tuple[str, str]:
    """How far a name fits a user's pattern that does not match it: the part that its beginning fits, and the rest."""
    tokens = [token for token in re.split(r"(\{[^{}]*\}|\*)", text.removeprefix("./")) if token]
    for count in range(len(tokens) - 1, 0, -1):
        beginning = "".join(tokens[:count])
        if re.match(_regex(beginning)[0], name):
            return beginning, "".join(tokens[count:])
    return "", text


def _regex(text: str) -> tuple[str, set[str]]:
    """The regex of a user's pattern, and the names of its fields, `*` among them."""
    regex, end, seen, previous = "", 0, set[str](), ""
    for token in _TOKEN.finditer(text):
        literal = text[end : token.start()]
        _no_brace(literal, text)
        name = token.group(1) if token.group(2) is None else "*"
        if previous and not literal:
            _tell_apart(previous, name, text)
        regex += re.escape(literal) + _group(name, seen, text, bool(previous and not literal))
        seen.add(name)
        previous, end = name, token.end()
    _no_brace(text[end:], text)
    return regex + re.escape(text[end:]), seen


def _no_brace(literal: str, text: str) -> None:
    if "{" in literal or "}" in literal:
        raise ConfigError(f"input.pattern {text!r} has a brace without its partner; write fields as {{name}}")


def _group(name: str, seen: set[str], text: str, joined: bool) -> str:
    """The regex of one field; `joined`: it follows another field without anything between."""
    if name == "*":
        return "[^/]*?"
    if not name.isidentifier():
        raise ConfigError(f"input.pattern {text!r}: {{{name}}} is no field; use a word, such as {{channel}}")
    if name in seen:
        return f"(?P={name})"
    if name in DIGITS:
        return rf"(?P<{name}>\d+)"
    letters = "[A-Za-z]{1,2}"
    kinds = {"well": letters + r"\d{1,3}", "row": letters if joined else rf"{letters}|\d{{1,2}}"}
    return f"(?P<{name}>{kinds.get(name, '[^/]+?')})"


def _tell_apart(one: str, other: str, text: str) -> None:
    """Refuse two fields side by side where nothing says where one ends."""
    ends_in_digits = one in (*DIGITS, "well")
    clear = (one == "row" and other in DIGITS) or (ends_in_digits and other in ("row", "*"))
    if not clear:
        raise ConfigError(
            f"input.pattern {text!r}: nothing tells where {{{one}}} ends and {{{other}}} begins; "
            "put the text that lies between them there"
        )


_IMAGE = r"\.(?:tiff?|TIFF?|png)"
_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_ANY_FOLDER = r"(?:.*?/)??"  # as few folders as fit: those that follow may have a meaning

_PRESETS: dict[str, tuple[str, str | None]] = {
    # MetaXpress: [TimePoint_1/][ZStep_2/]Plate_A01_s1_w1<GUID>.tif; no _s for one site, no _w for one colour.
    "imagexpress": (
        rf"{_ANY_FOLDER}(?:TimePoint_(?P<time>\d+)/)?(?:ZStep_(?P<z>\d+)/)?"
        rf"(?P<plate>[^/]+?)_(?P<row>[A-Za-z]{{1,2}})(?P<column>\d{{2}})(?:_s(?P<field>\d+))?"
        rf"(?:_w(?P<channel>\d+?))?(?:{_GUID})?{_IMAGE}",
        r"(?i).*_thumb.*",
    ),
    # Harmony: [plate/][Images/]r01c02f03p01-ch1sk1fk1fl1.tiff, rows as numbers.
    "operetta": (
        rf"{_ANY_FOLDER}"
        r"(?:(?P<plate>(?!Images/)[^/]+)/)?(?:Images/)?"
        r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<field>\d+)p(?P<z>\d+)-ch(?P<channel>\d+)"
        rf"(?:sk(?P<time>\d+))?(?:fk\d+)?(?:fl\d+)?{_IMAGE}",
        None,
    ),
    # CellVoyager: plate_A01_T0001F001L01A01Z01C01.tif; DC_, SC_ and SHD_ files are camera corrections.
    "cellvoyager": (
        rf"{_ANY_FOLDER}(?P<plate>[^/]+)_(?P<row>[A-Za-z]{{1,2}})(?P<column>\d{{2}})_T(?P<time>\d+)F(?P<field>\d+)"
        rf"L\d+A\d+Z(?P<z>\d+)C(?P<channel>\d+){_IMAGE}",
        r"(?:.*/)?(?:DC|SC|SHD)_[^/]*",
    ),
}


def preset(name: Preset) -> Pattern:
    """The pattern of a microscope's own names."""
    regex, ignore = _PRESETS[name]
    return Pattern(
        f"preset {name}",
        re.compile(regex),
        None,
        (".tif", ".tiff", ".png"),
        re.compile(ignore) if ignore else None,
    )
