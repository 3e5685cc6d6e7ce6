"""doctor looks at real things: what it says of a machine or a folder can be seen there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from slidebatch import doctor
from slidebatch.cli import status_of
from slidebatch.doctor import folder, queues
from tests.conftest import ROOT


def found(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_every_absence_says_what_it_would_be_needed_for(tmp_path: Path) -> None:
    """Each finding has a name of its own and a use; what is not fine has a remedy; nothing is left behind."""
    findings = doctor.examine(tmp_path)
    assert len(found(findings)) == len(findings)
    for finding in findings:
        assert finding.needed
        assert finding.found
        assert bool(finding.remedy) == (finding.state != "fine"), finding
    assert list(tmp_path.iterdir()) == []


def test_json_and_text_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json has a record for every line of the text, and both exit with 0 where nothing is at fault."""
    assert status_of(["doctor", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert status_of(["doctor", "--folder", str(tmp_path), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [set(r) for r in records] == [{"name", "state", "found", "needed", "remedy"}] * len(lines)
    for line, record in zip(lines, records, strict=True):
        assert f"  {record['name']}: " in line
    told = {r["name"]: r for r in records}
    assert version("torch") in told["machine: torch"]["found"]
    assert int(told["packages: dependencies"]["found"].split(" installed")[0]) > 0


def test_a_folder_that_is_not_there_is_judged_by_the_one_above(tmp_path: Path) -> None:
    """Results need not exist yet: the nearest folder above is tried, and none is made."""
    told = folder.look(tmp_path / "a" / "b")
    assert {f.state for f in told} == {"fine"}
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_folder_that_takes_no_files_is_at_fault() -> None:
    """Where nothing can be written there is one fault, and it names the folder."""
    [finding] = folder.look(Path("/proc/self"))
    assert finding.state == "fault"
    assert "/proc/self" in finding.name


def test_locks_that_are_granted_twice_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose locks hold nobody off (some network ones) is found out."""
    monkeypatch.setattr("fcntl.flock", lambda file, how: None)
    told = found(folder.look(tmp_path))[f"folder {tmp_path}: locks"]
    assert told.state == "fault"
    assert "granted twice" in told.found


def test_a_missing_dependency_is_a_fault_with_its_name(tmp_path: Path) -> None:
    """Where a package cannot be found by its metadata, it is named, and the status is 1."""
    code = (
        "import importlib.metadata as m, sys\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name in ('zarr', 'openslide-bin'):\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "from slidebatch.cli import status_of\n"
        "sys.exit(status_of(['doctor', '--json']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    told = {r["name"]: r for r in json.loads(ended.stdout)}
    assert told["packages: dependencies"]["state"] == "fault"
    assert "missing: zarr" in told["packages: dependencies"]["found"]
    assert "openslide-bin" in told["packages: extra wsi"]["found"]
    assert told["packages: extra wsi"]["state"] == "absent"


def script(folder_: Path, name: str, text: str) -> None:
    path = folder_ / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_schedulers_are_told_apart_from_those_that_do_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commands, commands without a server behind them, and a scheduler that answers are three findings."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {f.state for f in queues.look()} == {"absent"}
    for name in ("qsub", "qdel"):
        script(tmp_path, name, "exit 0")
    script(tmp_path, "qstat", "echo 'cannot connect to server' >&2; exit 111")
    [pbs] = [f for f in queues.look() if f.name == "scheduler: pbs"]
    assert (pbs.state, pbs.found) == ("absent", "does not answer (cannot connect to server)")
    script(tmp_path, "qstat", "echo 'pbs_version = 23.06.06'")
    [pbs] = [f for f in queues.look() if f.name == "scheduler: pbs"]
    assert (pbs.state, pbs.found) == ("fine", "pbs_version = 23.06.06")
