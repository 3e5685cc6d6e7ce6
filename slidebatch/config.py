"""The config of a run: puts the sections together, reads them from YAML, and says what is wrong and where.

Owns `RunConfig` and the reading of config files with `--set` overrides. Every section's class lives beside
the code that uses it. A value must have the type that its key asks for: `"1024"` is text, not a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from slidebatch.assay import AssaySpec
from slidebatch.config_faults import faults
from slidebatch.decode import DecodeSpec
from slidebatch.errors import ConfigError
from slidebatch.executors.spec import ClusterSpec
from slidebatch.fusion import EnsembleSpec
from slidebatch.measurements import MeasureSpec
from slidebatch.models.spec import ModelSpec
from slidebatch.normalise import NormaliseSpec
from slidebatch.pages import ReportSpec
from slidebatch.shipped import find_config
from slidebatch.sources import InputSpec
from slidebatch.spec import Spec
from slidebatch.store import OutputSpec
from slidebatch.tiling import TilingSpec
from slidebatch.tissue import TissueSpec
from slidebatch.yaml_place import Document, Loc, read_document, read_value

S = TypeVar("S", bound=Spec)

SHORTHAND = {("model",): "name"}
"""Sections that may be written as one word, and the key that the word stands for."""

EXCLUDES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("input", "path"): ("sample", "manifest"),
    ("input", "sample"): ("path", "manifest", "pattern", "preset", "channel_names"),
    ("input", "manifest"): ("path", "sample", "pattern", "preset", "channel_names"),
    ("input", "pattern"): ("preset", "channel_names"),
    ("input", "preset"): ("pattern", "channel_names"),
    ("measure", "ring_px"): ("ring_um",),
    ("measure", "ring_um"): ("ring_px",),
    ("cluster", "address"): ("scheduler_file",),
    ("cluster", "scheduler_file"): ("address",),
}
"""Keys that cannot stand beside others of their section: an override of one takes those away."""

PATTERNS = {("input", "pattern")}
"""Keys whose values may begin with a brace and are text all the same."""


def _defaults(kind: type[S]) -> Callable[[], S]:
    """Makes a section of defaults alone."""
    return lambda: kind.model_validate({})


class RunConfig(Spec):
    """Everything that a run depends on."""

    name: str = Field("run", min_length=1, description="Name of the run, for people.")
    input: InputSpec = Field(description="What to segment.")
    model: ModelSpec = Field(default_factory=_defaults(ModelSpec), description="The network; one word is its name.")
    ensemble: EnsembleSpec | None = Field(None, description="Several networks as one, in place of the one of `model`.")
    normalise: NormaliseSpec = Field(default_factory=_defaults(NormaliseSpec), description="How grey becomes 0..1.")
    tissue: TissueSpec = Field(default_factory=_defaults(TissueSpec), description="Which parts of a slide hold tissue.")
    tiling: TilingSpec = Field(default_factory=_defaults(TilingSpec), description="How slides are cut.")
    decode: DecodeSpec = Field(default_factory=_defaults(DecodeSpec), description="How maps become nuclei.")
    measure: MeasureSpec = Field(default_factory=_defaults(MeasureSpec), description="What is measured of nuclei.")
    assay: AssaySpec = Field(default_factory=_defaults(AssaySpec), description="How a plate is judged as an assay.")
    report: ReportSpec = Field(default_factory=_defaults(ReportSpec), description="The page to look at.")
    output: OutputSpec = Field(description="Where results go.")
    cluster: ClusterSpec = Field(default_factory=_defaults(ClusterSpec), description="Where the run runs.")


@dataclass(frozen=True)
class Override:
    """One `--set key=value`: the text after `--set`, the key's parts, and the value as YAML reads it."""

    text: str
    loc: tuple[str, ...]
    value: Any

    @property
    def blame(self) -> str:
        return f"--set {self.text}"


