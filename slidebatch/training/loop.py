"""The training loop: steps, averaged weights, checkpoints. The same command again resumes it.

Every step depends on the settings, the step's number and the state before it alone, and a checkpoint holds
that state whole; so a training that is killed and started again ends where it would have ended.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from slidebatch.errors import ConfigError
from slidebatch.models.small_unet import Architecture, SmallUNet, class_maps
from slidebatch.training.crops import Batch, Crops
from slidebatch.training.dataset import Example, load, split
from slidebatch.training.score import Forward, held_out_score
from slidebatch.training.spec import TrainSpec

log = logging.getLogger(__name__)


@dataclass
class State:
    """What a checkpoint holds: networks, optimiser, epochs done, the best score so far and its weights."""

    network: SmallUNet
    averaged: SmallUNet
    optimiser: torch.optim.AdamW
    epoch: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] | None = None


def run(spec: TrainSpec) -> State:
    """Train to the last epoch, from the last checkpoint in `spec.output` if there is one."""
    torch.set_num_threads(spec.threads)
    folder = Path(spec.output)
    folder.mkdir(parents=True, exist_ok=True)
    parts = split(spec)
    fit, held = load(spec.dataset, parts.fit), load(spec.dataset, parts.held)
    log.info("fit on %d images, %d held out", len(fit), len(held))
    crops = Crops(fit, spec)
    state = restore(folder / "checkpoint.pt", spec) or begin(spec)
    while state.epoch < spec.epochs:
        started = time.perf_counter()
        loss = epoch(state, crops, spec)
        state.epoch += 1
        row = {"epoch": state.epoch, "loss": loss, "seconds": time.perf_counter() - started}
        if state.epoch % spec.score_every == 0 or state.epoch == spec.epochs:
            row |= keep_best(state, held)
        save_checkpoint(folder / "checkpoint.pt", state, spec)
        append_row(folder / "log.csv", row)
        log.info(" ".join(f"{k} {v:.4g}" for k, v in row.items()))
    return state


def begin(spec: TrainSpec) -> State:
    """The state before the first step."""
    torch.manual_seed(spec.seed)
    network = SmallUNet(Architecture()).to(memory_format=torch.channels_last)
    averaged = SmallUNet(Architecture()).to(memory_format=torch.channels_last)
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), spec.learning_rate, weight_decay=spec.weight_decay)
    return State(network, averaged, optimiser)


def epoch(state: State, crops: Crops, spec: TrainSpec) -> float:
    """One epoch of steps; the mean loss."""
    state.network.train()
    first = state.epoch * spec.steps_per_epoch
    losses = [step(state, crops.batch(k), k, spec) for k in range(first, first + spec.steps_per_epoch)]
    return float(np.mean(losses))


def step(state: State, batch: Batch, number: int, spec: TrainSpec) -> float:
    """One step of the optimiser and of the averaged weights; the loss."""
    images, classes, weights = batch
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(number, spec)
    with torch.autocast("cpu", torch.bfloat16, enabled=spec.precision == "bfloat16"):
        logits = state.network(images)
    loss = loss_of(logits.float(), classes, weights, spec.contour_weight)
    state.optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    average(state, number, spec.ema)
    return float(loss.detach())


def loss_of(logits: Tensor, classes: Tensor, weights: Tensor, contour_weight: float) -> Tensor:
    """Weighted cross-entropy plus soft Dice of nucleus and contour (Milletari et al. 2016, arXiv:1606.04797).

    logits (N, 3, Y, X) float32, classes (N, Y, X) int64, weights (N, Y, X) float32.
    """
    by_class = torch.tensor([1.0, 1.0, contour_weight])
    entropy = (functional.cross_entropy(logits, classes, by_class, reduction="none") * weights).mean()
    chance = logits.softmax(1)[:, 1:]
    wanted = functional.one_hot(classes, logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].float()
    shared = (chance * wanted).sum((0, 2, 3))
    dice = (2 * shared + 1) / (chance.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1)
    return entropy + (1 - dice).mean()


def learning_rate(number: int, spec: TrainSpec) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    total = spec.epochs * spec.steps_per_epoch
    warm = max(1.0, spec.warmup * total)
    if number < warm:
        return spec.learning_rate * (number + 1) / warm
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * (number - warm) / max(1.0, total - warm)))


@torch.no_grad()
def average(state: State, number: int, decay: float) -> None:
    """Move the averaged weights towards the network's; faster at the start, when these are far off."""
    share = 1 - min(decay, (1 + number) / (10 + number))
    for mean, new in zip(state.averaged.state_dict().values(), state.network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, share)
        else:
            mean.copy_(new)


def keep_best(state: State, held: list[Example]) -> dict[str, float]:
    """Score the averaged weights on the held-out images and keep them if they are the best so far."""
    scores = held_out_score(forward_of(state.averaged), held, *reach()) if held else {"all": float(state.epoch)}
    if scores["all"] > state.best_score:
        state.best_score = scores["all"]
        state.best = {k: v.clone() for k, v in state.averaged.state_dict().items()}
    return {f"dsb_{name}": value for name, value in scores.items()}


def reach() -> tuple[int, int]:
    """Margin and stride in pixels of the network that is trained."""
    return Architecture().margin_px, Architecture().stride_px


def forward_of(network: SmallUNet) -> Forward[np.uint8]:
    """The network as a function of arrays, in eval mode."""
    network.eval()
    return lambda patches: class_maps(network, patches)


def logits_of(network: SmallUNet) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """The same before the softmax: (N, 3, Y, X) float32 -> (N, 3, Y, X) float32, background first."""
    network.eval()

    @torch.inference_mode()
    def logits(patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return network(torch.from_numpy(patches)).numpy()

    return logits


# Checkpoints


def save_checkpoint(path: Path, state: State, spec: TrainSpec) -> None:
    """Write the state so that the file is whole or the one before it, also after a power cut."""
    content = {
        "spec": resumable(spec),
        "network": state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "epoch": state.epoch,
        "best_score": state.best_score,
        "best": state.best,
    }
    packed = io.BytesIO()
    torch.save(content, packed)
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        file.write(packed.getvalue())
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def restore(path: Path, spec: TrainSpec) -> State | None:
    """The state of a checkpoint; None if there is none. ConfigError if it was made with other settings."""
    if not path.is_file():
        return None
    content = torch.load(path, weights_only=True)
    if content["spec"] != resumable(spec):
        raise ConfigError(
            f"{path} was made with other settings ({_difference(content['spec'], resumable(spec))}); "
            "give those again to resume, or name another output folder."
        )
    state = begin(spec)
    state.network.load_state_dict(content["network"])
    state.averaged.load_state_dict(content["averaged"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.epoch, state.best_score, state.best = content["epoch"], content["best_score"], content["best"]
    return state


def resumable(spec: TrainSpec) -> str:
    """The settings that a resumed training must share, as JSON: all but where things lie and the threads."""
    return json.dumps(spec.model_dump(exclude={"dataset", "output", "threads"}), sort_keys=True)


def _difference(before: str, now: str) -> str:
    old, new = json.loads(before), json.loads(now)
    return ", ".join(f"{k}: {old.get(k)} there, {new.get(k)} here" for k in new if old.get(k) != new.get(k))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one epoch to the log, a table with the columns epoch, measure, value."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["epoch", "measure", "value"])
        writer.writerows([row["epoch"], name, f"{value:.6g}"] for name, value in row.items() if name != "epoch")
