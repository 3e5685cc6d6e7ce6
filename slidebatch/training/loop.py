"""The training loop. The same command again resumes it.

Every step depends on the settings, the step's number and the state before it alone, and a checkpoint holds
that state whole; so a training that is killed and started again ends where it would have ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slidebatch.deadline import Deadline, deadline
from slidebatch.errors import ConfigError, SlidebatchError
from slidebatch.models import networks
from slidebatch.models.engines import has_bfloat16
from slidebatch.store import digest
from slidebatch.training import record
from slidebatch.training.dataset import Example, Split, diameters_px, load, split
from slidebatch.training.families import family
from slidebatch.training.feed import Batch, batches, check_size, source, steps_per_epoch
from slidebatch.training.held_out import held_out_losses
from slidebatch.training.limits import EPOCH, SCORE, gpu_memory, refuse_late, scores_after
from slidebatch.training.optimise import average, forget, kept, rate, rest
from slidebatch.training.ranks import Ranks, joined
from slidebatch.training.score import Fitted
from slidebatch.training.spec import TrainSpec
from slidebatch.training.state import Row, State, begin, restore, save

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Told:
    """How far a training is: steps done and in all, the last loss; `row` is the log's where an epoch ended.

    note  what is said once, at the start
    """

    step: int
    steps: int
    loss: float = math.nan
    row: Row | None = None
    note: str = ""


@dataclass(frozen=True)
class Course:
    """What stays the same throughout: settings, processes, precision, steps of an epoch, who listens, time limit."""

    spec: TrainSpec
    ranks: Ranks
    precision: torch.dtype
    steps_per_epoch: int
    tell: Callable[[Told], None]
    limit: Deadline

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.steps_per_epoch * self.spec.epochs


def run(spec: TrainSpec, tell: Callable[[Told], None] = lambda _: None) -> State:
    """Train to the last epoch, from the last checkpoint in `spec.output` if there is one.

    ConfigError for wrong settings, a training set without images, or a checkpoint of other settings. OutOfTime where
    the environment's deadline leaves no time for another epoch: the last checkpoint is kept.
    """
    limit = deadline(None)
    torch.set_num_threads(spec.threads)
    checkpoint = Path(spec.output) / CHECKPOINT
    parts = split(spec.data, spec.seed)
    check_network(spec)
    with gpu_memory(spec), joined(spec) as ranks:
        precision = dtype(spec.precision, ranks.device.type)
        known = spec.network.model_copy(update={"start": None}) if checkpoint.is_file() else spec.network
        state = begin(spec.model_copy(update={"network": known}), ranks.device, precision is torch.float16)
        state.images = digest(asdict(parts))
        restore(checkpoint, state, spec)
        tell = tell if ranks.first else lambda _: None
        if state.stopped(spec):
            tell(Told(0, 0, note=f"the training has ended after {state.epoch} epochs: its weights are written again"))
        else:
            _fit(state, spec, parts, Course(spec, ranks, precision, 0, tell, limit))
    return state


def check_network(spec: TrainSpec) -> None:
    """ConfigError for a network that could not be run, or that does not answer with what there are targets for."""
    architecture = networks.architecture(spec.network.name, spec.network.settings)
    if flaw := networks.flaw(architecture):
        raise ConfigError(f"network: {spec.network.name} could not be run in patches: {flaw}.")
    family(spec.network.name).check(spec)
    parts = dict(networks.build(spec.network.name, spec.network.settings).named_modules()) if spec.frozen else {}
    if unknown := [name for name in spec.frozen if name not in parts]:
        raise ConfigError(f"frozen: {spec.network.name} has no part {', '.join(unknown)}; see its tensors' names.")


def dtype(precision: str, device: str) -> torch.dtype:
    """The arithmetic of the forward pass; `auto` is bfloat16 where the device has it."""
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    if precision == "float16" and device == "cpu":
        raise ConfigError("precision: float16 trains on a GPU only; use bfloat16 or float32 on a CPU.")
    made: torch.dtype = getattr(torch, precision)
    return made


def _fit(state: State, spec: TrainSpec, parts: Split, course: Course) -> None:
    """All epochs that are left."""
    fit = load(spec.data, parts.fit)
    if not fit:
        raise ConfigError("data: none of the training images can be read; the warnings say why.")
    diameters_px(fit)  # there must be nuclei, and that is better told now than at the end
    held = load(spec.data, parts.held) if course.ranks.first else []
    architecture = networks.architecture(spec.network.name, spec.network.settings)
    crops = source(fit, spec, architecture.channels)
    check_size(crops.size, architecture)
    course = replace(course, steps_per_epoch=steps_per_epoch(crops, spec))
    left = range(state.epoch * course.steps_per_epoch, course.steps)
    stream = batches(crops, spec, left, (course.ranks.rank, course.ranks.ranks), course.ranks.device.type == "cuda")
    network = course.ranks.wrapped(state.network)
    course.tell(Told(left.start, course.steps, note=counted(len(fit), len(held), len(parts.excluded))))
    if state.epoch == 0 and (begun := _begun(state, held, course)):
        state.rows.append({"epoch": 0, "loss": math.nan, "learning_rate": 0.0, "seconds": 0.0} | begun)
        course.tell(Told(0, course.steps, row=state.rows[-1]))
    Path(spec.output).mkdir(parents=True, exist_ok=True)
    while not state.stopped(spec):
        refuse_late(course.limit, state.epoch, spec, course.ranks)
        began, score_s = time.perf_counter(), 0.0
        row = epoch(state, network, stream, course) | held_out_losses(state.averaged, held, course.spec)
        if scores_after(state.epoch, spec):
            row, score_s = _with_scores(row, state, held, course)
        state.rows.append(row)
        if course.ranks.first:
            save(Path(spec.output) / CHECKPOINT, state, spec)
            record.write(Path(spec.output), state.rows)
        course.limit.saw(EPOCH, time.perf_counter() - began - score_s)
        course.tell(Told(state.epoch * course.steps_per_epoch, course.steps, row["loss"], row))


def _begun(state: State, held: Sequence[Example], course: Course) -> Row:
    """What is known of the held-out images before the first step: losses if asked for, scores of weights given."""
    losses = held_out_losses(state.averaged, held, course.spec)
    return losses | (scored(state, held, course) if course.spec.network.start is not None else {})


def _with_scores(row: Row, state: State, held: Sequence[Example], course: Course) -> tuple[Row, float]:
    """A row with its scores, and the seconds that these took."""
    began = time.perf_counter()
    row = row | scored(state, held, course)
    score_s = time.perf_counter() - began
    course.limit.saw(SCORE, score_s)
    return row, score_s


def counted(fit: int, held: int, excluded: int) -> str:
    """How many images there are of each kind, in words."""
    told = f"{fit} images to learn from, {held} held out, {excluded} excluded"
    return told if held else f"{told}: without held-out ones the last weights are kept, uncalibrated"


def epoch(state: State, network: nn.Module, stream: Iterator[Batch], course: Course) -> Row:
    """One epoch of steps; its row of the log."""
    network.train()
    # What dropout leaves out: known by epoch and process, so that a resumed training draws the same.
    drawn = np.random.SeedSequence([course.spec.seed, state.epoch, course.ranks.rank])
    torch.manual_seed(int(drawn.generate_state(1)[0]))
    started, losses = time.perf_counter(), []
    first = state.epoch * course.steps_per_epoch
    for number in range(first, first + course.steps_per_epoch):
        losses.append(step(state, network, next(stream), number, course))
        course.tell(Told(number + 1, course.steps, losses[-1]["loss"]))
    state.epoch += 1
    return {
        "epoch": state.epoch,
        **{name: float(np.mean([found[name] for found in losses])) for name in losses[0]},
        "learning_rate": state.optimiser.param_groups[0]["lr"],
        "seconds": time.perf_counter() - started,
    }


def step(state: State, network: nn.Module, batch: Batch, number: int, course: Course) -> Row:
    """One step of the optimiser and of the averaged weights; the loss of this process's part of the batch.

    Where the loss has parts, these are told too, as `loss_<part>`.
    """
    spec, device = course.spec, course.ranks.device
    placed = [part.to(device, non_blocking=True) if isinstance(part, torch.Tensor) else part for part in batch]
    placed[0] = placed[0].contiguous(memory_format=torch.channels_last)
    still = kept(number, course.steps, spec.frozen)
    rest(state.network, spec.frozen, still)
    share = rate(number, course.steps, spec.schedule, state.falls)
    for group in state.optimiser.param_groups:
        group["lr"] = spec.optimiser.learning_rate * share
    with torch.autocast(device.type, course.precision, enabled=course.precision is not torch.float32):
        parts = family(spec.network.name).losses(network, placed, spec)
    loss = torch.stack(list(parts.values())).sum()
    if not torch.isfinite(loss):
        raise SlidebatchError(
            f"step {number}: the loss is {float(loss.detach())}; lower optimiser.learning_rate, "
            "and name another output folder."
        )
    state.optimiser.zero_grad()
    state.scaler.scale(loss).backward()
    forget(state.network, still)
    if spec.optimiser.clip is not None:
        state.scaler.unscale_(state.optimiser)
        nn.utils.clip_grad_norm_(state.network.parameters(), spec.optimiser.clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    average(state.averaged, state.network, number, spec.ema)
    told = {f"loss_{name}": float(part.detach()) for name, part in parts.items() if name != "loss"}
    return {"loss": float(loss.detach())} | told


def scored(state: State, held: Sequence[Example], course: Course) -> Row:
    """Score the averaged weights on held-out images, keep them if they are the best so far, and count if not.

    Without held-out images the last weights are the best.
    """
    name = course.spec.network.name
    fitted = Fitted(state.averaged, networks.architecture(name, course.spec.network.settings))
    found = family(name).held_out(fitted, held) if held else {}
    scores = course.ranks.told(found)
    score = scores.get("all", float(state.epoch))
    if score > state.best_score:
        state.best_score, state.since_best = score, 0
        state.best = {k: v.clone() for k, v in state.averaged.state_dict().items()}
    else:
        state.since_best += 1
        state.falls += state.since_best % course.spec.schedule.patience == 0
    return {f"dsb_{name}": value for name, value in scores.items()}
