"""Scores of images, their means by heading, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from slidebatch.evaluate.intervals import Bootstrap, Floats, ratio_intervals
from slidebatch.evaluate.text import described, means_table
from slidebatch.metrics import DSB_THRESHOLDS, Ranked, Scores, coco_ap, coco_map

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("dsb", "ap50", "ap75", "f1", "precision", "recall", "seg", "pq", "sq", "rq", "aji")
"""Measures of an image; a heading's value is the mean over its images."""

TOTALS = ("truth", "predicted", "tp", "fp", "fn", "merged", "split")
"""Counts of an image; a heading's value is their sum."""

ALL = "all"


@dataclass(frozen=True)
class ImageScore:
    """One image's scores; counts, precision, recall and f1 are at IoU 0.5.

    group     heading under which its means are taken ("" = none)
    cluster   group that the bootstrap draws it with: images that are not independent share one
    ap        TP / (TP + FP + FN) at IoU 0.50, 0.55, ..., 0.95
    missing   whether the prediction lacked the image: everything in it is missed and every measure is 0
    """

    slide: str
    group: str
    truth: int
    predicted: int
    tp: int
    fp: int
    fn: int
    dsb: float
    ap50: float
    ap75: float
    f1: float
    precision: float
    recall: float
    seg: float
    pq: float
    sq: float
    rq: float
    aji: float
    merged: int
    split: int
    ap: tuple[float, ...]
    cluster: str
    missing: bool = False


def image_score(slide: str, group: str, cluster: str, found: Scores) -> ImageScore:
    """The row of an image."""
    half = found.half
    return ImageScore(
        slide=slide,
        group=group,
        truth=half.tp + half.fn,
        predicted=half.tp + half.fp,
        tp=half.tp,
        fp=half.fp,
        fn=half.fn,
        dsb=found.dsb,
        ap50=half.average_precision,
        ap75=found.by_threshold[0.75].average_precision,
        f1=half.f1,
        precision=half.precision,
        recall=half.recall,
        seg=found.seg,
        **asdict(found.panoptic),
        aji=found.aji,
        merged=found.merged,
        split=found.split,
        ap=tuple(found.by_threshold[t].average_precision for t in DSB_THRESHOLDS),
        cluster=cluster,
    )


def missing_score(slide: str, group: str, cluster: str, truth: int) -> ImageScore:
    """The row of an image of `truth` nuclei that was not predicted: 0 throughout, also where there was none to find."""
    counts = dict.fromkeys(TOTALS, 0) | {"truth": truth, "fn": truth}
    zero = dict.fromkeys(MEASURES, 0.0)
    ap = (0.0,) * len(DSB_THRESHOLDS)
    row: dict[str, Any] = {**counts, **zero}
    return ImageScore(slide=slide, group=group, cluster=cluster, ap=ap, missing=True, **row)


