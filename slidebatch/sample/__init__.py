"""Made-up inputs with known truth, written as real files, the same for every run: a plate, a tissue slide, and a
small training set.

`write_sample` is the door. What it writes carries its truth as label images named by slide id, so that a
first run needs no download and can state its own accuracy.
"""

from __future__ import annotations

from slidebatch.sample.plate import write_plate
from slidebatch.sample.tissue import write_tissue
from slidebatch.sample.training import write_training
from slidebatch.sample.write import Sample, write_sample

__all__ = ["Sample", "write_plate", "write_sample", "write_tissue", "write_training"]
