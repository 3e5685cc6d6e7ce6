"""Pages that people look at: one HTML file each, with everything in it, readable without a network and on paper.

Owns the house style: blocks of a page, charts, heat maps of plates, pieces of images. `slidebatch.report` and the
report of sweeps say what stands on them.
"""

from __future__ import annotations

from slidebatch.pages.blocks import Block, Drawing, Figures, Folded, Gallery, Page, Section, Table, Text, number
from slidebatch.pages.page import render
from slidebatch.pages.spec import ReportSpec

__all__ = [
    "Block",
    "Drawing",
    "Figures",
    "Folded",
    "Gallery",
    "Page",
    "ReportSpec",
    "Section",
    "Table",
    "Text",
    "number",
    "render",
]
