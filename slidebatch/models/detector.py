"""Running detectors: from normalised patches to boxes, scores and masks of 28 x 28, one patch at a time.

A patch's mates in a batch would change its answer by rounding, so each goes through alone, on every device. What an
answer depends on besides (weights, settings, PyTorch's and torchvision's versions, precision, kind of device, CPU
threads) is in the digest. Settings in use may differ from the card's: those in `CHOICES` change no tensor.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from slidebatch.errors import EnvironmentFault, ModelError
from slidebatch.models import networks
from slidebatch.models.engines import has_bfloat16
from slidebatch.models.networks import Architecture
from slidebatch.models.protocol import Card, Detections, Place, check_patches
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import CardFile, checked_digest, load_weights, read_card, weights_path

LOG = logging.getLogger(__name__)

CHOICES = (
    *("before", "proposals", "proposal_score", "proposal_iou"),
    *("score_threshold", "detection_iou", "detections", "overlap_px"),
)
"""Settings of a detector that `model.settings` may change without another training."""


@dataclass(frozen=True)
class Running:
    """How a detector is run: device ("cpu", "cuda" or "cuda:1"), CPU threads, precision."""

    device: str = "cpu"
    threads: int = 1
    precision: str = "float32"


class Detector:
    """A detector ready to run."""

    def __init__(self, network: Any, card: Card, running: Running) -> None:
        self.card, self.running = card, running
        self._told = False
        self._network = network.eval().requires_grad_(False).to(running.device)

    def detect(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> list[Detections]:
        """(N, C, Y, X) float32 in 0..1 and N places -> one `Detections` each, in slide pixels, best first.

        One channel is repeated to fill the network's. Y and X must be multiples of the stride. N may be 0.
        """
        if self.running.device == "cpu" and torch.get_num_threads() != self.running.threads:
            torch.set_num_threads(self.running.threads)
        patches = self._checked(patches)
        return [_moved(self._answer(p), place) for p, place in zip(patches, places, strict=True)]

    def _answer(self, patch: npt.NDArray[np.float32]) -> Detections:
        """What is found in one patch; warns, once, where it holds as much as the settings let through."""
        try:
            found = answer(self._network, torch.from_numpy(patch[None]), self.running.precision)
        except torch.OutOfMemoryError as error:
            height, width = patch.shape[1:]
            raise EnvironmentFault(
                f"one patch of {height} x {width} px does not fit the GPU's memory; set tiling.patch_px to less than "
                f"{min(height, width)} and start again, or run {self.card.name} on the CPU"
            ) from error
        if self._network.filled and not self._told:
            self._told = True
            LOG.warning(
                "%s: a patch of %d x %d px filled up model.settings.%s; nuclei may be missing there: raise it",
                *(self.card.name, *patch.shape[1:], " and ".join(self._network.filled)),
            )
        return found

    def _checked(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        check_patches(self.card, patches)
        count, _, height, width = patches.shape
        patches = np.broadcast_to(patches, (count, self.card.channels, height, width))
        return np.require(patches, np.float32, ["C", "W"])  # torch takes no read-only arrays


@torch.inference_mode()
def answer(network: nn.Module, image: Tensor, precision: str = "float32") -> Detections:
    """What a detector in eval mode finds in one image (1, C, Y, X) in 0..1, in the image's pixels, best first."""
    device = next(network.parameters()).device
    image = image.to(device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
        found = network(image)[0]
    return Detections(
        box=found["boxes"][:, [1, 0, 3, 2]].float().cpu().numpy(),
        score=found["scores"].float().cpu().numpy(),
        mask=found["masks"].float().mul(255).round().to(torch.uint8).cpu().numpy(),
    )


def _moved(found: Detections, place: Place) -> Detections:
    corner = np.array([place.box.y0, place.box.x0] * 2, np.float32)
    return Detections(found.box + corner, found.score, found.mask)


def card(spec: ModelSpec, device: str) -> Card:
    """The card of a detector with the weights that the settings name."""
    path, stored, architecture = _stored(spec)
    running = _running(spec, device)
    return Card(
        name=spec.name if spec.weights is None else stored.network,
        family="detections",
        channels=architecture.channels,
        maps=(),
        margin_px=architecture.margin_px,
        stride_px=architecture.stride_px,
        mpp=stored.mpp,
        digest=_digest(checked_digest(path, stored), stored, architecture, running),
        diameter_um=stored.diameter_um,
    )


def load(spec: ModelSpec, device: str) -> Detector:
    """A detector on a device ("cpu" or "cuda"), with the weights that the settings name."""
    path, stored, architecture = _stored(spec)
    network = networks.build(stored.network, vars(architecture))
    load_weights(network, path, stored.network)
    if device != "cpu":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return Detector(network.to(memory_format=torch.channels_last), card(spec, device), _running(spec, device))


def settle(spec: ModelSpec, device: str) -> ModelSpec:
    """`spec` with the precision that "auto" becomes on a device of this machine."""
    return spec.model_copy(update={"engine": "eager", "precision": _running(spec, device).precision})


def _stored(spec: ModelSpec) -> tuple[Any, CardFile, Architecture]:
    """The weights file, its card, and the card's architecture with what `model.settings` changes."""
    path = weights_path(spec.name, {k: v for k, v in spec.options.items() if k not in CHOICES})
    stored = read_card(path)
    chosen = {k: v for k, v in spec.settings.items() if k in CHOICES}
    try:
        architecture = networks.architecture(stored.network, {**stored.architecture, **chosen})
    except ModelError as error:
        raise ModelError(f"{path}: its card, or model.settings, cannot be used: {error}") from error
    if flaw := networks.flaw(architecture):
        raise ModelError(f"{path}: {stored.network} cannot be run: {flaw}.")
    if stored.maps or stored.stride_px != architecture.stride_px:
        raise ModelError(
            f"{path}: its card contradicts the architecture: maps {list(stored.maps)} and stride_px "
            f"{stored.stride_px}, expected none and {architecture.stride_px}; correct the card."
        )
    return path, stored, architecture


def _running(spec: ModelSpec, device: str) -> Running:
    kind = device.split(":")[0]
    if spec.engine not in ("auto", "eager") or spec.tta != "none":
        raise ModelError(f"{spec.name} is a detector: model.engine must be auto or eager and model.tta none.")
    native = has_bfloat16(kind)
    if spec.precision == "bfloat16" and not native:
        raise ModelError(f"model.precision is bfloat16, but this {kind} has no instructions for it; use float32.")
    precision = spec.precision if spec.precision != "auto" else "bfloat16" if native else "float32"
    return Running(device, spec.threads, precision)


def _digest(weights: str, card: CardFile, architecture: Architecture, running: Running) -> str:
    """sha256 of all that an answer depends on: weights, settings, libraries, device, threads, precision."""
    kind = running.device.split(":")[0]
    parts: list[object] = [
        *(weights, card.network, vars(architecture), torch.__version__, version("torchvision")),
        *(kind, running.threads if kind == "cpu" else 0, running.precision),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
