"""Reads a page as a browser's parser would: headings, tables, tags and their attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Page(HTMLParser):
    """sections by heading: the tables below each, as rows of cells; every tag with its attributes; text by tag."""

    tables: dict[str, list[list[list[str]]]] = field(default_factory=dict)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @property
    def headings(self) -> list[str]:
        return self.texts.get("h2", [])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("meta", "input", "img", "image", "rect"):
            return
        self.open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.setdefault(self.headings[-1], []).append([])
        if tag == "tr":
            self.tables[self.headings[-1]][-1].append([])
        if tag in ("td", "th"):
            self.tables[self.headings[-1]][-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self.open:
            return
        self.texts[self.open[-1]][-1] += data
        if self.open[-1] in ("td", "th"):
            self.tables[self.headings[-1]][-1][-1][-1] += data


def read_page(text: str) -> Page:
    """A page as its parts."""
    page = Page()
    page.feed(text)
    return page
