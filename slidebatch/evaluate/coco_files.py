"""Truth and results as COCO has them, for other people's tools: `truth.json` and `results.json` in a folder.

Masks are packed run lengths over the whole image, down its columns (https://cocodataset.org/#format-results). Images
are numbered from 1 in the order of their ids, which `truth.json` has as `file_name`. One category, 1: nucleus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ConfigError
from slidebatch.evaluate.judge import choose, label_images
from slidebatch.evaluate.sides import Side, open_side
from slidebatch.evaluate.tables import read_ids, read_shapes
from slidebatch.runlengths import CATEGORY, coco_record, runs_of

Row = dict[str, Any]


def write_coco(
    folder: Path,
    predicted: str | Path,
    truth: str | Path,
    subset: str | Path | None = None,
    shapes: str | Path | None = None,
) -> None:
    """Write `truth.json` and `results.json` of the images that `evaluate` would compare, given the same.

    Images that were not predicted are in the truth alone. Errors as `evaluate`; ConfigError where the prediction is no
    results folder, as only these have scores.
    """
    ours, theirs = (open_side(p, read_shapes(Path(shapes)) if shapes is not None else {}) for p in (predicted, truth))
    ids = choose(ours, theirs, read_ids(Path(subset)) if subset is not None else None).ids
    images: list[Row] = []
    true: list[Row] = []
    found: list[Row] = []
    for number, image in enumerate(ids, 1):
        there = image in ours.ids
        ours_here, truth_here = label_images(image, ours if there else theirs, theirs)
        height, width = truth_here.shape
        images.append({"id": number, "file_name": image, "height": int(height), "width": int(width)})
        for row in records(np.asarray(truth_here), number):
            true.append({"id": len(true) + 1, "iscrowd": 0} | row)
        if there:
            found += scored(records(np.asarray(ours_here), number), image, ours)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"images": images, "categories": [CATEGORY], "annotations": true}
    (folder / "truth.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(found), encoding="utf-8")


def scored(rows: Iterator[Row], image: str, side: Side) -> list[Row]:
    """COCO's results of an image: its annotations without their label, but with the label's score."""
    scores = side.scores(image)
    if scores is None:
        raise ConfigError(f"{side.name} has no scores, which COCO's results need; name the results folder of a run.")
    return [{"score": round(scores[row["label"]], 6)} | {k: v for k, v in row.items() if k != "label"} for row in rows]


def records(labels: npt.NDArray[np.integer], image: int) -> Iterator[Row]:
    """COCO's record of each nucleus of a label image (Y, X), in order of labels, which `label` tells."""
    label, runs = runs_of(labels)
    for i, name in enumerate(label.tolist()):
        place, length = (values[runs.start[i] : runs.start[i + 1]] for values in (runs.place, runs.length))
        yield {"image_id": image, "label": name, **coco_record(place, length, (labels.shape[0], labels.shape[1]))}
