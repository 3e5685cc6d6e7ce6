"""Which module runs a network that has weights: their card names its kind, and the kind has a family."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from ensemble.calibrate import Calibration
from slidebatch.errors import ModelError
from slidebatch.models import dense, detector, networks
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import checked_digest, read_card, weights_path, write_calibration


def calibration(spec: ModelSpec) -> Calibration | None:
    """The calibration in the card of some weights, or None. ModelError where it is wrong."""
    path = _weights(spec)
    told = read_card(path).calibration
    try:
        return None if told is None else Calibration.from_dict(told)
    except ValueError as error:
        raise ModelError(f"{path}: the calibration in its card is wrong: {error}; fit it again.") from error


def store_calibration(spec: ModelSpec, weights: Path, calibration: Calibration) -> str | None:
    """See `slidebatch.models.store_calibration`."""
    found = checked_digest(weights, read_card(weights)) if weights.is_file() else None
    if found is None:
        raise ModelError(f"{weights}: no such file; name the .safetensors file of the weights.")
    told = None
    try:
        own = _weights(spec)
    except ModelError:
        told = (
            f"warning: the weights of {spec.name} that were run are gone; whether {weights} are the same is not known"
        )
    else:
        if checked_digest(own, read_card(own)) != found:
            raise ModelError(
                f"{weights} are not the weights that were run, which are {own}; a calibration fits no others."
            )
    write_calibration(weights, calibration.as_dict())
    return told


def _weights(spec: ModelSpec) -> Path:
    return weights_path(spec.name, {k: v for k, v in spec.options.items() if k == "weights"})


def runner(spec: ModelSpec) -> ModuleType:
    """`dense` or `detector`. ModelError where weights or card are missing, or the card names an unknown network."""
    path = _weights(spec)
    network = read_card(path).network
    try:
        family = networks.family(network)
    except ModelError as error:
        raise ModelError(f"{path}: its card cannot be used: {error}") from error
    return detector if family == "detections" else dense
