"""Scores of a network while it is trained: whole images forward, decoded as the engine decodes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from slidebatch.decode import DecodeSpec, label_image
from slidebatch.metrics import dsb_score
from slidebatch.models.networks import Architecture
from slidebatch.training.crops import fitted
from slidebatch.training.dataset import Example
from slidebatch.training.readers import IGNORED

Maps = npt.NDArray[np.uint8]
T = TypeVar("T", np.uint8, np.float32)
Forward = Callable[[npt.NDArray[np.float32]], npt.NDArray[T]]
"""(1, C, Y, X) float32 in 0..1 -> (1, K, Y, X); Y and X multiples of the stride."""

DEFAULT = DecodeSpec.model_validate({})


@dataclass(frozen=True)
class Fitted:
    """A network as functions of arrays, in eval mode, on whatever device it lies."""

    network: nn.Module
    architecture: Architecture

    @property
    def margin_px(self) -> int:
        return self.architecture.margin_px

    @property
    def stride_px(self) -> int:
        return self.architecture.stride_px

    def maps(self, patches: npt.NDArray[np.float32]) -> Maps:
        """(N, C, Y, X) float32 in 0..1 -> all classes but background (N, K, Y, X) uint8, 255 for 1."""
        chance = torch.from_numpy(self.logits(patches)).softmax(1)[:, 1:]
        return (255 * chance).round().to(torch.uint8).numpy()

    @torch.inference_mode()
    def logits(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The same before the softmax: (N, K + 1, Y, X) float32, background first."""
        self.network.eval()
        image = fitted(torch.from_numpy(patches)[0], self.architecture.channels)[None]
        device = next(self.network.parameters()).device
        image = image.to(device).contiguous(memory_format=torch.channels_last)
        return self.network(image).float().contiguous().cpu().numpy()


def whole_maps(forward: Forward[T], example: Example, margin_px: int, stride_px: int) -> npt.NDArray[T]:
    """What a network answers (K, Y, X) for a whole image, mirrored beyond its edges as the engine does."""
    height, width = example.labels.shape
    image, before = mirrored(example, margin_px, stride_px)
    return forward(image)[0, :, before : before + height, before : before + width]


def mirrored(example: Example, margin_px: int, stride_px: int) -> tuple[npt.NDArray[np.float32], int]:
    """A whole image (1, C, Y, X) in 0..1, mirrored beyond its edges to multiples of the stride, at least the margin.

    Also by how many pixels, above and to the left.
    """
    image = example.normalised()
    before = -(-margin_px // stride_px) * stride_px
    after = [before + -n % stride_px for n in image.shape[1:]]
    padded = np.pad(image, [(0, 0), (before, after[0]), (before, after[1])], mode="reflect")
    return np.ascontiguousarray(padded[None]), before


def judged(maps: Maps, example: Example, spec: DecodeSpec = DEFAULT) -> float:
    """Data Science Bowl score of an image's class maps; what does not count is blank on both sides."""
    counts = example.labels != IGNORED
    return dsb_score(label_image(maps, spec) * counts, example.labels * counts)


def held_out_score(
    forward: Forward[np.uint8],
    examples: Sequence[Example],
    margin_px: int,
    stride_px: int,
    spec: DecodeSpec = DEFAULT,
) -> dict[str, float]:
    """Mean Data Science Bowl score per modality, and `all`: the mean over images."""
    return means([judged(whole_maps(forward, e, margin_px, stride_px), e, spec) for e in examples], examples)


def means(scores: Sequence[float], examples: Sequence[Example]) -> dict[str, float]:
    """The mean of the scores of some examples per modality, and `all`: the mean over images. NaN without any."""
    names = sorted({e.modality for e in examples})
    table = {n: _mean(s for s, e in zip(scores, examples, strict=True) if e.modality == n) for n in names}
    return table | {"all": _mean(scores)}


def weighted(scores: Sequence[float], examples: Sequence[Example], mix: dict[str, float]) -> float:
    """The means of scores by modality, weighted by the modalities' shares in `mix`, or else by their examples."""
    found = means(scores, examples)
    names = sorted({e.modality for e in examples})
    shares = [mix.get(n, float(sum(e.modality == n for e in examples))) for n in names]
    return float(np.average([found[n] for n in names], weights=shares))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")
