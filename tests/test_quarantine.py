"""Faults of inputs, workers and the machine are named and cost nothing but themselves.

Odd inputs that are not at fault are ordinary ones.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import slidebatch
from slidebatch import batch
from slidebatch.errors import EnvironmentFault, PlanError
from slidebatch.events import Event, InputFailed
from slidebatch.executors import machine
from slidebatch.geometry import Box, whole
from slidebatch.job import Job, open_job
from slidebatch.lease import lease
from slidebatch.stages import Attempt, perform
from slidebatch.status import status
from slidebatch.store import create_array, open_array, write_region
from slidebatch.tiling import parts
from slidebatch.validate import validate
from tests.support.fields import Labels, touching_field
from tests.support.runs import config, contents, labels_of, run, write_slides

SMALL_UNET: dict[str, Any] = {"model": {"name": "small_unet", "settings": {}}}


def field(shape: tuple[int, int] = (130, 150), seed: int = 1) -> Labels:
    """A dense field of nuclei."""
    return touching_field(shape, 20, np.random.default_rng(seed))


def faulty(folder: Path, schedule: dict[str, list[str]]) -> dict[str, Any]:
    """The section `model` of an oracle that fails by a schedule and counts its patches."""
    told = {"truth": str(folder / "truth"), "schedule": schedule, "counts": str(folder / "counts")}
    return {"name": "tests.support.faulty_oracle", "settings": told}


def failures(results: Path) -> list[dict[str, Any]]:
    """What the run says of its failed inputs."""
    return [json.loads(line) for line in (results / "failures.jsonl").read_text().splitlines()]


def without(found: dict[str, bytes], slide: str) -> dict[str, bytes]:
    """The contents of results that tell nothing of a slide."""
    own = (f"labels.zarr/{slide}/", f"instances/{slide}.", "failures.jsonl")
    return {k: v for k, v in found.items() if not k.startswith(own)}


# Inputs at fault


@pytest.mark.parametrize("content", ["not json", '{"type": "Point", "coordinates": [1, 2]}', None])
def test_broken_regions_are_found_before_the_networks_run(tmp_path: Path, content: str | None) -> None:
    """Regions of one slide that are broken or missing fail it at the plan, by the file's name; no network sees it."""
    write_slides(tmp_path, {"a": field(), "b": field(seed=2)})
    regions = tmp_path / "a.geojson"
    if content is not None:
        regions.write_text(content)
    told: list[Event] = []
    settings = config(tmp_path, "out", model=faulty(tmp_path, {}), input={"regions": {"a": str(regions)}})
    outcome = run(settings, told.append)
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 1, 1)
    [failure] = failures(tmp_path / "out")
    assert (failure["slide"], failure["stage"]) == ("a", "plan")
    assert str(regions) in failure["why"]
    assert [e.slide for e in told if isinstance(e, InputFailed)] == ["a"]
    assert {p.name[0] for p in (tmp_path / "counts").iterdir()} == {"b"}


def test_a_run_whose_every_input_failed_can_be_read(tmp_path: Path) -> None:
    """Where networks fail on every input, the results are a valid folder without rows that says who failed and why."""
    write_slides(tmp_path, {"a": field(), "b": field(seed=2)})
    model = faulty(tmp_path, {"a:0:0": ["input"], "b:0:0": ["input"]})
    outcome = run(config(tmp_path, "out", model=model))
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 0, 2)
    assert validate(tmp_path / "out") == []
    results = slidebatch.open_results(tmp_path / "out")
    assert list(results.slides["state"]) == ["failed", "failed"]
    assert len(results.summary) == 0
    told = status(tmp_path / "out")
    assert (told.state, [f["slide"] for f in told.failures]) == ("done", ["a", "b"])
    assert run(config(tmp_path, "out", model=model)).exit_status == 0  # the schedule is used up
    run(config(tmp_path, "calm"))
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")


def test_a_finished_input_that_breaks_loses_only_its_own(tmp_path: Path) -> None:
    """A finished slide whose file is then harmed leaves the results, named; mended, it comes back; others stay."""
    write_slides(tmp_path, {"a": field(), "b": field(seed=2)})
    settings = config(tmp_path, "out", model=faulty(tmp_path, {}))
    run(settings)
    before = contents(tmp_path / "out")
    image = tmp_path / "images" / "b.tif"
    good = image.read_bytes()
    image.write_bytes(good[:100])
    outcome = run(settings)
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 1, 1)
    assert failures(tmp_path / "out")[0]["slide"] == "b"
    assert validate(tmp_path / "out") == []
    assert contents(tmp_path / "out").keys() - {"failures.jsonl"} == without(before, "b").keys()
    image.write_bytes(good)
    assert run(settings).exit_status == 0
    assert contents(tmp_path / "out") == before
    assert {p.stat().st_size for p in (tmp_path / "counts").glob("a_*")} == {1}


