"""Checkpoints of torchvision's own Mask R-CNN as a beginning, such as one trained on COCO.

Such a file (.pth) holds the tensors of `torchvision.models.detection.maskrcnn_resnet50_fpn`, alone or under `model`.
It fills a `mask_rcnn` of the same backbone and widths. Layers whose size depends on the number of classes or of anchors
stay as they began; everything else must fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slidebatch.errors import ModelError
from slidebatch.models.weights_file import tensor_faults

ENDINGS = (".pth", ".pt")

OWN = (
    *("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    *("roi_heads.mask_predictor.mask_fcn_logits", "rpn.head.cls_logits", "rpn.head.bbox_pred"),
)
"""Layers that depend on the number of classes or of anchors."""

COUNTER = "num_batches_tracked"
"""Of batch norms: frozen ones, which checkpoints have, count nothing."""


def begin_from(network: nn.Module, path: Path) -> list[str]:
    """Fill a detector from a checkpoint of torchvision's; the layers left as they were, by name. Changes `network`.

    ModelError where the file is no checkpoint, or lacks tensors, has others, or has them in other shapes.
    """
    found, wanted = _renamed(_read(path)), network.state_dict()
    left = {
        name
        for name in OWN
        for part in ("weight", "bias")
        if (key := f"{name}.{part}") in found and key in wanted and found[key].shape != wanted[key].shape
    }
    skipped = tuple(f"{name}." for name in left)
    fits = {k: v.float() for k, v in found.items() if not k.startswith(skipped) and not k.endswith(COUNTER)}
    needed = {k: v for k, v in wanted.items() if not k.startswith(skipped) and not k.endswith(COUNTER)}
    if faults := tensor_faults(fits, needed):
        raise ModelError(f"{path}: the checkpoint does not fit: {faults}; use the settings that it was made with.")
    network.load_state_dict(fits, strict=False)
    return sorted(left)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever comes
        raise ModelError(f"{path}: not a readable checkpoint ({error}); fetch it again.") from error
    told = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(told, Mapping) or not all(isinstance(v, Tensor) for v in told.values()):
        raise ModelError(f"{path}: no tensors by name were found; give a checkpoint as torchvision saves it.")
    return dict(told)


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that torchvision gives them today; older checkpoints have shorter ones."""
    out = {}
    for name, tensor in tensors.items():
        for part in ("weight", "bias"):
            name = name.replace(f"rpn.head.conv.{part}", f"rpn.head.conv.0.0.{part}")
            for i in range(4):
                name = name.replace(f"mask_head.mask_fcn{i + 1}.{part}", f"mask_head.{i}.0.{part}")
                for blocks in ("inner_blocks", "layer_blocks"):
                    name = name.replace(f"fpn.{blocks}.{i}.{part}", f"fpn.{blocks}.{i}.0.{part}")
        out[name] = tensor
    return out
