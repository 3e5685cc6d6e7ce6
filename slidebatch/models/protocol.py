"""What every network must offer. Two families: dense class maps, and detections with masks.

The engine gives a model patches of one fixed shape, already normalised to 0..1, together with where each
patch lies; real networks ignore the place, oracle models live by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ModelError
from slidebatch.geometry import Box

Family = Literal["dense", "detections"]


@dataclass(frozen=True)
class Place:
    """Where a patch lies: the slide's id and the patch's box in slide pixels at the plan's grid.

    The box may reach beyond the slide: those pixels are mirrored ones.
    """

    slide: str
    box: Box


@dataclass(frozen=True)
class Card:
    """What the engine must know of a network before it plans.

    name       registered name
    family     "dense" or "detections"
    channels   image channels that the network takes; a single channel is repeated to fill them
    maps       names of the class maps a dense network leaves (all but background), ("nucleus", "contour")
    margin_px  pixels at each side of a patch that depend on what lies outside it (half the receptive field)
    stride_px  patches and cells start and end on multiples of this
    mpp        micrometres per pixel it was trained at; None: does not care (oracles)
    diameter_um  typical nucleus diameter in its training data, None where it does not matter
    digest     sha256 of weights and settings: part of every fingerprint
    """

    name: str
    family: Family
    channels: int
    maps: tuple[str, ...]
    margin_px: int
    stride_px: int
    mpp: float | None
    digest: str
    diameter_um: float | None = None


@dataclass(frozen=True)
class Detections:
    """N detections of one patch or block, in slide pixels at the plan's grid.

    box    (N, 4) float32   (y0, x0, y1, x1)
    score  (N,)   float32   0..1
    mask   (N, M, M) uint8  soft masks over the box, 0..255, M the same for all (28 in Mask R-CNN)
    """

    box: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.box)


def check_patches(card: Card, patches: npt.NDArray[np.float32]) -> None:
    """ModelError where a network cannot take the channels of patches (N, C, Y, X), ValueError where not their sides."""
    channels, height, width = patches.shape[1:]
    if channels not in (1, card.channels):
        raise ModelError(
            f"{card.name} takes 1 or {card.channels} channels and was given {channels}; "
            "choose channels with input.channels."
        )
    if height % card.stride_px or width % card.stride_px:
        raise ValueError(f"patch {height} x {width} px is no multiple of the stride {card.stride_px} px")


class DenseModel(Protocol):
    """A network that answers with class maps the size of the patch."""

    card: Card

    def maps(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> npt.NDArray[np.uint8]:
        """(N, C, Y, X) float32 in 0..1 -> (N, K, Y, X) uint8, K = len(card.maps), 255 for probability 1."""
        ...


class StreamingModel(DenseModel, Protocol):
    """A dense model that computes one batch while the next is made.

    halvings  how often the device's memory ran out, so that batches are smaller now
    busy_s    seconds in which the device has computed so far
    """

    @property
    def halvings(self) -> int: ...
    @property
    def busy_s(self) -> float: ...

    def room(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Memory to make patches in; any thread may ask for it."""
        ...

    def stream(
        self, batches: Iterable[tuple[npt.NDArray[np.float32], Sequence[Place]]]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The answers of `maps` to each batch, in order; a batch stays as it is until its answer has come."""
        ...


class OneByOne:
    """Any dense model as a streaming one: each batch is answered before the next is asked for."""

    halvings = 0

    def __init__(self, model: DenseModel) -> None:
        self.card, self.maps, self.busy_s = model.card, model.maps, 0.0

    def room(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return np.empty(shape, np.float32)

    def stream(
        self, batches: Iterable[tuple[npt.NDArray[np.float32], Sequence[Place]]]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        for patches, places in batches:
            began = time.perf_counter()
            found = self.maps(patches, places)
            self.busy_s += time.perf_counter() - began
            yield found


def streaming(model: DenseModel) -> StreamingModel:
    """A dense model by its own way of streaming, or answering batch by batch."""
    return model if hasattr(model, "stream") else OneByOne(model)  # type: ignore[return-value]


class DetectionModel(Protocol):
    """A network that answers with detections."""

    card: Card

    def detect(self, patches: npt.NDArray[np.float32], places: Sequence[Place]) -> list[Detections]:
        """(N, C, Y, X) float32 in 0..1 -> one `Detections` per patch, in slide pixels (place added)."""
        ...


Model = DenseModel | DetectionModel
