"""The command line: thin commands over floor 9.

Owns argument parsing, printing and exit statuses (`cli.exits`); every command does its work in one call
below. Nothing heavy is imported here: commands import what they call when they run, so that `--help`
answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from slidebatch.cli import assaying, looking, scoring, submitting, sweeping  # noqa: F401  (register their commands)
from slidebatch.cli.app import app
from slidebatch.cli.exits import INTERRUPTED

__all__ = ["app", "main", "status_of"]


def status_of(arguments: Sequence[str]) -> int:
    """Run one command line in this process and give its exit status."""
    try:
        app(list(arguments), prog_name="slidebatch")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _terminated(number: int, frame: Any) -> None:
    # Schedulers end jobs with SIGTERM: leave as after Ctrl-C, with a state that can be resumed.
    raise KeyboardInterrupt


def main() -> NoReturn:
    """The program `slidebatch`."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(status_of(sys.argv[1:]))
