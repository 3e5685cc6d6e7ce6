"""Settings of a training: what `conf/train/*.yaml` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from slidebatch.spec import Spec

Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class DataSpec(Spec):
    """The images to learn from and how they are drawn."""

    path: str = Field(description="Folder of images with truth, or a COCO JSON file.")
    layout: Literal["auto", "folders", "dsb", "coco"] = Field(
        default="auto",
        description="folders: images/ and labels/ with the same names; dsb: <id>/images and <id>/masks, as the 2018 "
        "Data Science Bowl has them; coco: a JSON file with polygons or run lengths; auto looks.",
    )
    images: str | None = Field(default=None, description="Folder of a COCO file's images; none: where the file lies.")
    modality: str | None = Field(
        default="index.tsv",
        description="Table (tab-separated: id, modality), a path or a name inside `path`; without it all images are "
        "of modality `image`.",
    )
    groups: str | None = Field(
        default="groups.tsv",
        description="Table (tab-separated: id, group) of images that belong together; without it each is alone.",
    )
    only: str | None = Field(
        default=None, description="File of the only ids to use, a path or a name inside `path`; none: all there are."
    )
    exclude: str | None = Field(
        default=None,
        description="File of ids that training must never see, a path or a name inside `path`; all images of their "
        "groups are left out too, and scored at the end.",
    )
    holdout: float = Field(
        default=0.08, ge=0, lt=1, description="Share of the groups kept for choosing epoch and calibration."
    )
    mix: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={},
        description="Share of crops by modality; modalities that it does not name are left out. Empty: as they come.",
    )
    balance: Share = Field(
        default=0.5,
        description="How groups are drawn within a modality: 0 by their number of images, 1 all alike.",
    )
    drop: tuple[Literal["holes", "pieces"], ...] = Field(
        default=(),
        description="Nuclei whose masks have holes or lie in pieces are ignored: their pixels do not count.",
    )


class NetworkSpec(Spec):
    """What is fitted."""

    name: str = Field(
        default="small_unet",
        description="simple_conv, small_unet, small_unet_dense or unet; or a detector: mask_rcnn or cascade.",
    )
    settings: dict[str, Any] = Field(default={}, description="Its architecture, where it differs from the defaults.")
    start: str | None = Field(
        default=None,
        description="Weights to start from: a .safetensors file, the name of shipped ones, or for mask_rcnn a "
        "checkpoint (.pth) of torchvision's; none: random ones.",
    )


class CropsSpec(Spec):
    """Random crops, a new one every time."""

    kind: Literal["crops"] = "crops"
    crop_px: int = Field(default=256, ge=16, description="Side of a crop in pixels.")


class GridSpec(Spec):
    """A fixed set: whole images and changed copies of them, each cut into a grid of patches."""

    kind: Literal["grid"] = "grid"
    image_px: tuple[PositiveInt, PositiveInt] = Field(description="(y, x) that images are cut to, at their centre.")
    images: PositiveInt = Field(description="Images in all, copies turned, enlarged and mirrored among them.")
    divisions: PositiveInt = Field(default=8, description="Patches along each side of an image.")
    blank: bool = Field(default=True, description="Whether patches without nuclei are kept.")
    most: PositiveInt | None = Field(default=None, description="Images taken from the training set; none: all.")


class TargetSpec(Spec):
    """What the network must answer."""

    contour_px: int = Field(default=1, ge=1, le=8, description="Width of the contour, inside the nucleus.")
    touching_px: int = Field(
        default=2, ge=1, le=8, description="Contour reaches this far where another nucleus is as near."
    )
    touching_weight: float = Field(
        default=3.0, ge=0, description="Pixels that near to two nuclei weigh 1 plus this in the cross-entropy."
    )


class LossSpec(Spec):
    """Weighted sum of categorical cross-entropy and soft Dice."""

    entropy: float = Field(default=1.0, ge=0, description="Weight of the cross-entropy.")
    dice: float = Field(default=1.0, ge=0, description="Weight of 1 - Dice, mean over nucleus and contour.")
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(1.0, 1.0, 1.5), description="Weights in the cross-entropy of background, nucleus and contour."
    )

    @model_validator(mode="after")
    def _something(self) -> LossSpec:
        if not self.entropy and not self.dice:
            raise ValueError("entropy and dice are both 0; one must count")
        return self


class DetectionSpec(Spec):
    """What a detector learns from in each crop, and what its errors weigh; dense networks have `targets` and `loss`."""

    anchors: PositiveInt = Field(default=256, description="Anchors of a crop in the loss.")
    anchors_positive: Share = Field(default=0.5, description="Largest share of them that lie on nuclei.")
    anchor_iou: tuple[Share, Share] = Field(
        default=(0.3, 0.7),
        description="An anchor is background below the first overlap with any nucleus, and a nucleus above the second.",
    )
    best_anchor: bool = Field(
        default=True, description="Whether a nucleus's best anchor counts as it, however little they overlap."
    )
    regions: PositiveInt = Field(default=128, description="Proposals of a crop in the loss.")
    regions_positive: Share = Field(default=0.25, description="Largest share of them that lie on nuclei.")
    region_iou: Share = Field(default=0.5, description="A proposal with this overlap is that nucleus.")
    before: PositiveInt = Field(
        default=500, description="Proposals of 256 x 256 px of each level that compete for being learned from."
    )
    proposals: PositiveInt = Field(default=500, description="Proposals of 256 x 256 px that are left of these.")
    least_px: PositiveInt = Field(default=12, description="Smaller pieces of nuclei in a crop do not count.")
    rpn_class: float = Field(default=1.0, ge=0, description="Weight of the loss of anchors' classes.")
    rpn_box: float = Field(default=1.0, ge=0, description="Weight of the loss of anchors' moves.")
    region_class: float = Field(default=1.0, ge=0, description="Weight of the loss of proposals' classes.")
    region_box: float = Field(default=1.0, ge=0, description="Weight of the loss of proposals' moves.")
    mask: float = Field(default=1.0, ge=0, description="Weight of the loss of masks.")

    @model_validator(mode="after")
    def _ordered(self) -> DetectionSpec:
        if self.anchor_iou[0] > self.anchor_iou[1]:
            raise ValueError("anchor_iou: the first must not be above the second")
        return self


class AugmentSpec(Spec):
    """How far a crop may be changed; chances are per crop, ranges are drawn from evenly (scale: its logarithm)."""

    scale: Range = Field(default=(0.65, 1.6), description="Enlargement.")
    flips: bool = Field(default=True, description="Mirroring and quarter turns.")
    rotate_chance: Share = Field(default=0.5, description="Turning by any angle.")
    elastic_chance: Share = Field(default=0.3, description="Elastic distortion.")
    elastic_px: float = Field(default=4.0, ge=0, description="Largest shift of a control point of the distortion.")
    contrast: Range = Field(default=(0.5, 1.3), description="Factor on intensities, around the background's end.")
    gamma: Range = Field(default=(0.6, 1.6), description="Exponent on intensities in 0..1.")
    brightness: float = Field(default=0.08, ge=0, description="Largest shift of intensities in 0..1.")
    tint: float = Field(default=0.15, ge=0, description="Largest relative change of one colour channel.")
    stain_chance: Share = Field(default=0.6, description="Changing the strengths of stains of colour images.")
    stain: float = Field(default=0.25, ge=0, lt=1, description="Largest relative change of a stain's strength.")
    noise_chance: Share = Field(default=0.4, description="Adding noise.")
    noise: float = Field(default=0.06, ge=0, description="Largest standard deviation of the noise, in 0..1.")
    blur_chance: Share = Field(default=0.3, description="Blurring.")
    blur_px: float = Field(default=1.5, gt=0, description="Largest standard deviation of the blur.")
    invert_chance: Share = Field(default=0.05, description="Turning bright to dark.")
    grey_chance: Share = Field(default=0.1, description="Taking the colour away, before the tint.")


class OptimiserSpec(Spec):
    """How weights follow gradients."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0, description="Its peak.")
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd, which takes Nesterov's.")
    clip: float | None = Field(default=5.0, gt=0, description="Largest norm of the gradient; none: any.")


