"""The one way of all Dask kinds: a bounded window of calls, whatever cluster does them.

Calls that take milliseconds are sent several together: a message through Dask costs about as much as such a call.

A call is never sent by `resources=` or `workers=`: such tasks Dask deals out at once and blames for every worker that
dies. Who is to blame for a death the attempt files of `stages` say; here a call whose workers died is sent again.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from slidebatch.errors import EnvironmentFault, OutOfTime, SlidebatchError
from slidebatch.executors.protocol import Call
from slidebatch.executors.workers import TOGETHER_S, Done, do
from slidebatch.stages import Receipt, warm

PER_WORKER = 3
"""Messages per worker that are under way at once; more would only wait at the workers."""

MOST_TOGETHER = 64
"""Calls of one message at most. A message takes client, scheduler and worker milliseconds, as small tasks do."""

LOOK_S = 2.0
"""Between looks at the cluster."""

RESENDS = 20
"""How often a call is sent again whose workers died. More: they die by themselves, for no attempt file blames it."""

CLOSE_S = 10.0
"""What a scheduler has for saying good-bye; one that is gone says nothing."""

RESUME = "the run is resumable: give the same command again"
LOST = f"the connection to Dask's scheduler was lost; {RESUME}"

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


def let_go(cluster: Any) -> None:
    """Close a cluster that the run started.

    On a busy machine a killed worker may take longer to be gone than Dask waits. That is no fault of a run whose work
    is done: Dask tries once more as this process ends.
    """
    with suppress(TimeoutError):
        cluster.close()


@contextmanager
def asking(client: Any) -> Iterator[None]:
    """Around whatever is asked of a scheduler: EnvironmentFault where it goes before it answers.

    A connection that was lost is an OSError, a client that has noticed it raises what it likes.
    """
    try:
        yield
    except Exception as error:
        if client.status == "running" and not isinstance(error, OSError | RuntimeError):
            raise
        raise EnvironmentFault(LOST) from error


@dataclass
class Sent:
    """Calls under way in one message: Dask's future, how often they were sent, how often a worker passed them on."""

    calls: tuple[Call, ...]
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
        self._together = 1
        self._over: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._looked = time.monotonic()

    @property
    def dashboard(self) -> str | None:
        link: str | None = self.client.dashboard_link
        return link

    def warm(self, work: str) -> None:
        """A worker that dies over it is left to its first task."""
        with asking(self.client):
            answers = self.client.run(warm, work, self.network, on_error="return")
        for answer in answers.values():
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise answer

    def run(self, calls: Iterable[Call]) -> Iterator[Receipt]:
        waiting, self._together = iter(calls), 1  # the calls of another stage take another time
        try:
            self._fill(waiting)
            while self._sent:
                yield from self._next()
                self._fill(waiting)
        finally:
            self._forget()

    def everywhere(self, function: Callable[..., None], *arguments: object) -> None:
        with asking(self.client):
            self.client.run(function, *arguments, on_error="ignore")

    def look(self) -> None:
        """Called now and then while calls are under way; EnvironmentFault where nothing more can come of them."""

    def close(self) -> None:
        """Leave the cluster."""
        self.client.close(timeout=CLOSE_S)

    def _fill(self, waiting: Iterator[Call]) -> None:
        most = PER_WORKER * max(1, self.workers)  # where all are gone some wait for the next: else the stage would end
        while len(self._sent) < most and (calls := tuple(islice(waiting, self._together))):
            self._send(calls)

    def _send(self, calls: tuple[Call, ...], times: int = 1, passed: int = 0) -> None:
        first = calls[0]
        key = f"{first.stage}-{first.task}-{times}-{passed}-{first.session}"
        with asking(self.client):
            future = self.client.submit(do, calls, key=key, pure=False)
        self._sent[key] = Sent(calls, future, times, passed)
        future.add_done_callback(self._over.put)

    def _next(self) -> tuple[Receipt, ...]:
        """The next receipts; none where there are none yet, or calls were sent again."""
        if time.monotonic() - self._looked > LOOK_S:
            self.look()
            self._refuse_late()
            self._looked = time.monotonic()
        try:
            future = self._over.get(timeout=LOOK_S)
        except queue.Empty:
            return ()
        one = self._sent.pop(future.key, None)
        return () if one is None else self._receipts(one)

    def _receipts(self, one: Sent) -> tuple[Receipt, ...]:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            done: Done = one.future.result()
            left = one.calls[len(done.receipts) :]
            if left:
                self._send(left, one.times, one.passed + 1)
            if done.receipts:
                each_s = done.seconds / len(done.receipts)
                self._together = max(1, min(MOST_TOGETHER, int(TOGETHER_S / max(each_s, 1e-6))))
            return done.receipts
        except FutureCancelledError as error:
            raise EnvironmentFault(LOST) from error
        except KilledWorker as error:
            if one.times >= RESENDS:
                raise EnvironmentFault(
                    f"workers died again and again ({one.calls[0].stage}, task {one.calls[0].task}), and no input is "
                    f"to blame; see the workers' logs; {RESUME}"
                ) from error
            self._send(one.calls, one.times + 1, one.passed)
            return ()
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
            with suppress(OSError, RuntimeError):  # a scheduler that is gone has forgotten them
                self.client.cancel(left, force=True)
