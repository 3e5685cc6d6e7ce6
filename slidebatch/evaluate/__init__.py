"""Scores of predicted nuclei against true ones: results folders, folders of label images, Data Science Bowl CSVs.

Owns reading both sides (`sides`, `dsb_csv`), tables of ids (`tables`), scores of images and their means (`scores`),
their bootstrap intervals (`intervals`), what is shown of it (`text`), COCO's files (`coco_files`), and what scores are
worth (`calibration`). The measures are `slidebatch.metrics`.
"""

from __future__ import annotations

from slidebatch.evaluate.calibration import Calibrated, calibrate
from slidebatch.evaluate.coco_files import write_coco
from slidebatch.evaluate.intervals import Bootstrap
from slidebatch.evaluate.judge import evaluate
from slidebatch.evaluate.scores import Evaluation, ImageScore
from slidebatch.evaluate.sides import Side, open_side
from slidebatch.evaluate.tables import Column

__all__ = [
    "Bootstrap",
    "Calibrated",
    "Column",
    "Evaluation",
    "ImageScore",
    "Side",
    "calibrate",
    "evaluate",
    "open_side",
    "write_coco",
]
