"""Job scripts for PBS and SLURM: filled from text templates, shown, submitted, and remembered beside the output.

spec.py         what a site wants of every job: queue, walltime, memory, environment (conf/cluster/*.yaml)
amounts.py      memory and times as people write them, and as schedulers do
schedulers.py   how SLURM, PBS and Torque differ
parts.py        job numbers as the arrays that a scheduler takes
templates.py    jobs/<scheduler>/*.sh, filled
folder.py       scripts, logs and job ids, beside the output
queue.py        giving a script to the scheduler, and asking what is still in its queue
runs.py         one run as a job, or as an array of workers
sweeps.py       a sweep's missing jobs as arrays

`job_spec` reads what the site wants, `submit_run` and `submit_array` do the rest.
"""

from __future__ import annotations

from slidebatch.jobscripts.runs import RunAsked, submit_run
from slidebatch.jobscripts.spec import JobSpec, job_spec
from slidebatch.jobscripts.sweeps import submit_array

__all__ = ["JobSpec", "RunAsked", "job_spec", "submit_array", "submit_run"]
