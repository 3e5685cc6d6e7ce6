"""An oracle that fails by a schedule of slide positions: model.name: tests.support.faulty_oracle.

`settings.schedule` maps "<slide>:<y>:<x>" (the first pixel of a patch) to a list with one word per attempt:
"ok", "raise" (an exception), "kill" (SIGKILL of its own process), "disk" (no space left), "input" (the input is
at fault), "hold" (wait for the file `settings.gate`). After the list is used up all is well. Attempts are counted
in `settings.counts`, a folder, so that they outlive processes.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import InputError
from slidebatch.models import oracle
from slidebatch.models.protocol import Card, Place


def attempt(counts: Path, key: str) -> int:
    """Count an attempt durably; how many there were before."""
    counts.mkdir(parents=True, exist_ok=True)
    file = counts / key.replace(":", "_")
    with open(file, "ab") as stream:
        stream.write(b".")
    return file.stat().st_size - 1


def misbehave(word: str, key: str, gate: Path) -> None:
    """Do what the schedule says."""
    while word == "hold" and not gate.exists():
        time.sleep(0.05)
    if word == "raise":
        raise RuntimeError(f"scheduled at {key}")
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "disk":
        raise OSError(errno.ENOSPC, "No space left on device (scheduled)", key)
    if word == "input":
        raise InputError(f"{key}: scheduled; expected a readable file; replace it")


class FaultyOracle:
    """The dense oracle, misbehaving by its schedule."""

    def __init__(self, settings: Mapping[str, Any], inner: oracle.DenseOracle) -> None:
        self.card: Card = inner.card
        self._inner = inner
        self._schedule: dict[str, list[str]] = dict(settings["schedule"])
        self._counts = Path(settings["counts"])
        self._gate = Path(settings.get("gate", "/"))

    def maps(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> npt.NDArray[np.uint8]:
        for place in places:
            key = f"{place.slide}:{place.box.y0}:{place.box.x0}"
            words = self._schedule.get(key, [])
            before = attempt(self._counts, key)
            misbehave(words[before] if before < len(words) else "ok", key, self._gate)
        return self._inner.maps(patches, places)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in {"schedule", "counts", "gate"}}


def card(settings: Mapping[str, Any], device: str, threads: int) -> Card:
    """The oracle's own card: faults do not belong to the fingerprint."""
    return oracle.oracle_card(_plain(settings), device, threads)


def load(settings: Mapping[str, Any], device: str, threads: int) -> FaultyOracle:
    return FaultyOracle(settings, oracle.load_oracle(_plain(settings), device, threads))
