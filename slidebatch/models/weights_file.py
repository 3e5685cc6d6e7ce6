"""Weights and their cards on disk: safetensors beside a JSON card, read strictly.

A card says what the weights are: architecture, maps, resolution, margin, digest, how they were made and how
they score. It lies beside the weights (`x.safetensors`, `x.json`) or in their metadata under `card`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from slidebatch.errors import ModelError
from slidebatch.models import SHIPPED
from slidebatch.spec import Spec
from slidebatch.store import write_atomically, write_json

MOST_TOLD = 8
"""Tensors of one fault that are named; another architecture would fill pages."""


class CardFile(Spec):
    """A model card as it is stored.

    network       registered name of the network that the weights are for
    architecture  what fixes its tensors
    maps          class maps it leaves, background left out
    mpp           micrometres per pixel of the training images, diameter_um their typical nucleus
    sha256        of the weights file; None in a card that travels inside it
    calibration   from the scores of its nuclei to the overlap to expect, as `ensemble.calibrate` writes it, or None
    training, scores, licence   for the reader
    """

    format: int = Field(default=1, ge=1, le=1)
    network: str
    architecture: dict[str, Any]
    maps: tuple[str, ...]
    mpp: float | None = Field(default=None, gt=0)
    diameter_um: float | None = Field(default=None, gt=0)
    margin_px: int = Field(ge=0)
    stride_px: int = Field(ge=1)
    sha256: str | None = None
    calibration: dict[str, Any] | None = None
    training: dict[str, Any] = Field(default={})
    scores: dict[str, Any] = Field(default={})
    licence: str = ""


def weights_path(network: str, settings: Mapping[str, Any]) -> Path:
    """The weights file that settings ask for: their own `weights`, or the ones shipped with the package."""
    unknown = sorted(set(settings) - {"weights"})
    if unknown:
        raise ModelError(f"{network} knows no setting {', '.join(unknown)}; it takes weights alone.")
    path = Path(settings["weights"]).expanduser() if "weights" in settings else SHIPPED / f"{network}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{path}: there are no weights for {network}; name a .safetensors file in model.weights, "
            "or leave it out to use the shipped ones."
        )
    return path


def read_card(path: Path) -> CardFile:
    """The card of a weights file, from beside it or from its metadata. ModelError if missing or wrong."""
    beside = path.with_suffix(".json")
    text = beside.read_text() if beside.is_file() else metadata(path).get("card")
    if text is None:
        raise ModelError(f"{path}: no model card found; put {beside.name} beside it, or the card in its metadata.")
    try:
        return CardFile.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path}: its model card is wrong: {faults}; correct the card.") from error


def checked_digest(path: Path, card: CardFile) -> str:
    """sha256 of the weights file. ModelError where the card names another."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if card.sha256 not in (None, found):
        raise ModelError(
            f"{path}: the weights have sha256 {found}, their card expects {card.sha256}; "
            "fetch weights and card again, they belong together."
        )
    return found


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Fill a network's tensors from a file, all of them and no other; changes `network`.

    ModelError names missing, unexpected, misshapen and wrongly typed tensors at once.
    """
    found = read_tensors(path)
    wanted = network.state_dict()
    faults = tensor_faults(found, wanted)
    if faults:
        raise ModelError(f"{path}: the weights do not fit {name}: {faults}; use weights made for this architecture.")
    network.load_state_dict(found)


def tensor_faults(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """What keeps `found` from filling `wanted`, in words, the first tensors by name; empty where nothing does."""
    shared = sorted(set(found) & set(wanted))
    lists = {
        "missing": sorted(set(wanted) - set(found)),
        "unexpected": sorted(set(found) - set(wanted)),
        "misshapen": [
            f"{k} (found {list(found[k].shape)}, expected {list(wanted[k].shape)})"
            for k in shared
            if found[k].shape != wanted[k].shape
        ],
        "wrongly typed": [
            f"{k} (found {found[k].dtype}, expected {wanted[k].dtype})"
            for k in shared
            if found[k].dtype != wanted[k].dtype
        ],
    }
    return "; ".join(f"{fault} {_told(names)}" for fault, names in lists.items() if names)


def _told(names: list[str]) -> str:
    """Names in words; of many the first ones, and how many more there are."""
    more = len(names) - MOST_TOLD
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_TOLD])} and {more} more"


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU. ModelError if it is none."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors."""
    with _opened(path) as file:
        return file.metadata() or {}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); fetch or export it again.") from error


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], card: CardFile) -> CardFile:
    """Write weights and, beside them, their card with the digest; the card as written."""
    content = save({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, {"format": "pt"})
    write_atomically(path, content, durable=True)
    card = card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    write_json(path.with_suffix(".json"), card.model_dump(mode="json"), durable=True)
    return card


def write_calibration(path: Path, calibration: Mapping[str, Any]) -> CardFile:
    """Store a calibration (`ensemble.calibrate.Calibration.as_dict`) in the card beside some weights; the card.

    The weights stay as they are; of a card inside them the one beside is a copy, which counts from then on.
    ModelError where weights or card are missing, wrong, or do not belong together.
    """
    card = read_card(path)
    found = checked_digest(path, card)
    card = card.model_copy(update={"calibration": dict(calibration), "sha256": found})
    write_json(path.with_suffix(".json"), card.model_dump(mode="json"), durable=True)
    return card
