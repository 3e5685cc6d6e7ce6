"""Stages and receipts: what is done stays done, what is damaged is done again, and only what a change touches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import slidebatch
from slidebatch import batch
from slidebatch.errors import ConfigError, LeaseError
from slidebatch.job import open_job
from slidebatch.stages import perform
from slidebatch.store import read_json
from slidebatch.validate import validate
from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides

FAULTY = "tests.support.faulty_oracle"
STAGES = ["prepare", "maps", "infer", "decode", "seams", "paint", "pyramid2", "measure", "table"]
LARGE = (100, 1100)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, one large enough for a level that no single region of its labels makes."""
    rng = np.random.default_rng(5)
    truths = {"a": touching_field(LARGE, 22, rng), "b": touching_field((130, 90), 20, rng)}
    return write_slides(tmp_path_factory.mktemp("slides"), truths)


@pytest.fixture(scope="module")
def interrupted(slides: Path) -> Path:
    """The work folder of a run that was interrupted when all stages had ended, before the manifest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(config(slides, "interrupted"))
    return slides / "interrupted" / "work"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def perform_all(work: Path) -> list[str]:
    """Every task of every stage in order; the stages of those that were done anew."""
    job = open_job(str(work))
    receipts = [
        (stage, perform(str(work), stage, index, "test"))
        for stage in job.plan.stages
        for index in range(len(job.tasks(stage)))
    ]
    assert not any(receipt["failed"] for _, receipt in receipts)
    return [stage for stage, receipt in receipts if receipt["fresh"]]


def outputs(work: Path, stage: str) -> list[Path]:
    """The files of a stage's first task, the largest first; those that zarr left out are not among them."""
    receipt = read_json(work / "receipts" / stage / "0.json")
    files = [work / "receipts" / stage / name for name in receipt["outputs"]]
    return sorted((f.resolve() for f in files if f.exists()), key=lambda f: (-f.stat().st_size, str(f)))


def damage(file: Path, how: str) -> None:
    """Harm a file as a failing disk or a careless hand does."""
    content = file.read_bytes()
    middle = len(content) // 2
    if how == "truncate":
        file.write_bytes(content[:middle])
    elif how == "flip":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])
    else:
        file.unlink()


def test_what_is_done_is_not_done_again(interrupted: Path) -> None:
    """Where every receipt holds, no task of any stage does anything."""
    assert open_job(str(interrupted)).plan.stages == STAGES
    assert perform_all(interrupted) == []


@pytest.mark.parametrize("how", ["truncate", "flip", "remove"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_file_is_made_anew(slides: Path, interrupted: Path, stage: str, how: str) -> None:
    """A shard or chunk cut off, with a flipped bit, or gone: its task is done again and the result is as before."""
    before = contents(slides / "interrupted")
    damage(outputs(interrupted, stage)[0], how)
    assert stage in perform_all(interrupted)
    assert contents(slides / "interrupted") == before
    assert perform_all(interrupted) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_lost_or_foreign_receipt_proves_nothing(slides: Path, interrupted: Path, stage: str) -> None:
    """Without its receipt, or with that of another fingerprint, a task is done again, whatever files are there."""
    before = contents(slides / "interrupted")
    path = interrupted / "receipts" / stage / "0.json"
    path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    assert perform_all(interrupted)[0] == stage
    path.unlink()
    assert perform_all(interrupted)[0] == stage
    assert contents(slides / "interrupted") == before


def counting(folder: Path, **settings: Any) -> dict[str, Any]:
    """The section `model` of an oracle that counts how often it saw each patch."""
    told = {"truth": str(folder / "truth"), "schedule": {}, "counts": str(folder / "counts"), **settings}
    return {"name": FAULTY, "settings": told}


def counts(folder: Path) -> dict[str, int]:
    """How often the network saw each patch."""
    return {p.name: p.stat().st_size for p in (folder / "counts").glob("*")}


def test_other_decoding_spares_the_network(tmp_path: Path) -> None:
    """With the maps kept, another setting of decode or tiles runs no network and equals a fresh run with it."""
    write_slides(tmp_path, {"a": touching_field((130, 150), 20, np.random.default_rng(2))})
    kept = {"output": {"keep_maps": True}}
    assert run(config(tmp_path, "out", model=counting(tmp_path), **kept)).exit_status == 0
    seen = counts(tmp_path)
    assert seen
    assert set(seen.values()) == {1}
    first = contents(tmp_path / "out")
    for number, changed in enumerate([{"decode": {"min_area_px": 250}}, {"tiling": {"core_px": 70}}]):
        assert run(config(tmp_path, "out", model=counting(tmp_path), **kept, **changed)).exit_status == 0
        assert counts(tmp_path) == seen
        run(config(tmp_path, f"fresh{number}", model={"name": "oracle"}, **changed))
        assert contents(tmp_path / "out") == contents(tmp_path / f"fresh{number}")
        assert (contents(tmp_path / "out") != first) == ("decode" in changed)


def test_another_network_runs_again(tmp_path: Path) -> None:
    """Other weights or settings of the network, or another image, run it again: old maps do not count."""
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(2))})
    kept = {"output": {"keep_maps": True}}
    run(config(tmp_path, "out", model=counting(tmp_path), **kept))
    run(config(tmp_path, "out", model=counting(tmp_path, drop=0.5), **kept))
    assert set(counts(tmp_path).values()) == {2}
    image = tifffile.imread(tmp_path / "images" / "a.tif")
    image[3, 4] ^= 1
    tifffile.imwrite(tmp_path / "images" / "a.tif", image, tile=(64, 64))
    run(config(tmp_path, "out", model=counting(tmp_path, drop=0.5), **kept))
    assert set(counts(tmp_path).values()) == {3}


