"""The two families of networks in a training: which module has what is a network's own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor, nn

from slidebatch.models import networks
from slidebatch.training.dataset import Example
from slidebatch.training.score import Fitted
from slidebatch.training.spec import TrainSpec

MODULES = {"dense": "slidebatch.training.dense", "detections": "slidebatch.training.detectors"}


class Family(Protocol):
    """What `dense` and `detectors` have in common.

    MAPS  names of the class maps that the network leaves
    """

    MAPS: tuple[str, ...]

    def check(self, spec: TrainSpec) -> None:
        """ConfigError for settings that the family cannot be fitted with."""

    def prepare(self, network: nn.Module, spec: TrainSpec) -> None:
        """Make a new network ready to learn. Changes `network`."""

    def losses(self, network: nn.Module, batch: Sequence[Any], spec: TrainSpec) -> dict[str, Tensor]:
        """The weighted losses of a batch by name; their sum is what is minimised."""

    def held_out(self, fitted: Fitted, examples: Sequence[Example]) -> dict[str, float]:
        """Data Science Bowl scores by modality and `all`, to choose the best epoch by."""

    def scores(self, fitted: Fitted, examples: Sequence[Example]) -> dict[str, float]:
        """The same as the network will be used; nothing without images."""

    def calibrated(
        self, fitted: Fitted, held: Sequence[Example], mix: dict[str, float]
    ) -> tuple[Fitted, dict[str, float]]:
        """The network with its thresholds where they score best on held-out images, and what was moved how far."""


def family(network: str) -> Family:
    """The family of a network. ModelError for an unknown one."""
    found: Family = import_module(MODULES[networks.family(network)])
    return found