def load(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the config of a run.

    :param path: a YAML file, or the name of a shipped one (`conf/plate.yaml`), which is found from anywhere.
    :param overrides: `key=value` each, keys dotted (`tiling.core_px=1024`), values YAML; the last one wins.
    :returns: the checked config, defaults filled in.
    :raises ConfigError: all faults at once, one a line, each with `file:line:column` or its `--set`.
    """
    return read(RunConfig, path, overrides)


def read(kind: type[S], path: str, overrides: Sequence[str] = ()) -> S:
    """Like `load`, for any kind of config (a training's, for instance)."""
    document = read_document(find_config(path), str(path))
    return check(kind, document, [parse_override(text) for text in overrides])


def check(kind: type[S], document: Document, overrides: Sequence[Override] = ()) -> S:
    """The config that a document and overrides make. ConfigError: see `load`."""
    values = values_of(document, overrides)
    try:
        # Strict: a quoted number stays text, true is no 1. By way of JSON, where a list may be a tuple.
        return kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:

        def place(loc: Loc, whole: bool) -> str:
            return _blame(document, overrides, loc, whole)

        raise ConfigError("\n".join(faults(error, values, kind.model_json_schema(), place))) from error


def values_of(document: Document, overrides: Sequence[Override] = ()) -> dict[str, Any]:
    """What a document says, as JSON's values, with the overrides in place; not checked yet. ConfigError: see `load`."""
    values = _plain(document)
    for override in overrides:
        values = apply(values, override)
    return values


def _plain(document: Document) -> dict[str, Any]:
    """The document's values as JSON has them (text keys; dates as text)."""
    values = {} if document.values is None else document.values
    if not isinstance(values, dict):
        raise ConfigError(f"{document.place(())}: found {type(values).__name__}; expected keys and values.")
    try:
        return dict(json.loads(json.dumps(values, default=str)))
    except TypeError as error:
        raise ConfigError(f"{document.name}: a key is not text ({error}); write keys as words.") from error


def parse_override(text: str) -> Override:
    """Read `key=value`.

    >>> parse_override("tiling.core_px=1024")
    Override(text='tiling.core_px=1024', loc=('tiling', 'core_px'), value=1024)

    :raises ConfigError: no `=`, an empty or malformed key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    loc = tuple(key.strip().split("."))
    if not equals or not all(re.fullmatch(r"[\w-]+", part) for part in loc):
        raise ConfigError(f"--set {text}: expected a key and a value, as in --set tiling.core_px=1024.")
    if loc in PATTERNS and value.strip().startswith("{"):
        return Override(text, loc, value.strip())
    return Override(text, loc, read_value(value, f"--set {text}"))


def apply(values: dict[str, Any], override: Override) -> dict[str, Any]:
    """The values with the override in place; the given ones are left alone.

    An override takes away what it `EXCLUDES`; below a section that is written as one word, the word is first
    written out.
    """
    changed = _put(values, override, 0)
    if override.value is not None and (rivals := EXCLUDES.get(override.loc)):
        section = override.loc[0]
        changed[section] = {k: v for k, v in changed[section].items() if k not in rivals}
    return changed


def _put(values: Any, override: Override, depth: int) -> dict[str, Any]:
    here, key = override.loc[:depth], override.loc[depth]
    if isinstance(values, str) and here in SHORTHAND:
        values = {SHORTHAND[here]: values}
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{override.blame}: {'.'.join(here)} is {values!r}, not a section; set {'.'.join(here)} itself."
        )
    last = depth == len(override.loc) - 1
    return {**values, key: override.value if last else _put(values.get(key), override, depth + 1)}


def _blame(document: Document, overrides: Sequence[Override], loc: Loc, whole: bool) -> str:
    """Who said what is at `loc`: the last override that set it, else the file (and what was set below it)."""
    setters = [o for o in overrides if o.loc == loc[: len(o.loc)]]
    if setters:
        return setters[-1].blame
    inside = [o.blame for o in overrides if loc == o.loc[: len(loc)]]
    if inside and not _written(document.values, loc):
        return inside[-1]
    below = inside if whole else []
    return " with ".join([document.place(loc), *below])


def _written(values: Any, loc: Loc) -> bool:
    """Whether the file itself says something at `loc`."""
    for part in loc:
        there = part in values if isinstance(values, dict) else isinstance(values, list)
        if not there:
            return False
        values = values[part]
    return True


def schema(kind: type[Spec] = RunConfig) -> dict[str, Any]:
    """The JSON schema of a config, with a description of every key.

    Descriptions come from the field, else from the table in its section's docstring (`name   text` lines).
    """
    made = kind.model_json_schema()
    for section in (made, *made.get("$defs", {}).values()):
        described = _documented(section.get("description", ""))
        for name, node in section.get("properties", {}).items():
            # Pydantic leaves a description out where it equals that of the section referred to.
            told = made["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else {}
            fallback = told.get("description", name.replace("_", " "))
            node.setdefault("description", described.get(name, fallback))
    return made


def _documented(docstring: str) -> dict[str, str]:
    """Names and texts of the `name, name   text` lines of a docstring, continuation lines joined."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.splitlines():
        row = re.match(r"(\w+(?:, \w+)*)\s{2,}(\S.*)", line)
        if row:
            names = row[1].split(", ")
            found.update(dict.fromkeys(names, row[2].strip()))
        elif line.startswith("   ") and names:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        else:
            names = []
    return found
