"""Laws of the report: it says what the reading API says, failures first, and it never spoils a run."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

import slidebatch
from slidebatch.cli import status_of
from slidebatch.errors import ResultsError
from slidebatch.events import RunNote
from slidebatch.pages import ReportSpec, number
from slidebatch.plate_assay import judge, spec_of
from slidebatch.report import write_report
from slidebatch.report.pictures import chosen, corners
from slidebatch.report.seams import failing, together
from slidebatch.results import Seams
from tests.support.html_page import Page, read_page
from tests.support.results_folder import Made, read_manifest, squares, write_manifest, write_results
from tests.support.runs import config, run, write_slides

READOUT = "nucleus_to_ring_GFP"


@pytest.fixture(scope="module")
def plate(sample_plate: Path) -> Page:
    """The page of the sample plate, with its readout named."""
    assay = spec_of(slidebatch.open_results(sample_plate)).model_copy(update={"column": READOUT, "resamples": 50})
    return read_page(write_report(sample_plate, assay=assay).read_text())


def _slide_page(folder: Path, **manifest: Any) -> Page:
    """The page of a hand-made folder of one slide, its manifest changed."""
    path = write_results(folder, [Made("one", squares((90, 120)))])
    write_manifest(path, {**read_manifest(path), **manifest})
    return read_page(write_report(path).read_text())


def test_heat_maps_equal_the_wells(plate: Page, sample_plate: Path) -> None:
    """Every well of a plate's heat maps bears the number that `wells` gives."""
    columns = ["area_um2", "mean_DNA", "mean_GFP", READOUT]
    wells = slidebatch.open_results(sample_plate).wells(columns)
    said = [text for text in plate.texts["title"] if re.match(r"[A-P]\d+: ", text)]
    units = {"nuclei": "nuclei", "area_um2": "µm²", "mean_DNA": "grey levels", "mean_GFP": "grey levels"}
    for name, unit in {**units, READOUT: "ratio"}.items():
        for row in wells.to_dict("records"):
            value = row[name]
            begins = f"{row['well']}: " + (f"{number(value)} {unit}" if value == value else "no nuclei")
            assert any(text.startswith(begins) for text in said), begins
    assert len([t for t in said if not t.endswith("not in this run")]) == 5 * len(wells)


def test_the_assay_equals_judge(plate: Page, sample_plate: Path) -> None:
    """Z', robust Z', SSMD, Spearman and EC50 of the page are those of `judge`, with their intervals."""
    results = slidebatch.open_results(sample_plate)
    [assay] = judge(results, spec_of(results).model_copy(update={"column": READOUT, "resamples": 50}))
    assert assay.controls is not None
    assert assay.doses is not None
    assert assay.doses.fit is not None
    [[_, row]] = plate.tables["Assay"]
    for cell, figure in zip(row[2:5], (assay.controls.zprime, assay.controls.robust_zprime, assay.controls.ssmd),
                            strict=True):  # fmt: skip
        low, high = figure.interval
        assert cell == f"{number(figure.value, 3)} ({number(low, 3)} to {number(high, 3)})"
    assert row[5] == number(assay.doses.spearman, 3)
    assert row[6].startswith(number(assay.doses.fit.ec50, 3))


def test_without_a_readout_the_usual_ones_are_shown(sample_plate: Path) -> None:
    """A plate with controls whose config names no readout gets a row for each usual one, and the page warns."""
    page = read_page(write_report(sample_plate).read_text())
    [[_, *rows]] = page.tables["Assay"]
    assert [row[1] for row in rows] == ["nucleus_to_ring_DNA", READOUT, "mean_DNA", "mean_GFP", "area_um2"]
    assert any("No readout was named" in text for text in page.texts["p"])


def test_distributions_and_throughput_equal_the_tables(plate: Page, sample_plate: Path) -> None:
    """Percentiles are those of all nuclei, seconds those of the summary."""
    results = slidebatch.open_results(sample_plate)
    area = results.instances(columns=["area_um2"])["area_um2"]
    [[_, *rows]] = plate.tables["Distributions"]
    cuts = [number(float(v)) for v in np.percentile(area.to_numpy(np.float64), [1, 25, 50, 75, 99])]
    assert rows[0] == ["area (µm²)", f"{len(area):,}", *cuts]
    [[_, *stages]] = plate.tables["Throughput"]
    summary = results.summary
    for name, seconds, *_ in stages[:-1]:
        assert seconds == number(float(summary[f"seconds_{name}"].sum()), 3)
    total = float(summary.filter(like="seconds_").sum().sum())
    assert stages[-1][:2] == ["all", number(total, 3)]
    assert number(float(summary["mm2"].sum()) / total, 3) in plate.texts["dd"]
    seconds = read_manifest(sample_plate)["clock"]["seconds"]
    assert number(float(summary["nuclei"].sum()) / seconds, 3) in plate.texts["dd"]


