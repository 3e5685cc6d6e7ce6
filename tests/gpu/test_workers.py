"""Runs on a GPU: by LocalCUDACluster, by local workers, in one process; the same bytes, and the nuclei of a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from slidebatch import batch, classmaps, doctor, executors, models
from slidebatch.events import RunNote
from slidebatch.metrics import f1
from slidebatch.overlaps import Overlaps
from slidebatch.results import open_results
from slidebatch.store import read_json
from slidebatch.validate import validate
from tests.support.runs import contents, run

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ON_GPU = {"device": "cuda"}


def has_dask_cuda() -> None:
    pytest.importorskip("dask_cuda", reason="dask-cuda is not installed: slidebatch[cuda]")


def picture(results: Path) -> np.ndarray:
    """The label image of the one slide."""
    opened = open_results(results)
    return np.asarray(opened.labels(opened.slides["slide"][0]))


@pytest.fixture
def serial(settings: Any, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run in one process, on the GPU."""
    assert run(settings("serial", model=ON_GPU)).exit_status == 0
    return contents(tmp_path / "serial")


def test_a_worker_per_gpu_gives_the_same_bytes_as_one_process(
    settings: Any, tmp_path: Path, serial: dict[str, bytes]
) -> None:
    """LocalCUDACluster, with and without CPU workers besides, and a serial run on the GPU: the same files."""
    has_dask_cuda()
    for name, cpu_workers in (("alone", 0), ("besides", 2)):
        cluster = {"kind": "cuda", "cpu_workers": cpu_workers}
        assert run(settings(name, model=ON_GPU, cluster=cluster)).exit_status == 0
        assert contents(tmp_path / name) == serial, name
        assert validate(tmp_path / name) == []


def test_a_local_worker_on_the_gpu_gives_the_same_bytes(
    settings: Any, tmp_path: Path, serial: dict[str, bytes]
) -> None:
    """Kind local runs networks in one worker on the GPU and all else in others, without dask-cuda."""
    config = settings("local", cluster={"kind": "local", "cpu_workers": 2})
    costs = batch.plan(config).costs
    assert (costs.workers, costs.cpu_workers) == (1, 2)
    told: list[object] = []
    assert run(config, told.append).exit_status == 0
    assert contents(tmp_path / "local") == serial
    [note] = [e.text for e in told if isinstance(e, RunNote) and "networks run" in e.text]
    assert note == f"networks run on the GPU (model.device: auto): {torch.cuda.get_device_name(0)}"


def test_workers_have_a_gpu_each(tmp_path: Path) -> None:
    """As many workers as GPUs, each with another one first, and bound to cores."""
    has_dask_cuda()
    spec = executors.ClusterSpec(kind="cuda", cpu_workers=0)
    executor = executors.start(executors.Wanted(spec, spec.count(1, gpu=True), tmp_path, gpu=True))
    try:
        seen = executor.client.run(visible)  # type: ignore[attr-defined]
        assert len(seen) == torch.cuda.device_count()
        assert len({first for first, _ in seen.values()}) == len(seen)
        assert all(cores > 0 for _, cores in seen.values())
    finally:
        executor.close()


def visible() -> tuple[str, int]:
    """A worker's first GPU, and how many cores it is bound to."""
    import os

    return os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0], len(os.sched_getaffinity(0))


def test_overlapping_changes_no_bit(
    settings: Any, tmp_path: Path, serial: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing read ahead and nothing stored behind, the files are the same."""
    monkeypatch.setattr(classmaps, "overlaps", lambda device: Overlaps())
    run(settings("in turn", model=ON_GPU))
    assert contents(tmp_path / "in turn") == serial


@pytest.mark.parametrize(("precision", "least_f1"), [("float32", 0.995), ("bfloat16", 0.98), ("float16", 0.99)])
def test_a_gpu_finds_the_nuclei_of_a_cpu(settings: Any, tmp_path: Path, precision: str, least_f1: float) -> None:
    """At IoU 0.9 the nuclei of a GPU, in float32 and in 16 bits, are those of a CPU in float32."""
    run(settings("cpu", model={"device": "cpu", "precision": "float32", "engine": "eager"}))
    run(settings("gpu", model={"device": "cuda", "precision": precision}))
    pictures = [picture(tmp_path / name) for name in ("gpu", "cpu")]
    assert pictures[1].max() > 50
    assert f1(*pictures, iou=0.9) >= least_f1
    told = read_json(tmp_path / "gpu" / "manifest.json")["computed"]
    assert (told["device"], told["engine"], told["precision"]) == ("cuda", "eager", precision)


def test_the_ledger_tells_how_busy_the_gpu_was(settings: Any, tmp_path: Path) -> None:
    """The GPU's seconds by its own clock are some, and no more than its stage took; waits are told beside them."""
    run(settings("out", model=ON_GPU))
    [row] = pq.read_table(tmp_path / "out" / "summary.parquet").to_pylist()
    assert 0 < row["network_s"] <= row["seconds_infer"]
    assert 0 <= row["wait_s"] <= row["seconds_infer"]
    assert 0 <= row["store_s"] <= row["seconds_infer"]
    assert row["batch_halvings"] == 0


def test_auto_times_shapes_and_leaves_the_gpu_to_the_workers(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`patch_px: auto` times shapes on the GPU, and what that took is given back."""
    monkeypatch.setattr("slidebatch.patches.TIMED_FROM_PX", 0)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    plan = batch.plan(settings("auto", model=ON_GPU, tiling={"patch_px": "auto"})).planned.plan
    assert plan.device == "cuda"
    assert torch.cuda.memory_reserved() - before < 100e6


def test_doctor_names_the_gpu_and_its_driver(tmp_path: Path) -> None:
    """doctor finds every GPU, with its memory, its capability and the version of the driver."""
    found = {f.name: f for f in doctor.examine(tmp_path)}
    assert "CUDA" in found["machine: torch"].found
    for i in range(torch.cuda.device_count()):
        told = found[f"machine: GPU {i}"]
        assert told.state == "fine"
        assert torch.cuda.get_device_name(i) in told.found
        assert f"driver {models.driver_version()}" in told.found
    assert models.driver_version() is not None
    assert models.why_no_gpu() is None
