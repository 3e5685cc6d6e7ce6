"""Results in other programs' files: `slidebatch export`.

Owns what is written (see docs/exports.md), never reads but through `results`. Every export is written beside its place
and moved there when it is whole; slides go by window by window, so that memory does not grow with them.
"""

from __future__ import annotations

from slidebatch.export.formats import FORMATS
from slidebatch.export.whole import Exported, export
from slidebatch.export.wish import Wish

__all__ = ["FORMATS", "Exported", "Wish", "export"]
