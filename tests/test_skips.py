"""No test is skipped in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips_plugin import ALLOWED, allowances, refused

ROOT = Path(__file__).resolve().parent.parent
SESSION = """
import pytest

def test_passes():
    pass

@pytest.mark.skipif({skipped}, reason="lazy")
def test_lazy():
    pass

def test_late():
    if {skipped}:
        pytest.skip("lazy too")
"""


@pytest.mark.parametrize("skipped", [True, False])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_skip_that_is_not_allowed_fails_the_session(tmp_path: Path, skipped: bool, workers: str) -> None:
    """A session whose tests pass, but for skips that nobody allowed, fails and names them, with and without xdist."""
    (tmp_path / "test_some.py").write_text(SESSION.format(skipped=skipped))
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "tests.support.skips_plugin", "--rootdir=."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == int(skipped), ended.stdout
    assert ended.stdout.count("skip (NOT ALLOWED)") == 2 * skipped
    assert ("test_late: Skipped: lazy too" in ended.stdout) == skipped


def test_the_list_can_be_read() -> None:
    """Every line of the list is a pattern and a reason, and it lets nothing else through."""
    allowed = allowances(ALLOWED.read_text())
    assert allowed
    assert refused({"tests/test_a.py::test_b": "Skipped: because"}, allowed) == ["tests/test_a.py::test_b"]
    assert refused({"tests/test_a.py::test_b": "Skipped: real images are not here: put them"}, allowed) == []
    with pytest.raises(ValueError, match="two spaces"):
        allowances("tests/*\n")
