"""The one way of all Dask kinds: a bounded window of calls, sent one by one, whatever cluster does them.

A call is never sent by `resources=` or `workers=`: such tasks Dask deals out at once and blames for every worker that
dies. Who is to blame for a death the attempt files of `stages` say; here a call whose workers died is sent again.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from slidebatch.errors import EnvironmentFault, OutOfTime, SlidebatchError
from slidebatch.executors.protocol import Call
from slidebatch.executors.workers import LEAVING, do
from slidebatch.stages import Receipt, warm

PER_WORKER = 3
"""Calls per worker that are under way at once; more would only wait at the workers."""

LOOK_S = 2.0
"""Between looks at the cluster."""

RESENDS = 20
"""How often a call is sent again whose workers died. More: they die by themselves, for no attempt file blames it."""

CLOSE_S = 10.0
"""What a scheduler has for saying good-bye; one that is gone says nothing."""

RESUME = "the run is resumable: give the same command again"

SETTINGS: dict[str, object] = {
    # A dead worker must not fail tasks: attempt files decide who is to blame, not Dask.
    "distributed.scheduler.allowed-failures": 1_000_000,
    # Sampling every thread's stack a hundred times a second takes processor time from the network.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
}
"""Dask's settings for schedulers and workers that a run starts."""


def quiet() -> None:
    """Dask's own words about lost connections and dead workers say nothing that a run does not say in a sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    for name in ("distributed", *names):  # Dask gives several of its loggers levels of their own
        logging.getLogger(name).setLevel(logging.CRITICAL)


@dataclass
class Sent:
    """A call under way: Dask's future of it, how often it was sent, and how often a worker that left passed it on."""

    call: Call
    future: Any
    times: int
    passed: int


class Window:
    """Sends calls through a client of a Dask cluster.

    client    of the cluster
    workers   how many there are or will be; `look` may change it
    until     seconds since the epoch at which waiting ends, or None
    network   whether calls need the network, which `warm` then loads
    """

    def __init__(self, client: Any, workers: int, until: float | None = None, network: bool = True) -> None:
        self.client, self.workers, self.until, self.network = client, workers, until, network
        self._sent: dict[str, Sent] = {}
        self._over: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._looked = time.monotonic()

    @property
    def dashboard(self) -> str | None:
        link: str | None = self.client.dashboard_link
        return link

    def warm(self, work: str) -> None:
        """A worker that dies over it is left to its first task."""
        for answer in self.client.run(warm, work, self.network, on_error="return").values():
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise answer

    def run(self, calls: Iterable[Call]) -> Iterator[Receipt]:
        waiting = iter(calls)
        try:
            self._fill(waiting)
            while self._sent:
                receipt = self._next()
                if receipt is not None:
                    yield receipt
                self._fill(waiting)
        finally:
            self._forget()

    def everywhere(self, function: Callable[..., None], *arguments: object) -> None:
        self.client.run(function, *arguments, on_error="ignore")

    def look(self) -> None:
        """Called now and then while calls are under way; EnvironmentFault where nothing more can come of them."""

    def close(self) -> None:
        """Leave the cluster."""
        self.client.close(timeout=CLOSE_S)

    def _fill(self, waiting: Iterator[Call]) -> None:
        for call in islice(waiting, max(0, PER_WORKER * self.workers - len(self._sent))):
            self._send(call)

    def _send(self, call: Call, times: int = 1, passed: int = 0) -> None:
        key = f"{call.stage}-{call.task}-{times}-{passed}-{call.session}"
        future = self.client.submit(do, call, key=key, pure=False)
        self._sent[key] = Sent(call, future, times, passed)
        future.add_done_callback(self._over.put)

    def _next(self) -> Receipt | None:
        """The next receipt; None where there is none yet, or the call was sent again."""
        if time.monotonic() - self._looked > LOOK_S:
            self.look()
            self._refuse_late()
            self._looked = time.monotonic()
        try:
            future = self._over.get(timeout=LOOK_S)
        except queue.Empty:
            return None
        one = self._sent.pop(future.key, None)
        return None if one is None else self._receipt(one)

    def _receipt(self, one: Sent) -> Receipt | None:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            receipt: Receipt = one.future.result()
            if receipt == LEAVING:
                self._send(one.call, one.times, one.passed + 1)
                return None
            return receipt
        except FutureCancelledError as error:
            raise EnvironmentFault(f"the connection to Dask's scheduler was lost; {RESUME}") from error
        except KilledWorker as error:
            if one.times >= RESENDS:
                raise EnvironmentFault(
                    f"workers died again and again ({one.call.stage}, task {one.call.task}), and no input is to "
                    f"blame; see the workers' logs; {RESUME}"
                ) from error
            self._send(one.call, one.times + 1, one.passed)
            return None
        except SlidebatchError:
            raise
        except Exception:
            self.look()  # a worker that came late and does not fit says so more clearly
            raise

    def _refuse_late(self) -> None:
        if self.until is not None and time.time() > self.until:
            raise OutOfTime(f"the time limit has come with tasks under way; {RESUME}")

    def _forget(self) -> None:
        """Let go of calls that nobody waits for any more."""
        left = [one.future for one in self._sent.values()]
        self._sent = {}
        if left and self.client.status == "running":
            self.client.cancel(left, force=True)