def test_the_config_can_be_taken_from_the_page(plate: Page, sample_plate: Path) -> None:
    """The config that the page shows is the manifest's, whole."""
    assert json.loads(plate.texts["pre"][0]) == read_manifest(sample_plate)["config"]


def test_pictures_are_the_pixels(sample_plate: Path) -> None:
    """A thumbnail is as large as its piece and rises with its pixels; its outlines hold exactly its nuclei's pixels."""
    results = slidebatch.open_results(sample_plate)
    page = read_page(write_report(results, ReportSpec(thumbnails=3, thumbnail_px=100)).read_text())
    titles = [a["aria-label"] or "" for tag, a in page.tags if tag == "svg" and a.get("class") == "crop"]
    held = [a["href"] or "" for tag, a in page.tags if tag == "image"]
    assert len(titles) == len(held) == 3
    slide, y, x = re.match(r"(\S+): \d+ nuclei here; from row ([\d,]+), column ([\d,]+)", titles[-1]).groups()
    y, x = (int(v.replace(",", "")) for v in (y, x))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(held[-1].split(",")[1]))).convert("L")).astype(int)
    pixels = np.asarray(results.image(slide).sel(c="DNA")[y : y + 100, x : x + 100]).astype(float)
    assert shown.shape == pixels.shape == (100, 100)
    order = np.argsort(pixels, axis=None, kind="stable")
    assert (np.diff(shown.ravel()[order]) >= 0).all()
    assert shown.min() == 0
    labels = np.asarray(results.labels(slide)[y : y + 100, x : x + 100])
    areas = sorted(_area(a["d"] or "") for tag, a in page.tags if tag == "path" and "v" in (a.get("d") or ""))
    counts = np.unique(labels[labels > 0], return_counts=True)[1]
    assert sum(counts) > 0
    assert set(counts.tolist()) <= set(areas)


def _area(path: str) -> int:
    """The area that rings of steps along the axes enclose."""
    area = 0
    for ring in path.split("z")[:-1]:
        (x, y), steps = map(int, re.match(r"M(\d+) (\d+)", ring).groups()), re.findall(r"([hv])(-?\d+)", ring)
        for kind, length in steps:
            if kind == "h":
                x += int(length)
            else:
                area, y = area + x * int(length), y + int(length)
        # The last step, which closes the ring, is left to the path.
        y0 = int(ring[1:].split("h")[0].split("v")[0].split()[1])
        area += x * (y0 - y)
    return area


def test_failures_stand_first(tmp_path: Path) -> None:
    """Where inputs have failed, the page begins with their names and reasons."""
    write_slides(tmp_path, {"good": squares((90, 120))})
    (tmp_path / "images" / "broken.tif").write_bytes(b"no picture")
    assert run(config(tmp_path, "out", report={"enabled": True})).exit_status == 3
    page = read_page((tmp_path / "out" / "report" / "index.html").read_text())
    assert page.headings[0] == "Failed inputs (1)"
    [[_, row]] = page.tables["Failed inputs (1)"]
    assert row[:2] == ["broken", "plan"]
    assert "broken.tif" in row[2]


def test_a_run_all_of_whose_inputs_fail_or_are_blank_has_a_page(tmp_path: Path) -> None:
    """A blank slide, and a run without any slide that is done, are shown like others."""
    write_slides(tmp_path, {"blank": np.zeros((70, 80), np.int32)})
    run(config(tmp_path, "out", report={"enabled": True}))
    page = read_page((tmp_path / "out" / "report" / "index.html").read_text())
    assert ["blank", "0", "70 x 80", ""] in page.tables["Slides"][0]
    assert any(a.get("class") == "crop" for tag, a in page.tags if tag == "svg")
    path = write_results(tmp_path / "made", [Made("one", squares((40, 40)))])
    manifest = read_manifest(path)
    write_manifest(path, {**manifest, "slides": [{"slide": "one", "state": "failed"}]})
    assert read_page(write_report(path).read_text()).headings[0] == "Failed inputs (1)"


