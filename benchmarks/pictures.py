"""A picture of what a network finds and misses: for each modality the image at the middle of the scores, and the worst.

    slidebatch run conf/slide.yaml --set input.path=validation/ --set output.path=results/validation
    python benchmarks/pictures.py results/validation --data ../shared/data/dsb2018 --output docs/models/small_unet.png

True nuclei are outlined in orange, found ones in blue; where both agree, blue lies on orange.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image
from skimage.segmentation import find_boundaries

import slidebatch
from slidebatch.evaluate import ImageScore, evaluate

TRUE, FOUND = (230, 159, 0), (0, 114, 178)  # told apart by colour-blind eyes too
MOST_PX = 320


def chosen(scores: tuple[ImageScore, ...]) -> list[tuple[str, ImageScore]]:
    """For each heading the image in the middle of its scores, and the last."""
    out = []
    for name in sorted({s.group for s in scores}):
        ranked = sorted((s for s in scores if s.group == name), key=lambda s: (-s.dsb, s.slide))
        out += [(f"{name}, middle", ranked[len(ranked) // 2]), (f"{name}, worst", ranked[-1])]
    return out


def drawn(
    image: npt.NDArray[np.uint8], truth: npt.NDArray[np.integer], found: npt.NDArray[np.integer]
) -> npt.NDArray[np.uint8]:
    """Image (Y, X, 3) with outlines of both label images (Y, X), cut to MOST_PX, twice as large: thin lines."""
    middle = [int(np.median(at)) for at in np.nonzero(truth)]  # a few nuclei are surely there
    low = [max(0, min(m - MOST_PX // 2, n - MOST_PX)) for m, n in zip(middle, truth.shape, strict=True)]
    inside = np.s_[low[0] : low[0] + MOST_PX, low[1] : low[1] + MOST_PX]
    large = [np.repeat(np.repeat(part[inside], 2, 0), 2, 1) for part in (image, truth, found)]
    out = large[0].copy()
    for labels, colour in ((large[1], TRUE), (large[2], FOUND)):
        out[find_boundaries(labels, mode="inner")] = colour
    return out


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dsb2018"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    judged = evaluate(options.results, options.data / "labels", groups=options.data / "index.tsv")
    picked = chosen(judged.images)
    results = slidebatch.open_results(options.results)
    figure = Figure(figsize=(4 * len(picked) / 2, 8.4), layout="constrained")
    for axes, (title, score) in zip(figure.subplots(2, len(picked) // 2).T.ravel(), picked, strict=True):
        image = np.asarray(Image.open(options.data / "images" / f"{score.slide}.png").convert("RGB"))
        truth = np.asarray(Image.open(options.data / "labels" / f"{score.slide}.png")).astype(np.int64)
        axes.imshow(drawn(image, truth, np.asarray(results.labels(score.slide))))
        axes.set_title(
            f"{title}: {score.dsb:.2f}\n{score.truth} nuclei, {score.tp} right, {score.fp} wrong", fontsize=10
        )
        axes.set_axis_off()
    figure.savefig(options.output, dpi=80)


if __name__ == "__main__":
    main()
