"""Detectors on a GPU: the nuclei of a CPU, half precision, memory that runs out, and a training that resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slidebatch import models
from slidebatch.errors import EnvironmentFault
from slidebatch.geometry import Box
from slidebatch.models.protocol import Place
from slidebatch.models.spec import ModelSpec
from slidebatch.training import loop
from tests.support.detectors import TINY, shown, write
from tests.support.oracle import disks
from tests.support.training_sets import settings, write_set

HERE = [Place("a", Box(0, 0, 128, 128))]


def patch() -> np.ndarray:
    return shown(disks((128, 128), seed=1)).numpy()


def test_a_gpu_finds_what_a_cpu_finds(tmp_path: Path) -> None:
    """In float32 the surest detections of both lie within a hundredth of a pixel, scores and masks alike."""
    path = write(tmp_path, proposals=20_000)
    found = [
        models.load(ModelSpec(weights=path, precision="float32"), device).detect(patch(), HERE)[0]  # type: ignore[union-attr]
        for device in ("cpu", "cuda")
    ]
    sure = [d.box[:20] for d in found]
    apart = np.abs(sure[0][:, None] - sure[1][None]).max(axis=2).min(axis=1)
    assert np.median(apart) < 0.01
    assert np.abs(found[0].score[:20] - found[1].score[:20]).max() < 1e-3


def test_half_precision_on_a_gpu(tmp_path: Path) -> None:
    """Where the GPU has bfloat16, answers keep their types, and a patch alone gets the answer it gets among others."""
    spec = ModelSpec(weights=write(tmp_path), precision="bfloat16")
    network = models.load(spec, "cuda")
    together = network.detect(np.concatenate([patch()] * 3), HERE * 3)  # type: ignore[union-attr]
    assert together[0].box.dtype == np.float32
    for found in together[1:]:
        np.testing.assert_array_equal(found.box, together[0].box)
        np.testing.assert_array_equal(found.mask, together[0].mask)


def test_a_patch_too_large_is_told(tmp_path: Path) -> None:
    """A patch that does not fit the GPU's memory ends in one sentence that names `tiling.patch_px`."""
    network = models.load(ModelSpec(weights=write(tmp_path)), "cuda")
    whole = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 1e9) / whole))
    try:
        huge = np.zeros((1, 3, 16384, 16384), np.float32)
        with pytest.raises(EnvironmentFault, match=r"set tiling\.patch_px to less than 16384"):
            network.detect(huge, [Place("a", Box(0, 0, 16384, 16384))])  # type: ignore[union-attr]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_training_resumes_on_a_gpu(tmp_path: Path) -> None:
    """An epoch on the GPU, and another one by the same command; losses are finite and weights move."""
    folder = write_set(tmp_path / "set")
    more = {"network": {"name": "mask_rcnn", "settings": TINY}, "sampling": {"kind": "crops", "crop_px": 64}}
    spec = settings(folder, tmp_path / "out", device="cuda", precision="auto", epochs=2, **more)

    def stop(told: loop.Told) -> None:
        if told.step == 3 and told.row is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(spec, stop)
    state = loop.run(spec)
    assert state.epoch == 2
    assert all(np.isfinite(row["loss"]) for row in state.rows)
