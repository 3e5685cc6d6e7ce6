"""Training on a GPU: every precision, a resume, and a checkpoint that goes on elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from slidebatch import models
from slidebatch.models.spec import ModelSpec
from slidebatch.training import loop, train
from slidebatch.training.loop import CHECKPOINT, Told
from tests.support.training_sets import settings, write_set
from tests.test_training_loop import Stop, write_config

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def on_gpu(dataset: Path, output: Path, **more: Any) -> Any:
    return settings(dataset, output, **{"device": "cuda", "batch": 4, "steps_per_epoch": 6, **more})


@pytest.mark.parametrize("loaders", [0, 2])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_an_epoch_trains_and_its_weights_run(dataset: Path, tmp_path: Path, precision: str, loaders: int) -> None:
    """In every precision an epoch moves the weights, which stay float32; what it leaves runs on GPU and CPU alike."""
    spec = on_gpu(dataset, tmp_path / "out", precision=precision, loaders=loaders, epochs=1, calibrate=False)
    path = train(write_config(tmp_path / "c.yaml", spec))
    assert path is not None
    state = loop.run(spec)
    assert {v.dtype for v in state.network.parameters()} == {torch.float32}
    assert {v.device.type for v in state.network.parameters()} == {"cuda"}
    assert math.isfinite(state.rows[0]["loss"])
    for device in ("cuda", "cpu"):
        made = models.load(ModelSpec(weights=str(path), engine="eager", precision="float32"), device)
        assert made.card.family == "dense"


def test_a_stopped_training_resumes_on_the_gpu(dataset: Path, tmp_path: Path) -> None:
    """Stopped in the middle of its second epoch it goes on from the first one's checkpoint; losses are those of a
    training that never stopped, to rounding."""
    straight = loop.run(on_gpu(dataset, tmp_path / "a", score_every=1))
    spec = on_gpu(dataset, tmp_path / "b", score_every=1)

    def tell(told: Told) -> None:
        if told.step == 9 and told.row is None:
            raise Stop

    with pytest.raises(Stop):
        loop.run(spec, tell)
    assert torch.load(tmp_path / "b" / CHECKPOINT)["epoch"] == 1
    resumed = loop.run(spec)
    assert resumed.epoch == straight.epoch == 3
    assert [row["epoch"] for row in resumed.rows] == [1, 2, 3]
    for one, other in zip(resumed.rows, straight.rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)


def test_a_checkpoint_of_a_gpu_goes_on_on_a_cpu(dataset: Path, tmp_path: Path) -> None:
    """Who does the work may change: a training that a GPU began a CPU ends."""
    spec = on_gpu(dataset, tmp_path, epochs=2)

    def tell(told: Told) -> None:
        if told.row is not None and told.row["epoch"] == 1:
            raise Stop

    with pytest.raises(Stop):
        loop.run(spec, tell)
    state = loop.run(spec.model_copy(update={"device": "cpu"}))
    assert state.epoch == 2
    assert {v.device.type for v in state.network.parameters()} == {"cpu"}


def test_a_gpu_learns_what_a_cpu_learns(dataset: Path, tmp_path: Path) -> None:
    """The loss of the first epoch is that of a CPU from the same start and the same crops, in float32."""
    rows = [
        loop.run(on_gpu(dataset, tmp_path / device, device=device, epochs=1)).rows[0]["loss"]
        for device in ("cuda", "cpu")
    ]
    assert rows[0] == pytest.approx(rows[1], rel=0.02)
