"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "absent", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    name    what it is, as "section: thing"
    state   fine; absent: not here, and only some uses need it; fault: a run here would fail or be unsafe
    found   what there is, in words
    needed  what it is, or would be, needed for
    remedy  what to do where it is not fine; "" otherwise
    """

    name: str
    state: State
    found: str
    needed: str
    remedy: str = ""

    def describe(self) -> str:
        """For people, one line."""
        mark = {"fine": "ok    ", "absent": "absent", "fault": "FAULT "}[self.state]
        rest = f"; needed for {self.needed}; {self.remedy}" if self.state != "fine" else ""
        return f"{mark}  {self.name}: {self.found}{rest}"
