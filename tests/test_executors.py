"""The local executor: its dashboard is really there, on this machine alone, and its workers end with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import psutil
import pytest

from slidebatch import executors
from slidebatch.events import Event, StageEnded, TaskDone
from slidebatch.executors import Call, Local
from slidebatch.executors.split import Split
from slidebatch.executors.window import Window
from slidebatch.stages import Receipt
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides
from tests.test_resume import interrupt_before

TWO: dict[str, object] = {"kind": "local", "workers": 2}
SMALL: dict[str, Any] = {"tiling": {"core_px": 32, "bundle": False}}
"""A task for each tile, of milliseconds."""


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


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of every message to a worker: how many calls it held, and how often they had been passed on."""
    seen: list[tuple[int, int]] = []
    real = Window._send

    def noted(self: Window, calls: tuple[Call, ...], times: int = 1, passed: int = 0) -> None:
        seen.append((len(calls), passed))
        real(self, calls, times, passed)

    monkeypatch.setattr(Window, "_send", noted)
    return seen


@pytest.mark.slow
def test_small_tasks_travel_together(tmp_path: Path, messages: list[tuple[int, int]]) -> None:
    """Hundreds of small tasks share messages, each is told of once, and the bytes are those of a serial run."""
    write_slides(tmp_path, {"a": touching_field((600, 600), 24, np.random.default_rng(72))})
    run(config(tmp_path, "calm", **SMALL))
    told: list[Event] = []
    assert run(config(tmp_path, "out", cluster=TWO, **SMALL), told.append).exit_status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")
    ended = [e for e in told if isinstance(e, StageEnded)]
    for stage in ended:
        assert sum(isinstance(e, TaskDone) and e.stage == stage.stage for e in told) == stage.total
    tasks = sum(e.total for e in ended)
    assert tasks > 500
    assert tasks / 2 > len(messages)


@pytest.mark.slow
def test_what_a_worker_gives_back_is_sent_again(tmp_path: Path, messages: list[tuple[int, int]]) -> None:
    """Where tasks turn slow, a worker does not keep others from the calls that came with them; the bytes agree."""
    write_slides(tmp_path, {"a": touching_field((600, 600), 24, np.random.default_rng(73))})
    run(config(tmp_path, "calm", **SMALL))
    with pytest.MonkeyPatch.context() as patch:
        interrupt_before("decode", patch)
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path, "out", **SMALL))
    receipts = sorted((tmp_path / "out" / "work" / "receipts" / "infer").glob("*.json"), key=lambda p: int(p.stem))
    for path in receipts[-20:]:
        path.unlink()
    slow = {"name": "tests.support.slow_oracle", "settings": {"truth": str(tmp_path / "truth"), "seconds": 0.2}}
    assert run(config(tmp_path, "out", model=slow, cluster=TWO, **SMALL)).exit_status == 0
    assert any(passed for _, passed in messages)
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")


def test_workers_that_are_slow_to_go_do_not_spoil_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Dask gives up waiting for workers to end, as on a busy machine, the run that they have done is done."""
    from distributed import LocalCluster

    close = LocalCluster.close

    def slowly(self: LocalCluster, timeout: float | None = None) -> None:
        close(self, timeout)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", slowly)
    write_slides(tmp_path, {"a": touching_field((200, 200), 24, np.random.default_rng(72))})
    assert run(config(tmp_path, "out", cluster={"kind": "local", "workers": 1})).exit_status == 0


def test_no_worker_outlives_its_executor() -> None:
    executor = Local(workers=2)
    workers = [p for p in psutil.Process().children(recursive=True) if "multiprocessing-fork" in " ".join(p.cmdline())]
    assert len(workers) >= 2
    executor.close()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
