"""An ensemble's kept output as what is tuned: weights and decoding of joined maps, or the rule that joins nuclei."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch import instances
from slidebatch.decode import DecodeSpec, label_image
from slidebatch.errors import ConfigError
from slidebatch.fusion import EnsembleSpec, MemberSpec, joined_maps
from slidebatch.geometry import whole
from slidebatch.instances import SCORE_MAX, Instances
from slidebatch.job import Job
from slidebatch.members import from_members, named, survivors
from slidebatch.plan import Plan
from slidebatch.store import region_reader
from slidebatch.tiling import Tile
from slidebatch.tuning.network import yaml_of
from slidebatch.tuning.space import MEMBER, RULES, SPACE, Knob, Settings, Space, Value
from slidebatch.tuning.trial import Kept

Shape = tuple[int, int]
OF_RULE = {"nms": "iou_threshold", "fill": "fill_threshold"}


@dataclass(frozen=True)
class Ensemble:
    """A `trial.Decoder` of what the networks of an ensemble left.

    spec    the ensemble with its settings
    decode  of joined class maps
    plan    of the run, without slides: families of the networks, calibrations, limits
    """

    spec: EnsembleSpec
    decode: DecodeSpec
    plan: Plan

    @property
    def space(self) -> Space:
        members = range(1, len(self.spec.members) + 1)
        if self.spec.on_maps:
            return {**SPACE, **{f"weight.{k}": MEMBER["weight"] for k in members}}
        rule = {n: RULES[n] for n in (OF_RULE[self.spec.rule], "masks", "scores", "least_share")}
        votes = {"min_votes": Knob(1, members[-1], 1, tuple(members)[:3])}
        return {**rule, **votes, **{f"score_threshold.{k}": MEMBER["score_threshold"] for k in members}}

    @property
    def notes(self) -> tuple[str, ...]:
        told = ", ".join(f"{k} is {m.name}" for k, m in enumerate(self.plan.members, 1))
        return (f"note: of the members {told}",)

    def value(self, name: str) -> Value:
        kind, _, number = name.partition(".")
        if number:
            member = self.spec.members[int(number) - 1]
            return member.weight if kind == "weight" else member.decode.score_threshold
        found: Value = getattr(self.decode if self.spec.on_maps else self.spec, name)
        return found

    def having(self, settings: Settings) -> Ensemble:
        own = {name: value for name, value in settings if "." not in name}
        members = [_with(m, k, dict(settings)) for k, m in enumerate(self.spec.members, 1)]
        values = self.spec.model_dump() | ({} if self.spec.on_maps else own) | {"members": members}
        decode = self.decode.model_dump() | (own if self.spec.on_maps else {})
        return replace(self, spec=EnsembleSpec.model_validate(values), decode=DecodeSpec.model_validate(decode))

    def decoding(self, decode: DecodeSpec) -> Ensemble:
        return replace(self, decode=decode)

    @cached_property
    def settled(self) -> Plan:
        """The plan of a run with these settings."""
        members = tuple(
            replace(m, decode=s.decode, weight=s.weight, calibration=m.calibration if s.calibrate else None)
            for m, s in zip(self.plan.members, self.spec.members, strict=True)
        )
        return replace(self.plan, members=members, fusion=self.spec.fusion, decode=self.decode)

    def labels(self, kept: Kept, shape: Shape) -> npt.NDArray[np.int32]:
        plan = self.settled
        if not isinstance(kept, Instances):
            return label_image(joined_maps(kept, [m.weight for m in plan.members], self.spec.fusion), plan.decode)
        good = [round(m.decode.score_threshold * SCORE_MAX) <= kept.score for m in plan.members]
        parts = [named(kept.take(good[k] & (kept.member == k)), plan, k) for k in range(len(good))]
        return instances.painted(survivors(instances.concatenate(parts), plan), shape)

    def sections(self) -> dict[str, Any]:
        return {"decode": self.decode.model_dump(mode="json"), "ensemble": self.spec.model_dump(mode="json")}

    def to_yaml(self, tuned: Collection[str]) -> str:
        every = self.spec.model_dump(mode="json", exclude={"members"})
        rule = self.spec.model_dump(mode="json", exclude={"members"}, exclude_defaults=True)
        values = {"rule": self.spec.rule} | {k: v for k, v in every.items() if k in tuned or k in rule}
        lines = ["ensemble:", *(f"  {k}: {json.dumps(v)}" for k, v in values.items()), "  members:"]
        lines += [f"    - {json.dumps(_told(m, k, tuned))}" for k, m in enumerate(self.spec.members, 1)]
        decode = yaml_of("decode", self.decode, tuned) if self.spec.on_maps else ""
        return decode + "\n".join(lines) + "\n"

    def reader(self, work: Path) -> Callable[[str], tuple[Kept, Shape]]:
        """Reads what the networks left of a slide, and the slide's shape (Y, X): class maps of each, or their nuclei.

        Nuclei are decoded as the run decodes them, in one tile that covers the slide; only scores are still raw.
        """
        job = Job(work)
        raw = tuple(replace(m, decode=_of_any_score(m.decode), calibration=None) for m in self.settled.members)
        job.plan = replace(self.settled, slides=job.plan.slides, members=raw)

        def read(slide: str) -> tuple[Kept, Shape]:
            number = job.plan.numbers[slide]
            shape = job.at(number).shape
            box = whole(shape)
            if self.spec.on_maps:
                return tuple(region_reader(view.maps(number))(box) for view in job.members), shape
            return from_members(job, number, Tile(box, box, box)), shape

        return read


def open_ensemble(work: Path, stored: EnsembleSpec, wanted: EnsembleSpec | None, decode: DecodeSpec | None) -> Ensemble:
    """The ensemble of a finished run, with the settings that it had or others for the same networks.

    ConfigError: other networks than ran, or a rule that their output does not allow.
    """
    plan = Job(work).plan
    spec = wanted or stored
    if [m.model for m in spec.members] != [m.model for m in stored.members]:
        raise ConfigError(
            f"{work.parent} is of the networks {', '.join(m.name for m in plan.members)}, the config's ensemble has "
            "others; only rules, weights and decoding can differ."
        )
    if spec.on_maps and any(m.card.family != "dense" for m in plan.members):
        raise ConfigError(
            f"ensemble.rule {spec.rule} joins class maps, and a member leaves detections; use nms or fill."
        )
    return Ensemble(spec, decode or plan.decode, replace(plan, slides=()))


def kept_slides(work: Path) -> frozenset[str]:
    """Slides of which the output of every network is still there."""
    job = Job(work)
    return frozenset(
        slide.slide
        for number, slide in enumerate(job.plan.slides)
        if all(_output(view, number).is_dir() for view in job.members)
    )


def _output(view: Job, number: int) -> Path:
    maps, detections = view.outputs
    name = view.at(number).slide
    return maps / f"{name}.zarr" if view.plan.joins_maps else detections / name


def _of_any_score(spec: DecodeSpec) -> DecodeSpec:
    return spec.model_copy(update={"score_threshold": 0.0})


def _with(member: MemberSpec, number: int, settings: dict[str, Value]) -> dict[str, Any]:
    """A member's values with those of its own settings in place."""
    values = member.model_dump()
    values["weight"] = settings.get(f"weight.{number}", member.weight)
    score = settings.get(f"score_threshold.{number}", member.decode.score_threshold)
    values["decode"]["score_threshold"] = score
    return values


def _told(member: MemberSpec, number: int, tuned: Collection[str]) -> dict[str, Any]:
    """A member as a config has it: what was tuned, and what else differs from the defaults."""
    values = member.model_dump(mode="json", exclude_defaults=True)
    if f"weight.{number}" in tuned:
        values["weight"] = member.weight
    if f"score_threshold.{number}" in tuned:
        values["decode"] = values.get("decode", {}) | {"score_threshold": member.decode.score_threshold}
    return values
