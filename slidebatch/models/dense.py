"""Running dense networks: from normalised patches to class maps, the same bits for a pixel in any patch.

On a CPU patches go through one by one, so batch size and batch mates cannot matter (and a batch gains nothing
there). On a GPU every batch is filled up to one size. What is left to matter are the engine, its version and
precision, the device's kind, and on a CPU the thread count: all of that is in the digest.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slidebatch.errors import EnvironmentFault, ModelError
from slidebatch.models import networks
from slidebatch.models.engines import Choice, Forward, choose, forward
from slidebatch.models.halving import Halving
from slidebatch.models.lanes import Begun, Lane, Maps, Patches, lane_to, room_for_weights
from slidebatch.models.networks import Architecture, DenseArchitecture
from slidebatch.models.protocol import Card, Place, check_patches
from slidebatch.models.spec import ModelSpec
from slidebatch.models.views import VIEWS, View
from slidebatch.models.weights_file import CardFile, checked_digest, load_weights, read_card, weights_path


@dataclass(frozen=True)
class Running:
    """How a network is run.

    device   "cpu", "cuda" or "cuda:1"
    threads  CPU threads
    batch    patches that go through a GPU together
    tta      name of the views that are averaged
    narrow   whether numbers may leave the range of the arithmetic (float16), so that answers must be looked at
    """

    device: str = "cpu"
    threads: int = 1
    batch: int = 1
    tta: str = "none"
    narrow: bool = False


class DenseNetwork:
    """A dense network ready to run: a forward pass, and around it views, class probabilities and rounding."""

    def __init__(self, forward: Forward, card: Card, running: Running, lane: Lane | None = None) -> None:
        self.card = card
        self.running = running
        self._forward = forward
        self._lane = lane or lane_to(running.device)
        self._batches = Halving(running.batch if running.device != "cpu" else 1, card)

    @property
    def halvings(self) -> int:
        """How often the GPU's memory ran out, so that the batch was halved."""
        return self._batches.halvings

    @property
    def busy_s(self) -> float:
        """Seconds in which the device has computed so far: a GPU's by its own clock."""
        return self._lane.busy_s

    def room(self, shape: tuple[int, ...]) -> Patches:
        """Memory (N, C, Y, X) to make patches in, from which they get to the device the fastest."""
        return self._lane.room(shape)

    def maps(self, patches: Patches, places: Sequence[Place] = ()) -> Maps:
        """(N, C, Y, X) float32 in 0..1 -> (N, K, Y, X) uint8, 255 for probability 1; `places` are not used.

        One channel is repeated to fill the network's. Y and X must be multiples of the stride. N may be 0.
        """
        size = max(1, self.running.batch)
        some = ((patches[i : i + size], places) for i in range(0, len(patches), size))
        empty = np.zeros((0, len(self.card.maps), *patches.shape[2:]), np.uint8)
        return np.concatenate([empty, *self.stream(some)])

    def stream(self, batches: Iterable[tuple[Patches, Sequence[Place]]]) -> Iterator[Maps]:
        """The answers of `maps` to each batch, in order; a GPU gets the next batch before an answer is waited for.

        So a batch must stay as it is until its answer has come.
        """
        begun: deque[list[Begun]] = deque()
        for patches, _ in batches:
            begun.append(self._begun(self._checked(patches)))
            if len(begun) > self._lane.ahead:
                yield self._ended(begun.popleft())
        while begun:
            yield self._ended(begun.popleft())

    def _begun(self, patches: Patches) -> list[Begun]:
        if self.running.device == "cpu" and torch.get_num_threads() != self.running.threads:
            torch.set_num_threads(self.running.threads)
        return self._batches.run(patches, self._together)

    @torch.inference_mode()
    def _together(self, patches: Patches, size: int) -> Begun:
        """Begin with up to `size` patches; a batch that is not full is filled up with blank ones."""
        return self._lane.begin(patches, lambda image: self._answers(image, size))

    def _answers(self, image: Tensor, size: int) -> list[Tensor]:
        """Class maps (N, K, Y, X) uint8, and if it must be known, whether all numbers were finite."""
        count, channels = image.shape[:2]
        if channels != self.card.channels:
            image = image.expand(-1, self.card.channels, -1, -1)
        if count < size:
            image = torch.cat([image, image.new_zeros(size - count, *image.shape[1:])])
        views = VIEWS[self.running.tta]
        chance = self._chance(image, views[0])
        for view in views[1:]:
            chance += self._chance(image, view)
        sound = [torch.isfinite(chance).all()] if self.running.narrow else []
        grey = chance.mul_(255 / len(views)).round_().to(torch.uint8)
        return [grey[:count].contiguous(), *sound]

    def _ended(self, begun: list[Begun]) -> Maps:
        found, *sound = zip(*(one.answers() for one in begun), strict=True)
        if not all(part.all() for one in sound for part in one):
            raise EnvironmentFault(
                f"numbers inside {self.card.name} leave the range of float16, so its answers mean nothing; "
                "set model.precision to float32 and give the same command again"
            )
        return np.concatenate(found) if len(found) > 1 else found[0]

    def _chance(self, image: Tensor, view: View) -> Tensor:
        """Probabilities (N, K, Y, X) float32 of all classes but background, from one view."""
        return view.back(self._forward(view.of(image)).softmax(dim=1)[:, 1:])

    def _checked(self, patches: npt.NDArray[np.float32]) -> Patches:
        check_patches(self.card, patches)
        return np.require(patches, np.float32, ["C", "W"])  # torch takes no read-only arrays


