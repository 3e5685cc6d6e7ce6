"""An oracle that writes down whose patches came together: model.name: tests.support.batch_oracle.

`settings.seen` is a file that gets a line for each batch: the slides of its patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.models import oracle
from slidebatch.models.protocol import Card, Place


class BatchOracle:
    """The dense oracle, with a record."""

    def __init__(self, settings: Mapping[str, Any], inner: oracle.DenseOracle) -> None:
        self.card: Card = inner.card
        self._inner, self._seen = inner, Path(settings["seen"])

    def maps(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> npt.NDArray[np.uint8]:
        assert len(patches) == len(places)
        with self._seen.open("a") as file:
            file.write(" ".join(place.slide for place in places) + "\n")
        return self._inner.maps(patches, places)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k != "seen"}


def card(settings: Mapping[str, Any], device: str, threads: int) -> Card:
    """The oracle's own card: the record does not belong to the fingerprint."""
    return oracle.oracle_card(_plain(settings), device, threads)


def load(settings: Mapping[str, Any], device: str, threads: int) -> BatchOracle:
    return BatchOracle(settings, oracle.load_oracle(_plain(settings), device, threads))
