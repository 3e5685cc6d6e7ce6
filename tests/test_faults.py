"""Law 5: faults follow a schedule by slide position; nothing is lost, nothing doubled, every attempt accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slidebatch.errors import EnvironmentFault
from slidebatch.events import InputFailed
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides

FAULTY = "tests.support.faulty_oracle"


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    return write_slides(tmp_path, {n: touching_field((130, 150), 22, rng) for n in ("a", "b", "c")})


def faulty(folder: Path, schedule: dict[str, list[str]]) -> dict[str, object]:
    settings = {"truth": str(folder / "truth"), "schedule": schedule, "counts": str(folder / "counts")}
    return {"name": FAULTY, "settings": settings}


def attempts(folder: Path, key: str) -> int:
    return (folder / "counts" / key.replace(":", "_")).stat().st_size


def failures(results: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (results / "failures.jsonl").read_text().splitlines()]


def test_an_exception_is_tried_again_and_leaves_no_trace(slides):
    """A task that fails twice and then succeeds gives the undisturbed result."""
    run(config(slides, "calm"))
    outcome = run(config(slides, "upset", model=faulty(slides, {"a:64:64": ["raise", "raise"]})))
    assert outcome.exit_status == 0
    assert attempts(slides, "a:64:64") == 3
    assert contents(slides / "calm") == contents(slides / "upset")


def test_a_slide_that_always_fails_is_quarantined_alone(slides):
    """A slide whose task fails every time is named with its traceback; the others are as if it were not there."""
    run(config(slides, "calm"))
    outcome = run(config(slides, "upset", model=faulty(slides, {"b:64:64": ["raise"] * 9})))
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 2, 1)
    assert attempts(slides, "b:64:64") == 3
    [failure] = failures(slides / "upset")
    assert (failure["slide"], failure["stage"], failure["attempts"]) == ("b", "infer", 3)
    assert "scheduled at b:64:64" in str(failure["traceback"])
    calm = {k: v for k, v in contents(slides / "calm").items() if not _of(k, "b")}
    upset = contents(slides / "upset")
    calm.pop("failures.jsonl"), upset.pop("failures.jsonl")
    assert upset == calm


def _of(path: str, slide: str) -> bool:
    return path.startswith((f"labels.zarr/{slide}/", f"instances/{slide}."))


def test_an_input_at_fault_is_not_tried_again_in_the_same_run(slides):
    """An input's own fault fails it at the first attempt, and the event says so."""
    events: list[object] = []
    outcome = run(config(slides, "upset", model=faulty(slides, {"c:0:0": ["input"]})), events.append)
    assert outcome.exit_status == 3
    assert attempts(slides, "c:0:0") == 1
    [told] = [e for e in events if isinstance(e, InputFailed)]
    assert (told.slide, told.stage) == ("c", "infer")


def test_a_failed_slide_is_tried_again_by_the_same_command(slides):
    """Given again after the fault is gone, the command finishes the failed slide and redoes no other."""
    settings = config(slides, "upset", model=faulty(slides, {"c:0:0": ["input"]}))
    assert run(settings).exit_status == 3
    done_before = attempts(slides, "a:0:0")
    assert run(settings).exit_status == 0
    run(config(slides, "calm"))
    assert contents(slides / "upset") == contents(slides / "calm")
    assert attempts(slides, "c:0:0") == 2
    assert attempts(slides, "a:0:0") == done_before


def test_a_full_disk_stops_the_run_and_the_same_command_resumes(slides):
    """A fault of the environment stops the run with one clear sentence; nothing looks whole; resume completes it."""
    settings = config(slides, "full", model=faulty(slides, {"b:0:0": ["disk"]}))
    with pytest.raises(EnvironmentFault, match="give the same command again"):
        run(settings)
    assert json.loads((slides / "full" / "manifest.json").read_text())["state"] == "running"
    assert run(settings).exit_status == 0
    run(config(slides, "calm"))
    assert contents(slides / "full") == contents(slides / "calm")


@pytest.mark.slow
def test_a_worker_that_dies_costs_only_its_task(slides):
    """A worker killed twice in a task, and one that always dies: bystanders finish, only the guilty slide fails."""
    schedule = {"a:64:64": ["kill", "kill"], "b:0:0": ["kill"] * 9}
    settings = config(slides, "upset", model=faulty(slides, schedule), cluster={"kind": "local", "workers": 2})
    outcome = run(settings)
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 2, 1)
    # The three slides share a task: two deaths over a, then three over b, each time with a done anew before it.
    assert attempts(slides, "a:64:64") == 2 + 3 + 1
    assert attempts(slides, "b:0:0") == 3
    [failure] = failures(slides / "upset")
    assert failure["slide"] == "b"
    assert "killed its worker 3 times" in str(failure["why"])
    run(config(slides, "calm"))
    calm = {k: v for k, v in contents(slides / "calm").items() if not _of(k, "b")}
    upset = contents(slides / "upset")
    calm.pop("failures.jsonl"), upset.pop("failures.jsonl")
    assert upset == calm
