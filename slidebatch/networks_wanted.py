"""Which networks a config asks for: the one of `model`, or the members of its ensemble, and what they are together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ensemble.calibrate import Calibration
from slidebatch import models
from slidebatch.config import RunConfig
from slidebatch.decode import DecodeSpec
from slidebatch.errors import ConfigError
from slidebatch.fusion import EnsembleSpec, MemberSpec
from slidebatch.models.protocol import Card
from slidebatch.models.spec import ModelSpec
from slidebatch.store import digest
from slidebatch.tiling import PatchSide

SAME_MPP = 1.25
"""Factor by which the pixel sizes that members were trained at may differ: all run on one grid."""


@dataclass(frozen=True)
class Network:
    """A network that is to run, as it will on the device of the run."""

    name: str
    model: ModelSpec
    card: Card
    patch_px: PatchSide
    decode: DecodeSpec
    weight: int
    calibration: Calibration | None


def networks(config: RunConfig, device: str) -> list[Network]:
    """The networks of a run: one, or the members of its ensemble. ModelError, and ConfigError for unlike members."""
    if config.ensemble is None:
        model = models.settle(config.model, device)  # told to the workers, so that none takes another engine
        card = models.card(model, device)
        return [Network(card.name, model, card, config.tiling.patch_px, config.decode, 1, None)]
    specs = config.ensemble.members
    own = [m.model.name for m in specs if m.model.device != "auto"]
    if own:
        raise ConfigError(f"ensemble.members: {own[0]} has a device of its own; all share that of model.device")
    found = [_member(m, device) for m in specs]
    alike = Counter(r.name for r in found)
    return [r if alike[r.name] == 1 else replace(r, name=f"{r.name} ({k})") for k, r in enumerate(found, 1)]


def together(runs: Sequence[Network], spec: EnsembleSpec) -> Card:
    """The card of an ensemble: what slides must offer it, and a digest of all networks. ConfigError where they differ.

    Its family is dense where its rule joins class maps. Margin and stride are the largest of its members'.
    """
    cards = [r.card for r in runs]
    dense = [c for c in cards if c.family == "dense"]
    if spec.on_maps and (len(dense) < len(cards) or len({c.maps for c in cards}) > 1):
        told = "; ".join(f"{c.name}: {', '.join(c.maps) or 'detections'}" for c in cards)
        raise ConfigError(f"ensemble.rule {spec.rule} joins class maps, and members differ ({told}); use nms or fill")
    sizes = [c.mpp for c in cards if c.mpp is not None]
    if sizes and max(sizes) > SAME_MPP * min(sizes):
        told = ", ".join(f"{c.name} {c.mpp}" for c in cards)
        raise ConfigError(f"the members were trained at unlike micrometres per pixel ({told}); all run on one grid")
    return Card(
        name="ensemble of " + ", ".join(r.name for r in runs),
        family="dense" if spec.on_maps else "detections",
        channels=max(c.channels for c in cards),
        maps=dense[0].maps if spec.on_maps else (),
        margin_px=max(c.margin_px for c in cards),
        stride_px=max(c.stride_px for c in cards),
        mpp=sizes[0] if sizes else None,
        digest=digest([c.digest for c in cards]),
        diameter_um=next((c.diameter_um for c in cards if c.diameter_um is not None), None),
    )


def _member(spec: MemberSpec, device: str) -> Network:
    model = models.settle(spec.model, device)
    card = models.card(model, device)
    calibration = models.calibration(model) if spec.calibrate else None
    return Network(spec.name or card.name, model, card, spec.patch_px, spec.decode, spec.weight, calibration)
