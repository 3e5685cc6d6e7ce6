"""What is to be exported, and which slides that means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slidebatch.errors import ResultsError
from slidebatch.results import Results

ObjectType = Literal["detection", "annotation"]


@dataclass(frozen=True)
class Wish:
    """What is to be exported.

    to           a name of FORMATS
    output       the file or folder to write
    slides       ids; empty: all that are done
    columns      of the table, for CSV and GeoJSON; None: all
    object_type  what QuPath takes nuclei for
    force        whether an earlier export may be replaced
    """

    to: str
    output: Path
    slides: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    object_type: ObjectType = "detection"
    force: bool = False


def chosen(results: Results, asked: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The slides to export, and those of the results that failed and are left out.

    :raises ResultsError: a slide that is not there or not done; none asked for, and the run is not done.
    """
    if asked:
        for slide in asked:
            results.dataset(slide)  # says what is wrong with it
        return tuple(dict.fromkeys(asked)), ()
    if results.state != "done":
        raise ResultsError(
            f"{results.path}: the run is not done (state: {results.state}); give its command again to complete it, "
            "or name slides that are done with --slide."
        )
    state = {name: results.entry(name)["state"] for name in results.names}
    done = tuple(name for name, said in state.items() if said == "done")
    return done, tuple(name for name, said in state.items() if said != "done")
