"""What a detector must answer: boxes and masks from a label image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.measure import label as pieces

from slidebatch.models.rois import Truth


def truth(labels: npt.NDArray[np.int32], least_px: int) -> Truth:
    """The nuclei of a label image (Y, X), 0 for background, negative for what does not count.

    Each piece (by edges and corners) of a nucleus is one of its own: what is mirrored beyond an image's edge bears the
    name of what it mirrors. A piece of fewer than `least_px` pixels, such as the rest of a nucleus that the crop's edge
    cuts, does not count. Without nuclei all tables are empty.
    """
    image = pieces(np.maximum(labels, 0), background=0, connectivity=2).astype(np.int32)
    area = np.bincount(image.ravel())
    small = area < least_px
    small[0] = False
    names = np.flatnonzero(~small)[1:]
    unsure = (labels < 0) | small[image]
    ignored = ndimage.label(unsure, np.ones((3, 3)))[0] if unsure.any() else np.zeros((0, 0), np.int32)
    return Truth(
        boxes=boxes(image)[names - 1],
        names=torch.from_numpy(names.astype(np.int32)),
        image=torch.from_numpy(image),
        ignored=boxes(ignored),
    )


def boxes(image: npt.NDArray[np.int32]) -> torch.Tensor:
    """Boxes (N, 4) float32 xyxy, outer edges of pixels, of the labels 1..N of an image (Y, X)."""
    found = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(image)] if image.size else []
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
