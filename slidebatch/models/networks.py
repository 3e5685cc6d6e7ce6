"""The networks that can be fitted, by name: what fixes each one's tensors, and how to build it.

`architecture` checks what a card or a training config says of a network, `build` makes the network itself, untrained.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from torch import nn

from slidebatch.errors import ModelError
from slidebatch.models import simple_conv, small_unet, small_unet_dense, unet
from slidebatch.models.protocol import Family

Build = Callable[[Any], nn.Module]

NETWORKS: dict[str, tuple[type[Any], Build]] = {
    "simple_conv": (simple_conv.Architecture, simple_conv.SimpleConv),
    "small_unet": (small_unet.Architecture, small_unet.SmallUNet),
    "small_unet_dense": (small_unet_dense.Architecture, small_unet_dense.SmallUNetDense),
    "unet": (unet.Architecture, unet.UNet),
}
"""Dense networks."""

DETECTORS = {
    "cascade": "slidebatch.models.cascade:Cascade",
    "mask_rcnn": "slidebatch.models.mask_rcnn:MaskRCNN",
}
"""Detectors, each in a module with its `Architecture`; imported when asked for, as torchvision takes a while."""


class Architecture(Protocol):
    """What the engine and the training must know of a network before its tensors.

    channels   image channels
    stride_px  images and patches start and end on multiples of this
    margin_px  the farthest pixel that an answer depends on, or the overlap that is stated in its place
    """

    @property
    def channels(self) -> int: ...
    @property
    def stride_px(self) -> int: ...
    @property
    def margin_px(self) -> int: ...


class DenseArchitecture(Architecture, Protocol):
    """The same of a dense network. classes: class maps, background first."""

    @property
    def classes(self) -> int: ...


def family(network: str) -> Family:
    """Whether a network answers with class maps or with detections. ModelError for an unknown one."""
    _found(network)
    return "detections" if network in DETECTORS else "dense"


def architecture(network: str, settings: Mapping[str, Any]) -> Architecture:
    """The architecture of a network; what `settings` leave out takes its default.

    ModelError for an unknown network, unknown settings and wrong values, all named at once.
    """
    kind = _found(network)[0]
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [f"{name} is no setting of {network} ({', '.join(known)})" for name in settings if name not in known]
    faults: list[str] = []
    try:
        made: Architecture = TypeAdapter(kind).validate_python({k: v for k, v in settings.items() if k in known})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or network}: {e['msg']}" for e in error.errors()]
    if unknown or faults:
        raise ModelError(f"the architecture of {network} is wrong: {'; '.join(unknown + faults)}; correct it.")
    return made


def build(network: str, settings: Mapping[str, Any]) -> nn.Module:
    """The untrained network of an architecture: (N, channels, Y, X) float32 -> (N, classes, Y, X) logits.

    Detectors answer as `mask_rcnn.MaskRCNN` does. ModelError as `architecture`.
    """
    return _found(network)[1](architecture(network, settings))


def flaw(made: Architecture) -> str:
    """Why a network cannot be run in patches, or not at all; empty where it can."""
    return str(getattr(made, "flaw", ""))


def unrolled(made: Architecture) -> bool:
    """Whether a network loops over patches of its own, so that only PyTorch itself can run it."""
    return bool(getattr(made, "unrolled", False))


def _found(network: str) -> tuple[type[Any], Build]:
    every = [*NETWORKS, *DETECTORS]
    if network not in every:
        near = difflib.get_close_matches(network, every, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(f"no network is named {network!r}; {hint}there are {', '.join(every)}.")
    if network in NETWORKS:
        return NETWORKS[network]
    module, build = DETECTORS[network].split(":")
    made = import_module(module)
    return made.Architecture, getattr(made, build)
