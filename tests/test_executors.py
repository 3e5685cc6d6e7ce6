"""The local executor: its dashboard is really there, on this machine alone, and its workers end with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import psutil
import pytest

from slidebatch import executors
from slidebatch.executors import Call, Local
from slidebatch.executors.split import Split
from slidebatch.stages import Receipt
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides


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


@pytest.mark.slow
def test_networks_and_other_stages_may_have_workers_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With workers for the networks and others besides, only the former run networks, and the bytes are the same."""
    truth = touching_field((300, 260), 24, np.random.default_rng(71))
    write_slides(tmp_path, {"a": truth})
    run(config(tmp_path, "calm"))
    seen: dict[str, set[str]] = {}

    class Noted(Local):
        def run(self, calls: Iterable[Call]) -> Iterator[Receipt]:
            def noted() -> Iterator[Call]:
                for call in calls:
                    seen.setdefault(call.stage, set()).add("gpu" if self.network else "cpu")
                    yield call

            yield from super().run(noted())

    monkeypatch.setattr(executors, "start", lambda wanted: Split(Noted(1), Noted(1, network=False)))
    assert run(config(tmp_path, "split", cluster={"kind": "local"})).exit_status == 0
    assert contents(tmp_path / "split") == contents(tmp_path / "calm")
    assert seen.pop("infer") == {"gpu"}
    assert set().union(*seen.values()) == {"cpu"}


def test_no_worker_outlives_its_executor() -> None:
    executor = Local(workers=2)
    workers = [p for p in psutil.Process().children(recursive=True) if "multiprocessing-fork" in " ".join(p.cmdline())]
    assert len(workers) >= 2
    executor.close()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
