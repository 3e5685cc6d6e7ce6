"""What a training may not exceed: its time and its GPU's memory. Either ends it with one sentence, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from slidebatch.deadline import Deadline
from slidebatch.errors import EnvironmentFault, OutOfTime
from slidebatch.models.lanes import device_faults
from slidebatch.training.ranks import Ranks
from slidebatch.training.spec import TrainSpec

EPOCH, SCORE = "epoch", "score"
"""What takes time: the steps of an epoch with its checkpoint, and scores on the held-out images."""


def scores_after(epoch: int, spec: TrainSpec) -> bool:
    """Whether the held-out images are scored after an epoch, counted from 1."""
    return epoch % spec.score_every == 0 or epoch == spec.epochs


def refuse_late(limit: Deadline, done: int, spec: TrainSpec, ranks: Ranks) -> None:
    """OutOfTime where the epoch after `done` would not end before the limit, going by the longest of this start.

    All processes of a training hear the first one's answer.
    """
    wanted = (EPOCH, SCORE) if scores_after(done + 1, spec) else (EPOCH,)
    if not ranks.told(limit.passed(*wanted)):
        return
    longest_s = limit.longest_s(*wanted)
    takes = f" and the next takes up to {longest_s:.1f} s" if longest_s else ""
    raise OutOfTime(
        f"stopped after epoch {done} of {spec.epochs}: {limit.left_s():.0f} s are left before the time limit{takes}; "
        "the training is resumable: give the same command again"
    )


@contextmanager
def gpu_memory(spec: TrainSpec) -> Iterator[None]:
    """A GPU that is full, or that failed, is an EnvironmentFault."""
    try:
        with device_faults():
            yield
    except torch.OutOfMemoryError as error:
        raise EnvironmentFault(
            f"the GPU's memory has no room for a batch of {spec.batch}; set a smaller batch and another output folder, "
            "take more GPUs, or end what else runs on it (nvidia-smi shows it)"
        ) from error
