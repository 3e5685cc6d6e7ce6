"""Other intensities and colours for the same shapes.

Blur, gamma and inversion are torchvision's, which take any number of channels. Contrast, brightness and tint are
not: torchvision's want one channel or three, and none of them leaves the background where it is. Stains are changed
in optical densities, in which haematoxylin, eosin and DAB add up (Ruifrok and Johnston 2001, "Quantification of
histochemical staining by color deconvolution"; scikit-image's vectors).
"""

from __future__ import annotations

import numpy as np
import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torchvision.transforms.v2 import functional

from slidebatch.training.spec import AugmentSpec

DARKEST = 1 / 255
"""Intensity below which optical density is not followed."""


def recolour(image: Tensor, spec: AugmentSpec, colour: bool, rng: np.random.Generator) -> Tensor:
    """Other intensities: image (C, Y, X) float32 in 0..1; grey images (all channels alike) stay grey.

    colour  whether the image is red, green and blue and not three times grey
    """
    grey = image.shape[0] > 1 and not colour and bool((image[1:] == image[:1]).all())
    if grey:
        return _intensities(image[:1], spec, False, rng).expand(image.shape[0], -1, -1)
    return _intensities(image, spec, colour, rng)


def _intensities(image: Tensor, spec: AugmentSpec, colour: bool, rng: np.random.Generator) -> Tensor:
    if colour and rng.random() < spec.grey_chance:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    elif colour and rng.random() < spec.stain_chance:
        image = restained(image, rng.uniform(1 - spec.stain, 1 + spec.stain, 3))
    image = functional.adjust_gamma(image.clamp(0, 1), float(rng.uniform(*spec.gamma)))
    image = _shifted(image, spec, colour, rng)
    if rng.random() < spec.blur_chance:
        sigma = float(rng.uniform(0.3, max(spec.blur_px, 0.3)))
        reach = min(int(np.ceil(2.5 * sigma)), min(image.shape[1:]) - 1)  # the kernel must fit the crop
        image = functional.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
    if rng.random() < spec.noise_chance:
        noise = rng.standard_normal(tuple(image.shape), np.float32) * np.float32(rng.uniform(0, spec.noise))
        image = image + torch.from_numpy(noise)
    if rng.random() < spec.invert_chance:
        image = 1 - image
    return image.clamp(0, 1)


def _shifted(image: Tensor, spec: AugmentSpec, colour: bool, rng: np.random.Generator) -> Tensor:
    """Contrast around the background's end, brightness, and each channel's own strength, as one line."""
    background = float(image[:, ::8, ::8].mean() > 0.5)
    contrast = float(rng.uniform(*spec.contrast))
    shift = background * (1 - contrast) + float(rng.uniform(-spec.brightness, spec.brightness))
    tint = rng.uniform(1 - spec.tint, 1 + spec.tint, image.shape[0]) if colour else np.ones(image.shape[0])
    strength = torch.from_numpy(tint.astype(np.float32))[:, None, None]
    return image * (contrast * strength) + shift * strength


def restained(image: Tensor, strengths: np.ndarray) -> Tensor:
    """A colour image (3, Y, X) in 0..1 with its stains (haematoxylin, eosin, DAB) multiplied by strengths (3,)."""
    change = torch.from_numpy((hed_from_rgb @ np.diag(strengths) @ rgb_from_hed).astype(np.float32))
    density = image.clamp(DARKEST, 1).log()  # of either sign: only the factor counts
    return torch.einsum("cd,cyx->dyx", change, density).exp().clamp(0, 1)
