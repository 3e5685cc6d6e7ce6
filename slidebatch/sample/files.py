"""How sample images reach the disk: the one place of the package that writes TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

SOFTWARE = "slidebatch"


def write_image(path: Path, image: npt.NDArray[np.uint16], mpp: float) -> None:
    """Write a (Y, X) image as a plain deflated TIFF that states its pixel size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    per_cm = 1e4 / mpp
    tifffile.imwrite(
        path, image, compression="zlib", predictor=True, rowsperstrip=64, software=SOFTWARE, metadata=None,
        resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
    )  # fmt: skip


def write_truth(path: Path, labels: npt.NDArray[np.int32]) -> None:
    """Write labels (Y, X) as a deflated TIFF, uint16 where the ids fit and uint32 otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.uint16 if labels.max(initial=0) < 2**16 else np.uint32
    tifffile.imwrite(path, labels.astype(dtype), compression="zlib", software=SOFTWARE, metadata=None)


def write_slide(path: Path, image: npt.NDArray[np.uint8], mpp: float, levels: int) -> None:
    """Write (Y, X, 3) RGB as an OME-TIFF: JPEG tiles of 256 px, a pyramid of halved levels in SubIFDs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles: dict[str, Any] = {
        "tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 90},
        "software": SOFTWARE,
    }  # fmt: skip
    pixels = {
        "axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm", "Name": path.name.removesuffix(".ome.tif"),
    }  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(image, subifds=levels - 1, metadata=pixels, **tiles)
        for _ in range(levels - 1):
            image = _halved(image)
            writer.write(image, subfiletype=1, metadata=None, **tiles)


def _halved(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Means of 2 x 2 pixels: (Y, X, 3) -> (Y // 2, X // 2, 3)."""
    y, x = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * y, : 2 * x].reshape(y, 2, x, 2, 3)
    return np.asarray(np.rint(blocks.mean(axis=(1, 3))), np.uint8)
