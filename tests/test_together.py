"""Blocks that go through a network together, as on a GPU: the same bytes, full batches, and nobody blamed for another.

Oracles need no GPU, so here they run on a device called "cuda" wherever that decides how tasks are done.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import tifffile

from slidebatch import batch, classmaps, infer, models, planning
from slidebatch.classmaps import Blocks, infer_maps, infer_together
from slidebatch.errors import InputError
from slidebatch.job import Job, open_job
from slidebatch.overlaps import Overlaps, overlaps
from slidebatch.store import open_array
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides

NAMES = ("a", "b", "c", "d", "e")
WAYS = [Overlaps(), Overlaps(reads=1), Overlaps(reads=2, readers=3, stores=1), Overlaps(readers=2, stores=3)]


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Small slides, one of them blank."""
    rng = np.random.default_rng(61)
    truths = {n: touching_field((90 + 10 * i, 150 - 10 * i), 20, rng) for i, n in enumerate(NAMES)}
    return write_slides(tmp_path, {**truths, "blank": np.zeros((70, 80), np.int32)})


@pytest.fixture
def as_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are planned for a GPU, and this process and its workers take "cuda" for a device that they have."""
    monkeypatch.setattr(planning, "place", lambda device, cluster: ("cuda", None))
    monkeypatch.setattr(models, "pick_device", lambda device: device)
    with dask.config.set({"distributed.worker.preload": ["tests.support.as_gpu"]}):
        yield


def batches(folder: Path) -> list[list[str]]:
    """The slides of the patches that came together, batch by batch."""
    return [line.split() for line in (folder / "seen").read_text().splitlines()]


def recording(folder: Path, name: str = "batch_oracle", **more: Any) -> dict[str, Any]:
    """The section `model` of an oracle that writes down its batches, or of another of the tests' own."""
    own = {"seen": str(folder / "seen")} if name == "batch_oracle" else {}
    return {"name": f"tests.support.{name}", "settings": {"truth": str(folder / "truth"), **own, **more}}


def faulty(folder: Path, schedule: dict[str, list[str]]) -> dict[str, Any]:
    """The section `model` of an oracle that fails by a schedule."""
    return recording(folder, "faulty_oracle", schedule=schedule, counts=str(folder / "counts"))


def failures(results: Path) -> dict[str, dict[str, Any]]:
    return {told["slide"]: told for told in map(json.loads, (results / "failures.jsonl").read_text().splitlines())}


def test_a_gpu_gets_full_batches_and_the_results_are_the_same(slides: Path, as_gpu: None) -> None:
    """Patches of several small slides fill each batch of a task but its last, and the files are those of one by one."""
    whole = {"tiling": {"patch_px": 64, "core_px": 96}}
    assert run(config(slides, "gpu", model=recording(slides), **whole)).exit_status == 0
    seen = batches(slides)
    assert [len(some) for some in seen[:-1]] == [8] * (len(seen) - 1)
    assert any(len(set(some)) > 1 for some in seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "place", lambda device, cluster: ("cpu", None))
        run(config(slides, "cpu", **whole))
    assert contents(slides / "gpu") == contents(slides / "cpu")
    assert len(Job(slides / "gpu" / "work").tasks("infer")) == 1


def kept(slides: Path, **sections: Any) -> Job:
    """A run whose maps were kept, planned for a CPU."""
    run(config(slides, "out", output={"keep_maps": True}, **sections))
    return open_job(str(slides / "out" / "work"))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_overlapping_changes_no_bit(slides: Path, way: Overlaps) -> None:
    """However far reading and storing overlap with a real network, the maps of all blocks are those of one by one."""
    job = kept(slides, model={"name": "small_unet", "settings": {}, "batch": 3})
    items = [item for task in job.tasks("infer") for item in task.items]
    assert len(items) > len(NAMES)
    before = {i.slide: open_array(job.maps(i.slide))[:] for i in items}
    assert any(maps.any() for maps in before.values())
    for slide in before:
        for path in (job.maps(slide) / "c").rglob("*"):
            path.unlink() if path.is_file() else None
    made = infer_together(job, items, way)
    for slide, maps in before.items():
        np.testing.assert_array_equal(open_array(job.maps(slide))[:], maps)
    alone = infer_maps(job, items[0].slide, items[0].box)
    assert not isinstance(made[0], InputError)
    assert made[0].outputs == alone.outputs
    assert made[0].facts.keys() == alone.facts.keys()