@dataclass(frozen=True)
class Evaluation:
    """Scores of all images, in order of their ids.

    bootstrap   how intervals are made; their groups are the images' `cluster`
    notes       what the reader must know: images missing, ignored
    extra       ids that were predicted and have no truth: they are in no score
    ranks       what each image adds to COCO's mAP; none where the prediction has no scores
    """

    images: tuple[ImageScore, ...]
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    notes: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    ranks: tuple[Ranked, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids that were not predicted and scored 0."""
        return tuple(s.slide for s in self.images if s.missing)

    @cached_property
    def headings(self) -> dict[str, list[ImageScore]]:
        """The images of each group, by name, and of `all`, which comes last."""
        groups = sorted({s.group for s in self.images} - {"", ALL})
        return {g: [s for s in self.images if s.group == g] for g in groups} | {ALL: list(self.images)}

    @cached_property
    def means(self) -> dict[str, dict[str, float]]:
        """For each heading: images, sums of counts, means of measures, and f1_pooled and seg_pooled over all nuclei."""
        return {name: _means(scores) for name, scores in self.headings.items()}

    @cached_property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """95 % bootstrap interval (low, high) of every mean; NaN where a heading has fewer than two groups."""
        return {name: _intervals(name, scores, self.bootstrap) for name, scores in self.headings.items()}

    @cached_property
    def ap(self) -> dict[str, dict[float, float]]:
        """Mean AP at each IoU threshold, for each heading."""
        return {
            name: {t: _mean([s.ap[i] for s in scores]) for i, t in enumerate(DSB_THRESHOLDS)}
            for name, scores in self.headings.items()
        }

    @cached_property
    def coco(self) -> dict[str, dict[str, float]]:
        """COCO's mAP over all images of each heading, at IoU 0.5, 0.75 and the mean of ten; empty without scores."""
        if not self.ranks:
            return {}
        rank = {score.slide: rank for score, rank in zip(self.images, self.ranks, strict=True)}
        return {name: _coco([rank[s.slide] for s in scores]) for name, scores in self.headings.items()}

    def frame(self) -> pd.DataFrame:
        """One row per image; `ap` spread over columns ap_0.50 ... ap_0.95."""
        import pandas as pd

        return pd.DataFrame([_flat(s) for s in self.images], columns=_columns())

    def to_csv(self) -> str:
        """One row per image, columns as in `frame`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _columns(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_flat(s) for s in self.images)
        return text.getvalue()

    def to_json(self) -> str:
        """Means, intervals, AP by threshold, COCO's mAP, ids missing and extra, notes, images: JSON; NaN is null."""
        told = {
            "means": self.means,
            "intervals": self.intervals,
            "ap": {name: {f"{t:.2f}": v for t, v in row.items()} for name, row in self.ap.items()},
            "coco": self.coco,
            "missing": self.missing,
            "extra": self.extra,
            "notes": self.notes,
            "bootstrap": {"resamples": self.bootstrap.resamples, "seed": self.bootstrap.seed},
            "images": [asdict(s) for s in self.images],
        }
        return json.dumps(finite(told), indent=1, allow_nan=False)

    def to_text(self) -> str:
        """A table to read: main means, a line for each heading, with intervals below."""
        return means_table(self)

    def describe(self) -> str:
        """`to_text`, rates, AP by threshold, COCO's mAP where there are scores, and the notes."""
        return described(self)


def finite(value: Any) -> Any:
    """JSON values with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


Pooled = Callable[[ImageScore], tuple[float, float]]
POOLED: dict[str, Pooled] = {
    "f1_pooled": lambda s: (2 * s.tp, 2 * s.tp + s.fp + s.fn),
    "seg_pooled": lambda s: (s.seg * s.truth, s.truth),
}
"""Measures over all nuclei of all images alike: what an image adds to the ratio's top and bottom."""


def _coco(ranks: Sequence[Ranked]) -> dict[str, float]:
    return {"map50": coco_ap(ranks, 0.5), "map75": coco_ap(ranks, 0.75), "map": coco_map(ranks)}


def _means(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Means over images, sums of counts, pooled ratios. Without images: NaN."""
    row: dict[str, float] = {"images": len(scores)}
    row |= {name: sum(getattr(s, name) for s in scores) for name in TOTALS}
    row |= {name: _mean([getattr(s, name) for s in scores]) for name in MEASURES}
    for name, parts in POOLED.items():
        over, under = (math.fsum(column) for column in zip((0, 0), *map(parts, scores), strict=True))
        row[name] = over / under if under else 1.0
    return row


def _intervals(heading: str, scores: Sequence[ImageScore], bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    names = [*MEASURES, *POOLED]
    over, under = _ratios(scores)
    found = ratio_intervals(over, under, [s.cluster for s in scores], bootstrap, heading)
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, found, strict=True)}


def _ratios(scores: Sequence[ImageScore]) -> tuple[Floats, Floats]:
    """What each image adds to top and bottom of every measure and pooled measure: (N, M) twice."""
    shape = (len(scores), len(MEASURES) + len(POOLED))
    pairs = [[(getattr(s, m), 1.0) for m in MEASURES] + [parts(s) for parts in POOLED.values()] for s in scores]
    both = np.array(pairs, np.float64).reshape(*shape, 2)
    return both[..., 0], both[..., 1]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else float("nan")


def _columns() -> list[str]:
    names = [n for n in ImageScore.__dataclass_fields__ if n != "ap"]
    return [*names, *(f"ap_{t:.2f}" for t in DSB_THRESHOLDS)]


def _flat(score: ImageScore) -> dict[str, Any]:
    row = asdict(score)
    ap = row.pop("ap")
    return row | {f"ap_{t:.2f}": v for t, v in zip(DSB_THRESHOLDS, ap, strict=True)}
