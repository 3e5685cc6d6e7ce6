"""The words keep their promises: links lead somewhere, commands exist, configs named are shipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from slidebatch.cli import app
from slidebatch.config import load
from slidebatch.first_look import is_images
from slidebatch.shipped import configs
from tests.support.guide_commands import commands

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "jobs").rglob("*.md")],
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST_COMMAND = re.compile(r"\S*python -m pytest.*")


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _commands() -> dict[str, typer.models.CommandInfo]:
    return {str(info.name or info.callback.__name__): info for info in app.registered_commands if info.callback}


def _anchor(heading: str) -> str:
    """The anchor of a heading as Markdown viewers make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file, and every anchor a heading."""
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        aim = (page.parent / name).resolve() if name else page
        assert aim.exists(), f"{_id(page)}: dead link {target}"
        if anchor and aim.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", aim.read_text(), re.MULTILINE)
            assert anchor in [_anchor(h) for h in headings], f"{_id(page)}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_commands_exist(page: Path) -> None:
    """Every slidebatch command that a page shows exists, with configs that are shipped and settings that are known."""
    for words in commands(page):
        if len(words) == 1 or words[1].startswith("-"):
            continue
        assert words[1] in _commands(), f"{_id(page)}: {' '.join(words)}"
        named = [w for w in words[2:] if w in configs()]
        sets = [words[i + 1] for i, w in enumerate(words) if w == "--set"]
        if words[1] in ("run", "plan") and not (is_images(words[2]) or words[2].endswith("/")):
            assert len(named) == 1, f"{_id(page)}: {' '.join(words)}"
            load(named[0], sets)


def test_readme_shows_the_two_commands() -> None:
    """The README's test command is the one that .ci/run gives, word for word."""
    readme = (ROOT / "README.md").read_text()
    assert "slidebatch run conf/plate.yaml" in readme
    shown = TEST_COMMAND.findall(readme)
    given = TEST_COMMAND.findall((ROOT / ".ci" / "run").read_text())
    assert len(shown) == 1
    assert shown[0] in given


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_pages_are_text_of_the_project(page: Path) -> None:
    """No page holds a path of somebody's machine."""
    assert not re.search(r"(?<!\w)(/home|/root|/work|/Users|C:)[/\\]", page.read_text())


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_shows_an_example(name: str) -> None:
    """The help of every command has an example that begins as one types it."""
    text = _commands()[name].callback.__doc__ or ""  # type: ignore[union-attr]
    assert f"Example:\n        slidebatch {name}" in text
