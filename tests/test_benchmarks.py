"""The benchmarks run: each one's smallest size, and its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = [
    "nms",
    "engine",
    "decoding",
    "merging",
    "memory",
    "kills",
    "inference",
    "training",
    "system_a",
    "pictures",
    "detectors",
]


def benchmark(name: str, *options: str, **more: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_says_what_it_does(name):
    """Each benchmark is a plain command that explains itself."""
    assert "usage:" in benchmark(name, "--help")


@pytest.mark.slow
def test_merging_loses_nothing_on_a_small_field():
    """On a dense touching field nothing is lost, merged, split or invented."""
    told = benchmark("merging", "--quick", "--repeats", "1")
    for fault in ("lost: 0", "invented: 0", "merged: 0", "split: 0"):
        assert fault in told, told


@pytest.mark.slow
def test_detectors_are_costed():
    """A detector's step and answer are timed, and told in a row."""
    told = benchmark("detectors", "--quick", "--repeats", "1").splitlines()
    assert len(told) == 3
    assert told[2].startswith("| as shipped | 4.0 |")


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("engine", ["--repeats", "1"], "engine cost"),
        ("decoding", ["--repeats", "1"], "megapixels/s"),
        ("memory", ["--oracle"], "megabytes"),
        ("kills", [], "identical 2;"),
    ],
)
def test_benchmarks_on_real_images_work_at_their_smallest_size(realdata: Path, name, options, told):
    """Each benchmark on real images runs to its end and prints its figures."""
    assert told in benchmark(name, "--quick", *options, SLIDEBATCH_TEST_DATA=str(realdata))
