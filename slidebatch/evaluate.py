"""Scores of label images against truth: a results folder or a folder of label images on either side."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ConfigError, InputError
from slidebatch.metrics import counts_by_threshold, dsb_of, seg
from slidebatch.models.truth import ENDINGS, Truth

if TYPE_CHECKING:
    import pandas as pd

Labels = npt.NDArray[np.integer]
MEASURES = ("dsb", "ap50", "f1", "precision", "recall", "seg")


@dataclass(frozen=True)
class ImageScore:
    """One image's scores: `dsb` over all IoU thresholds, all others but `seg` at IoU 0.5."""

    slide: str
    group: str
    truth: int
    predicted: int
    tp: int
    fp: int
    fn: int
    dsb: float
    ap50: float
    f1: float
    precision: float
    recall: float
    seg: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of all images, in order of their ids."""

    images: tuple[ImageScore, ...]

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Mean over images of every measure, for each group and for `all`; f1_pooled from summed counts."""
        groups = sorted({s.group for s in self.images} - {""})
        table = {g: _means([s for s in self.images if s.group == g]) for g in groups}
        return table | {"all": _means(self.images)}

    def frame(self) -> pd.DataFrame:
        """One row per image."""
        import pandas as pd

        return pd.DataFrame([asdict(s) for s in self.images], columns=list(ImageScore.__dataclass_fields__))

    def to_json(self) -> str:
        """Means and images as JSON."""
        return json.dumps({"means": self.means, "images": [asdict(s) for s in self.images]}, indent=1)

    def to_text(self) -> str:
        """A table to read: the means, a line for each group."""
        columns = ["images", "truth", "predicted", *MEASURES, "f1_pooled"]
        rows = [["", *columns]]
        rows += [[name, *(_shown(row[c]) for c in columns)] for name, row in self.means.items()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) for row in rows)


def evaluate(
    predicted: str | Path,
    truth: str | Path,
    subset: str | Path | None = None,
    groups: str | Path | None = None,
) -> Evaluation:
    """Score predicted label images against true ones.

    :param predicted, truth: each a results folder of slidebatch, or a folder of label images named by id
        (.tif, .npy, .zarr, .png; integers (Y, X), 0 = background).
    :param subset: file of ids, one a line; default: all ids that were predicted. Each must be on both sides.
    :param groups: tab-separated table whose column `id` names images and whose column `modality` (or else its
        second column) says under which heading their means are taken.
    :raises ConfigError: a folder or file that is not there. InputError: ids missing on one side, or images that
        differ in size.
    """
    ours, theirs = open_side(predicted), open_side(truth)
    ids = _ids(Path(subset)) if subset is not None else sorted(ours.ids)
    for side, name in ((ours, predicted), (theirs, truth)):
        missing = sorted(set(ids) - set(side.ids))
        if missing:
            raise InputError(
                f"{name} lacks {len(missing)} of {len(ids)} images ({', '.join(missing[:3])}, ...); "
                "name the ids that both sides have with a subset file."
            )
    heading = read_groups(Path(groups)) if groups is not None else {}
    return Evaluation(tuple(_score(i, heading.get(i, ""), ours.labels(i), theirs.labels(i)) for i in ids))


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the ids it has, and the label image of each."""

    ids: frozenset[str]
    labels: Callable[[str], Labels]


def open_side(path: str | Path) -> Side:
    """A results folder, or else a folder of label images. ConfigError if it is neither."""
    folder = Path(path)
    if (folder / "manifest.json").is_file():
        from slidebatch.results import open_results

        results = open_results(folder)
        done = results.slides.loc[results.slides["state"] == "done", "slide"]
        return Side(frozenset(done), lambda i: np.asarray(results.labels(i)))
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name a results folder or a folder of label images.")
    files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in ENDINGS}
    if not files:
        raise ConfigError(f"{folder} holds no label images; expected files with one of {', '.join(ENDINGS)}.")
    return Side(frozenset(files), lambda i: _read(files[i]))


def read_groups(path: Path) -> dict[str, str]:
    """Heading by id from a tab-separated table."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name a tab-separated table with the column id.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = list(rows[0]) if rows else []
    if rows and ("id" not in names or len(names) < 2):
        raise ConfigError(f"{path} has columns {', '.join(names)}; it must have id and one more.")
    column = "modality" if "modality" in names else next((n for n in names if n != "id"), "id")
    return {row["id"]: row[column] for row in rows}


def _ids(path: Path) -> list[str]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a subset is a text file of ids, one a line.")
    return sorted(set(path.read_text().split()))


def _read(path: Path) -> Labels:
    truth = Truth(path)
    return truth.read(truth.box)


def _score(slide: str, group: str, predicted: Labels, truth: Labels) -> ImageScore:
    if predicted.shape != truth.shape:
        raise InputError(
            f"{slide}: predicted labels are {predicted.shape}, the truth is {truth.shape} pixels (y, x); "
            "both must be on the same grid (run with input.scale=1)."
        )
    counts = counts_by_threshold(predicted, truth)
    half = counts[0.5]
    return ImageScore(
        slide=slide,
        group=group,
        truth=half.tp + half.fn,
        predicted=half.tp + half.fp,
        tp=half.tp,
        fp=half.fp,
        fn=half.fn,
        dsb=dsb_of(counts),
        ap50=half.average_precision,
        f1=half.f1,
        precision=half.precision,
        recall=half.recall,
        seg=seg(predicted, truth),
    )


def _means(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Means over images; sums of counts. Without images: no means."""
    total = {n: sum(getattr(s, n) for s in scores) for n in ("truth", "predicted", "tp", "fp", "fn")}
    row: dict[str, Any] = {"images": len(scores), "truth": total["truth"], "predicted": total["predicted"]}
    row |= {name: _mean(getattr(s, name) for s in scores) for name in MEASURES}
    found = 2 * total["tp"] + total["fp"] + total["fn"]
    return row | {"f1_pooled": 2 * total["tp"] / found if found else 1.0}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
