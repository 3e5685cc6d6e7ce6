"""Files that a disk cuts, empties or loses while a run goes on: nothing broken is read in silence, or kept."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slidebatch.errors import EnvironmentFault, ResultsError
from slidebatch.events import Event, StageEnded
from slidebatch.faults import readable, system_errors
from slidebatch.geometry import Box
from slidebatch.store import create_array, disk_faults, lost_output, region_reader, write_receipt, write_region
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides

STAGES = ["prepare", "maps", "infer", "decode", "seams", "paint", "pyramid2", "measure", "table"]
KINDS = {"sharded": {}, "plain": {"output": {"chunk_px": 64, "shard_px": 64}}}
"""Labels in shards, which zarr takes for blank when they are empty, and in plain chunks."""

Harm = Callable[[Path], None]
HARMS: dict[str, Harm] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, one of several tiles, regions and levels."""
    rng = np.random.default_rng(31)
    truths = {"a": touching_field((60, 1100), 22, rng), "b": touching_field((130, 90), 20, rng)}
    folder = write_slides(tmp_path_factory.mktemp("slides"), truths)
    for name, sections in KINDS.items():
        run(config(folder, f"calm-{name}", **sections))
    return folder


def made_by(work: Path, stage: str) -> list[Path]:
    """The files that the tasks of a stage have left, one of each folder."""
    receipts = sorted((work / "receipts" / stage).glob("*.json"))
    files = [p.parent / name for p in receipts for name, told in json.loads(p.read_bytes())["outputs"].items() if told]
    return list({file.parent.resolve(): file for file in files}.values())


def told(outcome_of: Callable[[], object], results: Path) -> list[str]:
    """Run; the sentences that say why it did not end well."""
    try:
        outcome_of()
    except (EnvironmentFault, ResultsError) as error:
        return [str(error)]
    failures = [json.loads(line) for line in (results / "failures.jsonl").read_text().splitlines()]
    assert not [f for f in failures if "traceback" in f]
    return [f["why"] for f in failures]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_while_a_run_goes_on_is_noticed_or_not_needed(
    slides: Path, tmp_path: Path, kind: str, stage: str, harm: str
) -> None:
    """Files of each stage harmed as it ends: a sentence that names a file and the way out, or the undisturbed result.

    The same command then ends with the undisturbed result.
    """
    settings = config(slides, str(tmp_path / "out"), **KINDS[kind])
    number = 0
    while True:
        harmed: list[Path] = []

        def disturb(event: Event) -> None:
            if isinstance(event, StageEnded) and event.stage == stage:
                files = made_by(tmp_path / "out" / "work", stage)
                for file in files[number : number + 1]:  # noqa: B023  (called within this turn)
                    harmed.append(file)  # noqa: B023
                    HARMS[harm](file)

        reasons = told(lambda: run(settings, disturb), tmp_path / "out")
        if not harmed:
            break
        for reason in reasons:
            assert "give the same command again" in reason, reason
            assert str(tmp_path / "out") in reason
        assert reasons or contents(tmp_path / "out") == contents(slides / f"calm-{kind}"), harmed
        if reasons:
            assert run(settings).exit_status == 0
            assert contents(tmp_path / "out") == contents(slides / f"calm-{kind}"), harmed
        (tmp_path / "out").rename(tmp_path / f"done{number}")
        number += 1
    assert number, f"{stage} leaves no files"


def test_an_empty_shard_is_not_a_blank_one(tmp_path: Path) -> None:
    """A shard that was never written reads as zeros; one that is empty, or cut anywhere, is named and not read."""
    path, box = tmp_path / "a.zarr", Box(0, 0, 64, 64)
    create_array(path, (64, 64), "uint8", (16, 16), (64, 64))
    assert not region_reader(path)(box).any()
    [file] = write_region(path, np.arange(4096, dtype=np.uint8).reshape(64, 64), box)
    whole = file.read_bytes()
    np.testing.assert_array_equal(region_reader(path)(box).ravel(), np.arange(4096, dtype=np.uint8))
    for kept in (0, 1, 4, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(ResultsError, match=r"a\.zarr: pixels .* missing or broken .*same command again"):
            region_reader(path)(box)


def test_a_receipt_tells_what_is_no_longer_as_large(tmp_path: Path) -> None:
    """A cut, lost or grown output, one where there was none, and a lost or broken receipt are each named."""
    one, blank, path = tmp_path / "one", tmp_path / "blank", tmp_path / "receipts" / "0.json"
    one.write_bytes(b"0123")
    write_receipt(path, "print", [one, blank], {})
    assert lost_output(path) is None
    for content in (b"01", b"01234", None):
        one.unlink() if content is None else one.write_bytes(content)
        assert lost_output(path) == one
    one.write_bytes(b"0123")
    blank.touch()
    assert lost_output(path) == blank
    for harm in HARMS.values():
        harm(path)
        assert lost_output(path) == path
    path.unlink()
    assert lost_output(path) == path


def test_faults_of_the_system_told_in_words_are_faults_of_the_system(tmp_path: Path) -> None:
    """A full disk that a library tells as "(os error 28)" stops the run; other errors tell of the file, or pass."""
    words = "No space left on device (os error 28)"
    stopped = pytest.raises(EnvironmentFault, match=f"{tmp_path}: No space left .*same command again")
    with stopped, disk_faults(), system_errors(tmp_path):
        raise RuntimeError(words)
    with pytest.raises(OSError, match="No space left") as found, readable(tmp_path, "it is"):
        raise RuntimeError(words)
    assert found.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="decompression"), system_errors(tmp_path):
        raise RuntimeError("decompression error")
    with pytest.raises(ResultsError, match="decompression"), readable(tmp_path, "it is"):
        raise RuntimeError("decompression error")
