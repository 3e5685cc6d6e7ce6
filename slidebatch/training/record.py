"""The log of a training: a table as CSV and parquet, and curves to look at. Made anew after each epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from slidebatch.store import write_atomically
from slidebatch.training.state import Row


def write(folder: Path, rows: Sequence[Row]) -> None:
    """`log.csv`, `log.parquet` and `curves.png` of a folder, a row for each epoch; each whole or the one before."""
    table = pd.DataFrame(rows)
    write_atomically(folder / "log.csv", table.to_csv(index=False, float_format="%.6g").encode())
    packed = io.BytesIO()
    table.to_parquet(packed, index=False)
    write_atomically(folder / "log.parquet", packed.getvalue())
    write_atomically(folder / "curves.png", curves(table))


def curves(table: pd.DataFrame) -> bytes:
    """A PNG: loss, held-out scores and learning rate over the epochs, one below the other."""
    figure = Figure(figsize=(7, 8), layout="constrained")
    loss, score, rate = figure.subplots(3, 1, sharex=True)
    loss.plot(table["epoch"], table["loss"])
    loss.set(title="Loss on training crops", ylabel="loss")
    for name in [c for c in table.columns if c.startswith("dsb_")]:
        told = table[["epoch", name]].dropna()
        score.plot(told["epoch"], told[name], marker=".", label=name.removeprefix("dsb_"))
    if score.lines:
        score.legend(loc="lower right", fontsize="small")
    score.set(title="Data Science Bowl score on held-out groups", ylabel="score", ylim=(0, 1))
    rate.plot(table["epoch"], table["learning_rate"])
    rate.set(title="Learning rate at the end of the epoch", xlabel="epoch", ylabel="learning rate")
    packed = io.BytesIO()
    figure.savefig(packed, format="png", dpi=110)
    return packed.getvalue()
