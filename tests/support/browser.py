"""A real Chromium without a window, and what it complains of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Seen:
    """An open page, what its console said, and the addresses that it asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser; a skip where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Root has no sandbox; in containers the shared memory is small.
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        made = driver.chromium.launch(executable_path=program, args=flags, timeout=300_000)
        yield made
        made.close()


def look(made: Any, file: Path, width_px: int = 1280) -> Seen:
    """A file as the browser shows it."""
    page = made.new_page(viewport={"width": width_px, "height": 900})
    page.set_default_timeout(300_000)
    seen = Seen(page)
    page.on("console", lambda message: seen.said.append(message.text))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.on("request", lambda request: seen.asked.append(request.url))
    page.goto(file.resolve().as_uri())
    page.wait_for_load_state("load")
    return seen
