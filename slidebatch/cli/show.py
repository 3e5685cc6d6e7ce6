"""What commands print: plain text on stdout, exit status 0."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def say(text: str) -> int:
    """Write a text and a line end to stdout; 0, the status of a command that ends so."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return 0


def say_lines(lines: Iterable[str]) -> None:
    """Write each line to stdout."""
    for line in lines:
        say(line)
