"""The end of a run: metadata that spans slides, the summary, failures, the manifest, and tidying up.

The manifest's `state` says "done" only after everything else is in place.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from slidebatch import ngff
from slidebatch.errors import EnvironmentFault
from slidebatch.faults import ANEW
from slidebatch.job import Job
from slidebatch.plan import SlidePlan, network_of
from slidebatch.results import FORMAT_VERSION
from slidebatch.store import digest, lost_output, read_json, remove, sync_all, write_atomically, write_group, write_json

Failure = dict[str, Any]

LASTING = ("seams", "paint", "pyramid", "table")
"""Stages that leave files of the results."""

PACKAGES = ("slidebatch", "dask", "distributed", "numpy", "scipy", "tifffile", "torch", "torchvision", "zarr")


Clock = dict[str, float]
"""`seconds` of a run by the clock, start-up included, and the `workers` that it had."""


def manifest(
    job: Job, state: str, config: dict[str, Any], failures: Sequence[Failure], clock: Clock | None = None
) -> dict[str, Any]:
    """The manifest as JSON values."""
    failed = {f["slide"] for f in failures}
    slides = [_entry(job, number, failed, state) for number in range(len(job.plan.slides))]
    planned = {s.slide for s in job.plan.slides}
    slides += [{"slide": f["slide"], "state": "failed"} for f in failures if f["slide"] not in planned]
    return {
        "format_version": FORMAT_VERSION,
        "name": job.plan.name,
        "state": state,
        "config": config,
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in PACKAGES},
        },
        "computed": _computed(job),
        "clock": clock,
        "seams": {"core_px": job.plan.tiles.core_px, "cell_px": list(job.plan.patches.cell)},
        "digests": {
            "model": job.plan.card.digest,
            **_members(job),
            "plan": digest((job.work / "plan.json").read_text()),
        },
        "slides": slides,
    }


def _members(job: Job) -> dict[str, dict[str, str]]:
    """The digests of an ensemble's members by name; nothing for other runs."""
    return {"members": {m.name: m.card.digest for m in job.plan.members}} if job.plan.members else {}


def _computed(job: Job) -> dict[str, Any]:
    """What computed the networks, with what "auto" became; networks without engines keep the words of the config."""
    told = job.plan.model.model_dump(mode="json", include={"engine", "precision", "tta", "threads"})
    return {"device": job.plan.device, **told}


def _entry(job: Job, number: int, failed: set[str], state: str) -> dict[str, Any]:
    slide = job.at(number)
    done = state == "done" or job.finished(number)
    return {
        "slide": slide.slide,
        "state": "failed" if slide.slide in failed else ("done" if done else "running"),
        "labels": slide.labels,
        "image": slide.image,
        "plate": slide.source.plate,
        "well": slide.source.well,
        "row": slide.source.row,
        "column": slide.source.column,
        "field": slide.source.field,
        "source": [f.path for f in slide.source.files],
        "files": [asdict(f) for f in slide.source.files],
        "z": job.plan.z,
        "facts": dict(slide.source.facts),
        "channels": list(slide.names),
        "mpp": slide.mpp,
        "scale": slide.grid.scale,
        "shape": list(slide.shape),
        "nuclei": pq.read_metadata(job.table(number)).num_rows if done and job.table(number).exists() else None,
    }


def finish(
    job: Job,
    config: dict[str, Any],
    failures: Sequence[Failure],
    ledger: dict[str, dict[str, float]],
    clock: Clock | None = None,
) -> None:
    """Bring a run to its end. Doing it twice gives the same. `clock` is None where several starts shared the work.

    EnvironmentFault where a file of the results has been cut or lost since its task ended.
    """
    _refuse_lost(job)
    failed = {f["slide"] for f in failures}
    good = [n for n in range(len(job.plan.slides)) if job.at(n).slide not in failed]
    for number in set(range(len(job.plan.slides))) - set(good):
        _discard(job, number)
    _write_groups(job, [job.at(n) for n in good])
    _forget_others(job, good)
    numbers = {n: _numbers(job, n, ledger) for n in good}
    _write_summary(job, good, numbers)
    lines = "".join(json.dumps(f) + "\n" for f in failures)
    write_atomically(job.results / "failures.jsonl", lines.encode())
    for number in good:
        write_json(
            job.marker(number),
            {"print": job.final_print(number), "ledger": numbers[number]},
        )
    told = manifest(job, "done", config, failures, clock)
    sync_all()
    write_json(job.results / "manifest.json", told, durable=True)
    tidy(job)


def _refuse_lost(job: Job) -> None:
    """Look at the sizes of all that is to stay: nobody reads it again, and the receipts that would tell go now."""
    earlier = {n for n in range(len(job.plan.slides)) if job.finished(n)}  # whose tasks are not asked for any more
    for stage in (s for s in job.plan.stages if s.startswith(LASTING)):
        for index, task in enumerate(job.tasks(stage)):
            if {item.slide for item in task.items} <= earlier:
                continue
            lost = lost_output(job.work / "receipts" / stage / f"{index}.json")
            if lost is not None:
                raise EnvironmentFault(f"{lost} was cut or lost after it was written; look after the disk and {ANEW}")


