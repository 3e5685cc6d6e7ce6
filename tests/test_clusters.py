"""An existing Dask cluster gives the same answer, survives its workers, and is refused where it does not fit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client

from slidebatch.deadline import LEAVING_S, VARIABLE
from slidebatch.errors import ConfigError, EnvironmentFault
from slidebatch.executors import Existing
from slidebatch.executors.protocol import Call
from slidebatch.executors.spec import ClusterSpec
from slidebatch.executors.window import LOST, Window
from slidebatch.executors.workers import ENVIRONMENT
from slidebatch.store import read_json
from tests.conftest import ROOT
from tests.support.dask_cluster import PATIENCE_S, DaskCluster, dask_cluster
from tests.support.fields import touching_field
from tests.support.runs import COARSE, config, contents, run, write_slides
from tests.test_kills import start, write_config

pytestmark = pytest.mark.long


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Slides that make several tasks of the stages that two workers are to share, and a small one."""
    rng = np.random.default_rng(21)
    truths = {name: touching_field((1300, 1200), 24, rng) for name in ("a", "b", "c")}
    return write_slides(tmp_path, {**truths, "d": touching_field((200, 220), 20, rng)})


@pytest.fixture
def two(tmp_path: Path) -> Iterator[DaskCluster]:
    """A scheduler and two workers."""
    with dask_cluster(tmp_path / "dask cluster", 2) as cluster:
        yield cluster


def by_file(cluster: DaskCluster) -> dict[str, object]:
    return {"kind": "existing", "scheduler_file": str(cluster.file)}


def test_every_way_of_running_gives_the_same_bytes(slides: Path, two: DaskCluster) -> None:
    """Serial, one, two and four local workers, a scheduler file and an address: the same files to the byte."""
    address = json.loads(two.file.read_text())["address"]
    ways: dict[str, dict[str, object]] = {
        "serial": {"kind": "serial"},
        **{f"local{n}": {"kind": "local", "workers": n} for n in (1, 2, 4)},
        "file": by_file(two),
        "address": {"kind": "existing", "address": address},
    }
    for name, cluster in ways.items():
        assert run(config(slides, name, **COARSE, cluster=cluster)).exit_status == 0
        assert contents(slides / name) == contents(slides / "serial"), name
    assert all(p.poll() is None for p in (two.scheduler, *two.workers)), "a run ended what was not its own"


def attempt_of(work: Path, process: int) -> Path | None:
    """The attempt file of a network's task that a process works on."""
    for path in (work / "attempts").glob("infer-*.json"):
        try:
            if read_json(path)["process"] == process:
                return path
        except (FileNotFoundError, ValueError):
            continue
    return None


def stop_in_task(worker: int, work: Path, engine: subprocess.Popen[bytes]) -> None:
    """SIGSTOP a worker while it works on a network's task."""
    end = time.monotonic() + PATIENCE_S
    while engine.poll() is None and time.monotonic() < end:
        if attempt_of(work, worker):
            os.kill(worker, signal.SIGSTOP)
            if attempt_of(work, worker):  # it can no more end between the look and the signal
                return
            os.kill(worker, signal.SIGCONT)
        time.sleep(0.0005)
    raise AssertionError("the worker was never seen at work")


def test_a_killed_worker_costs_nothing(slides: Path, two: DaskCluster) -> None:
    """SIGKILL of one of two workers inside a task: the other does its tasks too, no input fails, the bytes agree."""
    run(config(slides, "calm", **COARSE))
    engine = start(write_config(slides, "upset", **COARSE, cluster=by_file(two)))
    victim = two.workers[0]
    stop_in_task(victim.pid, slides / "upset" / "work", engine)
    os.kill(victim.pid, signal.SIGKILL)
    _, told = engine.communicate(timeout=PATIENCE_S)
    assert engine.returncode == 0, told.decode()
    assert contents(slides / "upset") == contents(slides / "calm")
    assert (slides / "upset" / "failures.jsonl").read_text() == ""


def test_a_dead_scheduler_stops_the_run_resumable(slides: Path, two: DaskCluster) -> None:
    """SIGKILL of the scheduler: one sentence, status 1; on another cluster the same command completes the run."""
    run(config(slides, "calm", **COARSE))
    engine = start(write_config(slides, "upset", **COARSE, cluster=by_file(two)))
    stop_in_task(two.workers[0].pid, slides / "upset" / "work", engine)
    os.kill(two.scheduler.pid, signal.SIGKILL)
    _, told = engine.communicate(timeout=PATIENCE_S)
    assert engine.returncode == 1
    usual = ("run ", "networks run", "prepare", "maps", "infer")
    assert [line for line in told.decode().splitlines() if not line.startswith(usual)] == [
        "error: the connection to Dask's scheduler was lost; the run is resumable: give the same command again"
    ]
    two.stop()
    with dask_cluster(slides / "next", 1) as cluster:
        assert run(config(slides, "upset", **COARSE, cluster=by_file(cluster))).exit_status == 0
    assert contents(slides / "upset") == contents(slides / "calm")


