"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real images, or a skip with its reason."""
    folder = Path(os.environ.get("SLIDEBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real images are not here: put them in ../shared/data or name them in SLIDEBATCH_TEST_DATA")
    return folder.resolve()
