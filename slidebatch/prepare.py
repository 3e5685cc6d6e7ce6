"""Stage prepare, per slide: statistics for normalisation, the tissue mask, and empty maps to fill."""

from __future__ import annotations

import numpy as np

from slidebatch.infer import create_maps
from slidebatch.job import Job, Made
from slidebatch.normalise import sketch
from slidebatch.slides import overview
from slidebatch.store import digest, write_json, write_shard
from slidebatch.tissue import tissue_mask

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
    arrays = {"tissue": mask.astype(np.uint8), "tissue_step_px": np.array([step_px * slide.grid.scale])}
    write_shard(job.prepared(number), arrays, digest(slide.digest))
    sketch_file = job.work / "prepared" / f"{slide.slide}.json"
    write_json(sketch_file, sketch(small, slide.dtype).to_json())
    made = [job.prepared(number), sketch_file]
    if job.plan.card.family == "dense":
        made.append(create_maps(job, number) / "zarr.json")
    return Made(tuple(made), facts={"tissue_share": float(mask.mean())})
