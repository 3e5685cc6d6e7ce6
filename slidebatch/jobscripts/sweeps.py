"""A sweep's missing jobs as arrays: what is still in the queue is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from slidebatch.errors import ConfigError, EnvironmentFault
from slidebatch.jobscripts.folder import Submitted, folder_of, remember, remembered, write_script
from slidebatch.jobscripts.parts import Part, parts_of
from slidebatch.jobscripts.queue import in_queue, number_of, submit_script
from slidebatch.jobscripts.runs import check_site, common_values
from slidebatch.jobscripts.schedulers import RULES
from slidebatch.jobscripts.spec import JobSpec
from slidebatch.jobscripts.templates import fill
from slidebatch.sweep.arrays import Array, job_at
from slidebatch.sweep.ranges import expand

TEMPLATE = "sweep"


def submit_array(array: Array, spec: JobSpec, send: bool, say: Callable[[str], Any]) -> list[str]:
    """Give the missing jobs of a sweep to the scheduler, or show what would be given.

    :param send: whether to submit. Then jobs of this sweep that are still in the queue are left out.
    :param say: called with each script and with what became of it.
    :returns: the ids of the arrays, in order; none where nothing is missing, or nothing was sent.
    :raises ConfigError: the site's wishes or the template are wrong, or the scheduler refuses the first array.
    :raises EnvironmentFault: it refuses a later one; those before it stay, and the same command gives the rest.
    """
    folder, left = folder_of(array.folder), array
    if send:
        check_site(spec)
        queued = queued_jobs(folder, spec)
        left = replace(array, missing=tuple(job for job in array.missing if job not in queued))
    say(_summary(array, len(array.missing) - len(left.missing)))
    sent: list[str] = []
    for part in parts_of(left.missing, RULES[spec.scheduler], spec.largest_array, _indirection(left, send)):
        text = fill(TEMPLATE, spec, _part_values(array, spec, part, folder))
        say(text)
        if send:
            sent.append(_submit(folder, spec, part, text, sent))
            say(f"submitted: job {sent[-1]}, {part.size} jobs of the sweep")
    return sent


def _summary(array: Array, queued: int) -> str:
    """What there is to give, for people."""
    if not array.missing:
        return f"{array.name}: all {array.jobs} jobs are finished"
    waiting = f", {queued} of them are in the queue" if queued else ""
    return f"{array.name}: {len(array.missing)} of {array.jobs} jobs are missing{waiting}"


def _indirection(array: Array, send: bool) -> Callable[[], Path]:
    """Writes the indirection file, or only names it where nothing is to be written."""
    return array.indirection if send else lambda: array.folder / "work" / "jobs-of-this-array.txt"


def _part_values(array: Array, spec: JobSpec, part: Part, folder: Path) -> dict[str, Any]:
    """What the template of a sweep may name."""
    at_once = f"%{spec.at_once}" if spec.at_once else ""
    return {
        **common_values(array.name, TEMPLATE, folder),
        "array": None if part.indices is None else RULES[spec.scheduler].array.format(part.indices + at_once),
        "nodes": 1,
        "offset": part.offset,
        "through": part.through,
        "sweep": str(array.folder),
    }


def _submit(folder: Path, spec: JobSpec, part: Part, text: str, before: list[str]) -> str:
    script = write_script(folder, TEMPLATE, text)
    try:
        job = submit_script(spec.scheduler, script)
    except ConfigError as error:
        if not before:
            raise
        raise EnvironmentFault(
            f"{error}; {', '.join(before)} were submitted before it: give the same command again for the rest."
        ) from error
    remember(folder, spec.scheduler, job, script, part)
    return job


def queued_jobs(folder: Path, spec: JobSpec) -> set[int]:
    """Jobs of a sweep that an earlier command submitted and that still wait or run.

    What is asked is the scheduler, about the arrays that the folder remembers, so that a command that is given twice
    does not submit twice. A job that starts twice all the same does its points once.
    """
    ours = [made for made in remembered(folder) if made.scheduler == spec.scheduler and made.part is not None]
    there = in_queue(spec.scheduler, [made.job for made in ours]) if ours else set()
    return {job for made in ours for job in _still(made, there)}


def _still(made: Submitted, there: Iterable[tuple[str, int | None]]) -> Iterator[int]:
    """The sweep's jobs of one array that are among what is there."""
    assert made.part is not None
    here = {index for number, index in there if number == number_of(made.job)}
    yield from (job for index, job in jobs_of(made.part).items() if index in here)


def jobs_of(part: Part) -> dict[int | None, int]:
    """The sweep's job that each index of an array stands for; by None where it is no array."""
    indices: list[int | None] = [None] if part.indices is None else [*expand(part.indices)]
    numbers = {index: part.offset + (index or 0) for index in indices}
    return numbers if part.through is None else {i: job_at(part.through, line) for i, line in numbers.items()}
