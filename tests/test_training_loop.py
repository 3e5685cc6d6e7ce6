"""Laws of the training loop: a resume changes nothing, every setting trains, several processes are as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from slidebatch import models
from slidebatch.errors import ConfigError, LeaseError, SlidebatchError
from slidebatch.lease import lease
from slidebatch.models import SHIPPED, networks
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import read_tensors
from slidebatch.training import loop, train
from slidebatch.training.dataset import split
from slidebatch.training.spec import TrainSpec
from slidebatch.training.state import begin
from tests.conftest import ROOT
from tests.support.training_sets import PLAIN, STILL, settings, write_folders, write_set

DROPOUT = {"settings": {"widths": [4, 8], "dropout": 0.3}}
NETWORKS = {
    "simple_conv": {"widths": [4, 4], "dropout": 0.2},
    "small_unet": {"widths": [4, 8]},
    "small_unet_dense": {"widths": [4, 8], "patch_px": [32, 32], "overlap_px": 4, "squeezed": 2, "hidden": 8},
    "unet": {"widths": [4, 8], "activation": "selu", "dropout": 0.1, "norm": "none"},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def write_config(path: Path, spec: TrainSpec) -> str:
    """A config file (JSON is YAML) of these settings; its path."""
    path.write_text(json.dumps(spec.model_dump(mode="json")))
    return str(path)


def command(config: str, **more: str) -> tuple[list[str], dict[str, str]]:
    """The command that trains, and its environment."""
    return [sys.executable, "-m", "slidebatch", "train", config], {**os.environ, "OMP_NUM_THREADS": "1", **more}


def rows(state) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in state.rows]


def assert_same_end(one, other) -> None:
    """Two trainings ended with the same bits: weights, averages, best weights, log."""
    assert rows(one) == rows(other)
    assert (one.epoch, one.best_score, one.since_best, one.falls) == (
        *(other.epoch, other.best_score, other.since_best, other.falls),
    )
    for a, b in ((one.network, other.network), (one.averaged, other.averaged)):
        assert all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())
    assert all(torch.equal(one.best[k], v) for k, v in other.best.items())


class Stop(Exception):
    """Raised by a listener to end a training as an interruption would."""


def interrupted(spec: TrainSpec, steps: int) -> None:
    """Train until a step is done, and stop there."""

    def tell(told: loop.Told) -> None:
        if told.step == steps and told.row is None:
            raise Stop

    with pytest.raises(Stop):
        loop.run(spec, tell)


# Resuming


@pytest.mark.parametrize("network", [{}, DROPOUT], ids=["plain", "dropout"])
@pytest.mark.parametrize("sampling", [{"kind": "crops", "crop_px": 32}, "grid"], ids=["crops", "grid"])
def test_resumed_training_ends_the_same(network, sampling, dataset, tmp_path):
    """Stopped in its second and in its third epoch, each time in the middle, it ends with the same bits and log."""
    if sampling == "grid":
        sampling = {"kind": "grid", "image_px": (64, 64), "images": 12, "divisions": 2}
    more = {"network": network, "sampling": sampling, "schedule": {"name": "plateau", "patience": 1}, "score_every": 1}
    straight = loop.run(settings(dataset, tmp_path / "a", **more))
    stopped = settings(dataset, tmp_path / "b", **more)
    interrupted(stopped, 3)
    interrupted(stopped, 5)
    assert_same_end(loop.run(stopped), straight)
    assert_same_end(loop.run(stopped), straight)  # finished: nothing is done again


def test_killed_training_ends_the_same(dataset, tmp_path):
    """A training killed with all its processes goes on from its checkpoint, and its weights are the same bytes."""
    spec = settings(dataset, tmp_path / "killed", epochs=6, loaders=1, score_every=3)
    config, log = write_config(tmp_path / "tiny.yaml", spec), (tmp_path / "log").open("w")
    words, environment = command(config)
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=log, start_new_session=True)
    checkpoint, started = tmp_path / "killed" / "checkpoint.pt", time.monotonic()
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() - started < 120:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert 1 <= torch.load(checkpoint)["epoch"] < 6  # after the first checkpoint, before the end
    assert not list((tmp_path / "killed").glob("*.safetensors"))
    weights = train(config)
    straight = train(config, [f"output={tmp_path / 'straight'}", "loaders=0"])
    assert weights.read_bytes() == straight.read_bytes()
    logs = [pd.read_parquet(p.parent / "log.parquet").drop(columns="seconds") for p in (weights, straight)]
    pd.testing.assert_frame_equal(*logs)
    assert len(logs[0]) == 6


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"epochs": 5}, "epochs: 1 there, 5 here"),
        ({"data": {"holdout": 0.2}}, r"data\.holdout: 0\.3 there, 0\.2 here"),
        ({"network": {"settings": {"widths": (4, 4)}}}, r"network\.settings\.widths: \[4, 8\] there, \[4, 4\] here"),
        ({"augment": {"gamma": (1, 2)}}, r"augment\.gamma: \[0\.6, 1\.6\] there"),
        ({"data": {"mix": {"fluorescence": 1.0}}}, r"data\.mix\.fluorescence: None there, 1\.0 here"),
    ],
)
def test_other_settings_do_not_resume(dataset, tmp_path, more, told):
    """A checkpoint made with other settings is refused, and the setting that differs is named."""
    loop.run(settings(dataset, tmp_path, epochs=1))
    with pytest.raises(ConfigError, match=told):
        loop.run(settings(dataset, tmp_path, **{"epochs": 1, **more}))


def test_where_things_lie_may_change(dataset, tmp_path):
    """Another path of the same data and another number of loaders do not keep a training from going on."""
    loop.run(settings(dataset, tmp_path / "out", epochs=1))
    dataset.rename(dataset.with_name("moved"))
    try:
        moved = settings(dataset.with_name("moved"), tmp_path / "out", epochs=1, loaders=1, name="other")
        assert loop.run(moved).epoch == 1
    finally:
        dataset.with_name("moved").rename(dataset)


# What is fitted, and how


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_and_runs(name, dataset, tmp_path):
    """Each network takes a step and leaves weights that the engine loads and that answer as they were left."""
    assert set(NETWORKS) == set(networks.NETWORKS)
    more = {"epochs": 1, "steps_per_epoch": 1, "calibrate": False, "ema": 0}
    spec = settings(dataset, tmp_path, network={"name": name, "settings": NETWORKS[name]}, **more)
    path = train(write_config(tmp_path / "c.yaml", spec))
    loaded = models.load(ModelSpec(weights=str(path), engine="eager", precision="float32"))
    side = 4 * loaded.card.stride_px
    patch = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    trained = loop.run(spec).network.eval()
    with torch.inference_mode():
        chance = trained(torch.from_numpy(patch)).softmax(1)[:, 1:]
    assert np.abs(loaded.maps(patch).astype(float) - (255 * chance).numpy()).max() <= 1
    begun = begin(spec, torch.device("cpu")).network.state_dict()
    assert any(not torch.equal(v, begun[k]) for k, v in trained.state_dict().items() if k.endswith("weight"))


@pytest.mark.parametrize("name", ["simple_conv", "small_unet_dense"])
@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_the_loss_falls(name, optimiser, dataset, tmp_path):
    """Some steps on easy images lower the loss by a fifth, with every optimiser."""
    fast = {"name": optimiser, "learning_rate": 0.1 if optimiser == "sgd" else 0.03}
    more = {"augment": {**STILL, **PLAIN}, "data": {"mix": {"fluorescence": 1.0}}, "epochs": 1}
    network = {"name": name, "settings": NETWORKS[name]}
    spec = settings(dataset, tmp_path, steps_per_epoch=40, batch=4, optimiser=fast, network=network, **more)
    losses: list[float] = []
    loop.run(spec, lambda told: None if told.row or told.note else losses.append(told.loss))
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_early_stop(dataset, tmp_path):
    """A training that gets no better stops after as many scores, and stays stopped."""
    still = {"optimiser": {"learning_rate": 1e-30, "weight_decay": 0}, "ema": 0, "score_every": 1}
    spec = settings(dataset, tmp_path, epochs=20, steps_per_epoch=1, stop_after=3, **still)
    state = loop.run(spec)
    assert (state.epoch, state.since_best) == (4, 3)
    assert state.stopped(spec)
    assert loop.run(spec).epoch == 4


def test_gradients_are_clipped(dataset, tmp_path):
    """With plain SGD a step moves all weights together by the learning rate times `clip` at most."""
    sgd = {"name": "sgd", "learning_rate": 1.0, "momentum": 0, "weight_decay": 0, "clip": 1e-3}
    more = {"epochs": 1, "steps_per_epoch": 1, "schedule": {"name": "constant", "warmup": 0}}
    spec = settings(dataset, tmp_path, optimiser=sgd, network={"settings": {"widths": (4, 8), "norm": "none"}}, **more)
    before = dict(begin(spec, torch.device("cpu")).network.named_parameters())
    after = loop.run(spec).network.named_parameters()
    moved = torch.stack([(v - before[k]).square().sum() for k, v in after]).sum().sqrt()
    assert float(moved.detach()) == pytest.approx(1e-3, rel=0.01)


def test_training_goes_on_from_given_weights(dataset, tmp_path):
    """`network.start` fills the network before the first step."""
    first = settings(dataset, tmp_path / "a", epochs=1, calibrate=False, ema=0)
    path = train(write_config(tmp_path / "a.yaml", first))
    network = {"start": str(path), **first.model_dump(mode="json")["network"]}
    second = begin(settings(dataset, tmp_path / "b", network={**network, "start": str(path)}), torch.device("cpu"))
    for key, tensor in loop.run(first).averaged.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[key])


def test_float16_is_refused_on_a_cpu(dataset, tmp_path):
    """Half precision trains on GPUs; on a CPU the settings are refused before anything is read."""
    with pytest.raises(ConfigError, match="float16 trains on a GPU only"):
        loop.run(settings(dataset, tmp_path, precision="float16", device="cpu"))


def test_bfloat16_trains(dataset, tmp_path):
    """In bfloat16 weights stay float32, and the loss is near that of float32."""
    more = {"epochs": 1, "augment": {**STILL, **PLAIN}}
    half, full = (loop.run(settings(dataset, tmp_path / p, precision=p, **more)) for p in ("bfloat16", "float32"))
    assert {v.dtype for v in half.network.parameters()} == {torch.float32}
    assert half.rows[0]["loss"] == pytest.approx(full.rows[0]["loss"], rel=0.05)
    assert half.rows[0]["loss"] != full.rows[0]["loss"]


def test_an_endless_loss_is_an_error(dataset, tmp_path):
    """A training that leaves all bounds ends with a sentence that says what to lower."""
    wild = {"name": "sgd", "learning_rate": 1e30, "clip": None}
    network = {"settings": {"widths": (4, 8), "norm": "none"}}
    with pytest.raises(SlidebatchError, match=r"lower optimiser\.learning_rate") as told:
        loop.run(settings(dataset, tmp_path, optimiser=wild, network=network, schedule={"warmup": 0}))
    assert told.value.exit_status == 1  # something was done


def test_images_without_nuclei_are_refused_first(dataset, tmp_path):
    """A training set without any nucleus is told before the first step."""
    blank = write_folders(tmp_path / "blank", {n: np.zeros((40, 40), np.int32) for n in "abc"})
    steps: list[int] = []
    with pytest.raises(ConfigError, match="hold no nucleus"):
        loop.run(settings(blank, tmp_path / "out", data={"holdout": 0}), lambda told: steps.append(told.step))
    assert steps == []


def test_only_images_that_are_there_are_counted(dataset, tmp_path):
    """What is told at the start are the images in memory; one that is broken does not count."""
    notes: list[str] = []
    broken = write_set(tmp_path / "set")
    spec = settings(broken, tmp_path / "out", epochs=1)
    whole = [*split(spec.data, spec.seed).fit]
    (broken / "images" / f"{whole[0]}.png").write_bytes(b"no picture")
    loop.run(spec, lambda told: notes.append(told.note))
    assert notes[0].startswith(f"{len(whole) - 1} images to learn from")
    notes.clear()
    loop.run(spec, lambda told: notes.append(told.note))
    assert notes == ["the training has ended after 1 epochs: its weights are written again"]


def test_an_output_folder_has_one_training(dataset, tmp_path):
    """A folder that another training holds, or that cannot be made, is refused in one sentence."""
    config = write_config(tmp_path / "a.yaml", settings(dataset, tmp_path / "out"))
    with lease(tmp_path / "out" / "work"), pytest.raises(LeaseError, match="in use by another process"):
        train(config)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output: .*file cannot be made"):
        train(write_config(tmp_path / "b.yaml", settings(dataset, tmp_path / "file")))


def test_what_is_no_checkpoint_is_refused(dataset, tmp_path):
    """A file of torch's that no training wrote is told apart."""
    torch.save({"a": torch.zeros(1)}, tmp_path / loop.CHECKPOINT)
    with pytest.raises(ConfigError, match="is no checkpoint of a training"):
        loop.run(settings(dataset, tmp_path))


