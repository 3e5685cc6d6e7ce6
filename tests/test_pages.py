"""Laws of pages: text stays text, charts say what they show, heat maps and crops are exact."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidebatch.pages import Drawing, Figures, Folded, Gallery, Page, Section, Table, Text, render
from slidebatch.pages.charts import Axis, Response, bars, dose_response, histogram, points, shades
from slidebatch.pages.crops import Crop, crop_drawing
from slidebatch.pages.plate_map import Scale, Well, plate_format, plate_map, row_name, row_number
from tests.support.html_page import read_page

AXIS = Axis("a $title_{$ <b>", "x $\\frac$ (µm²)", "y & z (nuclei)")
VALUES = np.array([1.0, 2.0, 5.0, np.nan, np.inf])
RESPONSE = Response(VALUES[:3], VALUES[:3], VALUES[:3], VALUES[:3], lambda at: at, 2.0)
WIDE = Response(*(np.array([0.0, 0.1, 1.0, 10.0]),) * 4, curve=lambda at: at, ec50=1.0)


def drawn(drawing: Drawing) -> str:
    """The SVG inside a chart."""
    return base64.b64decode(re.search(r"base64,([^\"]+)", drawing.markup)[1]).decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda: histogram(VALUES, AXIS),
        lambda: histogram(np.array([np.nan]), AXIS),
        lambda: histogram(np.ones(3), AXIS),
        lambda: points({"edge": VALUES, "none": np.array([])}, AXIS),
        lambda: dose_response(RESPONSE, AXIS),
        lambda: dose_response(WIDE, AXIS),
        lambda: bars({"infer": [("network", 2.0), ("wait", 1.0)], "decode": [("work", 1.0)]}, AXIS),
    ],
)
def test_charts_have_a_title_and_names_of_axes(make) -> None:
    """Every chart shows its title and both axes' names literally, whatever is in them, and no formula of its own."""
    chart = make()
    svg = drawn(chart)
    for words in ("a $title_{$ &lt;b&gt;", "x $\\frac$ (µm²)", "y &amp; z (nuclei)"):
        assert words in svg
    assert "mathdefault" not in svg
    assert drawn(make()) == svg, "the same chart, the same bytes"
    assert '<b>"' not in chart.markup


@given(st.text(max_size=40))
def test_text_stays_text(text: str) -> None:
    """Whatever a text holds, the page has the same tags and the text as it was."""
    text = text.replace("\r", " ").replace("\x00", " ")

    def page(words: str):
        blocks = [Text(words), Table((words,), [[words]]), Folded(words, words), Figures([(words, words)])]
        return read_page(render(Page(words, words, [Section(words, [*blocks, Gallery([])])])))

    made, plain = page(text), page("x")
    assert [tag for tag, _ in made.tags] == [tag for tag, _ in plain.tags]
    assert made.texts["td"] == [text]
    assert made.texts["h1"] == [text]


def test_plates_have_the_usual_formats() -> None:
    """A plate is shown as the smallest usual one that has its wells; larger ones as they are."""

    def of(*names: tuple[str, str]) -> tuple[int, int]:
        return plate_format([Well(row, column, 1.0) for row, column in names])

    assert of(("A", "1"), ("B", "03")) == (2, 3)
    assert of(("C", "1")) == (4, 6)
    assert of(("H", "12")) == (8, 12)
    assert of(("A", "13")) == (16, 24)
    assert of(("AF", "48")) == (32, 48)
    assert of(("AG", "50")) == (33, 50)
    assert plate_format([]) == (0, 0)


@given(st.integers(0, 2000))
def test_names_of_rows_go_both_ways(place: int) -> None:
    """Rows are named as on plates, A to Z, AA and on."""
    assert row_number(row_name(place)) == place


def test_a_heat_map_colours_from_low_to_high() -> None:
    """The lowest well has viridis' first colour, the highest its last; failed and empty wells are told apart."""
    first, second = Well("A", "1", 5.0), Well("A", "2", 9.0, "; dose 3")
    wells = [first, second, Well("A", "3", np.nan), Well("B", "1", np.nan, failed=True)]
    made = plate_map(wells, Scale("nuclei", "cells", 5.0, 9.0)).markup
    page = read_page(made)
    fills = {a["data-well"]: a["fill"] for tag, a in page.tags if tag == "rect" and a.get("data-well")}
    assert (fills["A1"], fills["A2"]) == ("#440154", "#fde725")
    assert fills["A1"] == shades(2)[0]
    told = [text for text in page.texts["title"] if text]
    assert told[:4] == ["A1: 5 cells", "A2: 9 cells; dose 3", "A3: no nuclei", "B1: failed"]
    assert told[4:] == ["B2: not in this run", "B3: not in this run"]
    assert {"column", "row", "cells"} <= set(page.texts["text"])
    assert plate_map(wells[:1], Scale("n", "c", 5.0, 5.0)).markup.count("data-well") == 1


def test_a_crop_has_a_path_for_each_nucleus_and_a_bar() -> None:
    """Nuclei with holes and pieces have one path each; the bar is as long as it says; without a pixel size there is
    none."""
    labels = np.zeros((60, 80), np.uint32)
    labels[5:15, 5:15] = 7
    labels[8:10, 8:10] = 0
    labels[30:32, 30:32] = labels[40:42, 40:42] = 9
    pixels = np.zeros((60, 80), np.uint8)
    page = read_page(crop_drawing(Crop("piece", pixels, labels, 0.5)).markup)
    assert [t for t in page.texts["title"] if t] == ["nucleus 7, 96 px here", "nucleus 9, 8 px here"]
    paths = [a["d"] or "" for tag, a in page.tags if tag == "path"]
    assert [path.count("z") for path in paths] == [2, 2]
    [bar] = [a for tag, a in page.tags if tag == "rect"]
    assert float(bar["width"] or 0) * 0.5 == 10
    assert "10 µm" in page.texts["text"]
    assert "scale" not in crop_drawing(Crop("piece", pixels, labels, None)).markup
