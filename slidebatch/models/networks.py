"""The dense networks by name: what fixes each one's tensors, and how to build it.

`architecture` checks what a card or a training config says of a network, `build` makes the network itself, untrained.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from torch import nn

from slidebatch.errors import ModelError
from slidebatch.models import simple_conv, small_unet, small_unet_dense, unet

Build = Callable[[Any], nn.Module]

NETWORKS: dict[str, tuple[type[Any], Build]] = {
    "simple_conv": (simple_conv.Architecture, simple_conv.SimpleConv),
    "small_unet": (small_unet.Architecture, small_unet.SmallUNet),
    "small_unet_dense": (small_unet_dense.Architecture, small_unet_dense.SmallUNetDense),
    "unet": (unet.Architecture, unet.UNet),
}


class Architecture(Protocol):
    """What the engine and the training must know of a dense network before its tensors.

    channels   image channels
    classes    class maps, background first
    stride_px  images and patches start and end on multiples of this
    margin_px  the farthest pixel that an answer depends on, or the overlap that is stated in its place
    """

    @property
    def channels(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def stride_px(self) -> int: ...
    @property
    def margin_px(self) -> int: ...


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

    ModelError as `architecture`.
    """
    return _found(network)[1](architecture(network, settings))


def flaw(made: Architecture) -> str:
    """Why patches of a network cannot be put together seamlessly; empty where they can."""
    return str(getattr(made, "flaw", ""))


def unrolled(made: Architecture) -> bool:
    """Whether a network loops over patches of its own, so that only PyTorch itself can run it."""
    return bool(getattr(made, "unrolled", False))


def _found(network: str) -> tuple[type[Any], Build]:
    if network not in NETWORKS:
        near = difflib.get_close_matches(network, NETWORKS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(f"no dense network is named {network!r}; {hint}there are {', '.join(NETWORKS)}.")
    return NETWORKS[network]
