"""What a sweep would do, for people, before anything is written."""

from __future__ import annotations

from slidebatch.sweep.folder import Asked
from slidebatch.sweep.points import Point

SHOWN = 3


def describe(asked: Asked) -> str:
    """Points, jobs, class maps to be made, and the first and the last points."""
    spec, points = asked.spec, asked.points
    jobs = -(-len(points) // spec.points_per_job)
    lines = [
        f"{spec.name}: {len(points)} points of kind {spec.kind} over {spec.base}, {jobs} jobs of up to "
        f"{spec.points_per_job} points, in {spec.output.path}"
    ]
    if spec.kind == "decode":
        lines.append(f"networks run {networks(asked)} times; all points decode what these runs keep")
    shown = [*points[:SHOWN], *points[max(SHOWN, len(points) - 1) :]]
    return "\n".join([*lines, *(_line(p) for p in shown)])


def networks(asked: Asked) -> int:
    """How many different runs make the class maps of a sweep of kind decode."""
    from slidebatch.config import RunConfig, check, parse_override
    from slidebatch.sweep.decoding import maps_key
    from slidebatch.yaml_place import Document

    document = Document(asked.spec.base, {**asked.base, "output": {"path": ""}}, None)
    return len({maps_key(check(RunConfig, document, [parse_override(o) for o in p.overrides])) for p in asked.points})


def _line(point: Point) -> str:
    told = " ".join([*filter(None, [point.name]), *point.overrides])
    return f"  {point.key}: {told or 'as the base config'}"
