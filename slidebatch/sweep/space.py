"""The parameters of points: every combination of a grid, or draws at random, and rules about both.

Pure functions of a spec. Values are JSON's; two are alike if their canonical texts are.
"""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from slidebatch.errors import ConfigError
from slidebatch.sweep.spec import Condition, Draw, Random, Settings, Span, SweepSpec

MOST_DRAWS = 200
"""Draws for each point wanted; where more would be needed to find points that differ, there are too few."""


def canonical(value: Any) -> str:
    """A text that two values share exactly if they mean the same: 1 and 1.0, keys in any order. ConfigError: NaN."""

    def plain(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {str(k): plain(v) for k, v in part.items()}
        if isinstance(part, list | tuple):
            return [plain(v) for v in part]
        if isinstance(part, float) and not math.isfinite(part):
            raise ConfigError(f"found {part} among a sweep's values; expected finite numbers.")
        return int(part) if isinstance(part, float) and part.is_integer() else part

    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False)


def parameters(spec: SweepSpec) -> Iterator[tuple[str, Settings]]:
    """(name, parameters) of each point in order; names are "" but for points that are written out.

    Grid: the last key changes fastest. ConfigError: lists that are none or that repeat a value, rules that name no
    parameter or a value that no point has, no point left.
    """
    if spec.points is not None:
        _no_rules(spec)
        yield from ((p.name, dict(p.set)) for p in spec.points)
    elif spec.random is not None:
        _check_rules(spec, {k: d.choice for k, d in spec.random.ranges.items()})
        yield from (("", p) for p in drawn(spec.random, spec.exclude))
    else:
        axes = axes_of(spec.grid or {})
        _check_rules(spec, dict(axes))
        combinations = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
        yield from (("", p) for p in combinations if not excluded(p, spec.exclude))


def axes_of(grid: Mapping[str, Any], above: str = "") -> dict[str, list[Any]]:
    """The lists of a grid by dotted key. Sections (as `--set grid.optimiser.name=[sgd]` makes them) are spelt out.

    Of a key that is there twice, the later list holds, in the place of the first.
    """
    axes: dict[str, list[Any]] = {}
    for key, values in grid.items():
        name = above + key
        if isinstance(values, Mapping):
            axes |= axes_of(values, f"{name}.")
        elif not isinstance(values, list) or not values:
            raise ConfigError(f"grid.{name}: found {values!r}; expected a list of values.")
        elif len({canonical(v) for v in values}) < len(values):
            raise ConfigError(f"grid.{name}: {values} holds a value twice; write each once.")
        else:
            axes[name] = values
    if not axes and not above:
        raise ConfigError("grid: found no lists; expected at least one key with a list of values.")
    return axes


def drawn(random: Random, exclude: Sequence[Condition] = ()) -> Iterator[Settings]:
    """`n` different points. What is drawn depends on seed, parameter and position alone: more points or another
    parameter leave the others' draws as they are (but where two points would be alike).
    """
    seen: set[str] = set()
    for number in itertools.count():
        if len(seen) == random.n:
            return
        if number == MOST_DRAWS * random.n:
            raise ConfigError(f"random: only {len(seen)} of {random.n} points differ; lower n or widen the ranges.")
        point = {key: value_of(draw, _generator(random.seed, key, number)) for key, draw in random.ranges.items()}
        if canonical(point) not in seen and not excluded(point, exclude):
            seen.add(canonical(point))
            yield point


def _generator(seed: int, key: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(key.encode()), number])


def value_of(draw: Draw, rng: np.random.Generator) -> Any:
    """A value; numbers have six digits, so that they can be written down."""
    if draw.choice is not None:
        return draw.choice[int(rng.integers(len(draw.choice)))]
    if draw.integer is not None:
        return int(rng.integers(draw.integer[0], draw.integer[1] + 1))
    low, high = draw.log or draw.uniform or (0.0, 1.0)
    found = math.exp(rng.uniform(math.log(low), math.log(high))) if draw.log else rng.uniform(low, high)
    return min(max(float(f"{found:.6g}"), low), high)


def excluded(point: Mapping[str, Any], rules: Sequence[Condition]) -> bool:
    """Whether any rule holds for a point."""
    return any(holds(rule, point) for rule in rules)


def holds(rule: Condition, point: Mapping[str, Any]) -> bool:
    """Whether every parameter is as a rule wants it. An empty rule always holds."""
    return all(key in point and _fits(point[key], wanted) for key, wanted in rule.items())


def _fits(value: Any, wanted: Any) -> bool:
    if canonical(value) == canonical(wanted):
        return True
    if isinstance(wanted, list):
        return any(canonical(value) == canonical(one) for one in wanted)
    if isinstance(wanted, Mapping) and isinstance(value, int | float):
        span = Span.model_validate(wanted)
        return (span.least is None or value >= span.least) and (span.most is None or value <= span.most)
    return False


def _no_rules(spec: SweepSpec) -> None:
    if spec.exclude or spec.follow or spec.labels:
        raise ConfigError(
            "exclude, follow and labels are for a grid or random points; write what they say into points."
        )


def _check_rules(spec: SweepSpec, values: Mapping[str, list[Any] | None]) -> None:
    """ConfigError for rules and labels that no point can meet: they are mistyped. None: any value."""
    rules = [*(("exclude", r) for r in spec.exclude), *(("follow", f.when) for f in spec.follow)]
    for label in spec.labels:
        _known("labels", label, values)
    for where, rule in rules:
        if where == "exclude" and not rule:
            raise ConfigError("exclude: found an empty rule, which would leave out everything; take it away.")
        for key, wanted in rule.items():
            _known(where, key, values)
            _possible(where, key, wanted, values[key])


def _known(where: str, key: str, values: Mapping[str, list[Any] | None]) -> None:
    if key not in values:
        raise ConfigError(f"{where}: {key} is no parameter of this sweep; expected one of {', '.join(values)}.")


def _possible(where: str, key: str, wanted: Any, values: list[Any] | None) -> None:
    if isinstance(wanted, Mapping):
        try:
            Span.model_validate(wanted)
        except ValidationError as error:
            raise ConfigError(f"{where}: {key}: found {dict(wanted)}; expected least and most.") from error
    there = None if values is None else {canonical(v) for v in values}
    if there is None or isinstance(wanted, Mapping) or canonical(wanted) in there:
        return
    lacking = [one for one in (wanted if isinstance(wanted, list) else [wanted]) if canonical(one) not in there]
    if lacking:
        raise ConfigError(f"{where}: {key} is never {lacking[0]!r}; expected one of {values}.")
