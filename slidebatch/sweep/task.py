"""Running the points of a job: each once, whoever else tries, however often it is given.

A point is run under its lease, which the system takes back from a process that dies. So two processes with the
same job share its points, and a job that is given again skips what is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from slidebatch.errors import ConfigError, EnvironmentFault, LeaseError, OutOfTime
from slidebatch.lease import lease
from slidebatch.store import disk_faults, remove, write_json
from slidebatch.sweep import ledger as ledgers
from slidebatch.sweep.cost import Cost, metered
from slidebatch.sweep.folder import Sweep, open_sweep
from slidebatch.sweep.kinds import Worth, run_point
from slidebatch.sweep.ledger import Ledger, result_of
from slidebatch.sweep.points import Point

Ended = Literal["done", "failed", "elsewhere"]
Tell = Callable[[Point, Ended], None]


@dataclass(frozen=True)
class JobEnd:
    """How many points of a job are done, failed for good, or with another process at this moment."""

    done: int
    failed: int
    elsewhere: int


def run_job(folder: str | Path, index: int, tell: Tell = lambda point, ended: None) -> JobEnd:
    """Run the points of a job that are not finished, those whose process was killed before after the others.

    :param index: of the job, from 0.
    :param tell: called after each point.
    :raises ConfigError: no such job, or the folder that the sweep was started in is not here. ResultsError: no
        sweep. EnvironmentFault: disk, memory or device failed; the job can be given again.
    """
    sweep = open_sweep(folder)
    ends: list[Ended] = []
    points = sorted(sweep.job(index), key=lambda p: _died(sweep, p))
    with started_in(sweep):
        for point in points:
            ends.append(settle(sweep, point))
            tell(point, ends[-1])
    return JobEnd(ends.count("done"), ends.count("failed"), ends.count("elsewhere"))


def started_in(sweep: Sweep) -> chdir[str]:
    """The folder from which relative paths of the config start, as the working folder."""
    if not sweep.started.is_dir():
        raise ConfigError(
            f"{sweep.started}, where the sweep was started, is not here; give `slidebatch sweep` again from a folder "
            "where its paths hold."
        )
    return chdir(str(sweep.started))


def _died(sweep: Sweep, point: Point) -> int:
    """Attempts at a point that a kill ended: such a point must not keep the others from their turn."""
    return ledgers.begun(ledgers.read_ledger(sweep, point)).deaths


def settle(sweep: Sweep, point: Point) -> Ended:
    """Bring one point to its end, unless it is there already or another process is at it."""
    found = result_of(sweep, point)
    while found is None:
        with suppress(FileNotFoundError):  # another process has just finished the point and tidied its folder
            try:
                with lease(sweep.place(point)):
                    found = result_of(sweep, point) or _brought_to_end(sweep, point)
                    if not sweep.spec.output.keep and found["state"] == "done":
                        remove(sweep.place(point))
            except LeaseError:
                return "elsewhere"
        found = found or result_of(sweep, point)
    return "done" if found["state"] == "done" else "failed"


def _brought_to_end(sweep: Sweep, point: Point) -> ledgers.Result:
    """Try a point until it is done or has failed for good; its result, which is on disk then."""
    book, cost = ledgers.begun(ledgers.read_ledger(sweep, point)), Cost()
    found: ledgers.Result | None = None
    while found is None:
        if book.over(sweep):
            found = ledgers.failed(point, sweep, book, cost.told())
        else:
            book, worth, cost = _attempt(sweep, point, book)
            if worth is not None:
                found = ledgers.done(point, sweep, book, {**vars(worth), "cost": cost.told()})
        ledgers.write_ledger(sweep, point, book)
    with disk_faults():
        write_json(sweep.result(point), found)
    return found


def _attempt(sweep: Sweep, point: Point, book: Ledger) -> tuple[Ledger, Worth | None, Cost]:
    """One attempt: the ledger after it, and what the point is worth, if it ended well.

    A fault of the environment or of the memory leaves the ledger as a kill does: it counts as a death. An interrupt and
    a time limit that is near do not count.
    """
    ledgers.write_ledger(sweep, point, replace(book, running=True))
    with metered() as cost:
        try:
            with disk_faults():
                worth = run_point(sweep, point)
        except (KeyboardInterrupt, OutOfTime):
            ledgers.write_ledger(sweep, point, book)
            raise
        except EnvironmentFault:
            raise
        except Exception as error:
            return ledgers.with_failure(book, error), None, cost
    return book, worth, cost