def _discard(job: Job, number: int) -> None:
    """Take away what a failed slide left in the results: it must not look whole."""
    remove(job.image(number) or job.labels(number))
    remove(job.table(number))
    remove(job.marker(number))


def _write_groups(job: Job, slides: Sequence[SlidePlan]) -> None:
    """Groups above the images: the root, plates and wells, naming only what is there."""
    root = job.results / "labels.zarr"
    plates: dict[Path, dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    names: dict[Path, str] = {}
    for slide in slides:
        source = slide.source
        if source.row is not None and source.column is not None and slide.image is not None:
            image = root / slide.image
            plates[image.parents[2]][source.row, source.column].append(image.name)
            names[image.parents[2]] = source.plate or job.plan.name
    if root not in plates:
        write_group(root, {})
    for folder, wells in plates.items():
        most = max(len(fields) for fields in wells.values())
        write_group(folder, ngff.plate(names[folder], list(wells), most))
        for (row, column), fields in wells.items():
            write_group(folder / row, {})
            write_group(folder / row / column, ngff.well(sorted(fields, key=lambda f: (len(f), f))))


def _forget_others(job: Job, good: Sequence[int]) -> None:
    """Take away tables and label images of slides that an earlier run had and this one has not."""
    tables = {job.table(n) for n in good}
    for table in (job.results / "instances").glob("*.parquet"):
        if table not in tables:
            remove(table)
    wanted = {job.image(n) or job.labels(n) for n in good}
    _prune(job.results / "labels.zarr", wanted, {p for w in wanted for p in w.parents})


def _prune(folder: Path, wanted: set[Path], above: set[Path]) -> None:
    """Remove the groups below `folder` that are neither wanted nor above a wanted one."""
    for below in folder.iterdir():
        if below in wanted or not below.is_dir():
            continue
        if below in above:
            _prune(below, wanted, above)
        else:
            shutil.rmtree(below)


SUMMARY = pa.schema(
    [
        *((name, pa.string()) for name in ("slide", "plate", "well")),
        ("field", pa.int64()),
        ("state", pa.string()),
        ("nuclei", pa.int64()),
        *((name, pa.float64()) for name in ("mm2", "nuclei_per_mm2", "mm2_per_s")),
    ]
)
"""The columns that every summary has; facts of the manifest and numbers of the ledger follow."""


def _write_summary(job: Job, good: Sequence[int], numbers: dict[int, dict[str, float]]) -> None:
    """One row per finished slide: counts, density, seams, seconds per stage, mm2/s."""
    rows = [_row(job, n, numbers[n]) for n in good]
    others = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in SUMMARY.names]
    columns = {f.name: pa.array([row[f.name] for row in rows], f.type) for f in SUMMARY}
    table = pa.table({**columns, **{name: [row.get(name) for row in rows] for name in others}})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomically(job.results / "summary.parquet", sink.getvalue().to_pybytes())


def _numbers(job: Job, number: int, ledger: dict[str, dict[str, float]]) -> dict[str, float]:
    """The ledger of a slide: of this start, and of the one that finished it for what this one did not do."""
    earlier = read_json(job.marker(number))["ledger"] if job.finished(number) else {}
    return {**earlier, **ledger.get(job.at(number).slide, {})}


def _row(job: Job, number: int, numbers: dict[str, float]) -> dict[str, Any]:
    """A slide's row; facts never take the place of the summary's own columns."""
    slide = job.at(number)
    nuclei = pq.read_metadata(job.table(number)).num_rows
    mm2 = None if slide.mpp_plan is None else slide.shape[0] * slide.shape[1] * slide.mpp_plan**2 / 1e6
    seconds = sum(v for k, v in numbers.items() if k.startswith("seconds_"))
    return {
        **dict(slide.source.facts),
        **numbers,
        "slide": slide.slide,
        "plate": slide.source.plate,
        "well": slide.source.well,
        "field": slide.source.field,
        "state": "done",
        "nuclei": nuclei,
        "mm2": mm2,
        "nuclei_per_mm2": None if not mm2 else nuclei / mm2,
        "mm2_per_s": None if not mm2 or not seconds else mm2 / seconds,
    }


def tidy(job: Job) -> None:
    """Remove what only an unfinished run needs; with `keep_maps` the networks' output stays, and its receipts."""
    kept = {"plan.json", "normalisation.json", "lease.json", "prepared", "finished", "receipts", "start.json"}
    networks = [stage for stage in job.plan.stages if network_of(stage)[0] in {"maps", "infer"}]
    if job.plan.output.keep_maps:
        kept |= {path.name for view in job.members for path in view.outputs}
    for path in job.work.iterdir():
        if path.name not in kept:
            remove(path)
    stages = {"prepare", *(networks if job.plan.output.keep_maps else ())}
    for path in (job.work / "receipts").glob("*"):
        if path.name not in stages:
            remove(path)
