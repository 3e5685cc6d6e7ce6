"""The commands of the guide to GPUs, on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from slidebatch.cli import status_of
from tests.conftest import ROOT
from tests.support.guide_commands import commands, quick

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

SHOWN = commands(ROOT / "docs" / "guides" / "gpus.md")


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_commands_run(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the guide ends with status 0."""
    if "cuda" in words:
        pytest.importorskip("dask_cuda", reason="dask-cuda is not installed: slidebatch[cuda]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert status_of(quick(words)) == 0
