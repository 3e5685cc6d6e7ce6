"""Which module runs a network that has weights: their card names its kind, and the kind has a family."""

from __future__ import annotations

from types import ModuleType

from slidebatch.errors import ModelError
from slidebatch.models import dense, detector, networks
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import read_card, weights_path


def runner(spec: ModelSpec) -> ModuleType:
    """`dense` or `detector`. ModelError where weights or card are missing, or the card names an unknown network."""
    path = weights_path(spec.name, {k: v for k, v in spec.options.items() if k == "weights"})
    network = read_card(path).network
    try:
        family = networks.family(network)
    except ModelError as error:
        raise ModelError(f"{path}: its card cannot be used: {error}") from error
    return detector if family == "detections" else dense
