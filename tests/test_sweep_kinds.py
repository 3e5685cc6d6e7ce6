"""Laws of what points are worth: a training's own scores, a run's, and decoded maps that are made once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slidebatch import allocator
from slidebatch.config import read as read_config
from slidebatch.sample import write_sample
from slidebatch.sweep import SweepSpec, ask, begin, open_sweep, run_job
from slidebatch.sweep.collect import collect
from slidebatch.sweep.decoding import maps_key
from slidebatch.training import TrainSpec, train
from slidebatch.training.dataset import load, split
from tests.conftest import ROOT
from tests.support.oracle import disks
from tests.support.runs import config, run, write_slides
from tests.support.sweeps import read, results, start

TINY = ["set={data: {path: sample/training, holdout: 0.34}, sampling.crop_px: 32, epochs: 1, steps_per_epoch: 2, "
        "score_every: 1, threads: 1, loaders: 0, batch: 2, calibrate: false, precision: float32}"]  # fmt: skip


def test_the_quick_sweep(tmp_path, monkeypatch):
    """conf/sweep/quick.yaml from begin to report: every point has weights whose own training gives the same bytes."""
    monkeypatch.chdir(tmp_path)
    sets = [w for o in [*TINY, "output.path=mine", "points_per_job=4"] for w in ("--set", o)]
    words = [*sets, "--set", "grid.network.settings.widths=[[4, 4]]"]
    command = start("sweep", "conf/sweep/quick.yaml", *words, cwd=tmp_path)
    out, err = command.communicate(timeout=300)
    assert command.returncode == 0, (err, [p.read_text() for p in Path("mine/logs").glob("*")])
    assert "2 of 2 points done" in out
    found = collect("mine")
    assert found.measure == "score.held_out"
    assert list(found.table["optimiser.learning_rate"]) == [3e-3, 1e-2]
    assert found.table["score.held_out"].between(0, 1).all()
    assert (found.table["score.epochs"] == 1).all()
    assert (found.table["cost.peak_bytes"] > 5e7).all()
    sweep = open_sweep("mine")
    point = sweep.points[1]
    kept = sweep.place(point) / "training" / "small_unet.safetensors"
    alone = train(str(sweep.base_file), [*point.overrides, "output=alone"])
    assert alone.read_bytes() == kept.read_bytes()
    assert found.table["score.loss"].notna().all()


def test_the_training_sample_is_a_training_set(tmp_path):
    """Its images and labels are read as a training set, with nuclei on every image."""
    sample = write_sample("training", tmp_path / "t")
    assert sample.truth == tmp_path / "t" / "labels"
    spec = TrainSpec.model_validate({"output": "x", "data": {"path": str(sample.folder), "holdout": 0.34}})
    parts = split(spec.data, 0)
    examples = load(spec.data, [*parts.fit, *parts.held])
    assert len(parts.held) >= 1
    assert len(examples) == 5
    for example in examples:
        assert example.labels.max() >= 40
        inside = example.labels > 0
        assert example.image[:, inside].mean() > 2 * example.image[:, ~inside].mean()


def test_trained_weights_are_judged_by_a_run(tmp_path, monkeypatch):
    """With score.run a training's weights are run on images with truth, and judged on the subset alone."""
    monkeypatch.chdir(tmp_path)
    truths = {name: disks((64, 64), seed=i) for i, name in enumerate("abc")}
    write_slides(tmp_path, truths)
    (tmp_path / "ids.txt").write_text("a\nc\n")
    (tmp_path / "run.yaml").write_text(
        config(tmp_path, "nowhere", model={"name": "small_unet", "settings": {}}).model_dump_json()
    )
    values = {
        "kind": "train",
        "base": "conf/train/small_unet.yaml",
        "sample": "training",
        "set": read_config(SweepSpec, "conf/sweep/quick.yaml", TINY).set,
        "grid": {"network.settings.widths": [[4, 4]]},
        "score": {"run": "run.yaml", "truth": "truth", "subset": "ids.txt", "set": {"input.scale": 1}},
        "output": {"path": "s", "keep": False},
    }
    sweep = begin(ask(read(values)))
    assert run_job("s", 0).done == 1, results(sweep)
    found = results(sweep)[0]
    assert found["metrics"]["images"] == 2
    assert found["metrics"]["truth"] == sum(int(truths[i].max()) for i in "ac")
    assert 0 <= found["metrics"]["dsb"] <= 1
    assert {"held_out", "loss", "epochs"} <= set(found["metrics"])
    assert not list(Path("s/points").iterdir())


def decode_sweep(folder, **more):
    """A sweep over decode settings of the oracle's maps, whose drops make scores differ."""
    settings = config(folder, "unused", model={"settings": {"truth": str(folder / "truth"), "jitter": 0.5, "seed": 1}})
    (folder / "run.yaml").write_text(settings.model_dump_json())
    values = {
        "kind": "decode",
        "base": str(folder / "run.yaml"),
        "grid": {"decode.min_area_px": [1, 60, 150], "decode.grow_px": [0, 4]},
        "score": {"truth": str(folder / "truth")},
        "output": {"path": str(folder / "s")},
        "points_per_job": 3,
        **more,
    }
    return begin(ask(read(values)))


@pytest.fixture
def slides(tmp_path):
    truths = {name: disks((100, 120), seed=i) for i, name in enumerate("ab")}
    return write_slides(tmp_path, truths)


