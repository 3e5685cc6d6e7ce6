"""The notebooks of docs/notebooks run from their first cell to their last on what the commands in them make."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 20_000


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def commands(path: Path) -> list[list[str]]:
    """The commands that the first words of a notebook give."""
    lines = cells(path, "markdown")[0].source.splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("    slidebatch ")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    """A notebook is valid, small, holds no output and no count of runs, and says how its input is made."""
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < MOST_BYTES
    for cell in cells(path, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert commands(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_of_notebooks_lead_somewhere(path: Path) -> None:
    """Every relative link in a notebook names a file."""
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)#\s]+)", cell.source):
            assert (path.parent / target).is_file(), target


def test_there_are_notebooks_for_plates_slides_and_sweeps() -> None:
    """Each kind of result has its notebook."""
    assert {path.stem for path in NOTEBOOKS} == {"plate", "slide", "sweep"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the commands that it names every cell runs, and every cell of code that ends in a value shows it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for words in commands(path):
        ended = subprocess.run(
            [sys.executable, "-m", "slidebatch", *words], cwd=tmp_path, capture_output=True, text=True, timeout=1500
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    notebook = nbformat.read(shutil.copy(path, folder), as_version=4)
    there = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3", resources=there).execute()
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shown) == len(cells(path, "code"))
    for cell in shown:
        assert not [out for out in cell.outputs if out.output_type == "error" or out.get("name") == "stderr"], cell