def test_the_ledger_of_blocks_adds_up(slides: Path) -> None:
    """Pixels are told per block; seconds are shared by patches fed, and the network's are no more than the whole."""
    job = kept(slides)
    items = [item for task in job.tasks("infer") for item in task.items]
    made = [one for one in infer_together(job, items, Overlaps(2, 2, 2)) if not isinstance(one, InputError)]
    assert len(made) == len(items)
    for item, one in zip(items, made, strict=True):
        alone = infer_maps(job, item.slide, item.box).facts
        assert {k: one.facts[k] for k in ("kept_px", "fed_px")} == {k: alone[k] for k in ("kept_px", "fed_px")}
    total = {k: sum(one.facts[k] for one in made) for k in ("seconds", "network_s", "wait_s", "store_s")}
    assert 0 < total["network_s"] <= total["seconds"]
    assert total["wait_s"] + total["store_s"] <= total["seconds"]


def test_nothing_together_is_nothing(slides: Path) -> None:
    """Empty in, empty out."""
    assert infer_together(kept(slides), [], Overlaps(2, 2, 2)) == []


def test_slides_with_other_channels_part(tmp_path: Path) -> None:
    """A grey slide between colour ones parts the batch, and all come out as they do alone."""
    rng = np.random.default_rng(4)
    write_slides(tmp_path, {n: touching_field((100, 100), 20, rng) for n in "abcd"})
    for name in "abd":
        grey = tifffile.imread(tmp_path / "images" / f"{name}.tif")
        colour = np.repeat(grey[..., None], 3, axis=2)
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", colour, photometric="rgb", tile=(64, 64))
    job = kept(tmp_path, model={"name": "small_unet", "settings": {}, "batch": 8}, tiling={"patch_px": 512})
    items = [item for task in job.tasks("infer") for item in task.items]
    together = Blocks(job, items).batches(8)
    assert [[job.at(items[cell.item].slide).slide for cell in some] for some in together] == [["a", "b"], ["c"], ["d"]]
    before = {i.slide: open_array(job.maps(i.slide))[:] for i in items}
    infer_together(job, items, Overlaps(2, 2, 2))
    for slide, maps in before.items():
        np.testing.assert_array_equal(open_array(job.maps(slide))[:], maps)


@pytest.mark.parametrize("readers", [0, 3])
def test_a_slide_that_cannot_be_read_fails_alone(
    slides: Path, as_gpu: None, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    """An unreadable patch in the middle of a batch fails its slide, named with its reason; its batch mates are done."""
    real = classmaps.read_patch

    def read(job: Job, number: int, box: Any) -> Any:
        if job.at(number).slide == "c":
            raise InputError("c.tif: its tile 3 is broken; copy it again")
        return real(job, number, box)

    monkeypatch.setattr(classmaps, "read_patch", read)
    monkeypatch.setattr(classmaps, "overlaps", lambda device: Overlaps(2, readers, 2))
    model = recording(slides)
    outcome = run(config(slides, "out", model=model))
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 5, 1)
    told = failures(slides / "out")
    assert list(told) == ["c"]
    assert (told["c"]["stage"], told["c"]["attempts"]) == ("infer", 1)
    assert "tile 3 is broken" in told["c"]["why"]
    assert len(batches(slides)) == -(-sum(map(len, batches(slides))) // 8), "good slides were run alone"
    monkeypatch.undo()
    calm = run(config(slides, "calm"))
    assert calm.failed == 0
    others = {k: v for k, v in contents(slides / "calm").items() if "/c/" not in k and "/c." not in k}
    found = contents(slides / "out")
    assert {k: found[k] for k in others if k != "failures.jsonl"} == {
        k: v for k, v in others.items() if k != "failures.jsonl"
    }


def test_an_exception_of_the_network_fails_who_caused_it(slides: Path, as_gpu: None) -> None:
    """What a network raises over a whole batch is tried slide by slide: the one that caused it fails, no other."""
    model = faulty(slides, {"b:0:0": ["raise"] * 20})
    outcome = run(config(slides, "out", model=model))
    assert (outcome.exit_status, outcome.failed) == (3, 1)
    told = failures(slides / "out")
    assert list(told) == ["b"]
    assert "scheduled at b:0:0" in told["b"]["why"]


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "failed"), [(1, []), (3, []), (4, ["b"])])
def test_a_death_over_several_slides_is_nobody_s(slides: Path, as_gpu: None, kills: int, failed: list[str]) -> None:
    """A slide that kills its worker is done alone after the first death, and fails when it died so three times."""
    model = faulty(slides, {"b:0:0": ["kill"] * kills})
    cluster = {"kind": "local", "workers": 1, "cpu_workers": 0}
    outcome = run(config(slides, "out", model=model, cluster=cluster))
    assert list(failures(slides / "out")) == failed
    assert outcome.done == len(NAMES) + 1 - len(failed)
    run(config(slides, "calm", model=recording(slides)))
    calm = {k: v for k, v in contents(slides / "calm").items() if not failed or "b" not in Path(k).parts}
    found = contents(slides / "out")
    for name in calm.keys() - {"failures.jsonl", "instances/b.parquet"}:
        assert found[name] == calm[name], name


