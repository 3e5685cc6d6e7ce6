"""Says what is wrong with a config: turns a schema and pydantic's errors into sentences with places.

Owns the wording only; `config` reads, and pydantic judges. One sentence per fault:
`plate.yaml:7:3: tiling.core: unknown key; did you mean tiling.core_px (pixels)? ...`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

Loc = tuple[str | int, ...]
Schema = Mapping[str, Any]
Place = Callable[[Loc, bool], str]

UNITS = {
    "px": "pixels",
    "um": "micrometres",
    "um2": "square micrometres",
    "mm2": "square millimetres",
    "bytes": "bytes",
    "gb": "gigabytes",
    "s": "seconds",
    "percent": "per cent",
}
"""The endings of names that are units."""

_NUMBER_WITH_UNIT = re.compile(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*[a-zA-Zµμ%]+\d?\s*", re.ASCII | re.IGNORECASE)


def unit_of(key: str) -> str | None:
    """The unit that a key's name ends in, in words; None if it has none.

    >>> unit_of("core_px"), unit_of("attempts")
    ('pixels', None)
    """
    stem, _, ending = key.rpartition("_")
    return UNITS.get(ending) if stem else None


def dotted(loc: Sequence[str | int]) -> str:
    """A place in the config as users write it.

    >>> dotted(("input", "path", 2))
    'input.path[2]'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".") or "the config"


def faults(error: ValidationError, values: Any, schema: Schema, place: Place) -> list[str]:
    """One sentence per fault, in the order of the schema, one for every key at most.

    :param values: the values that pydantic refused, as plain JSON.
    :param schema: the JSON schema of the whole config.
    :param place: (where, whether sections are meant as a whole) -> "file:line:column" or "--set key=value".
    """
    sentences: dict[Loc, str] = {}
    for item in error.errors(include_url=False):
        loc, value = _walk(item["loc"], values, item["type"])
        whole = item["type"] == "value_error"
        sentences.setdefault(loc, f"{place(loc, whole)}: {_sentence(item, loc, value, schema)}")
    return list(sentences.values())


def _walk(loc: Loc, values: Any, kind: str) -> tuple[Loc, Any]:
    """The part of pydantic's `loc` that the values have (it also holds unions' tags), and the value there."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        if _has(values, part):
            path, values = [*path, part], values[part]
        elif kind == "missing" and i == len(loc) - 1:
            path, values = [*path, part], None
    return tuple(path), values


def _has(values: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(values, list) and part < len(values)
    return isinstance(values, dict) and part in values


def _sentence(item: Any, loc: Loc, value: Any, schema: Schema) -> str:
    name = dotted(loc)
    if item["type"] == "extra_forbidden":
        return f"{name}: unknown key; {_known(loc, schema)}."
    if item["type"] == "missing":
        return f"{name}: missing; expected {allowed(at(schema, loc), schema, loc)}."
    if item["type"] in ("value_error", "assertion_error"):
        reason = str(item.get("ctx", {}).get("error", item["msg"])).rstrip(".")
        return f"{name}: {reason}."
    expected = allowed(at(schema, loc), schema, loc)
    return f"{name}: found {_shown(value)}; expected {expected}{_advice(value, loc)}."


def _shown(value: Any) -> str:
    """The value as YAML would write it, cut at 60 characters."""
    if value is None:
        return "nothing"
    text = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _advice(value: Any, loc: Loc) -> str:
    unit = unit_of(str(loc[-1])) if loc else None
    if isinstance(value, str) and unit and _NUMBER_WITH_UNIT.fullmatch(value):
        return f": write the number alone, the key's name says that it is in {unit}"
    return ""


def _known(loc: Loc, schema: Schema) -> str:
    """What was probably meant by the unknown key at `loc`, and the known keys there with their units."""
    key, parent = str(loc[-1]), loc[:-1]
    known = list(_properties(at(schema, parent), schema))
    listed = ", ".join(_with_unit(name) for name in known) or "none"
    close = _nearest(key, known)
    elsewhere = [path for path in _paths(schema) if path[-1] == key]
    if close:
        meant = dotted((*parent, close)) + (f" ({unit_of(close)})" if unit_of(close) else "")
        return f"did you mean {meant}? Known here: {listed}"
    if elsewhere:
        return f"did you mean {dotted(elsewhere[0])}? Known here: {listed}"
    return f"known here: {listed}"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    """The known key that is spelled most like `key`, or has its stem with another unit."""
    stem = key.rpartition("_")[0] if unit_of(key) else key
    for name in known:
        if unit_of(name) and name.rpartition("_")[0] == stem:
            return name
    return next(iter(difflib.get_close_matches(key, known, 1, 0.6)), None)


def _with_unit(name: str) -> str:
    unit = unit_of(name)
    return f"{name} ({unit})" if unit else name


def _resolve(node: Schema, schema: Schema) -> Schema:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _options(node: Schema, schema: Schema) -> Iterator[Schema]:
    """The node itself, or what its `anyOf` or `oneOf` offers."""
    node = _resolve(node, schema)
    offered = node.get("anyOf", node.get("oneOf"))
    if offered is None:
        yield node
    for option in offered or ():
        yield from _options(option, schema)


def _properties(node: Schema, schema: Schema) -> dict[str, Schema]:
    return {k: v for option in _options(node, schema) for k, v in option.get("properties", {}).items()}


def at(schema: Schema, loc: Loc) -> Schema:
    """The schema of the value at `loc`; an empty schema (anything) where it says nothing."""
    node: Schema = schema
    for part in loc:
        node = _below(node, part, schema)
    return node


def _below(node: Schema, part: str | int, schema: Schema) -> Schema:
    for option in _options(node, schema):
        if isinstance(part, int):
            fixed = option.get("prefixItems", [])
            found = fixed[part] if part < len(fixed) else option.get("items")
        else:
            found = option.get("properties", {}).get(part, option.get("additionalProperties"))
        if isinstance(found, dict):
            return found
    return {}


def _paths(schema: Schema, node: Schema | None = None, loc: Loc = ()) -> Iterator[Loc]:
    """Every place that the schema names."""
    for key, below in _properties(schema if node is None else node, schema).items():
        yield (*loc, key)
        yield from _paths(schema, below, (*loc, key))


def allowed(node: Schema, schema: Schema, loc: Loc = ()) -> str:
    """What a value may be, in words: "a whole number above 0 (pixels), or auto"."""
    unit = unit_of(str(loc[-1])) if loc else None
    words = [_words(option, schema, unit) for option in _options(node, schema)]
    return " or ".join(dict.fromkeys(words)) or "anything"


def _words(option: Schema, schema: Schema, unit: str | None) -> str:
    if "const" in option:
        return str(option["const"])
    if "enum" in option:
        return "one of " + ", ".join(str(value) for value in option["enum"])
    kind = option.get("type")
    if kind in ("integer", "number"):
        noun = "a whole number" if kind == "integer" else "a number"
        return noun + _bounds(option) + (f" ({unit})" if unit else "")
    if kind == "array":
        item = option.get("items")
        return "a list of " + allowed(item, schema) if isinstance(item, dict) else "a list"
    if kind == "object":
        keys = ", ".join(option.get("properties", {}))
        return f"a section with the keys {keys}" if keys else "a section of keys and values"
    return {"string": "text", "boolean": "true or false", "null": "nothing (null)"}.get(str(kind), "anything")


def _bounds(option: Schema) -> str:
    limits = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
    }
    found = [f"{words} {option[key]:g}" for key, words in limits.items() if key in option]
    return "".join(f" {words}" if i == 0 else f" and {words}" for i, words in enumerate(found))
