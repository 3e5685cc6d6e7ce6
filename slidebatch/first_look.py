"""A first look at images without a config: which shipped config and which settings would run them.

Owns that choice, and the words for it. It is shown with the plan that it makes; a run is given it by its user.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from slidebatch import sources
from slidebatch.sources import Found, InputSpec
from slidebatch.sources.folders import IMAGES
from slidebatch.sources.names import natural, safe, stem

NUCLEAR = re.compile(r"dapi|hoechst|h33342|dna|draq|nucle", re.IGNORECASE)
"""What channels that show nuclei are called."""


@dataclass(frozen=True)
class FirstLook:
    """How images would be run: a shipped config, the settings to give with it, and what was seen, a sentence each."""

    config: str
    sets: tuple[str, ...]
    seen: tuple[str, ...]

    @property
    def command(self) -> str:
        """The run, as a shell takes it."""
        return shlex.join(["slidebatch", "run", self.config, *(w for one in self.sets for w in ("--set", one))])

    def describe(self) -> str:
        """What was seen, a line each."""
        return "\n".join(self.seen)


def is_images(path: str) -> bool:
    """Whether a path names images rather than a config: a folder, or a file that ends as images do."""
    return os.path.isdir(path) or path.lower().endswith(IMAGES)


def first_look(path: str, overrides: Sequence[str] = ()) -> FirstLook:
    """How the images of a folder, an OME-Zarr or a file would be run; `overrides` (`key=value`) come last.

    Looks at names and small metadata alone. ConfigError where there is no image.
    """
    proposal = sources.proposed(path)
    how = {} if proposal is None else {proposal.key: proposal.value}
    found = sources.find(InputSpec.model_validate({"path": path, **how}))
    sets = [f"input.path={path}", *(f"input.{key}={value}" for key, value in how.items())]
    seen = [_seen(path, found)]
    if proposal is not None:
        seen.append(f"names: {proposal.describe()}")
        chosen, told = _nuclei(found)
        sets.append(f"input.channels={chosen}")
        seen += told
    sets.append(f"output.path=results/{safe(stem(os.path.abspath(path)))}")
    config = "plate_files" if proposal is not None else "plate" if found.plate else "slide"
    return FirstLook(f"conf/{config}.yaml", (*sets, *overrides), tuple(seen))


def _seen(path: str, found: Found) -> str:
    """How many images there are, and wells."""
    wells = {(s.plate, s.well) for s in found.sources if s.well is not None}
    of = f" of {len(wells)} wells" if wells else ""
    left = f", and {len(found.faults)} that cannot be used" if found.faults else ""
    return f"{path}: {len(found.sources)} images{of}{left}"


def _nuclei(found: Found) -> tuple[str, list[str]]:
    """The channel that seems to show the nuclei, as the value of `input.channels`, and a sentence on it."""
    channels = sorted({f.channel for s in found.sources for f in s.files if f.channel is not None}, key=natural)
    if not channels:
        return "null", []
    named = [c for c in channels if NUCLEAR.search(c)]
    chosen = (named or channels)[-1]
    why = "by its name" if named else "for it is the last: look at the images"
    told = f"channels: {', '.join(channels)}; {chosen} is taken to show the nuclei, {why}"
    return json.dumps([chosen]), [told]
