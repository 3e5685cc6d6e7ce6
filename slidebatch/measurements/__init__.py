"""Nuclei as numbers: shape, intensities in the nucleus and in a ring around it, densities of stains.

Pure functions of label images and images that go by in bands of rows. Owns the section `measure` of the config
(`spec`), which pixels count for whom (`runs`), sums over them (`sums`, `shapes`, `tally`) and what columns they
make (`columns`). What each column means: docs/measurements.md.
"""

from __future__ import annotations

from slidebatch.measurements.columns import column_names, columns_of
from slidebatch.measurements.spec import MeasureSpec, Recipe, recipe
from slidebatch.measurements.tally import Band, Nuclei, Tally, tally

__all__ = ["Band", "MeasureSpec", "Nuclei", "Recipe", "Tally", "column_names", "columns_of", "recipe", "tally"]
