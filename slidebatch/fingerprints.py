"""What each stage's result depends on: whatever can change a result belongs to one of these."""

from __future__ import annotations

from dataclasses import asdict, replace

from slidebatch.plan import FORMAT, Plan, SlidePlan
from slidebatch.store import digest


def prepare_print(plan: Plan, slide: SlidePlan) -> str:
    """Fingerprint of a slide's statistics and tissue mask."""
    spec = (plan.tissue.model_dump(), plan.largest_px) if slide.tissue else None
    return digest(FORMAT, slide.digest, asdict(slide.grid), slide.channels, plan.z, spec, plan.normalise.model_dump())


def infer_print(plan: Plan, slide: SlidePlan, window: object) -> str:
    """Fingerprint of a slide's maps or detections, of all members; `window` is its stored normalisation."""
    if plan.members:
        return digest([infer_print(plan.of(k), slide, window) for k in range(len(plan.members))])
    run = (plan.card.digest, plan.model.threads, plan.device, asdict(plan.patches), plan.block_cells)
    detections = plan.card.family == "detections"
    slack = plan.decode.slack_px if detections else None
    reach = plan.largest_px if slide.tissue or detections else None  # how far from tissue cells are run
    return digest(prepare_print(plan, slide), window, run, slack, reach)


def decode_print(plan: Plan, slide: SlidePlan, window: object) -> str:
    """Fingerprint of a slide's nuclei, tile by tile."""
    if plan.fusion is not None:
        joined = plan.fusion.model_dump(), [(m.decode.model_dump(), m.weight, m.calibration) for m in plan.members]
        plain = replace(plan, members=(), fusion=None)
        return digest(infer_print(plan, slide, window), repr(joined), decode_print(plain, slide, window))
    return digest(infer_print(plan, slide, window), plan.decode.model_dump(), asdict(plan.tiles), slide.regions_digest)


def paint_print(plan: Plan, slide: SlidePlan, window: object) -> str:
    """Fingerprint of a slide's label image, and of its image's copy."""
    stored = (plan.output.chunk_px, plan.output.shard_px, slide.labels, slide.image, slide.mpp, slide.names)
    return digest(decode_print(plan, slide, window), stored)


def measure_print(plan: Plan, slide: SlidePlan, window: object) -> str:
    """Fingerprint of a slide's table of nuclei, and so of all its results."""
    return digest(paint_print(plan, slide, window), slide.measured, asdict(slide.recipe))
