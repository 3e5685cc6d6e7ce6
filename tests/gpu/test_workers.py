"""Networks on a GPU: a whole run by LocalCUDACluster, the same nuclei as on a CPU, memory that runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from slidebatch import models
from slidebatch.config import RunConfig
from slidebatch.errors import EnvironmentFault
from slidebatch.metrics import f1
from slidebatch.models.spec import ModelSpec
from slidebatch.results import open_results
from slidebatch.sample import write_sample
from tests.support.runs import contents, run

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A made-up slide that a trained network finds nuclei in."""
    return write_sample("tissue", tmp_path_factory.mktemp("sample"))


def settings(tissue: Any, folder: Path, name: str, **sections: Any) -> RunConfig:
    values: dict[str, Any] = {
        "input": dict(tissue.input),
        "model": {"name": "small_unet", **sections.pop("model", {})},
        "output": {"path": str(folder / name)},
        **sections,
    }
    return RunConfig.model_validate(values)


def test_a_worker_per_gpu_gives_the_same_bytes_as_one_process(tissue: Any, tmp_path: Path) -> None:
    """LocalCUDACluster, with and without CPU workers besides, and a serial run on the GPU: the same files."""
    pytest.importorskip("dask_cuda", reason="dask-cuda is not installed: slidebatch[cuda]")
    on_gpu = {"device": "cuda"}
    ways = {
        "serial": {"kind": "serial"},
        "alone": {"kind": "cuda", "cpu_workers": 0},
        "besides": {"kind": "cuda", "cpu_workers": 2},
    }
    for name, cluster in ways.items():
        assert run(settings(tissue, tmp_path, name, model=on_gpu, cluster=cluster)).exit_status == 0
        assert contents(tmp_path / name) == contents(tmp_path / "serial"), name


@pytest.mark.parametrize(("precision", "least_f1"), [("float32", 0.995), ("bfloat16", 0.98)])
def test_a_gpu_finds_the_nuclei_of_a_cpu(tissue: Any, tmp_path: Path, precision: str, least_f1: float) -> None:
    """At IoU 0.9 the nuclei of a GPU, in float32 and by autocast, are those of a CPU in float32."""
    run(settings(tissue, tmp_path, "cpu", model={"device": "cpu", "precision": "float32", "engine": "eager"}))
    run(settings(tissue, tmp_path, "gpu", model={"device": "cuda", "precision": precision}))
    pictures = []
    for name in ("gpu", "cpu"):
        results = open_results(tmp_path / name)
        pictures.append(np.asarray(results.labels(results.slides["slide"][0])))
    assert pictures[1].max() > 50
    assert f1(*pictures, iou=0.9) >= least_f1


def test_the_ledger_tells_how_busy_the_gpu_was(tissue: Any, tmp_path: Path) -> None:
    """Seconds in the network and of waiting for patches are told, and are no more than the stage took."""
    run(settings(tissue, tmp_path, "out", model={"device": "cuda"}))
    [row] = pq.read_table(tmp_path / "out" / "summary.parquet").to_pylist()
    assert row["network_s"] > 0
    assert row["network_s"] + row["wait_s"] <= row["seconds_infer"]


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    """With little memory left on the GPU a batch of 64 patches is halved and every patch answered."""
    network = models.load(ModelSpec(name="small_unet", device="cuda", batch=64), "cuda")
    free, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2e9) / whole))
    try:
        patches = np.random.default_rng(0).random((64, network.card.channels, 768, 768), np.float32)
        found = network.maps(patches, ())  # type: ignore[union-attr]
        assert network.halvings > 0  # type: ignore[union-attr]
        assert len(found) == 64
        with pytest.raises(EnvironmentFault, match=r"set tiling\.patch_px to"):
            network.maps(np.zeros((1, network.card.channels, 8192, 8192), np.float32), ())  # type: ignore[union-attr]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert free
