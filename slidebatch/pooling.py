"""Between preparing and the networks: the statistics of slides that are normalised together become one window."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slidebatch.faults import readable
from slidebatch.job import Job
from slidebatch.normalise import Sketch, window
from slidebatch.plan import read_normalisation
from slidebatch.stages import fail
from slidebatch.store import read_json, write_json


def pool(job: Job) -> None:
    """Pool the statistics of each group and store its window; unchanged windows leave the file alone.

    Fields with other channels than most of their group are quarantined. ResultsError where a slide's statistics are
    missing or broken.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, slide in enumerate(job.plan.slides):
        if not job.failed(number):
            groups[slide.group].append(number)
    windows = {group: _window(job, numbers) for group, numbers in groups.items()}
    if windows != read_normalisation(job.work):
        write_json(job.work / "normalisation.json", windows, durable=True)


def _window(job: Job, numbers: Sequence[int]) -> dict[str, Any]:
    sketches = {n: _sketch(job.prepared(n).with_suffix(".json")) for n in numbers}
    channels = Counter(len(s.quantiles) for s in sketches.values())
    most = max(channels, key=lambda c: (channels[c], c))
    for number in [n for n in numbers if len(sketches[n].quantiles) != most]:
        found = len(sketches.pop(number).quantiles)
        why = f"found {found} channels where the rest of its plate has {most}; set normalise.per: slide"
        fail(job, job.at(number).slide, "prepare", why, attempts=1)
    rgb = job.at(next(iter(sketches))).rgb
    return dict(window(list(sketches.values()), job.plan.normalise, rgb).to_json())


def _sketch(path: Path) -> Sketch:
    """A slide's stored statistics. ResultsError where the file was broken after its task had ended."""
    with readable(path, "the statistics are"):
        return Sketch.from_json(read_json(path))