def test_a_report_that_fails_does_not_fail_the_run(tmp_path: Path) -> None:
    """Where the page cannot be written the run ends as it would have, and says in one sentence what to do."""
    write_slides(tmp_path, {"one": squares((90, 120))})
    assert run(config(tmp_path, "out")).exit_status == 0
    (tmp_path / "out" / "report").write_text("in the way")
    events: list[Any] = []
    outcome = run(config(tmp_path, "out", report={"enabled": True}), events.append)
    assert (outcome.exit_status, outcome.done) == (0, 1)
    [note] = [e.text for e in events if isinstance(e, RunNote) and "report" in e.text]
    assert "the results are whole" in note
    assert "slidebatch report" in note
    assert "\n" not in note


def test_a_run_that_is_short_of_time_leaves_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the deadline near, the results come first and the report is left to its command."""
    write_slides(tmp_path, {"one": squares((90, 120))})
    events: list[Any] = []
    limited = config(tmp_path, "out", report={"enabled": True}, cluster={"kind": "serial", "walltime_s": 29})
    assert run(limited, events.append).exit_status == 0
    assert any("no time was left for the report" in e.text for e in events if isinstance(e, RunNote))
    assert not (tmp_path / "out" / "report").exists()


def test_a_run_asked_for_no_report_has_none(tmp_path: Path) -> None:
    """`report.enabled: false` writes none; the command still does, with the same bytes each time."""
    write_slides(tmp_path, {"one": squares((90, 120))})
    run(config(tmp_path, "out"))
    page = tmp_path / "out" / "report" / "index.html"
    assert not page.exists()
    assert status_of(["report", str(tmp_path / "out"), "--thumbnails", "2"]) == 0
    first = page.read_bytes()
    assert status_of(["report", str(tmp_path / "out"), "--thumbnails", "2"]) == 0
    assert page.read_bytes() == first


def test_a_folder_that_is_not_finished_is_shown_as_such(tmp_path: Path) -> None:
    """Of a run that goes on the page says so and shows what is done; what is no results folder is refused."""
    path = write_results(tmp_path / "made", [Made("one", squares((90, 120))), Made("two", squares((40, 40)))])
    manifest = read_manifest(path)
    manifest["slides"][1]["state"] = "running"
    write_manifest(path, {**manifest, "state": "running"})
    (path / "summary.parquet").unlink()
    (path / "work").mkdir()
    page = read_page(write_report(path).read_text())
    assert any("1 of 2 inputs can be read so far" in text for text in page.texts["p"])
    assert [row[0] for row in page.tables["Slides"][0][1:]] == ["one"]
    assert "Throughput" not in page.headings
    with pytest.raises(ResultsError, match="holds no manifest"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


EVIL = "<script>alert('x')</script>"


def test_names_are_text_whatever_is_in_them(tmp_path: Path) -> None:
    """Names of runs, plates, facts and channels, and reasons, never become markup, nor formulas in charts."""
    made = [Made(f"s{n}", squares((60, 60)), ("A", str(n + 1)), n) for n in range(3)]
    path = write_results(tmp_path / "made", made)
    manifest = read_manifest(path)
    for n, entry in enumerate(manifest["slides"]):
        entry |= {"plate": f"{EVIL}$x_{{$", "facts": {f"{EVIL}$_{{": EVIL, "dose": str(n)}, "channels": [EVIL]}
    write_manifest(path, {**manifest, "name": f"{EVIL}$\\frac$", "config": {"input": {"path": EVIL}}})
    failure = {"slide": EVIL, "stage": EVIL, "why": "<img src=x onerror=alert(1)>", "attempts": 1}
    (path / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    text = write_report(path).read_text()
    page = read_page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert(" not in page.texts["script"][0]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.texts["h1"] == [f"{EVIL}$\\frac$"]
    drawn = [base64.b64decode(h).decode() for h in re.findall(r"svg\+xml;base64,([^\"]+)", text)]
    assert drawn
    assert not any("<script" in one for one in drawn)


def test_nothing_is_fetched(plate: Page, sample_plate: Path) -> None:
    """No address on the page leads out of it, and its policy forbids to fetch any."""
    for tag, attributes in plate.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    text = write_report(sample_plate).read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", text)


def test_a_plate_of_384_wells_is_light(tmp_path: Path) -> None:
    """The page of 384 wells has them all, in fewer than 5 MB, also where many pictures of noise are asked for."""
    labels = squares((600, 600), side_px=20, gap_px=20)
    path = write_results(tmp_path / "made", [Made("first", labels, ("A", "01"))])
    manifest = read_manifest(path)
    noise = np.random.default_rng(0).integers(0, 255, (1, 600, 600), np.uint8)
    zarr.open_array(str(path / "labels.zarr" / "A" / "01" / "0" / "0"), mode="r+")[...] = noise
    names = [(chr(65 + n // 24), f"{n % 24 + 1:02d}") for n in range(384)]
    table = (path / "instances" / "first.parquet").read_bytes()
    manifest["slides"] = [
        {**manifest["slides"][0], "slide": f"{r}{c}", "row": r, "column": c, "well": f"{r}{c}"} for r, c in names
    ]
    for entry in manifest["slides"]:
        (path / "instances" / f"{entry['slide']}.parquet").write_bytes(table)
    write_manifest(path, manifest)
    written = write_report(path, ReportSpec(thumbnails=48, thumbnail_px=512))
    assert 1_000_000 < written.stat().st_size < 5_000_000
    page = read_page(written.read_text())
    assert any("more are left out to keep the page light" in text for text in page.texts["p"])
    wells = [a for tag, a in page.tags if tag == "rect" and a.get("data-well")]
    assert len(wells) == 2 * 384, "count and area"


def _cut(shape: tuple[int, int], seam: int) -> np.ndarray:
    """Squares, each cut in two by a line at every `seam` pixels."""
    labels = squares(shape, side_px=12, gap_px=4)
    y = np.arange(shape[0]) // seam
    return np.unique(np.where(labels, labels * 1000 + y[:, None], 0), return_inverse=True)[1].reshape(shape)


def test_seams_that_leave_a_trace_fail_and_stand_first(tmp_path: Path) -> None:
    """Nuclei cut at seams make the section fail and come first; the limit is the config's; whole nuclei pass."""
    # 38: no multiple of the squares' 16, so that seams cut them and the lines halfway between do not part them.
    path = write_results(tmp_path / "cut", [Made("cut", _cut((400, 400), 38).astype(np.uint32))])
    seams = {"core_px": 38, "cell_px": [400, 400]}
    write_manifest(path, {**read_manifest(path), "seams": seams})
    assert read_page(write_report(path).read_text()).headings[0] == "Seams"
    found = slidebatch.open_results(path).seams("cut")
    assert failing(found, 1.5)
    whole = _slide_page(tmp_path / "whole", seams=seams)
    assert whole.headings[0] == "Summary"
    assert "Seams" in whole.headings


