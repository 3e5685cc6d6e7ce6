"""What a page is made of, as values: sections of texts, tables, drawings and folded text.

All text is plain: the template escapes it. Only a drawing's markup is taken as it is, and `pages` alone makes that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Table:
    """Rows of cells below their heads. Cells are text; those that look like numbers are never broken."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Drawing:
    """A picture with a caption. `markup` is HTML or SVG that `pages` made."""

    markup: Markup
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Drawings beside each other; those with outlines get a switch for them."""

    drawings: Sequence[Drawing]
    outlined: bool = False
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Folded:
    """Long text as it is, folded away until it is asked for or printed."""

    title: str
    text: str
    kind: Literal["folded"] = "folded"


@dataclass(frozen=True)
class Figures:
    """A few large numbers: what, and how much."""

    figures: Sequence[tuple[str, str]]
    kind: Literal["figures"] = "figures"


Block = Text | Table | Gallery | Folded | Figures


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `failed` sets it off as a fault."""

    title: str
    blocks: Sequence[Block]
    failed: bool = False


@dataclass(frozen=True)
class Page:
    """A page: its title, a line below it, and its sections in order."""

    title: str
    subtitle: str
    sections: Sequence[Section]


def number(value: Any, digits: int = 4) -> str:
    """A number to read: whole ones with separators, others with so many digits; nothing for None and NaN.

    >>> number(12345), number(0.123456), number(float("nan")), number(98765.4)
    ('12,345', '0.1235', '', '98,765')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, int) or (abs(value) >= 10**digits and abs(value) < 1e12):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