class ScheduleSpec(Spec):
    """The learning rate over the steps, in shares of its peak."""

    name: Literal["cosine", "constant", "steps", "plateau"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of all steps in which it rises from 0.")
    milestones: tuple[Share, ...] = Field(default=(0.5, 0.8), description="steps: shares of all steps where it falls.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="steps, plateau: what it falls by.")
    patience: PositiveInt = Field(default=3, description="plateau: scores without a better one before it falls.")


class TrainSpec(Spec):
    """One training, from images to weights with their card."""

    output: str = Field(description="Folder of checkpoint, log, curves and weights.")
    name: str | None = Field(default=None, description="Name of the weights file; none: that of the network.")
    licence: str = Field(default="", description="Of weights and training images, for the card.")
    data: DataSpec
    network: NetworkSpec = NetworkSpec()
    sampling: CropsSpec | GridSpec = Field(default=CropsSpec(), discriminator="kind")
    augment: AugmentSpec = AugmentSpec()
    targets: TargetSpec = TargetSpec()
    loss: LossSpec = LossSpec()
    detection: DetectionSpec = DetectionSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    frozen: dict[str, Share] = Field(
        default={},
        description="Parts of the network that stay as they began for a share of all steps: {backbone.body: 0.3}.",
    )
    epochs: PositiveInt = 40
    steps_per_epoch: PositiveInt | None = Field(
        default=None, description="None: 100 for crops, and for a grid as many as show every patch once."
    )
    batch: PositiveInt = Field(default=8, description="Crops in a step, those of all GPUs together.")
    ema: float = Field(default=0.997, ge=0, lt=1, description="Decay of the averaged weights; these are kept.")
    held_out_crops: int = Field(
        default=0, ge=0, description="Unchanged crops of held-out images whose losses are told after every epoch."
    )
    score_every: PositiveInt = Field(default=4, description="Epochs between scores on the held-out groups.")
    stop_after: PositiveInt | None = Field(
        default=None, description="Early stop: scores in a row without a better one; none: never."
    )
    calibrate: bool = Field(default=True, description="Shift the last biases to what scores best when held out.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Arithmetic of the forward pass; auto: bfloat16 where the device has it."
    )
    threads: PositiveInt = Field(default=2, description="CPU threads of the network.")
    loaders: int = Field(default=1, ge=0, description="Processes that make crops; 0: the training's own.")
    seed: int = Field(default=0, ge=0)
