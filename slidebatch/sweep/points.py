"""Points: parameters with a number, an id that follows from them alone, and all settings that they stand for.

Owns the making and checking of points, and the base config that they start from.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from slidebatch.errors import ConfigError
from slidebatch.shipped import find_config
from slidebatch.spec import Spec
from slidebatch.sweep.space import canonical, holds, parameters
from slidebatch.sweep.spec import Kind, Settings, SweepSpec

if TYPE_CHECKING:
    from slidebatch.config import Override

ID_LETTERS = 12
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    number      its place in the sweep's order, from 0
    id          follows from the parameters alone, however they are written and ordered
    name        of a point that was written out; "" otherwise
    parameters  what tells it from other points
    settings    what is set over the base config: what follows from the parameters, and these (without labels)
    """

    number: int
    id: str
    name: str
    parameters: Settings
    settings: Settings

    @property
    def key(self) -> str:
        """Its name on disk: number and id."""
        return f"{self.number:05d}_{self.id}"

    @property
    def overrides(self) -> list[str]:
        """The settings as `--set` takes them."""
        return as_overrides(self.settings)

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def id_of(parameters: Settings) -> str:
    """The id of parameters: hexadecimal digits."""
    return hashlib.sha256(canonical(parameters).encode()).hexdigest()[:ID_LETTERS]


def as_overrides(settings: Settings) -> list[str]:
    """Settings as `--set` takes them, in order (JSON is YAML)."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def points_of(spec: SweepSpec) -> tuple[Point, ...]:
    """All points in the sweep's order, settings not yet checked. ConfigError: see `space.parameters`; points alike."""
    made = tuple(_point(i, name, found, spec) for i, (name, found) in enumerate(parameters(spec)))
    if not made:
        raise ConfigError("exclude: no point is left; take a rule away.")
    for what, names in (("parameters", [p.id for p in made]), ("name", [p.name for p in made if p.name])):
        if len(names) > len({*names}):
            twice = next(name for name in names if names.count(name) > 1)
            alike = [i for i, name in enumerate(names) if name == twice][:2]
            raise ConfigError(f"points: numbers {alike[0]} and {alike[1]} have the same {what}; write each point once.")
    return made


def _point(number: int, name: str, found: Settings, spec: SweepSpec) -> Point:
    settings: Settings = {}
    for rule in spec.follow:
        if holds(rule.when, found):
            _put(settings, rule.set)
    _put(settings, {k: v for k, v in found.items() if k not in spec.labels})
    return Point(number, id_of(found), name, found, settings)


def _put(settings: Settings, more: Settings) -> None:
    """Set more settings. One that is set again moves to the end: it is applied after what it may lie below."""
    for key, value in more.items():
        settings.pop(key, None)
        settings[key] = value


def kind_of(kind: Kind) -> type[Spec]:
    """The class of the configs that a kind of sweep runs."""
    if kind == "train":
        from slidebatch.training import TrainSpec

        return TrainSpec
    from slidebatch.config import RunConfig

    return RunConfig


def base_of(spec: SweepSpec) -> dict[str, Any]:
    """The values of the base config with the settings of all points, checked. ConfigError: what is wrong, and where."""
    if spec.kind == "call":
        function(spec.base)
        return dict(spec.set)
    from slidebatch.config import check, values_of  # late, as below: the jobs of a sweep need not load all that runs do
    from slidebatch.yaml_place import read_document

    document = read_document(find_config(spec.base), spec.base)
    sets = _parsed(spec.set, "set: ")
    given = [*sets, *_place(spec, "sweep")]
    check(kind_of(spec.kind), document, given)
    return values_of(document, sets)


def check_points(spec: SweepSpec, base: dict[str, Any], points: Sequence[Point]) -> None:
    """ConfigError where the settings of any point make no config, with the first few faults."""
    if spec.kind == "call":
        return
    from slidebatch.config import check
    from slidebatch.yaml_place import Document

    kind, document = kind_of(spec.kind), Document(spec.base, base, None)
    faults: list[str] = []
    for point in points:
        try:
            check(kind, document, [*_parsed(point.settings, f"point {point.number}: "), *_place(spec, point.key)])
        except ConfigError as error:
            faults += [line for line in str(error).splitlines() if line not in faults]
        if len(faults) >= SHOWN_FAULTS:
            break
    if faults:
        raise ConfigError("\n".join(faults[:SHOWN_FAULTS]))


def _parsed(settings: Settings, where: str) -> list[Override]:
    """Settings as overrides that name their place; values are JSON's already."""
    from slidebatch.config import Override

    return [Override(f"{where}{key}={json.dumps(value)}", _loc(key), value) for key, value in settings.items()]


@lru_cache
def _loc(key: str) -> tuple[str, ...]:
    """The parts of a dotted key. ConfigError: it is none."""
    from slidebatch.config import parse_override

    return parse_override(f"{key}=").loc


def _place(spec: SweepSpec, key: str) -> list[Override]:
    """Where the point goes: the sweep decides."""
    from slidebatch.config import Override

    loc = ("output",) if spec.kind == "train" else ("output", "path")
    return [Override(f"{'.'.join(loc)}=", loc, f"{spec.output.path}/{key}")]


def function(name: str) -> Callable[..., Any]:
    """The function that a dotted name means. ConfigError: there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"base: {name} cannot be imported ({error}); expected package.module.function.") from error
    return found
