"""Settings of a training: what `conf/train/*.yaml` may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from slidebatch.spec import Spec


class AugmentSpec(Spec):
    """How far a training crop may be changed; probabilities are per crop.

    scale              smallest and largest enlargement of a crop
    contrast           smallest and largest factor on intensity around the background's end
    gamma              smallest and largest exponent on intensities in 0..1
    brightness         largest shift of intensities
    tint               largest relative change of one colour channel of stained and brightfield images
    noise, blur_px     largest standard deviation of the noise (in 0..1) and of the blur
    noise_chance, blur_chance, invert_chance, grey_chance   how often
    """

    scale: tuple[float, float] = (0.6, 1.6)
    contrast: tuple[float, float] = (0.5, 1.3)
    gamma: tuple[float, float] = (0.6, 1.6)
    brightness: float = Field(default=0.08, ge=0)
    tint: float = Field(default=0.2, ge=0)
    noise: float = Field(default=0.06, ge=0)
    blur_px: float = Field(default=1.5, ge=0)
    noise_chance: float = Field(default=0.4, ge=0, le=1)
    blur_chance: float = Field(default=0.3, ge=0, le=1)
    invert_chance: float = Field(default=0.05, ge=0, le=1)
    grey_chance: float = Field(default=0.1, ge=0, le=1)


class TrainSpec(Spec):
    """One training, from images to shipped weights.

    dataset          folder with images/, labels/, index.tsv (id, modality) and groups.tsv (id, group)
    exclude          file of ids that training must never see, a path or a name inside `dataset`;
                     every image of their groups is left out too
    output           folder of checkpoints, log and weights
    holdout          share of the remaining groups kept for choosing epoch and thresholds
    mix              share of crops by modality; modalities that it does not name are left out
    epochs, steps_per_epoch, batch, crop_px   an epoch is steps_per_epoch batches of random crops
    learning_rate    peak; linear warm-up over `warmup` of all steps, then a cosine to zero
    ema              decay of the averaged weights, which are the ones that are kept
    precision        arithmetic of the forward pass while training
    score_every      epochs between scores on the held-out groups; the best averaged weights are kept
    """

    dataset: str
    output: str
    exclude: str | None = "validation.txt"
    holdout: float = Field(default=0.08, ge=0, lt=1)
    mix: dict[str, float] = Field(default={"fluorescence": 0.55, "stained-purple": 0.38, "brightfield": 0.07})
    epochs: int = Field(default=40, ge=1)
    steps_per_epoch: int = Field(default=75, ge=1)
    batch: int = Field(default=8, ge=1)
    crop_px: int = Field(default=256, ge=64, multiple_of=8)
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    ema: float = Field(default=0.997, ge=0, lt=1)
    touching_weight: float = Field(default=3.0, ge=0)
    contour_weight: float = Field(default=1.5, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    score_every: int = Field(default=4, ge=1)
    seed: int = 0
    threads: int = Field(default=2, ge=1)
    augment: AugmentSpec = AugmentSpec()
