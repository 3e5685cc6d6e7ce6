"""Reads a results folder: slides, label images, images, outlines and tables, lazily.

Owns the reading side of the folder that a run writes (see docs/results.md). Nothing here writes. A folder
that is still being written can be read for the slides that are done.

    results = slidebatch.open_results("results/plate")
    results.slides                                     # one row per slide or field
    results.labels("A01")                              # lazy (y, x) array of labels, micrometre coordinates
    results.instances("A01", where=("area", ">", 50))  # one row per nucleus; `label` is the pixel value
    results.wells()                                    # one row per well
"""

from __future__ import annotations

from slidebatch.results.arrays import centres, datasets, open_group
from slidebatch.results.folder import Results, open_results
from slidebatch.results.manifest import FORMAT_VERSION, read_manifest
from slidebatch.results.outlined import Outline
from slidebatch.results.straight import Seams

__all__ = [
    "FORMAT_VERSION",
    "Outline",
    "Results",
    "Seams",
    "centres",
    "datasets",
    "open_group",
    "open_results",
    "read_manifest",
]
