"""Runs given again: what was lost comes back, what changed is done anew, what did not change is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from slidebatch import batch, executors, job, planning, seams
from slidebatch.events import Event, RunNote, StageEnded
from slidebatch.geometry import Box
from slidebatch.infer import centred
from slidebatch.models.protocol import Detections
from slidebatch.plan import read_plan
from slidebatch.store import open_array
from slidebatch.tiling import parts
from slidebatch.validate import validate
from tests.support.fields import Labels, touching_field
from tests.support.position import write_ome_zarr
from tests.support.runs import config, contents, labels_of, run, write_slides

KEPT = {"output": {"keep_maps": True}}


def field(shape: tuple[int, int] = (130, 150), seed: int = 1) -> Labels:
    """A dense field of nuclei."""
    return touching_field(shape, 20, np.random.default_rng(seed))


def counting(folder: Path) -> dict[str, Any]:
    """The section `model` of an oracle that counts how often it saw each patch."""
    told = {"truth": str(folder / "truth"), "schedule": {}, "counts": str(folder / "counts")}
    return {"name": "tests.support.faulty_oracle", "settings": told}


def counts(folder: Path, slide: str) -> dict[str, int]:
    """How often the network saw each patch of a slide."""
    seen = {p.name: p.stat().st_size for p in (folder / "counts").glob(f"{slide}_*")}
    assert seen, "the network never ran"
    return seen


def of(results: dict[str, bytes], slide: str) -> dict[str, bytes]:
    """The contents of results that belong to a slide."""
    return {k: v for k, v in results.items() if k.startswith((f"labels.zarr/{slide}/", f"instances/{slide}."))}


def interrupt_before(stage: str, patch: pytest.MonkeyPatch) -> None:
    """Interrupt runs as a stage begins, as Ctrl-C would."""
    real = batch.Driver._stage

    def stop(self: batch.Driver, executor: executors.Executor, name: str) -> None:
        if name == stage:
            raise KeyboardInterrupt
        real(self, executor, name)

    patch.setattr(batch.Driver, "_stage", stop)


# The same command again


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The results folder `out` of a finished run over one slide; tmp_path holds its inputs."""
    write_slides(tmp_path, {"a": field()})
    assert run(config(tmp_path, "out")).exit_status == 0
    return tmp_path / "out"


def test_the_summary_keeps_the_numbers_of_who_did_the_work(finished: Path) -> None:
    """A start that finds a slide finished tells the same row of it: seconds, seams and all."""
    before = pd.read_parquet(finished / "summary.parquet")
    assert {"seconds_infer", "fed_px", "seam_pieces"} <= set(before.columns)
    run(config(finished.parent, "out"))
    pd.testing.assert_frame_equal(pd.read_parquet(finished / "summary.parquet"), before)