def test_a_stray_file_does_not_take_a_slides_name(tmp_path: Path) -> None:
    """A file that no pattern fits, called as a good slide is, fails alone; the slide of that name is done."""
    write_slides(tmp_path, {"A01_x": field(), "A02_x": field(seed=2)})
    for well in ("A01", "A02"):
        (tmp_path / "truth" / f"{well}_x.tif").rename(tmp_path / "truth" / f"{well}.tif")
    (tmp_path / "images" / "A01.tif").write_bytes(b"stray")
    outcome = run(config(tmp_path, "out", input={"pattern": "{well}_{channel}.tif"}))
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 2, 1)
    assert failures(tmp_path / "out")[0]["slide"] not in {"A01", "A02"}
    assert set(slidebatch.open_results(tmp_path / "out").instances()["slide"]) == {"A01", "A02"}


def test_a_refused_plan_names_the_slide(tmp_path: Path) -> None:
    """A slide that does not fit the network is named by its id in the sentence."""
    write_slides(tmp_path, {"case7": field()})
    settings = config(tmp_path, "out", model=SMALL_UNET["model"], input={"mpp": 5.0})
    with pytest.raises(PlanError, match="slide case7"):
        batch.plan(settings)


# Deaths of workers


@pytest.fixture
def ready(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A run of one slide, on which the network always fails in the way asked for, just before the network starts."""
    write_slides(tmp_path, {"a": field()})
    real = batch.Driver._stage

    def stop(self: batch.Driver, executor: Any, name: str) -> None:
        if name == "infer":
            raise KeyboardInterrupt
        real(self, executor, name)

    monkeypatch.setattr(batch.Driver, "_stage", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path, "out", model=faulty(tmp_path, {"a:0:0": [request.param] * 9})))
    return open_job(str(tmp_path / "out" / "work"))


@pytest.mark.parametrize(
    ("ready", "deaths", "session", "attempts", "calls"),
    [
        ("raise", 0, "this", 3, 3),
        ("raise", 1, "this", 4, 3),
        ("raise", 2, "this", 5, 3),
        ("raise", 3, "this", 3, 0),
        ("raise", 3, "another", 3, 3),
        ("input", 2, "this", 3, 1),
    ],
    indirect=["ready"],
)
def test_deaths_count_among_the_attempts(ready: Job, deaths: int, session: str, attempts: int, calls: int) -> None:
    """A failure's attempts are its deaths and its tries; of too many deaths no try follows; other runs' are none."""
    for _ in range(deaths):  # what a worker leaves that dies over the slide
        attempt = Attempt(ready, "infer", 0, session)
        attempt.begin()
        attempt.working_on("a")
    assert perform(str(ready.work), "infer", 0, "this")["failed"] == ["a"]
    record = json.loads(ready.failure("a").read_text())
    assert (record["slide"], record["stage"], record["attempts"]) == ("a", "infer", attempts)
    assert ("killed its worker" in record["why"]) == (calls == 0)
    counted = ready.results.parent / "counts" / "a_0_0"
    assert (counted.stat().st_size if counted.exists() else 0) == calls


# The machine


def test_automatic_workers_fit_memory_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """workers: auto takes as many as fit the free memory, at most one per core."""
    write_slides(tmp_path, {"a": field()})
    settings = config(tmp_path, "out", cluster={"kind": "local"})
    peak_bytes = batch.plan(config(tmp_path, "out")).costs.worker.peak
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    threads = settings.model.threads
    for fit in (1, 2, 3, 7, 8, 9, 100):
        for spare_bytes in (0, peak_bytes - 1):
            monkeypatch.setattr(machine, "free_bytes", lambda free=fit * peak_bytes + spare_bytes: free)
            assert batch.plan(settings).costs.workers == min(fit, 8 // threads)


def test_cores_are_counted_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system tells no process its own cores, those of the machine count; there is always one."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.usable_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_from_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where files cannot be locked, the sentence says so and names a way out; it blames no other run."""

    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    words = r"cannot be locked .*set output\.path"
    with pytest.raises(EnvironmentFault, match=words) as told, lease(tmp_path / "work"):
        pytest.fail("the folder was taken without a lock")
    assert "another run" not in str(told.value)


@pytest.mark.parametrize(
    ("box", "whole_shards"),
    [
        (Box(0, 0, 128, 128), True),
        (Box(128, 0, 200, 256), True),
        (Box(128, 256, 200, 300), True),
        (Box(0, 0, 64, 128), False),
        (Box(64, 0, 128, 128), False),
        (Box(0, 0, 128, 200), False),
        (Box(0, 192, 128, 300), False),
    ],
)
def test_parts_of_shards_are_refused(tmp_path: Path, box: Box, whole_shards: bool) -> None:
    """Only boxes of whole shards, cut off at the array's ends, are written; others are refused with nothing lost."""
    path, shape = tmp_path / "a.zarr", (200, 300)
    create_array(path, shape, "uint8", (32, 32), (128, 128))
    for region in parts(shape, (128, 128)):
        write_region(path, np.ones(region.shape, np.uint8), region)
    expected = np.ones(shape, np.uint8)
    pixels = np.full(box.shape, 7, np.uint8)
    if whole_shards:
        write_region(path, pixels, box)
        expected[box.slices(whole(shape))] = 7
    else:
        with pytest.raises(ValueError, match="does not cover whole shards"):
            write_region(path, pixels, box)
    np.testing.assert_array_equal(open_array(path)[:], expected)


# Odd inputs


@pytest.mark.parametrize("name", ["nuclei", "state", "mm2", "seconds_infer", "fed_px"])
def test_facts_never_take_a_column_of_the_run(tmp_path: Path, name: str) -> None:
    """A fact called like a column of the summary leaves the run's own value there; other facts come along."""
    write_slides(tmp_path, {"a": field()})
    run(config(tmp_path, "out"))
    own = slidebatch.open_results(tmp_path / "out").summary
    (tmp_path / "facts.csv").write_text(f"slide,{name},dose\na,many,3 mg\n")
    run(config(tmp_path, "out", input={"facts": str(tmp_path / "facts.csv")}))
    summary = slidebatch.open_results(tmp_path / "out").summary
    assert summary[name].equals(own[name])
    assert summary["dose"].tolist() == ["3 mg"]


@pytest.mark.parametrize("model", [{}, SMALL_UNET], ids=["oracle", "small_unet"])
def test_images_of_a_few_pixels_are_ordinary(tmp_path: Path, model: dict[str, Any]) -> None:
    """Images of one pixel, one row, one column, or a little over a patch are done like any other and are valid."""
    shapes = {"dot": (1, 1), "row": (1, 300), "column": (300, 1), "stamp": (5, 7), "patch": (65, 129)}
    write_slides(tmp_path, {name: np.ones(shape, np.int32) for name, shape in shapes.items()})
    outcome = run(config(tmp_path, "out", tissue={"enabled": "on"}, **model))
    assert (outcome.exit_status, outcome.done) == (0, len(shapes)), failures(tmp_path / "out")
    assert validate(tmp_path / "out") == []
    for name, shape in shapes.items():
        assert labels_of(tmp_path / "out", name).shape == shape


def test_pixels_that_are_no_numbers_harm_only_their_place(tmp_path: Path) -> None:
    """A float image with NaN and infinity in it is done and valid, and elsewhere nuclei are found and measured."""
    truth = field((200, 220))
    write_slides(tmp_path, {"a": truth})
    image = np.where(truth > 0, 150, 20).astype(np.float32)
    image[50:60, 50:60], image[0, 0] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    assert run(config(tmp_path, "out", tissue={"enabled": "on"})).exit_status == 0
    assert validate(tmp_path / "out") == []
    found = labels_of(tmp_path / "out", "a")
    np.testing.assert_array_equal(found[100:] > 0, truth[100:] > 0)
    table = slidebatch.open_results(tmp_path / "out").instances()
    means = table.filter(like="mean_").to_numpy()
    assert np.isfinite(means[np.unique(found[100:])[1:] - 1]).all()


def test_images_of_one_well_stay_apart(tmp_path: Path) -> None:
    """Several images of a well, told by {image} in their names, are fields of their own with their own nuclei."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    truths = {f"A01_i{i}": field(seed=i) for i in (1, 2)}
    for i, (name, truth) in enumerate(truths.items(), 1):
        tifffile.imwrite(tmp_path / "truth" / f"{name}.tif", truth)
        tifffile.imwrite(tmp_path / "images" / f"C1-{i}-A-01.tif", (truth > 0).astype(np.uint8) * 99)
    settings = config(tmp_path, "out", input={"pattern": "C{channel}-{image}-{row}-{column}.tif"})
    assert run(settings).exit_status == 0
    assert validate(tmp_path / "out") == []
    results = slidebatch.open_results(tmp_path / "out")
    for name, truth in truths.items():
        np.testing.assert_array_equal(np.asarray(results.labels(name)) > 0, truth > 0)


@pytest.mark.parametrize(("z", "bright"), [("max", [1, 2, 3]), (1, [2])])
def test_planes_of_a_stack_are_one_field(tmp_path: Path, z: str | int, bright: list[int]) -> None:
    """Of files per plane and channel the table measures the brightest plane, or the one asked for, in each channel."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    truth = np.zeros((150, 200), np.int32)
    for plane in (1, 2, 3):
        place = (slice(40, 60), slice(40 * plane, 40 * plane + 20))
        truth[place] = plane
        for channel in (1, 2):
            pixels = np.full(truth.shape, 10 * plane, np.uint16)
            pixels[place] = 3000 * channel
            tifffile.imwrite(tmp_path / "images" / f"r01c01f01p{plane:02d}-ch{channel}sk1fk1fl1.tiff", pixels)
    tifffile.imwrite(tmp_path / "truth" / "A01.tif", truth)
    assert run(config(tmp_path, "out", input={"preset": "operetta", "channels": ["2"], "z": z})).exit_status == 0
    assert validate(tmp_path / "out") == []
    table = slidebatch.open_results(tmp_path / "out").instances("A01")
    ground = 30 if z == "max" else 10 * (int(z) + 1)
    for channel in (1, 2):
        expected = [3000 * channel if n in bright else ground for n in (1, 2, 3)]
        assert table.sort_values("x")[f"mean_{channel}"].round().tolist() == expected