def test_a_wider_reach_around_tissue_runs_again(tmp_path: Path) -> None:
    """Where tissue decides which patches are run, so does the largest nucleus: kept maps count only for their own."""
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(2))})
    shared = {"output": {"keep_maps": True}, "tissue": {"enabled": "on"}, "model": counting(tmp_path)}
    for largest_px in (32, 40, 40):
        run(config(tmp_path, "out", tiling={"largest_px": largest_px}, **shared))
    assert set(counts(tmp_path).values()) == {2}


def test_a_finished_run_given_again_does_nothing(tmp_path: Path) -> None:
    """The same command on a finished folder runs no network and leaves every result as it is."""
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(2))})
    settings = config(tmp_path, "out", model=counting(tmp_path))
    run(settings)
    before = contents(tmp_path / "out")
    assert run(settings).exit_status == 0
    assert set(counts(tmp_path).values()) == {1}
    assert contents(tmp_path / "out") == before


def test_a_removed_slide_disappears(tmp_path: Path) -> None:
    """A slide that the input no longer holds leaves the results; one that came new joins them."""
    rng = np.random.default_rng(3)
    write_slides(tmp_path, {n: touching_field((80, 90), 20, rng) for n in "ab"})
    run(config(tmp_path, "out"))
    (tmp_path / "images" / "b.tif").unlink()
    write_slides(tmp_path, {"c": touching_field((70, 60), 20, rng)})
    assert run(config(tmp_path, "out")).done == 2
    results = slidebatch.open_results(tmp_path / "out")
    assert list(results.slides["slide"]) == ["a", "c"]
    assert set(results.instances()["slide"]) == {"a", "c"}
    assert not any("b" in p.relative_to(tmp_path / "out").parts for p in (tmp_path / "out").rglob("*"))
    assert not (tmp_path / "out" / "instances" / "b.parquet").exists()
    assert validate(tmp_path / "out") == []


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    """A folder that holds other files is refused by name, and nothing in it changes."""
    write_slides(tmp_path, {"a": np.zeros((40, 50), np.int32)})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"out holds files.*set output\.path"):
        run(config(tmp_path, "out"))
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["thesis.txt"]


def test_a_second_run_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """A folder that another process holds is refused with its number, until that process is dead, however it died."""
    write_slides(tmp_path, {"a": np.zeros((40, 50), np.int32)})
    code = (
        "import sys, pathlib, time\nfrom slidebatch.lease import lease\n"
        "with lease(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out" / "work")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(LeaseError, match=f"in use by another process .process {holder.pid} "):
                run(config(tmp_path, "out"))
            assert not (tmp_path / "out" / "manifest.json").exists()
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    assert run(config(tmp_path, "out")).exit_status == 0


