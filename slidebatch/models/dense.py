"""Running dense networks: from normalised patches to class maps, the same bits for a pixel in any patch.

On a CPU patches go through one by one, so batch size and batch mates cannot matter (and a batch gains
nothing there). torch convolves a small lone image by another routine, whose bits differ (measured with torch
2.15: maps of single patches below 144 px a side are off by up to 6e-7 before rounding); small patches are
therefore fed twice. What is left to matter are torch itself and its thread count, which are in the digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from slidebatch.errors import ModelError
from slidebatch.models.protocol import Card, Place
from slidebatch.models.small_unet import Architecture, SmallUNet, class_maps, fold_batch_norm
from slidebatch.models.weights_file import CardFile, checked_digest, load_weights, read_card, weights_path

NAME = "small_unet"
LONE_PX = 160 * 160
"""Patches of fewer pixels are fed in twos. torch takes oneDNN's routine for a batch of one only above 20,480
values of a layer's input; the least that a layer of `small_unet` sees is one value per pixel of the patch."""


def pick_device(device: str) -> str:
    """The device that "auto", "cpu", "cuda" or "cuda:1" means here. ModelError for a GPU that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(
            f"device {device} was asked for, but torch {torch.__version__} finds no CUDA device here; "
            "use device: cpu, or run on a machine with a GPU and its driver."
        )
    return device


class DenseNetwork:
    """A dense network ready to run: batch norm folded, channels last, eval, on its device."""

    def __init__(self, network: nn.Module, card: Card, device: str, threads: int) -> None:
        self.card = card
        self.device = device
        self.threads = threads
        self._network = network.to(device).to(memory_format=torch.channels_last).eval()

    def maps(self, patches: npt.NDArray[np.float32], places: Sequence[Place] = ()) -> npt.NDArray[np.uint8]:
        """(N, C, Y, X) float32 in 0..1 -> (N, K, Y, X) uint8, 255 for probability 1; `places` are not used.

        One channel is repeated to fill the network's. Y and X must be multiples of the stride. N may be 0.
        """
        patches = self._checked(patches)
        if not len(patches):
            return np.zeros((0, len(self.card.maps), *patches.shape[2:]), np.uint8)
        if self.device != "cpu":
            return class_maps(self._network, patches)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        alone = patches.shape[2] * patches.shape[3] >= LONE_PX
        rows = [[i] if alone else [i, i] for i in range(len(patches))]
        return np.concatenate([class_maps(self._network, patches[r])[:1] for r in rows])

    def _checked(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        count, channels, height, width = patches.shape
        if channels not in (1, self.card.channels):
            raise ModelError(
                f"{self.card.name} takes 1 or {self.card.channels} channels and was given {channels}; "
                "choose channels with input.channels."
            )
        if height % self.card.stride_px or width % self.card.stride_px:
            raise ValueError(f"patch {height} x {width} px is no multiple of the stride {self.card.stride_px} px")
        shape = (count, self.card.channels, height, width)
        return np.ascontiguousarray(np.broadcast_to(patches, shape), np.float32)


def small_unet_card(settings: Mapping[str, Any], device: str, threads: int) -> Card:
    """The card of `small_unet` with the weights that the settings name."""
    path = weights_path(NAME, settings)
    stored = read_card(path)
    architecture = _architecture(stored, str(path))
    return Card(
        name=NAME,
        family="dense",
        channels=architecture.channels,
        maps=stored.maps,
        margin_px=stored.margin_px,
        stride_px=stored.stride_px,
        mpp=stored.mpp,
        digest=_digest(checked_digest(path, stored), stored, device, threads),
        diameter_um=stored.diameter_um,
    )


def load_small_unet(settings: Mapping[str, Any], device: str, threads: int) -> DenseNetwork:
    """`small_unet` on a device ("cpu" or "cuda"), with the weights that the settings name."""
    path = weights_path(NAME, settings)
    card = small_unet_card(settings, device, threads)
    network = SmallUNet(_architecture(read_card(path), str(path)))
    load_weights(network, path, NAME)
    if device != "cpu":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return DenseNetwork(fold_batch_norm(network), card, device, threads)


def _architecture(card: CardFile, where: str) -> Architecture:
    """The architecture of a card, consistent with what else the card says."""
    try:
        architecture = TypeAdapter(Architecture).validate_python(card.architecture)
    except ValidationError as error:
        raise ModelError(f"{where}: its card's architecture is wrong ({error.errors()[0]['msg']}).") from error
    expected = {
        "network": NAME,
        "maps": architecture.classes - 1,
        "margin_px": architecture.margin_px,
        "stride_px": architecture.stride_px,
    }
    found = {
        "network": card.network,
        "maps": len(card.maps),
        "margin_px": max(card.margin_px, architecture.margin_px),  # a larger margin is safe
        "stride_px": card.stride_px,
    }
    wrong = [f"{k} (found {found[k]}, expected {expected[k]})" for k in expected if found[k] != expected[k]]
    if card.margin_px < architecture.margin_px:
        wrong.append(f"margin_px (found {card.margin_px}, expected at least {architecture.margin_px})")
    if wrong:
        raise ModelError(f"{where}: its card contradicts the architecture: {', '.join(wrong)}; correct the card.")
    return architecture


def _digest(weights: str, card: CardFile, device: str, threads: int) -> str:
    """sha256 of all that the maps' bits depend on: weights, architecture, torch, device, and CPU threads."""
    parts: list[object] = [weights, card.architecture, list(card.maps), torch.__version__, device.split(":")[0]]
    parts.append(threads if device == "cpu" else 0)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
