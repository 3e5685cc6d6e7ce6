"""The command that looks at this machine: doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from slidebatch.cli.app import app
from slidebatch.cli.exits import exits
from slidebatch.cli.show import say, say_lines


@app.command()
@exits
def doctor(
    folder: Annotated[Path, typer.Option(help="Folder whose file system is tried: where results will go.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON.")] = False,
) -> int:
    """Look at what this machine has of what slidebatch needs, and say what anything missing would be needed for.

    Status 1 where a run here would fail.

    \b
    Example:
        slidebatch doctor --folder results
    """
    from slidebatch.doctor import examine

    found = examine(folder)
    if as_json:
        say(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        say_lines(finding.describe() for finding in found)
    return int(any(finding.state == "fault" for finding in found))
