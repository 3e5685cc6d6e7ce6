"""What a task needs at hand in its worker: the plan, open slides, the loaded model, and where files are.

A worker process opens a run once (`open_job`) and keeps its model and its most recent slides.
"""

from __future__ import annotations

import copy
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch import models, scratch
from slidebatch.errors import EnvironmentFault
from slidebatch.fingerprints import decode_print, infer_print, measure_print, paint_print, prepare_print
from slidebatch.geometry import Box
from slidebatch.models.protocol import Model
from slidebatch.models.spec import ModelSpec
from slidebatch.normalise import Window
from slidebatch.plan import (
    Plan,
    SlidePlan,
    Task,
    network_of,
    read_normalisation,
    read_plan,
)
from slidebatch.slides import Slide, open_slide
from slidebatch.store import read_json, read_shard

OPEN_SLIDES = 4
"""Slides that a worker keeps open."""

Print = Callable[[Plan, SlidePlan, object], str]
PRINTS: dict[str, Print] = {
    "prepare": lambda plan, slide, _: prepare_print(plan, slide),
    **dict.fromkeys(("maps", "infer"), infer_print),
    "decode": decode_print,
    **dict.fromkeys(("measure", "table"), measure_print),
}
"""What the results of stages depend on; those of all others on `paint_print`."""


