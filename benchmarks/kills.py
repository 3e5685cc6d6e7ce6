"""A run killed with SIGKILL at random moments and started again: is the result the same, what is done twice.

    python benchmarks/kills.py [--quick] [--kills 20]

The shipped network on a piece of a real slide, two workers. Each trial starts a fresh run in a process group of
its own, kills the whole group at a moment drawn uniformly (fixed seed) from the time that an undisturbed run
takes, notes which tasks had a receipt and which were in flight, and starts the same run again. Its labels and
tables must be the undisturbed ones byte for byte. A task that had a receipt must keep it: what is redone is at
most what was in flight, at most one task a worker.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from images import real_slide, write_mosaic
from timing import WORKERS, arguments, config, model_of, row

from slidebatch.config import RunConfig

SHAPE, QUICK = (1536, 2048), (256, 384)
PATIENCE_S = 300

Receipts = dict[str, int]
"""Time of change (ns) of each receipt, by stage/number."""


@dataclass(frozen=True)
class Trial:
    """One kill: when, in which stage, how many tasks had receipts, were in flight, and were done twice."""

    at_s: float
    stage: str
    done: int
    in_flight: int
    redone: int
    same: bool


def receipts(work: Path) -> Receipts:
    """All receipts that there are."""
    found = {}
    for path in (work / "receipts").glob("*/*.json"):
        try:
            found[f"{path.parent.name}/{path.stem}"] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return found


def attempts(work: Path) -> list[str]:
    """Tasks that were in flight, as stage/number: their attempt files are there and no receipt is."""
    told = [p.stem.rsplit("-", 1) for p in (work / "attempts").glob("*.json")]
    return [f"{stage}/{number}" for stage, number in told if f"{stage}/{number}" not in receipts(work)]


def contents(results: Path) -> dict[str, bytes]:
    """Bytes of all labels and tables."""
    files = [p for top in ("labels.zarr", "instances") for p in (results / top).rglob("*") if p.is_file()]
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(files)}


def start(settings: Path) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    command = [sys.executable, str(Path(__file__)), "--child", str(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE)


def child(settings: Path) -> None:
    """The run itself; when a stage ends it notes the receipts there are (the end of the run removes them)."""
    from slidebatch import batch
    from slidebatch.events import Event, StageEnded

    asked = RunConfig.model_validate_json(settings.read_text())
    noted = settings.with_suffix(".receipts")

    def note(event: Event) -> None:
        if isinstance(event, StageEnded):
            noted.write_text(json.dumps(receipts(Path(asked.output.path) / "work")))

    batch.run(asked, note)


def finished(process: subprocess.Popen[bytes]) -> None:
    """Wait for a run's good end. SystemExit with what it said otherwise."""
    _, said = process.communicate(timeout=PATIENCE_S)
    if process.returncode:
        raise SystemExit(f"a run ended with {process.returncode}: {said.decode()[-800:]}")


def trial(settings: Path, results: Path, at_s: float, wanted: dict[str, bytes]) -> Trial:
    """Start, kill, look, start again, compare."""
    work = results / "work"
    begun = time.monotonic()
    process = start(settings)
    time.sleep(max(at_s - (time.monotonic() - begun), 0))
    over = process.poll() is not None
    if not over:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before, flying = receipts(work), attempts(work)
    stage = "ended before" if over else _where(work, before, flying)
    noted = settings.with_suffix(".receipts")
    noted.write_text("{}")
    finished(start(settings))
    after: Receipts = json.loads(noted.read_text())
    redone = sum(name in before and before[name] != stamp for name, stamp in after.items())
    return Trial(at_s, stage, len(before), len(flying), redone, contents(results) == wanted)


def _where(work: Path, before: Receipts, flying: list[str]) -> str:
    """The stage of a task in flight, or between which steps the run was."""
    if flying:
        return flying[0].split("/")[0]
    if list((work / "finished").glob("*.json")):
        return "manifest"
    return f"after {max(before, key=lambda name: before[name]).split('/')[0]}" if before else "start-up"


def main() -> None:
    """Print a row per kill, then the counts."""
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", type=Path, help="not for people: the run that is killed")
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    kills = 2 if options.quick else options.kills
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        write_mosaic(folder / "images" / "piece.tif", real_slide(), QUICK if options.quick else SHAPE)

        def settings(name: str) -> Path:
            tiling = {"patch_px": 368, "core_px": 512}
            output = {"chunk_px": 128, "shard_px": 512}
            asked = config(folder / "images", folder / name, model=model_of(options), tiling=tiling, output=output)
            path = folder / f"{name}.json"
            path.write_text(asked.model_dump_json())
            return path

        took = []
        for i in range(2):  # the first one compiles
            begun = time.monotonic()
            finished(start(settings(f"calm{i}")))
            took.append(time.monotonic() - begun)
        wanted = contents(folder / "calm1")
        same = contents(folder / "calm0") == wanted
        moments = random.Random(options.seed)
        print(f"undisturbed: {took[-1]:.1f} s, {len(wanted)} files, twice the same: {same}\n")
        row("kill at s", "in flight in", "tasks with receipts", "in flight", "receipts done again", "same result")
        row("---", "---", "---", "---", "---", "---")
        trials = []
        for i in range(kills):
            found = trial(settings(f"kill{i}"), folder / f"kill{i}", moments.uniform(0, took[-1]), wanted)
            trials.append(found)
            row(f"{found.at_s:.2f}", found.stage, found.done, found.in_flight, found.redone, found.same)
        report(trials)


def report(trials: list[Trial]) -> None:
    """What all trials say together."""
    stages = Counter(t.stage for t in trials)
    print(
        f"\n{len(trials)} kills ({', '.join(f'{n} in {s}' for s, n in stages.items())}): "
        f"identical {sum(t.same for t in trials)}; receipts done again {sum(t.redone for t in trials)}; "
        f"most in flight {max(t.in_flight for t in trials)} with {WORKERS} workers"
    )


if __name__ == "__main__":
    main()