@pytest.mark.parametrize(
    ("name", "sampling", "told"),
    [
        ("unet", {"kind": "crops", "crop_px": 33}, r"33 x 33 px .*multiples of 2 px\."),
        ("unet", {"kind": "grid", "image_px": (66, 66), "images": 3, "divisions": 2}, r"33 x 33 px .*multiples of 2"),
        ("small_unet_dense", {"kind": "crops", "crop_px": 64}, "64 x 64 px .*multiples of 24 px, or make them 32 x 32"),
    ],
)
def test_crops_that_do_not_fit_the_network_are_refused(name, sampling, told, dataset, tmp_path):
    """Crops of a size that the network does not take are refused before the first step, with the sizes it takes."""
    with pytest.raises(ConfigError, match=told):
        loop.run(settings(dataset, tmp_path, sampling=sampling, network={"name": name, "settings": NETWORKS[name]}))


# Several processes


def test_two_processes_train_as_one(dataset, tmp_path):
    """Under torchrun two processes share each batch, and leave the weights that one leaves, once."""
    network = {"settings": {"widths": (4, 8), "norm": "none"}}
    more = {"network": network, "loss": {"dice": 0}, "batch": 4, "optimiser": {"name": "sgd", "learning_rate": 0.05}}
    spec = settings(dataset, tmp_path / "two", score_every=3, **more)
    config = write_config(tmp_path / "c.yaml", spec)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words, environment = command(config, CUDA_VISIBLE_DEVICES="")
    words[1:2] = launch
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stderr.count("epoch 2:") == 1
    names = sorted(p.name for p in (tmp_path / "two").iterdir())
    assert names == ["checkpoint.pt", "curves.png", "log.csv", "log.parquet", "unet.json", "unet.safetensors", "work"]
    both = torch.load(tmp_path / "two" / "checkpoint.pt")
    one = loop.run(settings(dataset, tmp_path / "one", score_every=3, **more))
    begun = begin(spec, torch.device("cpu")).network.state_dict()
    for key, tensor in one.network.state_dict().items():
        torch.testing.assert_close(both["network"][key], tensor, rtol=1e-4, atol=1e-6)
        assert (tensor - begun[key]).abs().max() > 1e-4


