"""Where networks run is never decided in silence, and a missing GPU, driver or extra is told apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from slidebatch import batch, memory, models, patches, projection
from slidebatch.cores import usable_cores
from slidebatch.devices import place
from slidebatch.errors import ConfigError, ModelError
from slidebatch.events import RunNote
from slidebatch.executors.cuda import Cuda, refuse_without
from slidebatch.executors.spec import ClusterSpec, JobSpec
from slidebatch.executors.wanted import Wanted
from slidebatch.models import devices
from slidebatch.models.engines import Choice, choose
from slidebatch.models.spec import ModelSpec
from slidebatch.overlaps import overlaps
from slidebatch.plan import Plan
from tests.support.fields import touching_field
from tests.support.runs import config, run, write_slides

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    return write_slides(tmp_path, {"a": touching_field((90, 120), 20, np.random.default_rng(1))})


@no_gpu
def test_a_missing_gpu_is_refused_with_what_is_missing(slides: Path) -> None:
    """Kind cuda and device cuda end in one sentence that says what is missing, and nothing is written."""
    with pytest.raises(ConfigError, match=r"cluster\.kind is cuda, but .*; take kind local to run on the CPU") as told:
        run(config(slides, "out", cluster={"kind": "cuda"}))
    assert str(devices.why_no_gpu()) in str(told.value)
    with pytest.raises(ModelError, match="finds no CUDA device here"):
        run(config(slides, "out", model={"device": "cuda"}))
    assert not (slides / "out").exists()


@no_gpu
def test_what_is_missing_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch without CUDA, a missing driver, hidden GPUs and a driver without a GPU are four sentences."""
    told = []
    monkeypatch.setattr(devices, "driver", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told.append(devices.why_no_gpu())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    told.append(devices.why_no_gpu())
    monkeypatch.setattr(devices, "driver", lambda: False)
    told.append(devices.why_no_gpu())
    monkeypatch.setattr(torch.version, "cuda", None)
    told.append(devices.why_no_gpu())
    words = ("hides every GPU", "driver finds no GPU", "no NVIDIA driver is installed", "was built without CUDA")
    for sentence, word in zip(told, words, strict=True):
        assert word in str(sentence) or torch.version.cuda is None
    assert len(set(told)) == 4


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU but without dask-cuda the extra is named."""
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    monkeypatch.setattr("slidebatch.executors.cuda.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"dask-cuda is not installed; install slidebatch\[cuda\]"):
        refuse_without(None)


@no_gpu
def test_auto_says_what_it_took(slides: Path) -> None:
    """A run with device auto tells on what networks run and why; one that names its device says nothing."""
    told: list[object] = []
    run(config(slides, "out"), told.append)
    [note] = [e.text for e in told if isinstance(e, RunNote) and "networks run" in e.text]
    assert note == f"networks run on the CPU (model.device: auto): {devices.why_no_gpu()}"
    assert f"note: {note}" in batch.plan(config(slides, "out")).describe()
    told.clear()
    run(config(slides, "named", model={"device": "cpu"}), told.append)
    assert not [e for e in told if isinstance(e, RunNote)]


def jobs(gpus: int) -> ClusterSpec:
    return ClusterSpec(kind="slurm", workers=2, job=JobSpec(gpus=gpus))


def test_jobs_and_device_must_agree() -> None:
    """A job's GPU and model.device say the same or are refused; this machine's GPU does not matter to jobs."""
    assert place("auto", jobs(1)) == ("cuda", "networks run on the GPU of each job (model.device: auto)")
    assert place("auto", jobs(0)) == ("cpu", "networks run on the CPU of each job (model.device: auto)")
    assert place("cuda", jobs(1)) == ("cuda", None)
    with pytest.raises(ConfigError, match=r"asks for a GPU and model\.device is cpu"):
        place("cpu", jobs(1))
    with pytest.raises(ConfigError, match=r"set cluster\.job\.gpus to 1"):
        place("cuda", jobs(0))
    with pytest.raises(ConfigError, match="leave one of them out"):
        place("cpu", ClusterSpec(kind="cuda"))
    assert place("cuda", ClusterSpec(kind="existing", address="tcp://elsewhere:1")) == ("cuda", None)


def test_workers_without_a_gpu_are_counted_besides() -> None:
    """auto: cores for cuda and local, none for jobs; none at all where networks run on CPUs."""
    assert ClusterSpec(kind="cuda").cpu_count(True) >= 1
    assert ClusterSpec(kind="local").cpu_count(True) >= 1
    assert jobs(1).cpu_count(True) == 0
    assert jobs(1).model_copy(update={"cpu_workers": 3}).cpu_count(True) == 3
    assert jobs(0).model_copy(update={"cpu_workers": 3}).cpu_count(False) == 0
    assert ClusterSpec(kind="local", cpu_workers=3).cpu_count(True) == 3
    assert ClusterSpec(kind="local", cpu_workers=3).cpu_count(False) == 0
    assert ClusterSpec(kind="serial", cpu_workers=3).cpu_count(True) == 0


def test_local_workers_do_not_crowd_a_gpu() -> None:
    """Where networks run on a GPU, local takes one worker for it unless told otherwise; on CPUs as many as cores."""
    assert ClusterSpec(kind="local").count(1, gpu=True) == 1
    assert ClusterSpec(kind="local", workers=3).count(1, gpu=True) == 3
    assert ClusterSpec(kind="local").count(1) == usable_cores()


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind cuda has a GPU for each worker: a number beyond the GPUs is refused, with how many there are."""
    monkeypatch.setattr(models, "why_no_gpu", lambda: None)
    monkeypatch.setattr(models, "gpus", lambda: (devices.Gpu("a GPU", 10**10, "9.0"),))
    monkeypatch.setattr(models, "pick_device", lambda device: device)
    monkeypatch.setattr("slidebatch.executors.cuda.find_spec", lambda name: object())
    assert place("auto", ClusterSpec(kind="cuda", workers=1))[0] == "cuda"
    assert place("cuda", ClusterSpec(kind="cuda")) == ("cuda", None)
    with pytest.raises(ConfigError, match=r"with 2 cluster\.workers.*may use 1; set cluster\.workers to 1 or auto"):
        place("cuda", ClusterSpec(kind="cuda", workers=2))


def test_a_cluster_of_gpus_that_does_not_start_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What dask-cuda says when it starts no worker is passed on in a sentence."""

    class Broken:
        def __init__(self, **settings: object) -> None:
            raise RuntimeError("NVML Shared Library Not Found")

    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=Broken))
    with pytest.raises(ConfigError, match=r"starts no worker \(RuntimeError: NVML Shared Library Not Found\)"):
        Cuda(Wanted(ClusterSpec(kind="cuda"), 1, tmp_path))


class OneGpu:
    """What a GPU tells of itself, in place of torch's own functions."""

    def __init__(self, patch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability[0] >= 8)


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((9, 0), "bfloat16")]
)
def test_auto_takes_what_a_gpu_multiplies_fastest(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    """bfloat16 where a GPU has it, float16 where it has only that, float32 where it has neither; never OpenVINO."""
    OneGpu(monkeypatch, capability)
    assert choose("auto", "auto", "cuda", False) == Choice("eager", precision)  # type: ignore[arg-type]
    assert choose("auto", "float16", "cuda", False).precision == "float16"
    if precision != "bfloat16":
        with pytest.raises(ModelError, match="this cuda has no instructions for it; use float16 or float32"):
            choose("auto", "bfloat16", "cuda", False)


def test_float16_is_for_gpus() -> None:
    """float16 on a CPU is refused, and auto never takes it there."""
    with pytest.raises(ModelError, match="float16, which only GPUs compute in"):
        models.settle(ModelSpec(precision="float16"), "cpu")
    assert models.settle(ModelSpec(), "cpu").precision in ("float32", "bfloat16")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan of two small slides for a small network, on a CPU."""
    folder = tmp_path_factory.mktemp("planned")
    write_slides(folder, {n: touching_field((900, 1200), 20, np.random.default_rng(1)) for n in "ab"})
    model = {"name": "small_unet", "settings": {}, "device": "cpu"}
    return batch.plan(config(folder, "out", model=model, tiling={"patch_px": 1024})).planned.plan


def test_memory_of_a_gpu_s_worker_is_its_own_sum(planned: Plan) -> None:
    """A GPU's worker needs no room for activations but for patches in pinned memory; others of the run need neither."""
    gpu = replace(planned, device="cuda")
    on_cpu, on_gpu = projection.project(planned, 1).worker, projection.project(gpu, 1).worker
    assert on_gpu.infer != on_cpu.infer
    assert (on_gpu.decode, on_gpu.paint, on_gpu.peak_besides) == (on_cpu.decode, on_cpu.paint, on_cpu.peak_besides)
    patch_px = planned.patches.patch[0] * planned.patches.patch[1]
    assert on_gpu.infer > 8 * patch_px * 3 * 4 * (overlaps("cuda").reads + 1)
    larger = replace(gpu, model=gpu.model.model_copy(update={"batch": 64}))
    grown = projection.project(larger, 1).worker.infer - on_gpu.infer
    assert 56 * patch_px * 12 * 3 < grown < 56 * patch_px * memory.ACTIVATION_PER_PX


@pytest.mark.parametrize(("fits", "chosen"), [(lambda side: True, 1536), (lambda side: side < 1400, 1024)])
def test_shapes_that_do_not_fit_a_gpu_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, fits: Callable[[int], bool], chosen: int
) -> None:
    """Of the shapes that are timed, one whose batch must be halved is not taken; memory is given back at the end."""
    given: list[str] = []

    class Timed:
        halvings = 0
        card = models.card(ModelSpec())

        def maps(self, patches: Any, places: Any) -> None:
            if not fits(patches.shape[2]):
                self.halvings += 1

    monkeypatch.setattr(models, "load", lambda model, device: Timed())
    monkeypatch.setattr(models, "give_back", given.append)
    monkeypatch.setattr(patches, "_pass_s", lambda network, patch, places: network.maps(patch, places) or 1.0)
    cells = [(side, side) for side in (768, 1024, 1536)]
    model = ModelSpec(batch=2)
    assert patches._timed(model, Timed.card, "cuda", cells, [(30_000, 30_000)]) == (chosen, chosen)
    assert given == ["cuda"]
