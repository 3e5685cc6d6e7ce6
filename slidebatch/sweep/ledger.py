"""What became of each point, on disk: its result, and the ledger of its attempts.

A result file is written once the point is done, or has failed for good. The ledger counts what went before: the
failures with their tracebacks, and the attempts that never ended because their process was killed.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from slidebatch.errors import ConfigError, ModelError, PlanError
from slidebatch.store import read_json, remove, write_json
from slidebatch.sweep.folder import Sweep
from slidebatch.sweep.points import Point

FINAL = (ConfigError, ModelError, PlanError)
"""Errors that another attempt would only repeat."""

Result = dict[str, Any]
State = Literal["done", "failed"]


@dataclass(frozen=True)
class Ledger:
    """Attempts at a point so far.

    failures  of those that ended in an error: {"error": sentence, "traceback": text, "final": bool}
    deaths    those that never ended
    running   whether one has begun and not ended: now, or it was killed
    """

    failures: tuple[Mapping[str, Any], ...] = ()
    deaths: int = 0
    running: bool = False

    def over(self, sweep: Sweep) -> bool:
        """Whether the point has failed for good, by what the sweep allows now."""
        final = any(f["final"] for f in self.failures)
        return final or len(self.failures) > sweep.spec.retries or self.deaths >= sweep.spec.deaths


def read_ledger(sweep: Sweep, point: Point) -> Ledger:
    """The ledger of a point; an empty one where there is none or it is damaged."""
    try:
        told = read_json(sweep.place(point) / "ledger.json")
    except (OSError, ValueError):
        return Ledger()
    return Ledger(tuple(told["failures"]), told["deaths"], told["running"])


def write_ledger(sweep: Sweep, point: Point, ledger: Ledger) -> None:
    write_json(sweep.place(point) / "ledger.json", asdict(ledger))


def begun(ledger: Ledger) -> Ledger:
    """The ledger when someone holds the point's lease: an attempt that still runs by its word was killed."""
    return replace(ledger, deaths=ledger.deaths + ledger.running, running=False)


def with_failure(ledger: Ledger, error: Exception) -> Ledger:
    """The ledger after an attempt that ended in an error."""
    told = "".join(traceback.format_exception(error))
    sentence = str(error).strip() or type(error).__name__
    named = sentence if isinstance(error, FINAL) else f"{type(error).__name__}: {sentence}"
    failure = {"error": named, "traceback": told, "final": isinstance(error, FINAL)}
    return replace(ledger, failures=(*ledger.failures, failure), running=False)


def result_of(sweep: Sweep, point: Point) -> Result | None:
    """The result of a point that is over: done, or failed and not to be tried again. None: it is to do."""
    try:
        found: Result = read_json(sweep.result(point))
    except (OSError, ValueError):
        return None
    if found.get("id") != point.id or found.get("sweep") != sweep.digest:
        return None
    if found["state"] == "done":
        return found
    return found if Ledger(tuple(found["failures"]), found["deaths"]).over(sweep) else None


def done(point: Point, sweep: Sweep, ledger: Ledger, told: dict[str, Any]) -> Result:
    """The result of a finished point; `told`: metrics, facts, notes, cost."""
    return {**_head(point, sweep, "done"), **told, "failures": list(ledger.failures), "deaths": ledger.deaths}


def failed(point: Point, sweep: Sweep, ledger: Ledger, cost: dict[str, Any]) -> Result:
    """The result of a point that failed for good, with the sentence and the traceback of its last failure."""
    told = {"metrics": {}, "facts": {}, "notes": [], "cost": cost, "error": _sentence(ledger)}
    return {**_head(point, sweep, "failed"), **told, "failures": list(ledger.failures), "deaths": ledger.deaths}


def _head(point: Point, sweep: Sweep, state: State) -> Result:
    told = {"number": point.number, "id": point.id, "name": point.name, "parameters": point.parameters}
    return {"sweep": sweep.digest, **told, "state": state}


def _sentence(ledger: Ledger) -> str:
    if ledger.failures:
        return str(ledger.failures[-1]["error"])
    return f"its process was killed {ledger.deaths} times; see the log of its job, and whether it had memory enough"


def forget_failures(sweep: Sweep) -> int:
    """Take away the results of points that failed, and their ledgers, so that they are tried again; how many."""
    found = 0
    for point in sweep.points:
        try:
            failed_for_good = json.loads(sweep.result(point).read_bytes())["state"] == "failed"
        except (OSError, ValueError):
            continue
        if failed_for_good:
            remove(sweep.place(point) / "ledger.json")
            remove(sweep.result(point))
            found += 1
    return found