def test_a_finished_slide_is_not_opened_by_tasks(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command on a finished folder looks at the inputs to plan, and no task reads a pixel."""

    def opened(*_: object, **__: object) -> None:
        pytest.fail("a task opened the slide")

    monkeypatch.setattr(job, "open_slide", opened)
    assert run(config(finished.parent, "out")).exit_status == 0


@pytest.mark.parametrize(
    "part", ["labels.zarr", "instances", "summary.parquet", "failures.jsonl", "manifest.json", "work"]
)
def test_a_lost_part_comes_back(finished: Path, part: str) -> None:
    """Whatever is taken out of a results folder, the same command brings it back as it was."""
    before = contents(finished)
    lost = finished / part
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert run(config(finished.parent, "out")).exit_status == 0
    assert lost.exists()
    assert contents(finished) == before
    assert validate(finished) == []


@pytest.mark.parametrize("how", ["cut", "empty", "zeros", "lost"])
def test_a_power_cut_may_take_any_file_of_work(finished: Path, how: str) -> None:
    """Each file of work/ cut off, emptied, turned to zeros or gone: the same command ends well and alike."""
    before = contents(finished)
    files = sorted(p for p in (finished / "work").rglob("*") if p.is_file())
    assert {"plan.json", "start.json", "normalisation.json", "a.json", "0.json"} <= {p.name for p in files}
    for file in files:
        content = file.read_bytes()
        if how == "lost":
            file.unlink()
        else:  # an odd number of zeros, which is no text in any encoding
            harmed = {"cut": content[: len(content) // 2], "empty": b"", "zeros": bytes(len(content) // 2 * 2 + 1)}
            file.write_bytes(harmed[how])
        assert run(config(finished.parent, "out")).exit_status == 0, file
        assert contents(finished) == before, file


# Other inputs


def square(path: Path, x1: int) -> None:
    """Regions: everything left of x1."""
    ring = [[0, 0], [x1, 0], [x1, 500], [0, 500], [0, 0]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))


def test_edited_regions_count(tmp_path: Path) -> None:
    """Regions edited in place give the result of a fresh run with them, and no network runs again."""
    write_slides(tmp_path, {"a": field()})
    regions = {"input": {"regions": str(tmp_path / "r.geojson")}}
    square(tmp_path / "r.geojson", 500)
    run(config(tmp_path, "out", model=counting(tmp_path), **regions, **KEPT))
    everything = labels_of(tmp_path / "out", "a").max()
    square(tmp_path / "r.geojson", 60)
    run(config(tmp_path, "out", model=counting(tmp_path), **regions, **KEPT))
    run(config(tmp_path, "fresh", **regions))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert 0 < labels_of(tmp_path / "out", "a").max() < everything
    assert set(counts(tmp_path, "a").values()) == {1}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_changed_chunk_counts(tmp_path: Path, version: str) -> None:
    """One pixel changed in an OME-Zarr image, whose metadata stays as it is: its network runs again."""
    write_slides(tmp_path, {"a": field()})
    pixels = tifffile.imread(tmp_path / "images" / "a.tif")
    (tmp_path / "images" / "a.tif").unlink()
    write_ome_zarr(tmp_path / "images" / "a.zarr", version, [pixels], {"axes": "yx"})
    settings = config(tmp_path, "out", model=counting(tmp_path), input={"scale": 1.0})
    for _ in range(2):
        run(settings)
        assert set(counts(tmp_path, "a").values()) == {1}
    zarr.open_array(tmp_path / "images" / "a.zarr" / "0", mode="r+")[100, 140] = 255 - pixels[100, 140]
    run(settings)
    assert set(counts(tmp_path, "a").values()) == {2}


def test_a_vanished_input_is_told(tmp_path: Path) -> None:
    """Before results of an input that is gone are removed, a note names it; of inputs still there none is."""
    write_slides(tmp_path, {"a": field(), "b": field(seed=2)})
    told: list[Event] = []
    run(config(tmp_path, "out"), told.append)
    run(config(tmp_path, "out"), told.append)
    assert not [e for e in told if isinstance(e, RunNote) and "no longer" in e.text]
    (tmp_path / "images" / "b.tif").unlink()
    run(config(tmp_path, "out"), told.append)
    [note] = [e.text for e in told if isinstance(e, RunNote) and "no longer" in e.text]
    assert note.startswith("b: ")
    assert "removed" in note


def test_a_larger_neighbour_undoes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide so large that alone it would be cut otherwise joins: finished slides stay as they are, not run again."""
    monkeypatch.setattr(planning, "MOST_BLOCKS", 20)
    monkeypatch.setattr(planning, "LARGE_PX", 100_000)
    automatic = {"model": counting(tmp_path), "tiling": {"core_px": "auto"}}
    write_slides(tmp_path, {"a": field()})
    run(config(tmp_path, "out", **automatic))
    before = contents(tmp_path / "out")
    first = read_plan(tmp_path / "out" / "work")
    write_slides(tmp_path, {"b": field((400, 420))})
    alone = batch.plan(config(tmp_path, "other", **automatic)).planned.plan
    assert (alone.block_cells, alone.tiles) != (first.block_cells, first.tiles)
    assert run(config(tmp_path, "out", **automatic)).done == 2
    assert set(counts(tmp_path, "a").values()) == {1}
    assert of(contents(tmp_path / "out"), "a") == of(before, "a")


@pytest.mark.parametrize("empty", [True, False])
def test_a_receipt_proves_nothing_of_finished_slides(tmp_path: Path, empty: bool) -> None:
    """A start that passed over a finished slide leaves no receipt that proves it done once it must be done again."""
    write_slides(tmp_path, {"a": field()})
    run(config(tmp_path, "out"))
    write_slides(tmp_path, {"b": field((60, 70)) * (not empty)})  # of the same tasks as a
    run(config(tmp_path, "out", **KEPT))
    changed = {"decode": {"min_area_px": 2}}
    assert run(config(tmp_path, "out", **changed, **KEPT)).exit_status == 0
    run(config(tmp_path, "fresh", **changed))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_an_interrupted_start_proves_nothing_of_finished_slides(tmp_path: Path) -> None:
    """A finished slide, another that joins it, an interrupt, other settings: the result is that of a fresh run."""
    write_slides(tmp_path, {"a": field()})
    run(config(tmp_path, "out"))
    write_slides(tmp_path, {"b": field((60, 70))})
    with pytest.MonkeyPatch.context() as patch:
        interrupt_before("decode", patch)
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path, "out"))
    changed = {"decode": {"min_area_px": 2}}
    assert run(config(tmp_path, "out", **changed)).exit_status == 0
    run(config(tmp_path, "fresh", **changed))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


