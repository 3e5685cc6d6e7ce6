"""A run that knows its time limit leaves before it, in good order, and the same command goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slidebatch import batch
from slidebatch.deadline import LEAVING_S, VARIABLE, deadline
from slidebatch.errors import ConfigError, EnvironmentFault
from slidebatch.job import open_job
from slidebatch.stages import LATE, perform
from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.runs import COARSE, config, contents, run, write_slides
from tests.test_kills import write_config


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    rng = np.random.default_rng(31)
    return write_slides(tmp_path, {n: touching_field((1300, 1200), 24, rng) for n in ("a", "b")})


def slow(folder: Path, seconds: float) -> dict[str, object]:
    """An oracle that takes its time over each patch."""
    return {"name": "tests.support.slow_oracle", "settings": {"truth": str(folder / "truth"), "seconds": seconds}}


@pytest.mark.long
@pytest.mark.parametrize("cluster", [{"kind": "serial"}, {"kind": "local", "workers": 2}])
def test_a_run_stops_before_its_limit_and_resumes(slides: Path, cluster: dict[str, object]) -> None:
    """Near its limit a run ends by itself, status 1, "resumable", no task cut short; given again it completes."""
    settings = write_config(slides, "limited", **COARSE, cluster=cluster, model=slow(slides, 0.25))
    run(config(slides, "calm", **COARSE, model=slow(slides, 0.0)))
    work = slides / "limited" / "work"
    command = [sys.executable, "-m", "slidebatch", "run", str(settings)]
    limit_s, stops = 6.0, 0
    while True:
        environment = {**os.environ, VARIABLE: str(time.time() + LEAVING_S + limit_s)}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        if ended.returncode == 0:
            break
        assert ended.returncode == 1, ended.stderr
        [sentence] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert "resumable: give the same command again" in sentence
        if "with tasks under way" not in sentence:
            assert not list((work / "attempts").glob("*.json")), "a task was cut short"
        stops, limit_s = stops + 1, limit_s * 1.3  # a busy machine needs longer to come to its first task
    assert stops
    assert contents(slides / "limited") == contents(slides / "calm")


def test_no_task_is_begun_that_would_not_end(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a task of a stage has taken longer than is left, no other of that stage is begun; the first ones are."""
    begun: list[str] = []
    real = batch.Driver._calls

    def calls(self: batch.Driver, stage: str, tasks: list[int]):
        for call in real(self, stage, tasks):
            begun.append(call.stage)
            yield call
            if stage == "infer":
                self.deadline.saw(stage, 100_000.0)

    monkeypatch.setattr(batch.Driver, "_calls", calls)
    settings = config(slides, "out", **COARSE, cluster={"kind": "serial", "walltime_s": 50_000.0})
    with pytest.raises(EnvironmentFault, match=r"stopped in stage infer: .*up to 100000\.0 s; the run is resumable"):
        run(settings)
    assert begun.count("infer") == 1 < len(open_job(str(slides / "out" / "work")).tasks("infer"))
    assert "decode" not in begun
    monkeypatch.undo()
    assert run(settings).exit_status == 0
    run(config(slides, "calm", **COARSE))
    assert contents(slides / "out") == contents(slides / "calm")


def test_a_task_that_comes_too_late_is_not_begun(slides: Path) -> None:
    """A worker answers a late call without an attempt, but for a task that is done, which it says."""
    run(config(slides, "out", **{**COARSE, "output": {**COARSE["output"], "keep_maps": True}}))
    work = str(slides / "out" / "work")
    assert perform(work, "infer", 0, "this", start_by=0.0)["fresh"] is False
    assert perform(work, "infer", 0, "this", start_by=0.0) != LATE
    (slides / "out" / "work" / "receipts" / "prepare" / "0.json").unlink()
    assert perform(work, "prepare", 0, "this", start_by=0.0) == LATE
    assert not (slides / "out" / "work" / "attempts").exists()
    assert perform(work, "prepare", 0, "this", start_by=time.time() + 1000)["fresh"] is True


def test_the_earlier_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the config's walltime and the environment's deadline the earlier counts; none: no limit; text is refused."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert deadline(None).at is None
    assert not deadline(None).passed("infer")
    soon, late = time.time() + 10, time.time() + 1e6
    monkeypatch.setenv(VARIABLE, str(soon))
    assert deadline(1e6).at == soon
    monkeypatch.setenv(VARIABLE, str(late))
    assert deadline(10.0).at == pytest.approx(soon, abs=600)
    monkeypatch.setenv(VARIABLE, "tomorrow")
    with pytest.raises(ConfigError, match=r"tomorrow.*expected seconds since the epoch"):
        deadline(None)
