"""Random training crops: a pure function of the seed, the step and the place in the batch.

So a training that was stopped and started again sees exactly the crops it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from slidebatch.training.dataset import Example, by_modality
from slidebatch.training.spec import AugmentSpec, TrainSpec
from slidebatch.training.targets import class_image, weight_image

Floats = npt.NDArray[np.float32]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Crops:
    """Batches of augmented crops of the examples, mixed by modality."""

    def __init__(self, examples: Sequence[Example], spec: TrainSpec) -> None:
        self.spec = spec
        self.labels = [e.labels for e in examples]
        self.modality = [e.modality for e in examples]
        self.images = [(255 * e.normalised()).round().astype(np.uint8) for e in examples]  # (3, Y, X)
        self.rows = by_modality(examples, spec.mix)
        self.chances = {name: self._chances(rows) for name, rows in self.rows.items()}

    def _chances(self, rows: list[int]) -> npt.NDArray[np.float64]:
        """Larger images hold more nuclei to learn from: drawn by the root of their area."""
        root = np.sqrt([self.labels[i].size for i in rows])
        return root / root.sum()

    def batch(self, step: int) -> Batch:
        """Images (N, 3, Y, X) float32, classes (N, Y, X) int64, weights (N, Y, X) float32 of one step."""
        crops = [self.crop(np.random.default_rng([self.spec.seed, step, i])) for i in range(self.spec.batch)]
        pixels, classes, weights = (np.stack(column) for column in zip(*crops, strict=True))
        images = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        return images, torch.from_numpy(classes).long(), torch.from_numpy(weights)

    def crop(self, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.uint8], Floats]:
        """One crop: image (3, Y, X), classes (Y, X), weights (Y, X)."""
        share = np.array(list(self.spec.mix.values()))
        modality = list(self.spec.mix)[rng.choice(len(share), p=share / share.sum())]
        row = int(rng.choice(self.rows[modality], p=self.chances[modality]))
        image, labels = cut(self.images[row], self.labels[row], self.spec, rng)
        image, labels = turn(image, labels, rng)
        image = recolour(image, self.spec.augment, modality != "fluorescence", rng)
        return image, class_image(labels), weight_image(labels, self.spec.touching_weight)


def cut(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    spec: TrainSpec,
    rng: np.random.Generator,
) -> tuple[Floats, npt.NDArray[np.int32]]:
    """A random window, enlarged to crop_px: (3, Y, X) float32 in 0..1 and labels; small images are mirrored."""
    low, high = spec.augment.scale
    window = round(spec.crop_px / float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    pad = [(0, max(0, window - n)) for n in labels.shape]
    y, x = (int(rng.integers(0, max(n, window) - window + 1)) for n in labels.shape)
    image = np.pad(image, [(0, 0), *pad], mode="reflect")[:, y : y + window, x : x + window]
    labels = np.pad(labels, pad, mode="reflect")[y : y + window, x : x + window]
    pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32) / 255)[None]
    ids = torch.from_numpy(np.ascontiguousarray(labels, np.float32))[None, None]
    size = (spec.crop_px, spec.crop_px)
    pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return pixels[0].numpy(), functional.interpolate(ids, size)[0, 0].numpy().astype(np.int32)


def turn(
    image: Floats, labels: npt.NDArray[np.int32], rng: np.random.Generator
) -> tuple[Floats, npt.NDArray[np.int32]]:
    """One of the eight turns and flips."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, labels = np.rot90(image, quarter, (1, 2)), np.rot90(labels, quarter)
    if flip:
        image, labels = image[:, ::-1], labels[::-1]
    return image, np.ascontiguousarray(labels)


def recolour(image: Floats, spec: AugmentSpec, colour: bool, rng: np.random.Generator) -> Floats:
    """Other intensities for the same shapes: (3, Y, X) float32 in 0..1; grey images stay grey."""
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(*spec.gamma))
    end = float(rng.integers(2)) if colour else 0.0  # the intensity that the contrast leaves alone
    image = (image - end) * np.float32(rng.uniform(*spec.contrast)) + end
    image = image + np.float32(rng.uniform(-spec.brightness, spec.brightness))
    if colour and rng.random() < spec.grey_chance:
        image = np.broadcast_to(image.mean(0, keepdims=True), image.shape)
    elif colour:
        image = image * rng.uniform(1 - spec.tint, 1 + spec.tint, (3, 1, 1)).astype(np.float32)
    if rng.random() < spec.blur_chance:
        image = ndimage.gaussian_filter(image, (0, *[rng.uniform(0.3, spec.blur_px)] * 2))
    if rng.random() < spec.noise_chance:
        image = image + _noise(image.shape, spec.noise, colour, rng)
    if rng.random() < spec.invert_chance:
        image = 1 - image
    return np.clip(image, 0, 1).astype(np.float32)


def _noise(shape: tuple[int, ...], most: float, colour: bool, rng: np.random.Generator) -> Floats:
    """Noise, the same in all channels of a grey image."""
    shape = shape if colour else (1, *shape[1:])
    return rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(0, most))
