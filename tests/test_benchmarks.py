"""The benchmarks run: each one's smallest size, and its help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = [
    *(
        "nms",
        "engine",
        "decoding",
        "merging",
        "memory",
        "kills",
        "chaos",
        "inference",
        "training",
        "system_a",
        "pictures",
    ),
    *("tasks", "gpu", "executors", "sweep_decoding", "measuring", "reading", "exporting", "detectors"),
]
INSIDE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", *([] if os.geteuid() == 0 else ["--map-root-user"])]
"""How chaos begins: a mount of its own."""


def benchmark(name: str, *options: str, **more: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_says_what_it_does(name):
    """Each benchmark is a plain command that explains itself."""
    assert "usage:" in benchmark(name, "--help")


@pytest.mark.long
def test_merging_loses_nothing_on_a_small_field():
    """On a dense touching field nothing is lost, merged, split or invented."""
    told = benchmark("merging", "--quick", "--repeats", "1")
    for fault in ("lost: 0", "invented: 0", "merged: 0", "split: 0"):
        assert fault in told, told


def may_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*INSIDE, "true"]).returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not may_mount(), reason="a disk that fills up needs a mount")
def test_a_dozen_mixed_faults_leave_the_undisturbed_result(tmp_path: Path):
    """Kills of workers, driver and scheduler, exceptions, cut files, a full disk: the same bytes, nothing done twice.

    The same command again finds that nothing is missing and tells the same.
    """
    command = ["chaos", "--quick", "--oracle", "--folder", str(tmp_path)]
    told = benchmark(*command)
    assert "tasks begun again after they were done 0" in told, told
    kept = (tmp_path / "chaos.json").read_text()
    faults = Counter(event["fault"] for one in json.loads(kept)["rounds"] for event in one["events"])
    asked = {"worker": 4, "scheduler": 1, "driver": 2, "exception": 2, "cut at rest": 1, "cut in a stage": 1, "disk": 1}
    assert all(faults[fault] >= least for fault, least in asked.items()), faults
    assert told.splitlines()[-1] == benchmark(*command).splitlines()[-1]
    assert (tmp_path / "chaos.json").read_text() == kept


@pytest.mark.long
@pytest.mark.parametrize("batch", ["plate", "slide"])
def test_tasks_are_measured_at_the_smallest_size(batch: str):
    """Either batch runs to its end by either executor, with as many tasks as asked for, and tells its figures."""
    told = benchmark("tasks", "--quick", "--batch", batch)
    ends = [line for line in told.splitlines() if "ms a task (bar 5)" in line]
    assert len(ends) == 2
    assert all(int(line.split()[0]) >= 200 for line in ends)


@pytest.mark.long
def test_detectors_are_costed():
    """A detector's step and answer are timed, and told in a row."""
    told = benchmark("detectors", "--quick", "--repeats", "1").splitlines()
    assert len(told) == 3
    assert told[2].startswith("| as shipped | 4.0 |")


@pytest.mark.long
def test_questions_to_a_large_result_are_answered_in_full():
    """A small result is opened and one column read in a process of its own, and its rows are all there."""
    told = benchmark("reading", "--quick", "--repeats", "1")
    assert "| 20 fields of 100 nuclei | one column | 2000 |" in told
    assert "| a slide of 2000 nuclei | one column | 2000 |" in told


@pytest.mark.long
def test_every_format_is_measured_at_the_smallest_size():
    """A made-up slide is exported to every format, in a process each."""
    told = benchmark("exporting", "--quick", "--repeats", "1")
    assert "16384 nuclei" in told
    for name in ("geojson", "csv", "coco", "dsb", "ome-tiff", "ngff04"):
        assert f"| {name} | all |" in told


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("engine", ["--repeats", "1"], "engine cost"),
        ("decoding", ["--repeats", "1"], "megapixels/s"),
        ("memory", ["--oracle"], "megabytes"),
        ("kills", [], "identical 2;"),
        ("measuring", ["--repeats", "1"], "nuclei/s"),
        ("sweep_decoding", ["--repeats", "1"], "4 points over one point and 4 decodings"),
    ],
)
def test_benchmarks_on_real_images_work_at_their_smallest_size(realdata: Path, name, options, told):
    """Each benchmark on real images runs to its end and prints its figures."""
    assert told in benchmark(name, "--quick", *options, SLIDEBATCH_TEST_DATA=str(realdata))


def gpu_sh(*options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command that measures a GPU, on a machine that shows none."""
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **more}
    command = [str(ROOT / "benchmarks" / "gpu.sh"), *options]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=600)


def test_measuring_a_gpu_is_refused_without_one(tmp_path: Path) -> None:
    """Without a GPU the command says what is missing, with status 2, before it makes or fetches anything."""
    ended = gpu_sh("--folder", str(tmp_path / "made"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: no GPU to measure: ")
    assert "--device cpu --quick tries the script" in ended.stderr
    assert list(tmp_path.iterdir()) == []
    absent = gpu_sh(PYTHON=str(tmp_path / "python"))
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "there is no such program" in absent.stderr


@pytest.mark.long
def test_measuring_a_gpu_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Out of time it keeps what is measured, status 1; given again it measures the rest alone, and shows all tables."""
    options = ("--device", "cpu", "--quick", "--folder", str(tmp_path))
    late = gpu_sh(*options, SLIDEBATCH_DEADLINE=str(time.time() - 1))
    assert late.returncode == 1
    assert "measurements are missing: give the same command again" in late.stderr
    assert not list(tmp_path.glob("measured-*.json"))
    whole = gpu_sh(*options)
    assert whole.returncode == 0, whole.stderr[-3000:]
    for told in ("* torch: ", "* driver: ", "* commit: ", "network alone", "engine, float32", "GPU-busy", "| auto | "):
        assert told in whole.stdout
    [kept] = tmp_path.glob("measured-*.json")
    told = json.loads(kept.read_text())
    lost = next(name for name in told["measured"] if name.startswith("copies|"))
    kept.write_text(json.dumps({**told, "measured": {k: v for k, v in told["measured"].items() if k != lost}}))
    again = gpu_sh(*options)
    assert again.returncode == 0
    assert [line.split(": ")[0] for line in again.stderr.splitlines()] == [lost]
    assert len(json.loads(kept.read_text())["measured"]) == len(told["measured"])