def test_a_training_starts_from_shipped_weights_by_name(dataset, tmp_path):
    """`network.start: small_unet` is the file that ships."""
    state = begin(
        settings(dataset, tmp_path, network={"name": "small_unet", "settings": {}, "start": "small_unet"}),
        torch.device("cpu"),
    )
    shipped = read_tensors(SHIPPED / "small_unet.safetensors")
    assert all(torch.equal(v, shipped[k]) for k, v in state.network.state_dict().items())
    with pytest.raises(ConfigError, match=r"network\.start: no_such is neither shipped nor a \.safetensors file"):
        begin(
            settings(dataset, tmp_path, network={"name": "small_unet", "settings": {}, "start": "no_such"}),
            torch.device("cpu"),
        )


def test_only_the_first_process_exports(dataset, tmp_path, monkeypatch):
    """Of several processes only the first writes weights."""
    config = write_config(tmp_path / "c.yaml", settings(dataset, tmp_path / "out", epochs=1, calibrate=False))
    path = train(config)
    path.unlink()
    monkeypatch.setenv("RANK", "1")
    assert train(config) is None
    assert not path.exists()
    monkeypatch.setenv("RANK", "0")
    assert train(config).exists()


def test_a_batch_must_be_shared_evenly(dataset, tmp_path, monkeypatch):
    """A batch that the processes cannot share is refused with both numbers."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="batch: 2 crops cannot be shared by 4 processes"):
        loop.run(settings(dataset, tmp_path))
