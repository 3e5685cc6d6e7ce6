"""What an evaluation looks like on a terminal: plain text, columns aligned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from slidebatch.metrics import DSB_THRESHOLDS

SHOWN = ("dsb", "ap50", "f1", "seg", "pq", "aji")
RATES = ("ap75", "precision", "recall", "sq", "rq", "f1_pooled", "seg_pooled")
COUNTED = ("images", "truth", "predicted", "merged", "split")


class Judged(Protocol):
    """What is shown of an evaluation; `scores.Evaluation` says what each part holds."""

    @property
    def means(self) -> dict[str, dict[str, float]]: ...
    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]: ...
    @property
    def ap(self) -> dict[str, dict[float, float]]: ...
    @property
    def coco(self) -> dict[str, dict[str, float]]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def means_table(evaluation: Judged) -> str:
    """Counts and main means of every heading; below each, 95 % intervals where there are any."""
    rows = [["", *COUNTED, *SHOWN]]
    for name, row in evaluation.means.items():
        rows.append([name, *(str(int(row[c])) for c in COUNTED), *(f"{row[m]:.4f}" for m in SHOWN)])
        spans = [span(*evaluation.intervals[name][m]) for m in SHOWN]
        if any(spans):
            rows.append(["", *("" for _ in COUNTED), *spans])
    return table(rows)


def rates_table(evaluation: Judged) -> str:
    """The other means of every heading, and what is pooled over all its nuclei."""
    rows = [["", *RATES]]
    rows += [[name, *(f"{row[m]:.4f}" for m in RATES)] for name, row in evaluation.means.items()]
    return table(rows)


def ap_table(evaluation: Judged) -> str:
    """Mean AP of every heading at each IoU threshold."""
    rows = [["AP at IoU", *(f"{t:.2f}" for t in DSB_THRESHOLDS)]]
    rows += [[name, *(f"{v:.4f}" for v in row.values())] for name, row in evaluation.ap.items()]
    return table(rows)


def coco_table(evaluation: Judged) -> str:
    """COCO's mAP of every heading; empty where there are no scores."""
    names = ("map50", "map75", "map")
    rows = [["COCO", *names]]
    rows += [[name, *(f"{row[n]:.4f}" for n in names)] for name, row in evaluation.coco.items()]
    return table(rows) if evaluation.coco else ""


def described(evaluation: Judged) -> str:
    """All tables, then the notes, a line each."""
    tables = [made(evaluation) for made in (means_table, rates_table, ap_table, coco_table)]
    return "\n\n".join(filter(None, tables)) + "".join(f"\n{note}" for note in evaluation.notes)


def span(low: float, high: float) -> str:
    """An interval; empty where there is none.

    >>> span(0.25, 0.5)
    '0.250-0.500'
    """
    return "" if math.isnan(low) else f"{low:.3f}-{high:.3f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as text, columns as wide as their widest cell: the first to the left, others to the right.

    >>> print(table([["", "n"], ["all", "12"]]))
          n
    all  12
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )
