"""Charts as SVG inside a page: histograms, points by group, curves over doses, bars. The pages' door to matplotlib.

Colours are those of Okabe and Ito (2008), which colour-blind eyes tell apart. Every panel has a title and both axes a
name with their unit. Text of users is never read as a formula.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from slidebatch.pages.blocks import Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
PALETTE = (BLUE, ORANGE, GREEN, RED, "#56B4E9", "#CC79A7", "#F0E442", "#000000")

BINS = 40
PANEL_IN = (3.5, 2.5)
"""Width and height of a panel, inches."""


@dataclass(frozen=True)
class Axis:
    """The words of a panel: its title, and the names of both axes with their units."""

    title: str
    x: str
    y: str


@contextmanager
def styled() -> Iterator[None]:
    """The style of all charts, also of those that others draw: text stays text and is taken literally."""
    import matplotlib

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "slidebatch",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.use_mathtext": False,
    }
    with matplotlib.rc_context(style):
        yield


def panel(axis: Axis) -> tuple[Figure, Axes]:
    """An empty panel with its words; to be used inside `styled`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=PANEL_IN, layout="constrained")
    axes = figure.subplots()
    axes.set(title=axis.title, xlabel=axis.x, ylabel=axis.y)
    return figure, axes


def drawing(figure: Figure, title: str, caption: str = "") -> Drawing:
    """A figure of matplotlib as a picture of the page; to be used inside `styled`. The same figure, the same bytes."""
    packed = io.BytesIO()
    figure.savefig(packed, format="svg", metadata={"Date": None})
    held = base64.b64encode(packed.getvalue()).decode()
    return Drawing(Markup(f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{held}">'), caption)


def histogram(values: Floats, axis: Axis) -> Drawing:
    """Values (N,) in equal bins between their 0.1 and 99.9 percentiles, what lies beyond in the outermost; the median
    as a line. NaN and infinite values are left out; without others the panel is empty."""
    known = values[np.isfinite(values)]
    with styled():
        figure, axes = panel(axis)
        if len(known):
            low, high = np.percentile(known, [0.1, 99.9])
            low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
            axes.hist(np.clip(known, low, high), bins=BINS, range=(low, high), color=BLUE)
            axes.axvline(float(np.median(known)), color=ORANGE, linewidth=1.5)
        return drawing(figure, axis.title)


def points(groups: Mapping[str, Floats], axis: Axis) -> Drawing:
    """The values (N,) of each group, side by side, with their median as a bar. NaN values are left out."""
    with styled():
        figure, axes = panel(axis)
        for place, values in enumerate(groups.values()):
            known = values[np.isfinite(values)]
            # Spread so that points do not hide each other; the same every time.
            shift = np.random.default_rng(place).uniform(-0.25, 0.25, len(known))
            axes.plot(place + shift, known, "o", markersize=2.5, alpha=0.6, color=BLUE)
            if len(known):
                axes.hlines(float(np.median(known)), place - 0.35, place + 0.35, color=ORANGE, linewidth=2)
        axes.set_xticks(range(len(groups)), list(groups))
        return drawing(figure, axis.title)


@dataclass(frozen=True)
class Response:
    """What a dose response shows: wells (N,) by dose, medians (D,), a curve and its EC50."""

    dose: Floats
    response: Floats
    doses: Floats
    medians: Floats
    curve: Callable[[Floats], Floats] | None = None
    ec50: float = math.nan


def dose_response(shown: Response, axis: Axis) -> Drawing:
    """Wells, medians and the fitted curve over the doses; logarithmic where they span more than a decade and a half."""
    with styled():
        figure, axes = panel(axis)
        axes.plot(shown.dose, shown.response, "o", markersize=2.5, alpha=0.5, color=GREY, label="wells")
        axes.plot(shown.doses, shown.medians, "D", markersize=4, color=BLUE, label="medians")
        above = shown.doses[shown.doses > 0]
        wide = len(above) > 0 and above.max() > 30 * above.min()
        if wide:
            axes.set_xscale("symlog", linthresh=float(above.min()), linscale=0.5)
            plain_ticks(axes)
        if shown.curve is not None and len(above):
            at = np.geomspace(above.min(), above.max(), 200) if wide else np.linspace(0, above.max(), 200)
            axes.plot(at, shown.curve(np.maximum(at, 1e-300)), color=ORANGE, label="fit")
            if above.min() <= shown.ec50 <= above.max():
                axes.axvline(shown.ec50, color=RED, linestyle=":", linewidth=1.2, label="EC50")
        axes.legend(fontsize=7, frameon=False)
        return drawing(figure, axis.title)


def plain_ticks(axes: Axes) -> None:
    """Numbers at the ticks of a logarithmic x axis as plain text: by itself matplotlib would write formulas."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def bars(named: Mapping[str, Sequence[tuple[str, float]]], axis: Axis) -> Drawing:
    """A bar to the right for each name, made of parts (what, how much); parts of one name share a colour."""
    with styled():
        figure, axes = panel(axis)
        kinds = list(dict.fromkeys(what for parts in named.values() for what, _ in parts))
        for place, parts in enumerate(named.values()):
            left = 0.0
            for what, much in parts:
                axes.barh(place, much, left=left, color=PALETTE[kinds.index(what) % len(PALETTE)], height=0.7)
                left += much
        axes.set_yticks(range(len(named)), list(named))
        axes.invert_yaxis()
        axes.legend(_swatches(kinds), kinds, fontsize=7, frameon=False, loc="lower right")
        return drawing(figure, axis.title)


def _swatches(kinds: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(color=PALETTE[place % len(PALETTE)]) for place in range(len(kinds))]


def shades(count: int) -> list[str]:
    """`count` colours of viridis from low to high, as #rrggbb."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 1, count))]