@pytest.mark.parametrize("asked", ["check", "warm", "everywhere"])
def test_a_scheduler_that_dies_while_it_is_asked_stops_the_run_resumable(
    slides: Path, two: DaskCluster, asked: str
) -> None:
    """SIGKILL of the scheduler while workers are looked at, load the network or clear up: the same sentence."""
    work = slides / "out" / "work"
    work.mkdir(parents=True)
    borrowed = Existing(ClusterSpec(kind="existing", scheduler_file=str(two.file)))
    questions = {
        "check": lambda: borrowed.warm(str(work)),
        "warm": lambda: Window.warm(borrowed, str(work)),
        "everywhere": lambda: borrowed.everywhere(time.sleep, 0),
    }
    with ThreadPoolExecutor() as pool:
        borrowed.client.wait_for_workers(2, PATIENCE_S)
        os.kill(two.workers[0].pid, signal.SIGSTOP)
        answer = pool.submit(questions[asked])
        with pytest.raises(TimeoutError):  # the worker that stands still keeps the scheduler from answering
            answer.result(timeout=3)
        os.kill(two.scheduler.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentFault, match=f"^{re.escape(LOST)}$"):
            answer.result(timeout=PATIENCE_S)
    assert list(work.iterdir()) == []
    borrowed.close()