def test_decode_points_share_one_run_and_score_as_runs_do(slides):
    """The network runs once for all points and jobs, and each point's score is that of a run with its settings."""
    sweep = decode_sweep(slides)
    assert [run_job(sweep.folder, index).done for index in range(2)] == [3, 3]
    assert len(list((sweep.folder / "maps").iterdir())) == 1
    settings = read({"kind": "run", **{k: v for k, v in _asked(sweep).items() if k != "kind"}})
    runs = begin(ask(settings))
    for index in range(2):
        run_job(runs.folder, index)
    maps, whole = results(sweep), results(runs)
    assert len({found["metrics"]["dsb"] for found in maps.values()}) > 1
    for i in range(6):
        for measure in ("dsb", "ap50", "f1", "seg", "pq", "aji"):
            assert maps[i]["metrics"][measure] == pytest.approx(whole[i]["metrics"][measure], abs=1e-12)


def _asked(sweep):
    """The sweep's own config with another folder."""
    told = json.loads((sweep.folder / "sweep.json").read_text())["spec"]
    return told | {"output": {"path": str(sweep.folder) + "_runs"}}


def test_networks_run_once_for_each_setting_they_depend_on(slides):
    """Two models, two runs; a killed run of the network is gone on with by whoever needs it next."""
    grid = {"model.settings.jitter": [0.0, 0.9], "decode.min_area_px": [1, 200]}
    sweep = decode_sweep(slides, grid=grid, points_per_job=4)
    assert run_job(sweep.folder, 0).done == 4
    stamps = {p: p.stat().st_mtime_ns for p in (sweep.folder / "maps").glob("*/manifest.json")}
    assert len(stamps) == 2
    assert [results(sweep)[i]["facts"]["maps"] for i in range(4)] == [
        *[results(sweep)[0]["facts"]["maps"]] * 2,
        *[results(sweep)[2]["facts"]["maps"]] * 2,
    ]
    sweep.result(sweep.points[3]).unlink()
    assert run_job(sweep.folder, 0).done == 4
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_the_key_of_maps_is_what_networks_depend_on(slides):
    """Decode settings, names, workers and tiles share maps; input, model, patches and tissue do not."""
    base = config(slides, "out")
    same = [{"decode": {"grow_px": 9}}, {"name": "n"}, {"cluster": {"workers": 3}}, {"tiling": {"core_px": 128}}]
    assert {maps_key(config(slides, "other", **more)) for more in same} == {maps_key(base)}
    others = [
        {"model": {"settings": {"truth": "t", "drop": 0.1}}},
        {"tiling": {"patch_px": 128}},
        {"tissue": {"enabled": "on"}},
    ]
    keys = {maps_key(config(slides, "out", **more)) for more in others}
    assert len(keys) == 3
    assert maps_key(base) not in keys


def test_a_decode_sweep_without_truth_says_so(slides):
    """A sweep of kind decode whose images have no truth fails with what is missing."""
    sweep = decode_sweep(slides, score={}, grid={"decode.grow_px": [1]})
    assert run_job(sweep.folder, 0).failed == 1
    assert "needs the true nuclei" in results(sweep)[0]["error"]


def test_a_decode_sweep_of_detections_is_refused(slides):
    """A network without class maps says which kind of sweep to take."""
    grid = {"model.name": ["oracle_detections"]}
    sweep = decode_sweep(slides, grid=grid, score={"truth": str(slides / "truth")})
    assert run_job(sweep.folder, 0).failed == 1
    assert "take a sweep of kind run" in results(sweep)[0]["error"]


def test_a_run_is_worth_its_scores(slides):
    """A point of kind run has the scores of its results folder and counts its inputs; a broken one is counted."""
    (slides / "images" / "broken.tif").write_bytes(b"II*\0")
    settings = config(slides, "unused")
    (slides / "run.yaml").write_text(settings.model_dump_json())
    values = {
        "kind": "run",
        "base": str(slides / "run.yaml"),
        "grid": {"decode.min_area_px": [1]},
        "score": {"truth": str(slides / "truth")},
        "output": {"path": str(slides / "s")},
    }
    sweep = begin(ask(read(values)))
    assert run_job(sweep.folder, 0).done == 1
    metrics = results(sweep)[0]["metrics"]
    assert (metrics["inputs_done"], metrics["inputs_failed"]) == (2, 1)
    assert metrics["f1"] == pytest.approx(1.0)
    direct = run(config(slides, "direct"))
    assert direct.done == 2


PEAKS = """
import json, sys
import numpy as np
from slidebatch.sweep.cost import metered
told = []
for size in (40_000_000, 1000):
    with metered() as cost:
        np.ones(size)
    told.append([cost.peak_bytes, cost.cpu_s, cost.wall_s])
json.dump(told, sys.stdout)
"""


def test_memory_is_the_peak_of_the_block_alone():
    """A point's peak holds what it took for a moment, and the next one's does not."""
    # In a process of its own, with malloc as it is: an engine that ran in this one has told it to keep memory.
    plain = {k: v for k, v in os.environ.items() if k not in allocator.ENVIRONMENT}
    command = [sys.executable, "-c", PEAKS]
    ended = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    (large, cpu_s, wall_s), (small, *_) = json.loads(ended.stdout)
    assert large > small + 250e6
    assert cpu_s > 0
    assert wall_s > 0