# Other settings


@pytest.mark.parametrize(("first_px", "second_px"), [(256, 64), (64, 128)])
def test_kept_maps_of_other_patches_do_not_count(tmp_path: Path, first_px: int, second_px: int) -> None:
    """Maps kept with one patch size are laid out anew for another, and the result is that of a fresh run."""
    write_slides(tmp_path, {"a": field((200, 280))})
    run(config(tmp_path, "out", tiling={"patch_px": first_px}, **KEPT))
    run(config(tmp_path, "out", tiling={"patch_px": second_px}, **KEPT))
    run(config(tmp_path, "fresh", tiling={"patch_px": second_px}))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    maps = open_array(tmp_path / "out" / "work" / "maps" / "a.zarr")
    assert (maps.shards or maps.chunks)[-2:] == read_plan(tmp_path / "out" / "work").block


@pytest.mark.parametrize("stage", ["maps", "infer", "decode"])
def test_an_interrupted_run_goes_on_with_other_patches(tmp_path: Path, stage: str) -> None:
    """A run interrupted before any stage and given again with another patch size gives a fresh run's result."""
    write_slides(tmp_path, {"a": field((200, 280))})
    with pytest.MonkeyPatch.context() as patch:
        interrupt_before(stage, patch)
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path, "out", tiling={"patch_px": 256}))
    run(config(tmp_path, "out", tiling={"patch_px": 64}))
    run(config(tmp_path, "calm", tiling={"patch_px": 64}))
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")