def settle(spec: ModelSpec, device: str) -> ModelSpec:
    """`spec` with the engine and the precision that "auto" becomes on a device of this machine."""
    path = weights_path(spec.name, spec.options)
    chosen = _choice(spec, device, _architecture(read_card(path), str(path)))
    return spec.model_copy(update={"engine": chosen.engine, "precision": chosen.precision})


def card(spec: ModelSpec, device: str) -> Card:
    """The card of a dense network with the weights that the settings name."""
    path = weights_path(spec.name, spec.options)
    stored = read_card(path)
    architecture = _architecture(stored, str(path))
    choice = _choice(spec, device, architecture)
    return Card(
        name=spec.name if spec.weights is None else stored.network,
        family="dense",
        channels=architecture.channels,
        maps=stored.maps,
        margin_px=stored.margin_px,
        stride_px=stored.stride_px,
        mpp=stored.mpp,
        digest=_digest(checked_digest(path, stored), stored, choice, _running(spec, device, choice)),
        diameter_um=stored.diameter_um,
    )


def load(spec: ModelSpec, device: str) -> DenseNetwork:
    """A dense network on a device ("cpu" or "cuda"), with the weights that the settings name."""
    path = weights_path(spec.name, spec.options)
    stored = read_card(path)
    made = card(spec, device)
    network = networks.build(stored.network, stored.architecture)
    load_weights(network, path, stored.network)
    if device != "cpu":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(spec.threads)  # some engines compile with what they find
    choice = _choice(spec, device, networks.architecture(stored.network, stored.architecture))
    with room_for_weights(made.name):
        return DenseNetwork(forward(network, choice, device, spec.threads), made, _running(spec, device, choice))


def _running(spec: ModelSpec, device: str, choice: Choice) -> Running:
    narrow = choice.precision == "float16"
    return Running(device, spec.threads, spec.batch_on(device.split(":")[0]), spec.tta, narrow)


def _choice(spec: ModelSpec, device: str, architecture: Architecture) -> Choice:
    return choose(spec.engine, spec.precision, device.split(":")[0], networks.unrolled(architecture))


def _architecture(card: CardFile, where: str) -> DenseArchitecture:
    """The architecture of a card, consistent with what else the card says, and fit to be run in patches."""
    try:
        architecture: Any = networks.architecture(card.network, card.architecture)
    except ModelError as error:
        raise ModelError(f"{where}: its card cannot be used: {error}") from error
    if flaw := networks.flaw(architecture):
        raise ModelError(f"{where}: {card.network} cannot be run in patches: {flaw}.")
    wrong = []
    if len(card.maps) != architecture.classes - 1:
        wrong.append(f"maps (found {len(card.maps)}, expected {architecture.classes - 1})")
    if card.stride_px != architecture.stride_px:
        wrong.append(f"stride_px (found {card.stride_px}, expected {architecture.stride_px})")
    if card.margin_px < architecture.margin_px:  # a larger margin is safe
        wrong.append(f"margin_px (found {card.margin_px}, expected at least {architecture.margin_px})")
    if wrong:
        raise ModelError(f"{where}: its card contradicts the architecture: {', '.join(wrong)}; correct the card.")
    dense: DenseArchitecture = architecture
    return dense


def _digest(weights: str, card: CardFile, choice: Choice, running: Running) -> str:
    """sha256 of all that the maps' bits depend on: weights, architecture, libraries, device, threads, views."""
    on_cpu = running.device == "cpu"
    parts: list[object] = [
        *(weights, card.network, card.architecture, list(card.maps), running.tta),
        *(torch.__version__, choice.engine, choice.release, choice.precision),
        *(running.device.split(":")[0], running.threads if on_cpu else 0, 0 if on_cpu else running.batch),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
