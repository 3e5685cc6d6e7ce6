"""The loss: weighted categorical cross-entropy, soft Dice, and sums of them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from slidebatch.errors import ConfigError
from slidebatch.training.spec import LossSpec


def loss_of(logits: Tensor, classes: Tensor, weights: Tensor, spec: LossSpec) -> Tensor:
    """The loss, a scalar.

    logits (N, K, Y, X) float32, classes (N, Y, X) int64, weights (N, Y, X) float32, 0 for what does not count.
    ConfigError where there are not K class weights.
    """
    check_weights(spec, logits.shape[1])
    loss = logits.new_zeros(())
    if spec.entropy:
        loss = loss + spec.entropy * entropy(logits, classes, weights, logits.new_tensor(spec.class_weights))
    if spec.dice:
        loss = loss + spec.dice * (1 - dice(logits, classes, weights))
    return loss


def check_weights(spec: LossSpec, classes: int) -> None:
    """ConfigError where there is not one class weight for each class."""
    if len(spec.class_weights) != classes:
        raise ConfigError(
            f"loss.class_weights has {len(spec.class_weights)} weights and the network {classes} classes; "
            "give one each, background first."
        )


def entropy(logits: Tensor, classes: Tensor, weights: Tensor, by_class: Tensor) -> Tensor:
    """Cross-entropy, each pixel weighted by its class and its place: the mean over all pixels, not over weights."""
    return (functional.cross_entropy(logits, classes, by_class, reduction="none") * weights).mean()


def dice(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Soft Dice of all classes but background, over the batch, their mean (Milletari et al. 2016, arXiv:1606.04797)."""
    counts = (weights > 0)[:, None]
    chance = logits.softmax(1)[:, 1:] * counts
    wanted = functional.one_hot(classes, logits.shape[1]).movedim(-1, 1)[:, 1:].float() * counts
    shared = (chance * wanted).sum((0, 2, 3))
    return ((2 * shared + 1) / (chance.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1)).mean()
