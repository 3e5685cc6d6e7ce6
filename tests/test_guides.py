"""The guides keep their promises: each command in them and in the README is run, and each sentence is the program's."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from slidebatch.cli import app, status_of
from tests.conftest import ROOT
from tests.support.guide_commands import commands, quick, stage

GUIDES = ROOT / "docs" / "guides"
PAGES = sorted([ROOT / "README.md", *GUIDES.glob("*.md")])

HERE = ("troubleshooting.md", "your-plate.md", "your-slides.md")
LONG = ("README.md", "first-run.md", "limits.md", "sweeps.md", "your-network.md")
ELSEWHERE = {
    "slurm.md": "tests/cluster/test_guides.py gives them to a SLURM",
    "pbs.md": "tests/cluster/test_guides.py gives them to a stand-in for PBS",
    "gpus.md": "tests/gpu/test_guide.py runs them where a GPU is",
}
"""Pages whose commands need more than this machine, and who runs them."""

NOT_HERE = {
    "slidebatch run conf/slide.yaml --cluster slurm --workers 8": "tests/cluster/test_guides.py, with two workers",
}
"""Commands of other pages that need more than this machine, and who runs them."""


def _help_examples() -> list[list[str]]:
    """The examples in the help of every command, as words."""
    found = []
    for info in app.registered_commands:
        text = (info.callback.__doc__ or "").partition("Example:\n")[2] if info.callback else ""
        lines = text.replace("\\\n", " ").splitlines()
        found += [shlex.split(line.split(" > ")[0]) for line in lines if line.strip().startswith("slidebatch ")]
    return found


def _parsed(words: list[str]) -> None:
    """Parse a command line as the program does, and do nothing. An exception where it would be refused."""
    command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    command.make_context(words[1], list(words[2:]))


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("staged"))


def _run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a page's commands one after the other in a folder; each ends with status 0."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shown = commands(page)
    assert shown
    for words in shown:
        if " ".join(words) not in NOT_HERE:
            assert status_of(quick(words)) == 0, " ".join(words)


def test_every_page_has_its_place() -> None:
    """Each guide's commands are run by one of the tests that are named here."""
    assert sorted([*HERE, *LONG, *ELSEWHERE]) == sorted(page.name for page in PAGES)
    every = {" ".join(words) for page in PAGES for words in commands(page)}
    assert every >= set(NOT_HERE)
    for who in (*ELSEWHERE.values(), *NOT_HERE.values()):
        assert (ROOT / re.split("[ ,]", who)[0]).is_file()


@pytest.mark.parametrize("name", HERE)
def test_commands_run(name: str, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a guide, one after the other, in a folder with the files that it speaks of."""
    shutil.copytree(staged, tmp_path, dirs_exist_ok=True)
    if name == "troubleshooting.md":
        monkeypatch.chdir(tmp_path)
        there = "slidebatch run conf/slide.yaml --set input.path=slides/one.tif --set input.mpp=0.5"
        assert status_of(quick([*there.split(), "--set", "output.path=results/plate"])) == 0
    _run_page(GUIDES / name, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_commands_of_long_pages_run(name: str, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for pages that fit networks, start jobs, or segment a whole sample."""
    shutil.copytree(staged, tmp_path, dirs_exist_ok=True)
    _run_page(ROOT / name if name == "README.md" else GUIDES / name, tmp_path, monkeypatch)


def test_jobs_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What guides show of job scripts without sending them can be shown on any machine."""
    monkeypatch.chdir(tmp_path)
    shown = [words for name in ELSEWHERE for words in commands(GUIDES / name) if "--dry-run" in words]
    assert len(shown) >= 9
    for words in shown:
        assert status_of(words[1:]) == 0, " ".join(words)
        assert "#!/bin/bash" in capsys.readouterr().out


@pytest.mark.parametrize("words", [*(w for page in PAGES for w in commands(page)), *_help_examples()], ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    """Every command of the guides, of the README and of the help has options and arguments that the program knows."""
    _parsed(words)


def test_a_wrong_command_is_not_understood() -> None:
    """An option that there is not is refused by the parsing that the test above relies on."""
    assert len(_help_examples()) >= 20
    with pytest.raises(Exception, match="No such option"):
        _parsed(["slidebatch", "run", "conf/plate.yaml", "--worker", "2"])


def _sentences() -> list[str]:
    """All texts in the code; what is filled in is a NUL."""
    found = []
    for path in (ROOT / "slidebatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_troubleshooting_quotes_the_program() -> None:
    """What the first column quotes is what the code says, `...` standing for what is filled in."""
    rows = re.findall(r"^\| `([^`]+)` \|", (GUIDES / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) >= 25
    every = _sentences()
    for row in rows:
        parts = [re.escape(part) for part in row.split("...")]
        pattern = re.compile(r"\0.*?".join(parts), re.DOTALL)
        assert any(pattern.search(text) for text in every), row


@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda p: p.name)
def test_guides_begin_with_what_one_needs_and_end_with_what_one_has(page: Path) -> None:
    """Each guide names first what is needed and last what there is then; the index and the README lead to it."""
    paragraphs = page.read_text().strip().split("\n\n")
    assert paragraphs[1].startswith("**You need**")
    assert paragraphs[-1].startswith("**You have**")
    assert f"guides/{page.name}" in (ROOT / "docs" / "README.md").read_text()
    assert f"docs/guides/{page.name}" in (ROOT / "README.md").read_text()
