"""A training keeps its time limit: it stops at a checkpoint, says so, and the same command ends it as ever."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import torch

from slidebatch.deadline import LEAVING_S, VARIABLE, Deadline
from slidebatch.errors import ConfigError, EnvironmentFault, OutOfTime
from slidebatch.training import loop, train
from slidebatch.training.limits import EPOCH, SCORE, gpu_memory
from slidebatch.training.loop import CHECKPOINT, Told
from tests.conftest import ROOT
from tests.support.training_sets import settings, write_set
from tests.test_training_loop import assert_same_end, command, write_config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def limited(patch: pytest.MonkeyPatch, left_s: float) -> Deadline:
    """A deadline that trainings of this process keep."""
    limit = Deadline(time.time() + left_s)
    patch.setattr(loop, "deadline", lambda walltime_s: limit)
    return limit


@pytest.mark.long
def test_a_training_stops_before_its_limit_and_resumes(dataset, tmp_path):
    """Near its limit it ends by itself, status 1, "resumable", an epoch kept whole; given again it ends the same."""
    spec = settings(dataset, tmp_path / "limited", epochs=16, steps_per_epoch=25, score_every=3)
    config, limit_s, epochs = write_config(tmp_path / "c.yaml", spec), 6.0, [0]
    while True:
        words, environment = command(config, **{VARIABLE: str(time.time() + LEAVING_S + limit_s)})
        ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        if ended.returncode == 0:
            break
        assert ended.returncode == 1, ended.stderr
        [sentence] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert "the training is resumable: give the same command again" in sentence
        kept = tmp_path / "limited" / CHECKPOINT
        epochs.append(torch.load(kept)["epoch"] if kept.exists() else 0)
        assert f"stopped after epoch {epochs[-1]} of 16" in sentence
        limit_s *= 1.4  # a busy machine needs longer to come to its first epoch
    assert len(epochs) > 1, "there was time for all of it"
    assert epochs == sorted(epochs)
    straight = train(config, [f"output={tmp_path / 'straight'}"])
    assert straight.read_bytes() == (tmp_path / "limited" / straight.name).read_bytes()


def test_no_epoch_is_begun_that_would_not_end(dataset, tmp_path, monkeypatch):
    """Once an epoch has taken longer than is left, no other is begun; what it made is kept, and it is gone on with."""
    spec = settings(dataset, tmp_path / "limited", epochs=3, score_every=1)
    limit, steps = limited(monkeypatch, 50_000), list[int]()

    def tell(told: Told) -> None:
        steps.append(told.step)
        if told.row is not None:
            limit.saw(EPOCH, 100_000.0)

    with pytest.raises(OutOfTime, match=r"after epoch 1 of 3: .* takes up to 10000\d\.\d s; the training is resumable"):
        loop.run(spec, tell)
    assert torch.load(tmp_path / "limited" / CHECKPOINT)["epoch"] == 1
    assert max(steps) == spec.steps_per_epoch
    monkeypatch.undo()
    assert_same_end(loop.run(spec), loop.run(settings(dataset, tmp_path / "calm", epochs=3, score_every=1)))


def test_scores_take_time_too(dataset, tmp_path, monkeypatch):
    """An epoch after which the held-out images are scored needs time for both; one without needs its own alone."""
    spec = settings(dataset, tmp_path, epochs=6, score_every=3)
    limit = limited(monkeypatch, 50_000)
    limit.saw(SCORE, 100_000.0)
    with pytest.raises(OutOfTime, match="after epoch 2 of 6"):
        loop.run(spec)


def test_without_time_nothing_is_begun(dataset, tmp_path, monkeypatch):
    """A limit that has passed stops before the first step; a training that has ended does not mind."""
    monkeypatch.setenv(VARIABLE, str(time.time() - 1))
    spec = settings(dataset, tmp_path, epochs=1)
    with pytest.raises(OutOfTime, match="after epoch 0 of 1: 0 s are left before the time limit; the training"):
        loop.run(spec)
    assert not (tmp_path / CHECKPOINT).exists()
    monkeypatch.delenv(VARIABLE)
    loop.run(spec)
    monkeypatch.setenv(VARIABLE, str(time.time() - 1))
    assert loop.run(spec).epoch == 1


def test_the_first_epoch_of_a_start_is_always_begun(dataset, tmp_path, monkeypatch):
    """Epochs of an earlier start, perhaps on a slower machine, keep nobody from trying."""
    spec = settings(dataset, tmp_path, epochs=2)
    limit = limited(monkeypatch, 50_000)
    with pytest.raises(OutOfTime):
        loop.run(spec, lambda told: limit.saw(EPOCH, 100_000.0) if told.row else None)
    limited(monkeypatch, 50_000)
    assert loop.run(spec).epoch == 2


def test_a_limit_that_is_no_time_is_refused(dataset, tmp_path, monkeypatch):
    """A deadline that is no number is refused before anything is read."""
    monkeypatch.setenv(VARIABLE, "tomorrow")
    with pytest.raises(ConfigError, match="expected seconds since the epoch"):
        loop.run(settings(dataset, tmp_path))


def test_a_full_gpu_ends_a_training_with_a_sentence(dataset, tmp_path, monkeypatch):
    """Memory that runs out names the batch to make smaller; a GPU that fails is told as that. By torch's exceptions."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. (a stand-in)")

    spec = settings(dataset, tmp_path)
    monkeypatch.setattr(loop, "step", full)
    with pytest.raises(EnvironmentFault, match=f"no room for a batch of {spec.batch}; set a smaller batch"):
        loop.run(spec)
    with pytest.raises(EnvironmentFault, match="the GPU failed"), gpu_memory(spec):
        raise RuntimeError("CUDA error: unspecified launch failure")


@pytest.mark.long
def test_two_processes_stop_together(dataset, tmp_path):
    """Under torchrun all processes stop at the same epoch, and its checkpoint is there."""
    spec = settings(dataset, Path(tmp_path / "two"), batch=4, epochs=100_000, steps_per_epoch=2, score_every=100_000)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    at = time.time() + LEAVING_S + 45
    words, environment = command(
        write_config(tmp_path / "c.yaml", spec), CUDA_VISIBLE_DEVICES="", **{VARIABLE: str(at)}
    )
    words[1:2] = launch
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 1, ended.stderr[-3000:]
    told = [line for line in ended.stderr.splitlines() if "the training is resumable" in line]
    assert told, ended.stderr[-3000:]
    assert len({line[line.index("stopped after") : line.index(" of 100000")] for line in told}) == 1
    if "epoch 0" not in told[0]:
        assert f"epoch {torch.load(tmp_path / 'two' / CHECKPOINT)['epoch']} " in told[0]
