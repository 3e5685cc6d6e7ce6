"""The report in a real browser: nothing is wrong, nothing is fetched, everything is drawn and answers the mouse."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import slidebatch
from slidebatch.cli import status_of
from slidebatch.plate_assay import spec_of
from slidebatch.report import write_report
from slidebatch.sweep import run_job
from tests.support.browser import browser, look
from tests.support.results_folder import squares
from tests.support.runs import config, run, write_slides
from tests.support.sweeps import begun

pytestmark = pytest.mark.slow

BROKEN = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as made:
        yield made


@pytest.fixture(scope="module", params=["plate", "slides", "sweep"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a plate with an assay, of slides of which one failed, and of a sweep."""
    folder = tmp_path_factory.mktemp("page")
    if request.param == "plate":
        results = slidebatch.open_results(request.getfixturevalue("sample_plate"))
        assay = spec_of(results).model_copy(update={"column": "nucleus_to_ring_GFP", "resamples": 20})
        return write_report(results, assay=assay)
    if request.param == "slides":
        write_slides(folder, {"one": squares((300, 200))})
        (folder / "images" / "broken.tif").write_bytes(b"no picture")
        run(config(folder, "out", report={"enabled": True}))
        return folder / "out" / "report" / "index.html"
    sweep = begun(folder, 6, points_per_job=6, set={"broken": [1]}, retries=0)
    run_job(sweep.folder, 0)
    assert status_of(["sweep-collect", str(sweep.folder)]) == 0
    return sweep.folder / "report" / "index.html"


@pytest.mark.parametrize("width_px", [1280, 500])
def test_a_page_is_shown_whole_and_alone(chromium: Any, page: Path, width_px: int) -> None:
    """From its file, without a word on the console, without asking for anything else, every picture drawn, not wider
    than the window, and not blank."""
    seen = look(chromium, page, width_px)
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert seen.page.evaluate(BROKEN) == 0
    assert not seen.page.evaluate(TOO_WIDE)
    shot = np.asarray(Image.open(io.BytesIO(seen.page.screenshot(full_page=True))).convert("RGB"))
    assert shot.shape[1] == width_px
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 50
    seen.page.close()


def test_every_picture_has_words(chromium: Any, page: Path) -> None:
    """Every picture says what it is to those who do not see it."""
    seen = look(chromium, page)
    words = "e => e.getAttribute('alt') || e.getAttribute('aria-label')"
    assert seen.page.evaluate(f"[...document.querySelectorAll('img, svg')].every({words})")
    seen.page.close()


def test_wells_and_nuclei_answer_the_mouse(chromium: Any, sample_plate: Path) -> None:
    """The element under the mouse tells its numbers; the switch takes outlines away; a click enlarges a picture."""
    seen = look(chromium, write_report(sample_plate))
    page = seen.page
    well = page.locator("svg.plate rect[data-well]").first
    well.scroll_into_view_if_needed()
    box = well.bounding_box()
    told = "([x, y]) => document.elementFromPoint(x, y).querySelector('title').textContent"
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    assert page.evaluate(told, middle).startswith(f"{well.get_attribute('data-well')}: ")
    outline = page.locator("svg.crop path").first
    assert outline.is_visible()
    page.locator("input.outlines").uncheck()
    assert not outline.is_visible()
    crop = page.locator("svg.crop").first
    before = crop.bounding_box()["width"]
    crop.click()
    assert crop.bounding_box()["width"] > 2 * before
    assert seen.said == []
    page.close()


def test_on_paper_the_config_is_unfolded(chromium: Any, sample_plate: Path) -> None:
    """Printing works and leaves nothing folded away."""
    seen = look(chromium, write_report(sample_plate))
    assert not seen.page.evaluate("document.querySelector('details').open")
    assert seen.page.pdf(format="A4").startswith(b"%PDF")
    assert seen.page.evaluate("document.querySelector('details').open")
    seen.page.close()