def test_an_output_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file where the results should lie is one sentence, and nothing is started."""
    write_slides(tmp_path, {"a": np.zeros((40, 50), np.int32)})
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="out cannot be made"):
        run(config(tmp_path, "out"))


def test_the_manifest_says_what_computed_the_run(tmp_path: Path) -> None:
    """Device, engine and precision stand in the manifest as they were, not as the word auto."""
    write_slides(tmp_path, {"a": np.zeros((40, 50), np.int32)})
    model = {"name": "small_unet", "device": "auto", "engine": "auto", "precision": "auto", "settings": {}}
    run(config(tmp_path, "out", model=model, tiling={"patch_px": "auto", "core_px": "auto"}))
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert told["config"]["model"]["device"] == "auto"
    assert told["computed"]["device"] in ("cpu", "cuda")
    assert told["computed"]["engine"] in ("eager", "openvino")
    assert told["computed"]["precision"] in ("float32", "bfloat16")
    assert (told["computed"]["tta"], told["computed"]["threads"]) == ("none", 1)


@pytest.mark.parametrize("image", ["none", "copy"])
def test_a_blank_slide_is_an_ordinary_result(tmp_path: Path, image: str) -> None:
    """Empty in, empty out: no rows, the usual columns, a valid folder, beside a slide with nuclei."""
    truths = {"a": touching_field((70, 90), 20, np.random.default_rng(1)), "blank": np.zeros((130, 140), np.int32)}
    write_slides(tmp_path, truths)
    outcome = run(config(tmp_path, "out", output={"image": image}))
    assert (outcome.exit_status, outcome.done) == (0, 2)
    results = slidebatch.open_results(tmp_path / "out")
    assert len(results.instances("blank")) == 0
    assert list(results.instances("blank").columns) == list(results.instances("a").columns)
    assert not np.asarray(results.labels("blank")).any()
    assert dict(zip(results.slides["slide"], results.slides["nuclei"] > 0, strict=True)) == {"a": True, "blank": False}
    assert validate(tmp_path / "out") == []


@pytest.mark.parametrize("image", ["none", "copy"])
def test_raster_table_and_counts_agree_for_slides(slides: Path, image: str) -> None:
    """Of slides with and without a copy of the image the judge finds no fault; a copy equals the image."""
    output = f"slides-{image}"
    assert run(config(slides, output, output={"image": image})).exit_status == 0
    assert validate(slides / output) == []
    results = slidebatch.open_results(slides / output)
    assert results.labels("a", level=1).shape == (LARGE[0] // 2, LARGE[1] // 2)
    if image == "copy":
        np.testing.assert_array_equal(results.image("a")[0], tifffile.imread(slides / "images" / "a.tif"))


def test_raster_table_and_counts_agree_for_plates(tmp_path: Path) -> None:
    """Of a plate with several fields a well, a blank one and two channels the judge finds no fault."""
    rng = np.random.default_rng(8)
    (tmp_path / "images").mkdir()
    (tmp_path / "truth").mkdir()
    for place in ("A_01_0", "A_01_1", "B_03_0", "B_03_1"):
        truth = touching_field((90, 80), 20, rng) * (place != "B_03_1")
        for channel in ("1", "2"):
            pixels = np.where(truth > 0, 60 * int(channel), 9).astype(np.uint8)
            tifffile.imwrite(tmp_path / "images" / f"C{channel}-{place}.tif", pixels)
        tifffile.imwrite(tmp_path / "truth" / f"{place}.tif", truth)
    path = {"path": str(tmp_path / "images"), "pattern": "C{channel}-{row}_{column}_{field}.tif", "channels": ["2"]}
    planned = batch.plan(config(tmp_path, "out", input=path)).planned.plan.slides
    for slide, file in zip(planned, sorted((tmp_path / "truth").iterdir()), strict=True):
        file.rename(tmp_path / "truth" / f"{slide.slide}.tif")
    assert run(config(tmp_path, "out", input=path)).exit_status == 0
    assert validate(tmp_path / "out") == []
    results = slidebatch.open_results(tmp_path / "out")
    assert list(results.slides["well"]) == ["A01", "A01", "B03", "B03"]
    table = results.instances()
    assert set(table["mean_1"]) == {60.0}
    assert set(table["mean_2"]) == {120.0}
    assert set(table["well"]) == {"A01", "B03"}