@pytest.mark.parametrize("second", ["oracle_detections", "small_unet"])
def test_another_kind_of_network_takes_over(tmp_path: Path, second: str) -> None:
    """A folder with maps kept of one network is gone on with by another, of either family, as if it were fresh."""
    write_slides(tmp_path, {"a": field()})
    run(config(tmp_path, "out", **KEPT))
    settings = {"truth": str(tmp_path / "truth")} if second.startswith("oracle") else {}
    other = {"model": {"name": second, "settings": settings}, "input": {"scale": 1.0}, "tiling": {"patch_px": 128}}
    assert run(config(tmp_path, "out", **other, **KEPT)).exit_status == 0
    run(config(tmp_path, "fresh", **other))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_the_reach_of_tissue_knows_no_patches(tmp_path: Path) -> None:
    """A blob larger than the largest nucleus, only partly in tissue, ends at the same pixels for any patch size."""
    y, x = np.indices((400, 400))
    truth = ((y - 200) ** 2 + (x - 200) ** 2 < 180**2).astype(np.int32)
    write_slides(tmp_path, {"a": truth})
    rng = np.random.default_rng(1)
    image = (20 + rng.integers(0, 6, truth.shape)).astype(np.uint8)
    image[180:220, 180:220] = np.where(rng.random((40, 40)) > 0.5, 200, 90)
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    found = {}
    for patch_px in (64, 96, 256):
        sections = {"tissue": {"enabled": "on", "dilate_um": 1.0}, "tiling": {"patch_px": patch_px}}
        run(config(tmp_path, f"patch{patch_px}", **sections))
        found[patch_px] = labels_of(tmp_path / f"patch{patch_px}", "a")
        np.testing.assert_array_equal(found[patch_px], found[64])
    assert 0 < int((found[64] > 0).sum()) < int(truth.sum()), "the reach of tissue did not end inside the blob"


def test_a_blob_beyond_the_size_limit_is_never_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds max_area_px goes without a window of its own; nuclei cut by tiles are as one tile finds them."""
    truth = np.zeros((500, 520), np.int32)
    truth[20:460, 20:400] = 1  # a fold over many tiles
    for name, y in enumerate(range(10, 480, 24), 2):
        truth[y : y + 16, 430:500] = name  # nuclei across the line between two tiles
    write_slides(tmp_path, {"a": truth})
    one = {"tiling": {"core_px": 1024}, "decode": {"max_area_px": 5000}}
    run(config(tmp_path, "one", **one))
    real, areas = seams.decode_dense, []

    def seen(maps: Any, box: Box, spec: Any) -> Any:
        areas.append(box.area)
        return real(maps, box, spec)

    monkeypatch.setattr(seams, "decode_dense", seen)
    run(config(tmp_path, "tiles", **{**one, "tiling": {"core_px": 96}}))
    assert contents(tmp_path / "tiles") == contents(tmp_path / "one")
    assert labels_of(tmp_path / "tiles", "a").max() == truth.max() - 1
    assert areas, "no nucleus was cut"
    assert max(areas) < 440 * 380 / 4


@given(
    centre=st.tuples(st.floats(-30, 130), st.floats(-30, 170)),
    side=st.floats(1, 40),
    cell=st.tuples(st.integers(10, 90), st.integers(10, 90)),
)
def test_every_detection_has_one_cell(centre: tuple[float, float], side: float, cell: tuple[int, int]) -> None:
    """Wherever a detection is centred, beyond the slide's edge too, exactly one of the cells keeps it."""
    shape = (100, 140)
    low, high = np.array(centre) - side / 2, np.array(centre) + side / 2
    box = np.concatenate([low, high]).astype(np.float32)[None]
    found = Detections(box, np.ones(1, np.float32), np.full((1, 28, 28), 255, np.uint8))
    assert sum(len(centred(found, c, shape)) for c in parts(shape, cell)) == 1


@pytest.mark.parametrize("stage", ["paint", "table"])
def test_what_a_killed_worker_had_begun_to_write_is_gone_at_the_end(tmp_path: Path, stage: str) -> None:
    """Where a worker dies and another does its task, what it had written aside stays no longer than the run."""
    write_slides(tmp_path, {"a": touching_field((90, 120), 20, np.random.default_rng(5))})

    def leave(event: Event) -> None:
        if isinstance(event, StageEnded) and event.stage == stage:
            for folder in ("work", "labels.zarr/a"):
                (tmp_path / "out" / folder / ".a.0123.partial").write_bytes(b"half")

    assert run(config(tmp_path, "out"), leave).exit_status == 0
    assert not list((tmp_path / "out").rglob("*.partial"))
