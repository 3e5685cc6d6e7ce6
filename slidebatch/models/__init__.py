"""Networks behind one protocol, found by name.

    names()               what is registered
    card(spec, device)    what the engine must know before it plans; reads no pixels, starts no device
    load(spec, device)    the network, ready to run
    calibration(spec)     from its scores to the overlap to expect, where its weights have that
    store_calibration(...)  puts one there
    settle(spec, device)  the spec with what "auto" becomes on this machine: for workers that may differ
    pick_device(name)     what "auto" becomes on this machine
    gpus(), why_no_gpu()  the GPUs here, or what is missing for one
    give_back(device)     memory of a GPU that this process no longer uses

Networks with weights (`networks`) are found by the name of their kind, or of weights that ship with the package; the
card of the weights says which they are, and so whether `dense` or `detector` runs them. Others are modules with two
functions, `card` and `load`, each of (settings, device, threads). A name with a dot in it is such a module of the
user's own, such as `my_package.my_network`.
torch is imported when a network of it is first asked for, so that reading a config stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ensemble.calibrate import Calibration
from slidebatch.errors import ModelError
from slidebatch.models.protocol import Card, Model
from slidebatch.models.spec import ModelSpec

__all__ = [
    "ModelSpec",
    "calibration",
    "card",
    "give_back",
    "gpus",
    "load",
    "names",
    "pick_device",
    "register",
    "settle",
    "store_calibration",
    "why_no_gpu",
]

DENSE = ("simple_conv", "small_unet", "small_unet_dense", "unet")
"""The kinds of dense networks, as `networks.NETWORKS` has them; told here so that naming them needs no torch."""

DETECTORS = ("cascade", "mask_rcnn")
"""The kinds of detectors, as `networks.DETECTORS` has them."""

SHIPPED = Path(__file__).parent / "weights"

_CARDS = {
    "oracle": "slidebatch.models.oracle:oracle_card",
    "oracle_detections": "slidebatch.models.oracle:oracle_detections_card",
}
_LOADERS = {
    "oracle": "slidebatch.models.oracle:load_oracle",
    "oracle_detections": "slidebatch.models.oracle:load_oracle_detections",
}


def names() -> list[str]:
    """Registered names, those of shipped weights among them, sorted."""
    return sorted({*_LOADERS, *DENSE, *DETECTORS, *_shipped()})


def card(spec: ModelSpec, device: str = "cpu") -> Card:
    """The card of a network. ModelError for an unknown name, missing or contradictory weights, wrong settings."""
    made: Card = _runner(spec).card(spec, device) if _has_weights(spec) else _call(_CARDS, spec, device)
    return made


def load(spec: ModelSpec, device: str = "cpu") -> Model:
    """The network on a device, "cpu" or "cuda". ModelError as `card`, and for weights that do not fit."""
    device = pick_device(device)
    made: Model = _runner(spec).load(spec, device) if _has_weights(spec) else _call(_LOADERS, spec, device)
    return made


def calibration(spec: ModelSpec) -> Calibration | None:
    """The calibration of scores that lies with a network's weights; None where there is none.

    ModelError as `card`, and for one that is wrong.
    """
    return None if not _has_weights(spec) else import_module("slidebatch.models.stored").calibration(spec)


def store_calibration(spec: ModelSpec, weights: Path, calibration: Calibration) -> str | None:
    """Put a calibration into the card beside some weights, which must be those that `spec` runs; a warning or None.

    ModelError: the network has no weights, runs others, or weights and card are missing, wrong or no pair. Where the
    weights that `spec` names are no longer there, nobody can compare, and the warning says so.
    """
    if not _has_weights(spec):
        raise ModelError(f"{spec.name} has no weights, so no card to hold a calibration; leave --weights out.")
    told: str | None = import_module("slidebatch.models.stored").store_calibration(spec, weights, calibration)
    return told


def settle(spec: ModelSpec, device: str = "cpu") -> ModelSpec:
    """`spec` with the engine and the precision that "auto" becomes here; a worker without them then refuses.

    ModelError as `card`. Networks that have no engines keep theirs.
    """
    settled: ModelSpec = _runner(spec).settle(spec, device) if _has_weights(spec) else spec
    return settled


def pick_device(device: str) -> str:
    """What "auto", "cpu" or "cuda" means on this machine; never a silent CPU run. ModelError without a GPU."""
    if device == "cpu":
        return device
    picked: str = import_module("slidebatch.models.devices").pick_device(device)
    return picked


def gpus() -> tuple[Any, ...]:
    """The GPUs that this process may use (`devices.Gpu`: name, memory_bytes, capability)."""
    return tuple(import_module("slidebatch.models.devices").gpus())


def torch_version() -> str:
    """The version of torch, and the CUDA it was built for. ImportError where it is broken."""
    told: str = import_module("slidebatch.models.devices").torch_version()
    return told


def driver_version() -> str | None:
    """The version of NVIDIA's driver; None where nothing tells it."""
    told: str | None = import_module("slidebatch.models.devices").driver_version()
    return told


def why_no_gpu() -> str | None:
    """What is missing for networks to run on a GPU here; None where nothing is."""
    missing: str | None = import_module("slidebatch.models.devices").why_no_gpu()
    return missing


def give_back(device: str) -> None:
    """Give a GPU's memory that this process no longer uses back to it, for other processes; nothing on a CPU."""
    if device != "cpu":
        import_module("slidebatch.models.lanes").give_back()


def register(name: str, card_door: str, loader_door: str) -> None:
    """Add a network: two functions written `package.module:function`. ModelError for a name that is taken."""
    if name in names():
        raise ModelError(f"a network named {name} is registered already; choose another name.")
    _CARDS[name], _LOADERS[name] = card_door, loader_door


def _shipped() -> list[str]:
    return [path.stem for path in SHIPPED.glob("*.safetensors")]


def _has_weights(spec: ModelSpec) -> bool:
    return spec.name in (*DENSE, *DETECTORS, *_shipped())


def _runner(spec: ModelSpec) -> Any:
    return import_module("slidebatch.models.stored").runner(spec)


def _call(doors: Mapping[str, str], spec: ModelSpec, device: str) -> Any:
    fixed = [k for k, v in (("engine", "auto"), ("precision", "auto"), ("tta", "none")) if getattr(spec, k) != v]
    if fixed:
        raise ModelError(
            f"{spec.name} is no network with weights of slidebatch's and knows no {', '.join(fixed)}; leave it out."
        )
    door: Callable[[Mapping[str, Any], str, int], Any] = _own(doors, spec) if "." in spec.name else _known(doors, spec)
    return door(spec.options, device, spec.threads)


def _known(doors: Mapping[str, str], spec: ModelSpec) -> Any:
    """The function of a registered network."""
    if spec.name not in doors:
        near = difflib.get_close_matches(spec.name, names(), 1)
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
