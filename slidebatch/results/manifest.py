"""The manifest of a results folder: reading it, and finding a slide in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slidebatch.errors import ResultsError

FORMAT_VERSION = 1
"""The format of results folders that this version reads."""

MISSING = "run slidebatch on the same folder again to complete it"
"""What to do about anything that is not there."""

Entry = dict[str, Any]


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a results folder. ResultsError: foreign, broken, or of another format."""
    file = path / "manifest.json"
    if not path.is_dir():
        raise ResultsError(f"{path} is no folder; expected the results folder of a run (its output.path).")
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ResultsError(
            f"{path} holds no manifest.json, so it is not a results folder (or its run was never planned); "
            "name the folder that the config calls output.path."
        ) from None
    except ValueError as error:
        raise ResultsError(f"{file} is not JSON ({error}); {MISSING}.") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ResultsError(
            f"{file} has format version {version!r}; this slidebatch reads {FORMAT_VERSION}: "
            "open it with the slidebatch that wrote it."
        )
    if not isinstance(manifest.get("slides"), list) or "state" not in manifest:
        raise ResultsError(f"{file} lists no slides or no state; {MISSING}.")
    return dict(manifest)


def meant(word: str, there: Sequence[str]) -> str:
    """What may have been meant by a name that is not there: the nearest, or a few of those there are."""
    near = difflib.get_close_matches(word, there, 1)
    if near:
        return f"did you mean {near[0]}"
    shown = ", ".join(there[:5])
    return (
        f"expected one of {shown}, ... ({len(there)} in all)"
        if len(there) > 5
        else f"expected one of {shown or 'none'}"
    )
