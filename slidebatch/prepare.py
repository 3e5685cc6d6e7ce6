"""Stage prepare, per slide: statistics for normalisation and the tissue mask."""

from __future__ import annotations

import numpy as np

from slidebatch.job import Job, Made
from slidebatch.normalise import sketch
from slidebatch.slides import overview
from slidebatch.store import digest, write_json, write_shard
from slidebatch.tissue import grow_mask, tissue_mask

UNKNOWN_MPP = 0.5
"""Micrometres per pixel taken for the tissue mask of a slide that states none; it only sets how far it dilates."""


def prepare_slide(job: Job, number: int) -> Made:
    """Read the slide small, once, and store what later stages need of it."""
    slide = job.at(number)
    opened = job.open(number)
    small, step_px = overview(opened, slide.channels)
    mask = np.ones((1, 1), bool)
    if slide.tissue:
        step_um = (slide.mpp or UNKNOWN_MPP) * step_px
        # Glass is told by its colour, also where the network is given one channel of a colour image.
        seen = overview(opened)[0] if opened.rgb and not slide.rgb else small
        mask = tissue_mask(seen, opened.rgb, step_um, job.plan.tissue)
    step_plan_px = step_px * slide.grid.scale
    reach = grow_mask(mask, job.plan.largest_px / step_plan_px + 1)
    arrays = {"tissue": mask.astype(np.uint8), "reach": reach.astype(np.uint8), "step_px": np.array([step_plan_px])}
    write_shard(job.prepared(number), arrays, digest(slide.digest))
    sketch_file = job.work / "prepared" / f"{slide.slide}.json"
    write_json(sketch_file, sketch(small, slide.dtype).to_json())
    return Made((job.prepared(number), sketch_file), facts={"tissue_share": float(mask.mean())})
