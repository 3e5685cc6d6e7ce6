"""COCO's JSON of instances: images, one category (nucleus), and an annotation per nucleus with its score.

Masks are packed run lengths over the whole image, which hold holes and pieces exactly; polygons of COCO do not. On the
grid of the label images; `bbox` is [x, y, width, height] in its pixels. Beside COCO's own keys annotations have `score`
and `label`, the value in the label image. Images are numbered from 1 in the order of the slides and have the slide's
id for a file name. Source: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slidebatch.errors import InputError
from slidebatch.export.nuclei import Part, levels, parts
from slidebatch.export.wish import Wish
from slidebatch.results import Results
from slidebatch.runlengths import CATEGORY, MOST_PX, coco_record, down_columns

Row = dict[str, Any]


def write(results: Results, slides: tuple[str, ...], wish: Wish, path: Path) -> None:
    """Write some slides. InputError, before anything is written, for one that is too large for COCO's run lengths."""
    images = [_image(results, slide, number) for number, slide in enumerate(slides, 1)]
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps([CATEGORY])}, "annotations": [')
        number = 0
        for image in images:
            for row in _rows(results, image):
                number += 1
                file.write(("\n" if number == 1 else ",\n") + json.dumps({"id": number, "iscrowd": 0} | row))
        file.write("\n]}\n")


def _image(results: Results, slide: str, number: int) -> Row:
    height, width = (int(size) for size in levels(results, slide)[0].shape)
    if height * width > MOST_PX:
        raise InputError(
            f"{slide} has {height * width} pixels; COCO's run lengths count to {MOST_PX}: export it to geojson."
        )
    return {"id": number, "file_name": slide, "height": height, "width": width}


def _rows(results: Results, image: Row) -> Iterator[Row]:
    slide = image["file_name"]
    columns = [name for name in ("score",) if name in results.dataset(slide).schema.names]
    for part in parts(results, slide, columns):
        yield from records(part, image)


def records(part: Part, image: Row) -> Iterator[Row]:
    """The annotation of each nucleus of a part, but for its number."""
    window, shape = part.window, (image["height"], image["width"])
    runs = down_columns(window.pixels, window.label, window.box, window.corner, shape[0])
    scores = part.columns.get("score")
    for i, label in enumerate(window.label.tolist()):
        place, length = (values[runs.start[i] : runs.start[i + 1]] for values in (runs.place, runs.length))
        row: Row = {
            "image_id": image["id"],
            "label": label,
            **coco_record(place, length, shape),
        }
        yield row if scores is None else row | {"score": round(float(scores[i]), 6)}
