"""Networks behind one protocol, found by name.

    names()             what is registered
    card(spec, device)  what the engine must know before it plans; reads no pixels, starts no device
    load(spec, device)  the network, ready to run
    pick_device(name)   what "auto" becomes on this machine

A network family is one module with two functions, `card` and `load`, each of (settings, device, threads). A name
with a dot in it is such a module of the user's own, such as `my_package.my_network`.
torch is imported when a network of it is first asked for, so that reading a config stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from slidebatch.errors import ModelError
from slidebatch.models.protocol import Card, Model
from slidebatch.models.spec import ModelSpec

__all__ = ["ModelSpec", "card", "load", "names", "pick_device", "register"]

_CARDS = {
    "small_unet": "slidebatch.models.dense:small_unet_card",
    "oracle": "slidebatch.models.oracle:oracle_card",
    "oracle_detections": "slidebatch.models.oracle:oracle_detections_card",
}
_LOADERS = {
    "small_unet": "slidebatch.models.dense:load_small_unet",
    "oracle": "slidebatch.models.oracle:load_oracle",
    "oracle_detections": "slidebatch.models.oracle:load_oracle_detections",
}


def names() -> list[str]:
    """Registered names, sorted."""
    return sorted(_LOADERS)


def card(spec: ModelSpec, device: str = "cpu") -> Card:
    """The card of a network. ModelError for an unknown name, missing or contradictory weights, wrong settings."""
    made: Card = _call(_CARDS, spec, device)
    return made


def load(spec: ModelSpec, device: str = "cpu") -> Model:
    """The network on a device, "cpu" or "cuda". ModelError as `card`, and for weights that do not fit."""
    made: Model = _call(_LOADERS, spec, pick_device(device))
    return made


def pick_device(device: str) -> str:
    """What "auto", "cpu" or "cuda" means on this machine; never a silent CPU run. ModelError without a GPU."""
    if device == "cpu":
        return device
    picked: str = import_module("slidebatch.models.dense").pick_device(device)
    return picked


def register(name: str, card_door: str, loader_door: str) -> None:
    """Add a network: two functions written `package.module:function`. ModelError for a name that is taken."""
    if name in _LOADERS:
        raise ModelError(f"a network named {name} is registered already; choose another name.")
    _CARDS[name], _LOADERS[name] = card_door, loader_door


def _call(doors: Mapping[str, str], spec: ModelSpec, device: str) -> Any:
    door: Callable[[Mapping[str, Any], str, int], Any] = _own(doors, spec) if "." in spec.name else _known(doors, spec)
    return door(spec.options, device, spec.threads)


def _known(doors: Mapping[str, str], spec: ModelSpec) -> Any:
    """The function of a registered network."""
    if spec.name not in doors:
        near = difflib.get_close_matches(spec.name, doors, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(f"no network is named {spec.name!r}; {hint}registered are {', '.join(names())}.")
    module, function = doors[spec.name].split(":")
    return getattr(import_module(module), function)


def _own(doors: Mapping[str, str], spec: ModelSpec) -> Any:
    """The function of a user's own network, whose name is that of its module."""
    try:
        return getattr(import_module(spec.name), "card" if doors is _CARDS else "load")
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"model.name {spec.name!r} should be a module with the functions card and load, but {error}; "
            "install it where Python finds it, or name a registered network"
        ) from error
