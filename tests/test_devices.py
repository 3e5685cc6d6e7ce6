"""Where networks run is never decided in silence, and a missing GPU, driver or extra is told apart."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slidebatch import batch
from slidebatch.devices import place
from slidebatch.errors import ConfigError, ModelError
from slidebatch.events import RunNote
from slidebatch.executors.cuda import refuse_without
from slidebatch.executors.spec import ClusterSpec, JobSpec
from slidebatch.models import devices
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
    """auto: cores for cuda, none for jobs; none at all where networks run on CPUs."""
    assert ClusterSpec(kind="cuda").cpu_count(True) >= 1
    assert jobs(1).cpu_count(True) == 0
    assert jobs(1).model_copy(update={"cpu_workers": 3}).cpu_count(True) == 3
    assert jobs(0).model_copy(update={"cpu_workers": 3}).cpu_count(False) == 0
    assert ClusterSpec(cpu_workers=3).cpu_count(True) == 0
