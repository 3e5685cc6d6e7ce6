"""An oracle that takes `settings.seconds` over each patch: model.name: tests.support.slow_oracle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.models import oracle
from slidebatch.models.protocol import Card, Place


class SlowOracle:
    """The dense oracle, slowly."""

    def __init__(self, settings: Mapping[str, Any], inner: oracle.DenseOracle) -> None:
        self.card: Card = inner.card
        self._inner, self._seconds = inner, float(settings["seconds"])

    def maps(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> npt.NDArray[np.uint8]:
        time.sleep(self._seconds * len(patches))
        return self._inner.maps(patches, places)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k != "seconds"}


def card(settings: Mapping[str, Any], device: str, threads: int) -> Card:
    """The oracle's own card: time does not belong to the fingerprint."""
    return oracle.oracle_card(_plain(settings), device, threads)


def load(settings: Mapping[str, Any], device: str, threads: int) -> SlowOracle:
    return SlowOracle(settings, oracle.load_oracle(_plain(settings), device, threads))