def test_a_stage_that_begins_without_workers_waits_for_one(slides: Path, two: DaskCluster) -> None:
    """Calls that are given while no worker is there are done by the next one, not left out."""
    run(config(slides, "calm", **COARSE))
    work = str(slides / "calm" / "work")
    borrowed = Existing(ClusterSpec(kind="existing", scheduler_file=str(two.file)))
    borrowed.client.wait_for_workers(2, PATIENCE_S)
    borrowed.warm(work)
    for worker in two.workers:
        os.kill(worker.pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while borrowed.workers:
        assert time.monotonic() < end
        borrowed.look()
    two.add_worker()
    calls = [Call(work, "prepare", 0, "this"), Call(work, "seams", 0, "this")]
    assert len(list(borrowed.run(calls))) == len(calls)
    borrowed.close()


def test_workers_that_come_late_take_part(slides: Path, tmp_path: Path) -> None:
    """A run on a cluster without workers waits for one, and tasks go to those that come later."""
    with dask_cluster(tmp_path / "dask", 0) as cluster:
        engine = start(write_config(slides, "late", **COARSE, cluster=by_file(cluster)))
        first = cluster.add_worker()
        stop_in_task(first.pid, slides / "late" / "work", engine)
        second = cluster.add_worker()
        stop_in_task(second.pid, slides / "late" / "work", engine)
        for worker in (first, second):
            os.kill(worker.pid, signal.SIGCONT)
        assert engine.wait(PATIENCE_S) == 0
    run(config(slides, "calm", **COARSE))
    assert contents(slides / "late") == contents(slides / "calm")


def test_what_local_workers_get_reaches_workers_that_were_there(slides: Path, two: DaskCluster) -> None:
    """Existing workers have the environment and the umask of the run while it runs, and their own umask after it."""
    work = slides / "out" / "work"
    work.mkdir(parents=True)
    borrowed = Existing(ClusterSpec(kind="existing", scheduler_file=str(two.file), umask="027"))
    run(config(slides, "calm", **COARSE))
    shutil.copy(slides / "calm" / "work" / "plan.json", work)
    borrowed.warm(str(work))
    with Client(scheduler_file=str(two.file), set_as_default=False) as other:
        for found in other.run(lambda: (dict(os.environ), os.umask(os.umask(0)))).values():
            assert ENVIRONMENT.items() <= found[0].items()
        borrowed.close()
        assert {oct(u) for u in other.run(_umask).values()} == {oct(_umask())}


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_worker_whose_own_time_is_up_leaves_between_tasks(slides: Path, tmp_path: Path) -> None:
    """A worker whose SLIDEBATCH_DEADLINE is over passes its call on and ends; the run goes on without blame."""
    run(config(slides, "calm", **COARSE))
    with dask_cluster(tmp_path / "dask", 1) as cluster:
        leaver = cluster.add_worker(more={VARIABLE: str(time.time() + LEAVING_S)})
        time.sleep(LEAVING_S)
        assert run(config(slides, "out", **COARSE, cluster=by_file(cluster))).exit_status == 0
        assert leaver.wait(PATIENCE_S) == 0
        assert cluster.workers[0].poll() is None
    assert contents(slides / "out") == contents(slides / "calm")
    assert (slides / "out" / "failures.jsonl").read_text() == ""


# Refusals


def refused(slides: Path, cluster: DaskCluster | dict[str, object]) -> str:
    """The sentence with which a run on a cluster is refused."""
    section = by_file(cluster) if isinstance(cluster, DaskCluster) else cluster
    with pytest.raises(ConfigError) as told:
        run(config(slides, "out", **COARSE, cluster={**section, "wait_s": 30.0}))
    assert "\n" not in str(told.value)
    assert not list((slides / "out").glob("work/receipts/*/*.json"))
    return str(told.value)


def another_version(folder: Path) -> Path:
    """A copy of the package in which one line is new."""
    shutil.copytree(ROOT / "slidebatch", folder / "slidebatch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "ensemble", folder / "ensemble", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "slidebatch" / "geometry.py").open("a") as file:
        file.write("# one more line\n")
    return folder


def no_version(folder: Path) -> Path:
    """A package of the same name without anything in it."""
    (folder / "slidebatch").mkdir(parents=True)
    (folder / "slidebatch" / "__init__.py").write_text("")
    return folder


@pytest.mark.parametrize(("other", "words"), [(another_version, "the driver"), (no_version, "cannot run slidebatch")])
def test_workers_with_another_slidebatch_are_refused(slides: Path, tmp_path: Path, other, words: str) -> None:
    """A worker whose slidebatch differs in one line, or lacks what is called, is named, and nothing is done."""
    with dask_cluster(tmp_path / "dask", 0) as cluster:
        cluster.add_worker(python_path=other(tmp_path / "other"))
        told = refused(slides, cluster)
    assert words in told
    assert "start" in told


def test_workers_that_do_several_tasks_at_a_time_are_refused(slides: Path, tmp_path: Path) -> None:
    """A worker of two threads is refused with the option that it needs."""
    with dask_cluster(tmp_path / "dask", 0) as cluster:
        cluster.add_worker("--nthreads", "2")
        assert "takes 2 tasks at a time; start workers with `--nthreads 1`" in refused(slides, cluster)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hide a folder from a process")
def test_workers_that_do_not_see_the_results_are_refused(slides: Path, tmp_path: Path) -> None:
    """A worker whose results folder is another one is refused by name, at the start and when it comes late."""
    (slides / "out").mkdir()
    with dask_cluster(tmp_path / "dask", 0) as cluster:
        cluster.add_blind_worker(slides / "out")
        assert f"does not see {slides / 'out'}; set output.path" in refused(slides, cluster)
    (slides / "late").mkdir()
    with dask_cluster(tmp_path / "next", 1) as cluster:
        engine = start(write_config(slides, "late", **COARSE, cluster=by_file(cluster)))
        stop_in_task(cluster.workers[0].pid, slides / "late" / "work", engine)
        cluster.add_blind_worker(slides / "late")
        _, told = engine.communicate(timeout=PATIENCE_S)
    assert engine.returncode == 2
    assert "does not see" in told.decode()


def test_a_cluster_that_is_not_there_is_refused(slides: Path, tmp_path: Path) -> None:
    """No scheduler's file, no scheduler behind it, no workers: each is told in a sentence that names the place."""
    missing = tmp_path / "nowhere.json"
    section: dict[str, object] = {"kind": "existing", "scheduler_file": str(missing)}
    with pytest.raises(ConfigError, match=r"nowhere.json is not there after 0.5 s"):
        run(config(slides, "out", **COARSE, cluster={**section, "wait_s": 0.5}))
    with dask_cluster(tmp_path / "dask", 0) as cluster:
        with pytest.raises(ConfigError, match=r"has no workers after 0.5 s"):
            run(config(slides, "out", **COARSE, cluster={**by_file(cluster), "wait_s": 0.5}))
        shutil.copy(cluster.file, missing)
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at .*nowhere.json"):
        run(config(slides, "out", **COARSE, cluster=section))


def test_nothing_listens_beyond_this_machine(slides: Path) -> None:
    """A run with local workers listens on 127.0.0.1 alone, scheduler, dashboard and workers."""
    engine = start(write_config(slides, "out", **COARSE, cluster={"kind": "local", "workers": 2}))
    work, heard = slides / "out" / "work", set()
    end = time.monotonic() + PATIENCE_S
    while not list((work / "attempts").glob("*.json")) and engine.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(engine.pid, signal.SIGSTOP)
    for process in (psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)):
        heard |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()
    assert heard == {"127.0.0.1"}