def _seams(along: int, between: int, along_px: int = 1000, between_px: int = 2000) -> Seams:
    return Seams(None, None, None, along, between, along_px, between_px)


def test_seams_fail_by_their_ratio_and_beyond_chance() -> None:
    """The limit is of the ratio; a few borders more are chance; many with none to compare with are not."""
    assert failing(_seams(200, 200), 1.5)
    assert not failing(_seams(200, 200), 2.5)
    assert not failing(_seams(4, 4), 1.5)
    assert failing(_seams(40, 0), 1.5)
    assert not failing(_seams(3, 0), 1.5)
    assert not failing(_seams(0, 50, along_px=0), 1.5)
    assert not failing(_seams(500, 1000), 1.5)


def test_seams_add_up() -> None:
    """Counts and lengths of slides add up; what one does not know is not known of all."""
    one = Seams(3, 2, 1, 10, 20, 100, 200)
    assert together([one, one]) == Seams(6, 4, 2, 20, 40, 200, 400)
    assert together([one, _seams(1, 1)]).joined is None


def test_pictures_are_spread_over_slides_and_pieces() -> None:
    """Fields are taken evenly from the fewest nuclei to the most; few slides have several pieces each."""
    fields = [{"slide": f"f{n}", "nuclei": n, "well": "A1"} for n in range(30)]
    assert [e["nuclei"] for e, _ in chosen(fields, 4)] == [0, 10, 19, 29]
    slides = [{"slide": "a", "nuclei": 5}, {"slide": "b", "nuclei": None}]
    assert [(e["slide"], count) for e, count in chosen(slides, 5)] == [("b", 3), ("a", 2)]
    assert [count for _, count in chosen(fields[:2], 12)] == [1, 1]
    centres = np.repeat([[5.0, 5.0], [25.0, 25.0], [5.0, 45.0]], [1, 2, 9], axis=0)
    assert corners(centres, (40, 60), 20, 3) == [(0, 0), (20, 20), (0, 40)]
    assert corners(centres, (40, 60), 20, 9) == [(0, 0), (20, 20), (0, 40)]
    assert corners(np.zeros((0, 2)), (40, 60), 20, 2) == [(10, 20)]
