"""Sweeps: a config at many points, run as jobs that may die at any time, and collected as one table.

spec.py       what a sweep's config says      task.py      the points of a job, each run once
ranges.py     lists of job numbers            local.py     jobs as processes of this machine
space.py      grids, random draws, rules      arrays.py    the door for clusters' schedulers
points.py     points, ids, base config        status.py    how far a sweep is
folder.py     the folder of a sweep           collect.py   one table of all results
ledger.py     results, attempts, failures     report.py    the report of that table
kinds.py      how a point is run              pictures.py  its pictures
decoding.py   points that share class maps    cost.py      what a point costs

`ask` a spec, `begin` the folder, `run_local` (or give `array_of` to a scheduler, whose jobs call `run_job`), `collect`.
"""

from __future__ import annotations

from slidebatch.sweep.arrays import Array, array_for, array_of, job_at
from slidebatch.sweep.folder import Asked, Sweep, ask, begin, open_sweep
from slidebatch.sweep.ledger import forget_failures
from slidebatch.sweep.spec import SweepSpec
from slidebatch.sweep.status import Counts, Status, status
from slidebatch.sweep.task import JobEnd, run_job

__all__ = [
    "Array", "Asked", "Counts", "JobEnd", "Status", "Sweep", "SweepSpec", "array_for", "array_of", "ask", "begin",
    "forget_failures", "job_at", "open_sweep", "run_job", "status",
]  # fmt: skip
