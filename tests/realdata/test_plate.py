"""A real 96-well plate, by the command that a user gives."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slidebatch
from slidebatch.assay import AssaySpec
from slidebatch.plate_assay import judge
from slidebatch.validate import validate
from tests.conftest import ROOT

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

ROWS, COLUMNS = "ABCDEFGH", range(1, 13)


@pytest.fixture(scope="module")
def plate(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the whole plate."""
    results = tmp_path_factory.mktemp("plate") / "results"
    folder = realdata / "plate_sbs"
    facts = folder / "1049_Metadata.csv"
    keys = {"input.path": folder, "input.facts": facts, "output.path": results}
    command = [sys.executable, "-m", "slidebatch", "run", "conf/plate_files.yaml"]
    command += [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert str(results) in ended.stdout
    return results


def test_all_wells_are_done_and_valid(plate: Path) -> None:
    """One command segments all 96 wells; the result is a valid OME-Zarr plate whose raster and tables agree."""
    assert validate(plate) == []
    slides = slidebatch.open_results(plate).slides
    assert list(slides["state"]) == ["done"] * 96
    assert list(slides["well"]) == [f"{row}{column:02d}" for row in ROWS for column in COLUMNS]


def test_nuclei_are_counted_and_measured_per_well(plate: Path, realdata: Path) -> None:
    """The nuclei number about what thresholding finds (16,700), each with its well and the means of both channels."""
    table = slidebatch.open_results(plate).instances()
    assert 10_000 < len(table) < 25_000
    assert table["well"].nunique() == 96
    assert table.groupby("well").size().min() > 30
    for name in ("mean_GFP", "mean_DNA"):
        assert table[name].between(0, 255).all()
    stained = np.asarray(slidebatch.open_results(plate).image("A01")[1])
    assert table.loc[table["well"] == "A01", "mean_DNA"].mean() > 1.5 * np.median(stained)


def test_the_assay_tells_its_controls_apart(plate: Path) -> None:
    """With nothing chosen for it, the readout separates the controls and rises with dose to an EC50 among the doses."""
    [assay] = judge(plate, AssaySpec(column="nucleus_to_ring_GFP", resamples=200))
    assert (assay.wells, assay.empty) == (96, 0)
    assert assay.controls is not None
    assert (assay.controls.negative, assay.controls.positive) == (16, 8)
    # Read as an assay, 0.5 is excellent; what is found in full stands in docs/measurements.md.
    assert assay.controls.zprime.value > 0.5
    assert assay.controls.ssmd.value > 5
    assert assay.doses is not None
    assert assay.doses.doses == tuple(range(11))
    assert assay.doses.spearman >= 0.9
    assert assay.doses.fit is not None
    assert assay.doses.fit.inside


def test_facts_of_the_wells_come_with_them(plate: Path, realdata: Path) -> None:
    """Dose and control of every well stand in the table of slides as the CSV gives them."""
    slides = slidebatch.open_results(plate).slides.set_index("well")
    with open(realdata / "plate_sbs" / "1049_Metadata.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 96
    for row in rows:
        well = f"{row['Row']}{row['Column']}"
        for name in ("SBS_Doses", "SBS_Controls"):
            assert float(str(slides.at[well, name])) == float(row[name])
