"""Points of sweeps for tests: functions that note what they do, wait at a gate, break, or die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def note(settings: dict[str, Any], word: str) -> None:
    """Add a line to the log that all processes share; a short append is whole."""
    with open(settings["log"], "ab", buffering=0) as log:
        log.write(f"{word} {settings['x']}\n".encode())


def noted(log: Path, word: str) -> list[int]:
    """The points of which a word was noted, in the order of the lines."""
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [int(x) for found, x in lines if found == word]


def point(settings: dict[str, Any], folder: Path) -> dict[str, float]:
    """Squares `x`. gate: a file that point `held` waits for; broken: points that fail; deadly: that kill themselves."""
    note(settings, "begin")
    x = settings["x"]
    time.sleep(settings.get("seconds", 0))
    while x == settings.get("held") and not Path(settings["gate"]).exists():
        time.sleep(0.01)
    if x in settings.get("deadly", []):
        os.kill(os.getpid(), signal.SIGKILL)
    if x in settings.get("broken", []) and not Path(settings["mended"]).exists():
        raise RuntimeError(f"point {x} is broken")
    (folder / "left").write_text(str(x))
    note(settings, "end")
    return {"square": float(x * x), "nothing": float("nan")}


def wrong(settings: dict[str, Any], folder: Path) -> Any:
    """What is no metrics."""
    return {"square": "four"} if settings["x"] else 4
