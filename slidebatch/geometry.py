"""Boxes on a pixel grid: (y, x) order, half-open, integers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Half-open box (y0, x0, y1, x1) in pixels of whatever grid the caller names.

    >>> Box(0, 0, 4, 6).grow(2).clip(Box(0, 0, 5, 5))
    Box(y0=0, x0=0, y1=5, x1=5)
    """

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        return max(0, self.y1 - self.y0)

    @property
    def width(self) -> int:
        return max(0, self.x1 - self.x0)

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def empty(self) -> bool:
        return self.area == 0

    def grow(self, px: int) -> Box:
        """The box with every side moved out by `px` (in, if negative)."""
        return Box(self.y0 - px, self.x0 - px, self.y1 + px, self.x1 + px)

    def shift(self, dy: int, dx: int) -> Box:
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def clip(self, other: Box) -> Box:
        """The part of this box inside `other`; an empty box at a corner of it where they do not meet."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def union(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1))

    def intersects(self, other: Box) -> bool:
        return not self.clip(other).empty

    def contains(self, other: Box) -> bool:
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    def slices(self, origin: Box | None = None) -> tuple[slice, slice]:
        """Slices of this box in an array whose [0, 0] is the corner of `origin` (default: the grid's)."""
        y, x = (origin.y0, origin.x0) if origin else (0, 0)
        return slice(self.y0 - y, self.y1 - y), slice(self.x0 - x, self.x1 - x)

    def tuple(self) -> tuple[int, int, int, int]:
        return self.y0, self.x0, self.y1, self.x1


def whole(shape: tuple[int, int]) -> Box:
    """The box of a whole (Y, X) image."""
    return Box(0, 0, shape[0], shape[1])
