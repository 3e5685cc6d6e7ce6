"""The report of a run: report/index.html, one page to look at.

Owns what stands on the page and in which order; failures come first. How it looks is `slidebatch.pages`, figures come
from the reading API and from `slidebatch.plate_assay`.

    slidebatch.report.write_report("results/plate")
"""

from __future__ import annotations

from slidebatch.report.write import spec_of, write_report

__all__ = ["spec_of", "write_report"]
