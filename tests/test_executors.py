"""The local executor: its dashboard is really there, on this machine alone, and its workers end with it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from slidebatch.executors import Local


@pytest.fixture
def local() -> Iterator[Local]:
    executor = Local(workers=2)
    yield executor
    executor.close()


def test_the_dashboard_shows_the_tasks_and_listens_on_this_machine_only(local: Local) -> None:
    assert local.dashboard is not None
    page = urlopen(local.dashboard, timeout=30).read().decode()
    assert "bokeh" in page
    assert "Dask needs" not in page
    address = urlsplit(local.dashboard)
    listening = {
        c.laddr.ip
        for c in psutil.Process().net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == address.port
    }
    assert listening == {"127.0.0.1"}


def test_no_worker_outlives_its_executor() -> None:
    executor = Local(workers=2)
    workers = [p for p in psutil.Process().children(recursive=True) if "multiprocessing-fork" in " ".join(p.cmdline())]
    assert len(workers) >= 2
    executor.close()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
