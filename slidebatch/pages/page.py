"""A page as one HTML file that needs nothing else: no network, no other file. The door to its templates.

Text is escaped by the template engine wherever it stands; a content policy forbids the page to fetch anything.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from slidebatch.pages.blocks import Page

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    made.filters["is_number"] = is_number
    return made


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number.

    >>> is_number("1,234.5"), is_number("12 %"), is_number("A01")
    (True, True, False)
    """
    try:
        float(cell.removesuffix("%").replace(",", "").strip())
    except ValueError:
        return False
    return True


def filled(template: str, **values: Any) -> Markup:
    """A template of this package with values in their places, all text escaped."""
    return Markup(_environment().get_template(template).render(**values))


def render(page: Page) -> str:
    """The whole HTML of a page."""
    return str(filled("page.html", page=page)) + "\n"
