"""Peak memory of a worker on a slide, on one four times as large, and on one sixteen times as large.

    python benchmarks/memory.py [--quick] [--oracle]

Mirrored mosaics of a real slide, written as JPEG-tiled TIFF files, with the shipped network (`--oracle`: with
the dense oracle on a touching field; many more nuclei, no network). Two workers of one thread. The kernel keeps
every process's highest resident memory (VmHWM); it is reset when a stage begins and read until it ends, so
that each stage has a peak of its own. Beside it stands what `slidebatch plan` projects.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from images import real_slide, touching_field, write_mosaic, write_truth
from timing import arguments, config, model_of, row, timed

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.events import Event, StageStarted

SIDE_PX, QUICK_PX = 4096, 512
PATCH_PX = 512
LOOK_S = 0.02
STAGES = ("prepare", "maps", "infer", "decode", "seams", "paint", "pyramid", "measure", "table")


class Peaks:
    """Watches the worker processes of a run: the highest resident bytes of any of them, by stage."""

    def __init__(self) -> None:
        self.by_stage: dict[str, int] = defaultdict(int)
        self._stage = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._look()
            for pid in workers():
                reset(pid)
            self._stage = "pyramid" if event.stage.startswith("pyramid") else event.stage

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._look()
            time.sleep(LOOK_S)

    def _look(self) -> None:
        for pid in workers() if self._stage else []:
            self.by_stage[self._stage] = max(self.by_stage[self._stage], peak_bytes(pid))


def workers() -> list[int]:
    """Processes that this one has started, and theirs."""
    return [p.pid for p in psutil.Process().children(recursive=True)]


def peak_bytes(pid: int) -> int:
    """The highest resident memory of a process since the last reset; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def reset(pid: int) -> None:
    """Forget the highest resident memory of a process (see proc(5), clear_refs)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except (FileNotFoundError, ProcessLookupError):
        return


def oracle_config(folder: Path, image: Any, side: int, times: int) -> RunConfig:
    """The oracle's run on a field of `times` x `times` copies of one touching field."""
    write_mosaic(folder / f"{times}" / "field.tif", image, (side * times,) * 2)
    write_truth(folder / f"truth{times}", "field", touching_field(side, 20), times)
    return config(
        folder / f"{times}",
        folder / f"results{times}",
        input={"channels": ["R"]},
        model={"name": "oracle", "settings": {"truth": str(folder / f"truth{times}")}},
        tissue={"enabled": "off"},
        tiling={"patch_px": PATCH_PX, "core_px": 2048},
    )


def network_config(folder: Path, image: Any, side: int, times: int, model: dict[str, Any]) -> RunConfig:
    """The network's run on a mosaic."""
    write_mosaic(folder / f"{times}" / "mosaic.tif", image, (side * times,) * 2)
    tiling = {"patch_px": PATCH_PX, "core_px": 2048}
    return config(folder / f"{times}", folder / f"results{times}", model=model, tiling=tiling)


def main() -> None:
    """Print the peaks of every stage, the growth, and what was projected."""
    parser = arguments(__doc__)
    parser.add_argument("--oracle", action="store_true", help="the dense oracle instead of the network")
    options = parser.parse_args()
    side, image = QUICK_PX if options.quick else SIDE_PX, real_slide()
    peaks = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        for times in (1, 2, 4):
            settings = (
                oracle_config(folder, image, side, times)
                if options.oracle
                else network_config(folder, image, side, times, model_of(options))
            )
            projected = batch.plan(settings).costs.worker
            with Peaks() as found:
                clock = timed(settings, also=found)
            peaks[times] = max(found.by_stage.values())
            if times == 1:
                row("slide", *STAGES, "peak", "growth", "projected", "s")
                row(*["---"] * (len(STAGES) + 5))
            told = [f"{found.by_stage[stage] / 1e6:.0f}" if stage in found.by_stage else "" for stage in STAGES]
            growth = f"{peaks[times] / peaks[1] - 1:+.1%}"
            name = f"{times * times} x {side}^2"
            row(name, *told, f"{peaks[times] / 1e6:.0f}", growth, f"{projected.peak / 1e6:.0f}", f"{clock.total_s:.0f}")
            over = "above" if peaks[times] > projected.peak else "below"
            print(f"    measured is {over} what was projected (most in {projected.worst})", flush=True)
    print("megabytes of the larger of two workers; growth from 1 to 16 must stay below 10 %")


if __name__ == "__main__":
    main()