@dataclass(frozen=True)
class Made:
    """What a stage's function leaves for one item: files, and numbers for the receipt."""

    outputs: tuple[Path, ...] = ()
    nuclei: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TissueMask:
    """Stored tissue of a slide: `mask` (y, x) bool, one pixel per `step_px` plan pixels.

    `reach` is the mask grown by the largest nucleus: what networks may see of nuclei in tissue.
    """

    mask: npt.NDArray[np.bool_]
    reach: npt.NDArray[np.bool_]
    step_px: float

    def at(self, centre: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether plan pixels (N, 2) lie in tissue."""
        place = np.minimum((centre / self.step_px).astype(np.int64), np.array(self.mask.shape) - 1)
        found: npt.NDArray[np.bool_] = self.mask[place[:, 0], place[:, 1]]
        return found

    def any_in(self, box: Box) -> bool:
        """Whether any place within reach of tissue lies in a box of plan pixels."""
        return bool(self.reach_of(box).any())

    def reach_of(self, box: Box) -> npt.NDArray[np.bool_]:
        """Which pixels of a box of plan pixels lie within reach of tissue: (Y, X)."""
        rows, columns = (
            np.minimum((np.arange(start, stop) / self.step_px).astype(np.int64), size - 1)
            for start, stop, size in zip((box.y0, box.x0), (box.y1, box.x1), self.reach.shape, strict=True)
        )
        return self.reach[rows][:, columns]


class Job:
    """A run as its workers see it. `work` is the run's work folder; results are its parent."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.plan: Plan = read_plan(work)
        self._member = 0
        self._views: dict[int, Job] = {}
        self._open: OrderedDict[int, Slide] = OrderedDict()
        self._opening = threading.Lock()
        self._tasks: dict[str, list[Task]] = {}
        self._prints: dict[tuple[Print, int], str] = {}

    def of(self, member: int) -> Job:
        """The run as one member of its ensemble sees it: the plan, class maps and detections are that member's alone.

        Slides and all else are shared. The job itself where the run has no ensemble.
        """
        if not self.plan.members:
            return self
        if member not in self._views:
            view = copy.copy(self)
            view.plan, view._member, view._prints, view._tasks = self.plan.of(member), member, {}, {}
            self._views[member] = view
        return self._views[member]

    @property
    def members(self) -> list[Job]:
        """The views of all members; of a run without an ensemble the job alone."""
        return [self.of(k) for k in range(max(1, len(self.plan.members)))]

    @property
    def model(self) -> Model:
        """The network, loaded once by a process. EnvironmentFault where it would answer otherwise than was planned."""
        model = _model(self.plan.model.model_dump_json(), self.plan.device)
        if model.card.digest != self.plan.card.digest:
            raise EnvironmentFault(
                f"{socket.gethostname()} would run {model.card.name} with other weights or libraries than the driver; "
                "install the same versions of torch and of its engines, then give the same command again"
            )
        return model

    @cached_property
    def windows(self) -> dict[str, Window]:
        """Normalisation of each group, as stored after the prepare stage."""
        return {group: Window.from_json(w) for group, w in read_normalisation(self.work).items()}

    def tasks(self, stage: str) -> list[Task]:
        """The tasks of a stage, listed once."""
        if stage not in self._tasks:
            self._tasks[stage] = self.plan.tasks(stage)
        return self._tasks[stage]

    def at(self, number: int) -> SlidePlan:
        return self.plan.slides[number]

    def window(self, number: int) -> Window:
        return self.windows[self.at(number).group]

    def open(self, number: int) -> Slide:
        """The open slide; the least recently used one is closed when there are too many.

        Safe to call from several threads: a slide that another thread still reads opens its files again.
        """
        with self._opening:
            if number not in self._open:
                while len(self._open) >= OPEN_SLIDES:
                    self._open.popitem(last=False)[1].close()
                self._open[number] = self._opened(number)
            self._open.move_to_end(number)
            return self._open[number]

    def _opened(self, number: int) -> Slide:
        source, staged = self.at(number).source, self.work / "staged"
        if self.plan.scratch is not None:
            folder = scratch.folder_of(self.plan.scratch, self.work)
            source, staged = scratch.near(source, folder), folder / "staged"
        return open_slide(source, z=self.plan.z, staged=str(staged))

    def tissue(self, number: int) -> TissueMask | None:
        """The stored mask, or None where everything is processed."""
        if not self.at(number).tissue:
            return None
        arrays = read_shard(self.prepared(number))
        step_px = float(arrays["step_px"][0])
        return TissueMask(arrays["tissue"].astype(bool), arrays["reach"].astype(bool), step_px)

    # Where files are

    @property
    def results(self) -> Path:
        return self.work.parent

    def _name(self, number: int) -> str:
        return self.at(number).slide

    def _of_member(self, folder: str) -> Path:
        return self.work / (folder if self._member == 0 else f"{folder}{self._member + 1}")

    @property
    def outputs(self) -> tuple[Path, Path]:
        """Where networks leave what they find: folders of class maps, and of detections."""
        return self._of_member("maps"), self._of_member("detections")

    def prepared(self, number: int) -> Path:
        return self.work / "prepared" / f"{self._name(number)}.safetensors"

    def maps(self, number: int) -> Path:
        return self._of_member("maps") / f"{self._name(number)}.zarr"

    def detections(self, number: int, block: Box) -> Path:
        return self._of_member("detections") / self._name(number) / f"{block.y0}_{block.x0}.safetensors"

    def nuclei(self, number: int, core: Box) -> Path:
        return self.work / "nuclei" / self._name(number) / f"{core.y0}_{core.x0}.safetensors"

    def seams(self, number: int) -> Path:
        return self.work / "seams" / f"{self._name(number)}.safetensors"

    def part(self, number: int, region: Box) -> Path:
        return self.work / "measured" / self._name(number) / f"{region.y0}_{region.x0}.parquet"

    def table(self, number: int) -> Path:
        return self.results / "instances" / f"{self._name(number)}.parquet"

    def labels(self, number: int) -> Path:
        return self.results / "labels.zarr" / self.at(number).labels

    def image(self, number: int) -> Path | None:
        image = self.at(number).image
        return None if image is None else self.results / "labels.zarr" / image

    def marker(self, number: int) -> Path:
        return self.work / "finished" / f"{self._name(number)}.json"

    # Slides that are finished, and those that failed

    def print_of(self, stage: str, number: int) -> str:
        """Fingerprint of what a stage makes of a slide; taken once, for a slide has thousands of tasks."""
        kind, member = network_of(stage)
        if kind != stage or (kind in {"maps", "infer"} and self.plan.members):
            return self.of(member).print_of(kind, number)
        key = PRINTS.get(stage, paint_print), number
        if key not in self._prints:
            slide = self.at(number)
            window = None if stage == "prepare" else self.windows.get(slide.group)
            self._prints[key] = key[0](self.plan, slide, None if window is None else window.to_json())
        return self._prints[key]

    def final_print(self, number: int) -> str:
        """What a slide's finished results depend on."""
        return self.print_of("table", number)

    def finished(self, number: int) -> bool:
        """Whether an earlier start of this run finished the slide, with the very same settings."""
        try:
            told = read_json(self.marker(number))
        except (FileNotFoundError, ValueError):
            return False
        there = self.table(number).exists() and (self.labels(number) / "0" / "zarr.json").exists()
        return there and bool(told["print"] == self.final_print(number))

    def failure(self, slide: str) -> Path:
        return self.work / "failed" / f"{slide}.json"

    def failed(self, number: int) -> bool:
        return self.failure(self._name(number)).exists()


@lru_cache(maxsize=1)
def _model(spec: str, device: str) -> Model:
    return models.load(ModelSpec.model_validate_json(spec), device)


@lru_cache(maxsize=2)
def _job(work: Path, stamp: tuple[int, int]) -> Job:
    return Job(work)


def open_job(work: str) -> Job:
    """This process's view of a run, opened again when its plan or normalisation has changed."""
    folder = Path(work)
    stamps = [p.stat().st_mtime_ns if p.exists() else 0 for p in (folder / "plan.json", folder / "normalisation.json")]
    return _job(folder, (stamps[0], stamps[1]))
