"""slidebatch: batch nucleus segmentation of whole slides and plates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slidebatch.results import open_results

__all__ = ["open_results"]


def __getattr__(name: str) -> Any:
    # Late, so that `import slidebatch` (in every worker, in `slidebatch --help`) costs nothing.
    if name == "open_results":
        from slidebatch.results import open_results

        return open_results
    raise AttributeError(f"module 'slidebatch' has no attribute {name!r}")
