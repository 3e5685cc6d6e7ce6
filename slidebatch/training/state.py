"""What a training has reached, and its checkpoint: whole, or the one before it, also after a power cut."""

from __future__ import annotations

import copy
import io
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from slidebatch.errors import ConfigError, ModelError
from slidebatch.models import networks
from slidebatch.models.checkpoints import ENDINGS, begin_from
from slidebatch.models.weights_file import load_weights, weights_path
from slidebatch.store import write_atomically
from slidebatch.training.families import family
from slidebatch.training.optimise import optimiser
from slidebatch.training.spec import TrainSpec

log = logging.getLogger(__name__)

Row = dict[str, float]

ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("output", "name", "licence", "threads", "loaders", "device"), True),
    "data": {"path", "images"},
    "network": {"start"},
}
"""Settings that a resumed training may change: where things lie, and who does the work."""

REACHED = ("epoch", "best_score", "best", "since_best", "falls", "rows")
"""What a checkpoint holds of a state besides its tensors' owners and the images it was made with."""


@dataclass
class State:
    """What a checkpoint holds.

    averaged    the network with averaged weights
    epoch       epochs done
    best        the averaged weights with the best score so far, and `best_score`
    since_best  scores in a row that were no better
    falls       how often the schedule `plateau` has lowered the learning rate
    rows        the log, a row for each epoch
    images      which images are learned from, held out and excluded, as a digest
    """

    network: nn.Module
    averaged: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] | None = None
    since_best: int = 0
    falls: int = 0
    rows: list[Row] = field(default_factory=list)
    images: str = ""

    def stopped(self, spec: TrainSpec) -> bool:
        """Whether the training is over: all epochs done, or no better score for as long as the settings bear."""
        return self.epoch >= spec.epochs or (spec.stop_after is not None and self.since_best >= spec.stop_after)


def begin(spec: TrainSpec, device: torch.device, half: bool = False) -> State:
    """The state before the first step. half: float16, whose gradients are scaled."""
    torch.manual_seed(spec.seed)
    network = networks.build(spec.network.name, spec.network.settings)
    if spec.network.start is not None:
        _fill(network, spec.network.name, spec.network.start)
    family(spec.network.name).prepare(network, spec)
    network = network.to(device).to(memory_format=torch.channels_last)
    averaged = copy.deepcopy(network).requires_grad_(False)
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    return State(network, averaged, optimiser(network, spec.optimiser), scaler)


def _fill(network: nn.Module, name: str, start: str) -> None:
    """Give a network the weights that `network.start` names. ConfigError where there are none, or they do not fit."""
    try:
        if not start.endswith(ENDINGS):
            load_weights(network, _weights(start), name)
        elif left := begin_from(network, Path(start).expanduser()):
            log.warning("%s: layers for other classes or anchors, which begin anew: %s", start, ", ".join(left))
    except ModelError as error:
        raise ConfigError(f"network.start: {error}") from error


def _weights(start: str) -> Path:
    try:
        return weights_path(start, {"weights": start} if start.endswith(".safetensors") else {})
    except ModelError as error:
        raise ModelError(f"{start} is neither shipped nor a .safetensors file, nor a checkpoint (.pth).") from error


def save(path: Path, state: State, spec: TrainSpec) -> None:
    """Write a checkpoint; a kill or a power cut leaves this one or the one before."""
    content = {
        "spec": resumable(spec),
        "network": state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "scaler": state.scaler.state_dict(),
        **{name: getattr(state, name) for name in (*REACHED, "images")},
    }
    packed = io.BytesIO()
    torch.save(content, packed)
    write_atomically(path, packed.getvalue(), durable=True)


def restore(path: Path, state: State, spec: TrainSpec) -> None:
    """Bring a state of `begin` to that of a checkpoint; nothing where there is none. Changes `state`.

    ConfigError if it was made with other settings: all that differ are named.
    """
    if not path.is_file():
        return
    content = _read(path, next(state.network.parameters()).device)
    before = grown(content["spec"])
    if before != resumable(spec):
        raise ConfigError(
            f"{path} was made with other settings ({_difference(before, resumable(spec))}); "
            "give those again to resume, or name another output folder."
        )
    if content.get("images", state.images) != state.images:
        raise ConfigError(
            f"{path} was made with other images to learn from, hold out or exclude; give those again to resume, "
            "or name another output folder."
        )
    for name in ("network", "averaged", "optimiser", "scaler"):
        getattr(state, name).load_state_dict(content[name])
    for name in REACHED:
        setattr(state, name, content[name])


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    except Exception as error:  # torch raises whatever comes
        raise ConfigError(f"{path} is no readable checkpoint ({error}); delete it to start again.") from error
    if not isinstance(content, dict) or "spec" not in content:
        raise ConfigError(f"{path} is no checkpoint of a training; delete it to start again.")
    return content


def resumable(spec: TrainSpec) -> str:
    """The settings that a resumed training must share, as JSON: all but where things lie and who does the work."""
    return json.dumps(spec.model_dump(mode="json", exclude=ELSEWHERE), sort_keys=True)


def grown(before: str) -> str:
    """Settings of a checkpoint with the defaults of keys that its version did not know yet."""
    told = json.loads(before)
    here = {"output": "", **told, "data": {"path": "", **told.get("data", {})}}
    try:
        return resumable(TrainSpec.model_validate_json(json.dumps(here)))
    except ValidationError:  # keys that are gone: shown as a difference
        return before


def _difference(before: str, now: str) -> str:
    old, new = _flat(json.loads(before)), _flat(json.loads(now))
    names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return ", ".join(f"{k}: {old.get(k)} there, {new.get(k)} here" for k in names)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level, keys joined by dots."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{before}{key}.") if isinstance(value, dict) and value else {before + key: value}
    return out