def test_what_waits_is_bounded(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never are more batches read ahead, or more blocks kept to be stored, than the bounds say."""
    job = kept(slides)
    items = [item for task in job.tasks("infer") for item in task.items]
    lock, out, most = threading.Lock(), {"read": 0, "stored": 0, "put": 0}, {"ahead": 0, "behind": 0}
    real_patches, real_store, real_put = classmaps.Reader.patches, classmaps.Blocks.store, classmaps.Blocks.put

    def patches(self: Any, some: Any) -> Any:
        found = real_patches(self, some)
        with lock:
            out["read"] += 1
            most["ahead"] = max(most["ahead"], out["read"] - out["put"])
        return found

    def store(self: Any, number: int) -> None:
        real_store(self, number)
        with lock:
            out["stored"] += 1

    def put(self: Any, cell: Any, answer: Any) -> bool:
        with lock:
            out["put"] += 1  # here a batch is a patch
        complete = real_put(self, cell, answer)
        with lock:
            out["complete"] = out.get("complete", 0) + complete
            most["behind"] = max(most["behind"], out["complete"] - out["stored"])
        return complete

    monkeypatch.setattr(classmaps.Reader, "patches", patches)
    monkeypatch.setattr(classmaps.Blocks, "store", store)
    monkeypatch.setattr(classmaps.Blocks, "put", put)
    infer_together(job, items, Overlaps(reads=2, readers=2, stores=1))
    assert out["stored"] == len(items)
    assert most["ahead"] <= 2 + 2  # read ahead, being made, and the one in the network
    assert most["behind"] <= 1 + 2  # waiting, being stored, and the one that is given


def test_a_detector_s_patches_are_read_ahead(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ahead for a detector changes no bit of what it leaves, and its ledger tells seconds and waits."""
    model = {"name": "oracle_detections", "settings": {"truth": str(slides / "truth")}}
    job = kept(slides, model=model)
    [item, *_] = [item for task in job.tasks("infer") for item in task.items]
    path = job.detections(item.slide, item.box)
    before = path.read_bytes()
    for reads in (0, 2):
        path.unlink()
        monkeypatch.setattr(infer, "overlaps", lambda device, reads=reads: Overlaps(reads=reads))
        made = infer.infer_detections(job, item.slide, item.box)
        assert path.read_bytes() == before
        assert made.nuclei > 0
        assert made.facts["network_s"] > 0
        assert made.facts["wait_s"] > 0


def test_a_cpu_is_left_to_the_network() -> None:
    """On a CPU nothing overlaps, because threads would take the network's core; on a GPU all three do."""
    assert overlaps("cpu") == Overlaps(0, 0, 0)
    assert min(overlaps("cuda").reads, overlaps("cuda").readers, overlaps("cuda").stores) >= 1


def test_tasks_are_larger_on_a_gpu(slides: Path, as_gpu: None) -> None:
    """A task of the networks' stage holds many blocks on a GPU and few on a CPU; the blocks are the same."""
    gpu = batch.plan(config(slides, "x", tiling={"patch_px": 512})).planned.plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "place", lambda device, cluster: ("cpu", None))
        cpu = batch.plan(config(slides, "x", tiling={"patch_px": 512})).planned.plan
    assert len(gpu.tasks("infer")) < len(cpu.tasks("infer"))
    assert [i for t in gpu.tasks("infer") for i in t.items] == [i for t in cpu.tasks("infer") for i in t.items]
