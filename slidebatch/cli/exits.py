"""Exit statuses: what becomes of an error on the command line.

0 all done; 2 the config or the command is wrong, nothing was started; 3 finished, but some inputs were
quarantined or, in `evaluate`, not predicted; 1 anything else, resumable; 130 interrupted, resumable.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from slidebatch.errors import SlidebatchError

P = ParamSpec("P")

INTERRUPTED = 130


def exits(command: Callable[P, int]) -> Callable[P, None]:
    """A command that returns its exit status, with errors as one sentence on stderr and their status.

    An unexpected exception shows its traceback and gives 1: it is a fault of slidebatch, worth reporting.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(_status(lambda: command(*args, **kwargs)))

    return run


def _status(call: Callable[[], int]) -> int:
    try:
        return call()
    except SlidebatchError as error:
        return _say(str(error), error.exit_status)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # what was under way complains of having been cut short
        return _say("interrupted; give the same command again to resume", INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) left: point stdout elsewhere, or Python complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        traceback.print_exc()
        return 1


def _say(text: str, status: int) -> int:
    for line in text.splitlines() or ["unknown"]:
        sys.stderr.write(f"error: {line}\n")
    return status
