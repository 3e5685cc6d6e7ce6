"""One run by every executor: are the results the same, byte for byte.

    PYTHONPATH=. python benchmarks/executors.py [--quick]

The shipped network on a mosaic of a real slide and on 2018 Data Science Bowl images: serial; 1, 2 and 4 local workers;
a Dask cluster by its scheduler file; under SLURM as one job of two nodes, as an array of jobs whose workers meet, and
with jobs as workers (dask-jobqueue). Labels and tables must be those of the serial run. A SLURM of two nodes of this
machine is started where SLURM is installed and this is root; elsewhere its rows say why they are absent.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import data_folder, real_slide, write_mosaic
from timing import arguments, config, model_of, row

from slidebatch import batch
from tests.support.dask_cluster import dask_cluster
from tests.support.jobs import logs, submitted, until
from tests.support.runs import contents
from tests.support.slurm import Slurm, missing

SHAPE, QUICK = (2048, 2560), (512, 640)
IMAGES = 8
TILING = {"patch_px": 368, "core_px": 512}
OUTPUT = {"chunk_px": 128, "shard_px": 512}
SITE = ["--scheduler", "slurm", "--job", "cpus=1", "--job", "memory=2 GiB", "--job", "walltime=01:00:00"]


@dataclass(frozen=True)
class Place:
    """Where everything lies, the options, and the SLURM that was started, or why there is none."""

    folder: Path
    options: argparse.Namespace
    slurm: Slurm | str

    def settings(self, name: str, cluster: dict[str, Any]) -> Any:
        """The config of the run of that name."""
        sections = {"tiling": TILING, "output": OUTPUT, "cluster": cluster, "model": model_of(self.options)}
        return config(self.folder / "images", self.folder / name, **sections)


Way = Callable[[Place, str], None]
"""Runs the run of a name; SystemExit with what it said where it fails."""


def here(cluster: dict[str, Any]) -> Way:
    """In this process, or with workers that it starts."""

    def way(place: Place, name: str) -> None:
        if batch.run(place.settings(name, cluster)).failed:
            raise SystemExit(f"{name}: inputs failed")

    return way


def by_file(place: Place, name: str) -> None:
    """On a Dask cluster of two workers that was there before."""
    with dask_cluster(place.folder / f"{name} cluster", 2) as cluster:
        here({"kind": "existing", "scheduler_file": str(cluster.file)})(place, name)


def command(place: Place, *words: str) -> None:
    """A command of slidebatch by a user who finds the SLURM."""
    assert isinstance(place.slurm, Slurm)
    told = [sys.executable, "-m", "slidebatch", *words]
    path = os.environ.get("PYTHONPATH", "")
    ended = subprocess.run(told, env={**place.slurm.environment, "PYTHONPATH": path}, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(told)} ended with {ended.returncode}: {ended.stderr[-2000:]}")


def write(place: Place, name: str, cluster: dict[str, Any]) -> str:
    """The config as a file (JSON is YAML)."""
    path = place.folder / f"{name}.yaml"
    path.write_text(place.settings(name, cluster).model_dump_json())
    return str(path)


def submit(*wishes: str) -> Way:
    """As jobs of the shipped templates."""

    def way(place: Place, name: str) -> None:
        assert isinstance(place.slurm, Slurm)
        command(place, "submit", write(place, name, {"kind": "local"}), *SITE, *wishes)
        job = ["squeue", "--noheader", "--jobs", submitted(place.folder / name)[0]["job"]]
        until(lambda: not place.slurm.tell(*job, check=False), seconds=1800, told=lambda: logs(place.folder / name))

    return way


def jobqueue(place: Place, name: str) -> None:
    """With two jobs as workers."""
    job = {"interface": "lo", "memory_gb": 2.5, "walltime_s": 3600}
    command(place, "run", write(place, name, {"kind": "slurm", "workers": 2, "job": job}))


LOCAL: dict[str, Way] = {
    "serial": here({"kind": "serial"}),
    **{f"local, {n} workers": here({"kind": "local", "workers": n}) for n in (1, 2, 4)},
    "scheduler file, 2 workers": by_file,
}
SLURM: dict[str, Way] = {
    "SLURM, job of 2 nodes": submit("--job", "nodes=2"),
    "SLURM, array of 2 jobs": submit("--template", "workers", "--job", "workers=2"),
    "SLURM, jobs as workers": jobqueue,
}


@contextmanager
def slurm_or_why() -> Iterator[Slurm | str]:
    """A SLURM, or why there is none."""
    if (why := missing()) is not None:
        yield why
        return
    made = Slurm(Path(tempfile.mkdtemp(prefix="slurm-")))  # sockets need a short path
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder, ignore_errors=True)


def write_images(folder: Path, quick: bool) -> None:
    """The mosaic, and some images of the Data Science Bowl."""
    write_mosaic(folder / "slide.tif", real_slide(), QUICK if quick else SHAPE)
    data = data_folder() / "dsb2018"
    for name in (data / "validation.txt").read_text().split()[: 2 if quick else IMAGES]:
        (folder / f"{name}.png").symlink_to(data / "images" / f"{name}.png")


def main() -> None:
    """Print a row for each executor."""
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made, slurm_or_why() as slurm:
        place = Place(Path(made), options, slurm)
        write_images(place.folder / "images", options.quick)
        row("executor", "s", "files", "bytes", "same as serial")
        row("---", "---", "---", "---", "---")
        different = [title for title, way in LOCAL.items() if not compared(place, title, way)]
        if isinstance(slurm, str):
            for title in SLURM:
                row(title, "", "", "", f"absent: {slurm}")
        else:
            different += [title for title, way in SLURM.items() if not compared(place, title, way)]
    ways = len(LOCAL) + (0 if isinstance(slurm, str) else len(SLURM))
    print(f"\n{ways} executors; different: {', '.join(different) or 'none'}")
    sys.exit(1 if different else 0)


def compared(place: Place, title: str, way: Way) -> bool:
    """Run one way and print its row; whether its results are those of the serial run, which comes first."""
    name = "".join(c if c.isalnum() else "-" for c in title)
    begun = time.perf_counter()
    way(place, name)
    took_s = time.perf_counter() - begun
    found = contents(place.folder / name)
    same = found == contents(place.folder / "serial")
    row(title, f"{took_s:.1f}", len(found), sum(map(len, found.values())), "yes" if same else "NO")
    return same


if __name__ == "__main__":
    main()
