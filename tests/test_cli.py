"""The command line on real runs: exit statuses, sentences, and what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from slidebatch.cli import status_of
from slidebatch.results import open_results
from tests.support.results_folder import squares

CONFIG = """\
name: two
input: {{path: {folder}/slides}}
model: {{name: oracle, settings: {{truth: {folder}/truth}}}}
tiling: {{patch_px: 64, core_px: 64, largest_px: 16}}
output: {{path: {folder}/results, image: none, chunk_px: 32, shard_px: 64}}
cluster: {{kind: serial}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config of two small slides with known truth and the oracle for a network."""
    for name, labels in (("one", squares((90, 120))), ("two", squares((70, 64)))):
        for folder in ("slides", "truth"):
            (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tif", ((labels > 0) * 200 + 20).astype(np.uint8))
        tifffile.imwrite(tmp_path / "truth" / f"{name}.tif", labels)
    path = tmp_path / "two.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def _run(config: Path, *more: str) -> int:
    return status_of(["run", str(config), *more])


def test_a_run_from_start_to_end(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run, status, validate and evaluate agree on a perfect network's result, each with status 0."""
    folder = config.parent
    assert _run(config) == 0
    said = capsys.readouterr()
    assert f"results: {folder / 'results'}" in said.out
    assert "2 slides done" in said.err
    assert status_of(["status", str(folder / "results")]) == 0
    assert "done, 2 slides" in capsys.readouterr().out
    assert status_of(["validate", str(folder / "results")]) == 0
    assert capsys.readouterr().out.endswith("valid\n")
    scores = folder / "scores.json"
    assert status_of(["evaluate", str(folder / "results"), str(folder / "truth"), "--json", str(scores)]) == 0
    assert json.loads(scores.read_text())["means"]["all"]["f1"] == 1.0
    labels = open_results(folder / "results").labels("one")
    np.testing.assert_array_equal(labels, squares((90, 120)))


def test_a_broken_input_gives_three(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slide that cannot be read is set aside by name, the others are done, and the status is 3."""
    (config.parent / "slides" / "broken.tif").write_bytes(b"no picture")
    assert _run(config) == 3
    said = capsys.readouterr()
    assert "1 inputs failed" in said.out
    assert "broken" in said.err
    results = open_results(config.parent / "results")
    assert dict(zip(results.slides["slide"], results.slides["state"], strict=True)) == {
        "broken": "failed",
        "one": "done",
        "two": "done",
    }
    assert status_of(["validate", str(results.path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "tiling.core=3"], "did you mean tiling.core_px (pixels)?"),
        (["--set", "tiling.core_px=3px"], "write the number alone"),
        (["--cluster", "dask"], "expected one of local, serial"),
        (["--workers", "0"], "expected a whole number above 0"),
        (["--set", "model=nothing"], "nothing"),
        (["--set", "input.path=nowhere"], "nowhere"),
    ],
)
def test_wrong_configs_give_two(
    config: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong setting gives one sentence on stderr and status 2, and nothing is started."""
    assert _run(config, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert not (config.parent / "results" / "manifest.json").exists()


@pytest.mark.parametrize(
    "arguments", [["run"], ["walk"], ["run", "a.yaml", "--sett", "a=b"], ["run", "nowhere.yaml"], ["sample", "x", "y"]]
)
def test_wrong_commands_give_two(arguments: list[str]) -> None:
    """A command line that cannot be understood has status 2."""
    assert status_of(arguments) == 2


def test_results_that_are_none_give_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading a folder that holds no results says so, with status 1."""
    for command in ("status", "validate"):
        assert status_of([command, str(tmp_path)]) == 1
        assert str(tmp_path) in capsys.readouterr().err


def test_faults_give_one(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results that are not valid are told, with status 1."""
    assert _run(config) == 0
    table = config.parent / "results" / "instances" / "one.parquet"
    table.unlink()
    assert status_of(["validate", str(config.parent / "results")]) == 1
    assert "one.parquet is missing" in capsys.readouterr().out


def test_a_dry_run_starts_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run and plan show the same plan and write no results."""
    assert _run(config, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert status_of(["plan", str(config)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == shown.splitlines()[0]
    assert "2 images" in shown
    assert not (config.parent / "results" / "manifest.json").exists()


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """slidebatch schema prints the JSON schema of the config."""
    assert status_of(["schema"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made["required"]) == {"input", "output"}


def test_unexpected_exceptions_show_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of slidebatch itself shows its traceback and gives 1; an interruption gives 130."""
    import slidebatch.status

    for error, status, words in ((ZeroDivisionError("odd"), 1, "Traceback"), (KeyboardInterrupt(), 130, "resume")):

        def fail(path: Path, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(slidebatch.status, "status", fail)
        assert status_of(["status", "there"]) == status
        assert words in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    """--help needs no network library, no arrays and no scheduler: it answers at once."""
    code = (
        "import sys\nfrom slidebatch.cli import status_of\nassert status_of(['run', '--help']) == 0\n"
        "print(sorted({'torch', 'zarr', 'dask', 'pandas', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0
    assert ended.stderr.strip() == "[]"
    assert "Example:" in ended.stdout
