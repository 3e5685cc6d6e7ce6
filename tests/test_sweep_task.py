"""Laws of running a sweep: each point once, whatever is killed, whoever else tries; failures are kept and bounded."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slidebatch.cli import status_of
from slidebatch.errors import ConfigError, EnvironmentFault, OutOfTime, ResultsError
from slidebatch.sweep import array_of, ask, begin, forget_failures, job_at, open_sweep, run_job, status
from slidebatch.sweep import task as tasks
from slidebatch.sweep.ranges import expand
from tests.support.sweep_points import noted
from tests.support.sweeps import begun, results, spec, start, until, written


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Sweeps start in the checkout, where functions for tests are found."""
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of each result."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (folder / "results").glob("*.json")}


# Once


def test_a_job_runs_its_points_and_no_others(tmp_path):
    """Each job leaves one result for each of its points, with parameters, metrics and cost; the last job is shorter."""
    sweep = begun(tmp_path, 5, points_per_job=2)
    assert sweep.jobs == 3
    for index, points in ((1, [2, 3]), (2, [4])):
        assert run_job(sweep.folder, index).done == len(points)
        assert set(points) <= set(results(sweep))
    assert sorted(results(sweep)) == [2, 3, 4]
    found = results(sweep)[3]
    assert (found["state"], found["parameters"], found["metrics"]) == ("done", {"x": 3}, {"square": 9, "nothing": None})
    assert found["cost"]["wall_s"] >= 0
    assert found["cost"]["peak_bytes"] > 1e6
    assert found["cost"]["host"] == os.uname().nodename
    with pytest.raises(ConfigError, match="no job 3; expected 0 to 2"):
        run_job(sweep.folder, 3)


def test_a_finished_job_does_nothing(tmp_path):
    """Given again, a job runs no point and touches no result."""
    sweep = begun(tmp_path)
    run_job(sweep.folder, 0)
    before = stamps(sweep.folder)
    assert run_job(sweep.folder, 0).done == 6
    assert stamps(sweep.folder) == before
    assert noted(tmp_path / "log", "begin") == list(range(6))


def test_only_what_is_missing_is_run(tmp_path):
    """A result that is lost, damaged, or of another sweep is made again, and no other."""
    sweep = begun(tmp_path)
    run_job(sweep.folder, 0)
    gone, torn, foreign = (sweep.result(sweep.points[i]) for i in (1, 3, 4))
    gone.unlink()
    torn.write_text("{")
    foreign.write_text(json.dumps(json.loads(foreign.read_text()) | {"sweep": "other"}))
    assert array_of(sweep).missing == (0,)
    run_job(sweep.folder, 0)
    assert noted(tmp_path / "log", "begin")[6:] == [1, 3, 4]
    assert [results(sweep)[i]["metrics"]["square"] for i in range(6)] == [0, 1, 4, 9, 16, 25]


def test_points_leave_nothing_where_nothing_is_to_be_kept(tmp_path):
    """With keep: false only the result files stay."""
    kept, bare = (
        begun(tmp_path / str(k), output={"path": str(tmp_path / str(k) / "s"), "keep": k}) for k in (True, False)
    )
    for folder, sweep in ((tmp_path / "True", kept), (tmp_path / "False", bare)):
        folder.mkdir(exist_ok=True)
        run_job(sweep.folder, 0)
    assert (kept.place(kept.points[2]) / "left").read_text() == "2"
    assert not list((bare.folder / "points").iterdir())
    assert len(results(bare)) == 6


def test_several_processes_with_the_same_job_share_it(tmp_path):
    """Three processes with one job: every point is begun and ended once, every result whole."""
    sweep = begun(tmp_path, 12, set={"seconds": 0.1})
    jobs = [start("sweep-task", sweep.folder, 0) for _ in range(3)]
    ends = [(*job.communicate(timeout=200), job.returncode) for job in jobs]
    assert {status for *_, status in ends} <= {0, 1}, ends
    assert sorted(noted(tmp_path / "log", "begin")) == sorted(noted(tmp_path / "log", "end")) == list(range(12))
    assert run_job(sweep.folder, 0).done == 12
    assert [results(sweep)[i]["metrics"]["square"] for i in range(12)] == [i * i for i in range(12)]


def test_threads_at_one_point_run_it_once(tmp_path):
    """However many settle a point at the same time, one runs it; the others say so or see the result."""
    sweep = begun(tmp_path, 1, set={"seconds": 0.2}, output={"path": str(tmp_path / "s"), "keep": False})
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: tasks.settle(sweep, sweep.points[0]), range(8)))
    assert set(ends) <= {"done", "elsewhere"}
    assert "done" in ends
    assert noted(tmp_path / "log", "begin") == [0]


# Kills


def test_kill_in_the_middle_of_a_point(tmp_path):
    """SIGKILL in point 3: what was finished stays to the byte and is not run again; the rest is done by a resume."""
    sweep = begun(tmp_path, set={"held": 3})
    job = start("sweep-task", sweep.folder, 0)
    until(lambda: 3 in noted(tmp_path / "log", "begin"), job)
    assert status(sweep.folder).counts.describe() == "3 of 6 points done, 1 running, 2 waiting"
    job.kill()
    job.communicate()
    before = stamps(sweep.folder)
    assert sorted(results(sweep)) == [0, 1, 2]
    assert status(sweep.folder).counts.describe() == "3 of 6 points done, 1 killed, 2 waiting"
    (tmp_path / "gate").touch()
    assert run_job(sweep.folder, 0).done == 6
    assert stamps(sweep.folder).items() >= before.items()
    assert noted(tmp_path / "log", "begin") == [0, 1, 2, 3, 4, 5, 3]  # the killed one after the others
    assert sorted(noted(tmp_path / "log", "end")) == list(range(6))
    assert [results(sweep)[i]["deaths"] for i in range(6)] == [0, 0, 0, 1, 0, 0]


def test_a_time_limit_is_no_death(tmp_path, monkeypatch):
    """A point that stops before its time limit stops the job; it is no attempt that failed, and it is gone on with."""
    sweep, real = begun(tmp_path), tasks.run_point

    def late(sweep, point):
        if point.number == 2:
            raise OutOfTime("stopped after epoch 3 of 9")
        return real(sweep, point)

    monkeypatch.setattr(tasks, "run_point", late)
    for _ in range(2 + sweep.spec.deaths):
        with pytest.raises(OutOfTime):
            run_job(sweep.folder, 0)
    monkeypatch.undo()
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    assert run_job(sweep.folder, 0).done == 6
    assert [(results(sweep)[i]["deaths"], results(sweep)[i]["failures"]) for i in range(6)] == [(0, [])] * 6


def test_a_stop_is_no_death(tmp_path):
    """SIGTERM ends a job with 130, resumable, and is not held against the point."""
    sweep = begun(tmp_path, set={"held": 1})
    job = start("sweep-task", sweep.folder, 0)
    until(lambda: 1 in noted(tmp_path / "log", "begin"), job)
    job.terminate()
    assert "resume" in job.communicate(timeout=60)[1]
    assert job.returncode == 130
    (tmp_path / "gate").touch()
    assert run_job(sweep.folder, 0).done == 6
    assert results(sweep)[1]["deaths"] == 0


def test_a_point_that_kills_its_process_does_not_stop_the_others(tmp_path):
    """A job is begun again after a death, its deadly point last, as often as allowed; then that point has failed."""
    config = written(tmp_path, 4, points_per_job=4, deaths=2, set={"deadly": [1]})
    run = start("sweep", config)
    out, err = run.communicate(timeout=200)
    assert run.returncode == 3, err
    assert "3 of 4 points done, 1 failed" in out
    assert noted(tmp_path / "log", "begin") == [0, 1, 2, 3, 1]
    found = results(open_sweep(tmp_path / "sweep"))[1]
    assert (found["state"], found["deaths"]) == ("failed", 2)
    assert "was killed 2 times" in found["error"]


def test_killed_command_is_resumed_by_the_same_command(tmp_path):
    """SIGKILL of `sweep`: its jobs stop by themselves; the same command finishes, and repeats nothing finished."""
    config = written(tmp_path, 6, points_per_job=3, set={"held": 4})
    run = start("sweep", config, "--workers", 2)
    until(lambda: set(noted(tmp_path / "log", "end")) >= {0, 1, 2, 3} and 4 in noted(tmp_path / "log", "begin"), run)
    sweep = open_sweep(tmp_path / "sweep")
    until(lambda: len(results(sweep)) == 4, run)
    assert start("sweep", config).wait(60) == 2  # refused: one command at a time
    run.kill()
    run.communicate()
    before = stamps(sweep.folder)
    until(lambda: status(sweep.folder).counts.running == 0)
    (tmp_path / "gate").touch()
    again = start("sweep", config, "--workers", 2)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert "6 of 6 points done" in out
    assert stamps(sweep.folder).items() >= before.items()
    assert sorted(noted(tmp_path / "log", "begin")) == [0, 1, 2, 3, 4, 4, 5]


def test_random_kills_lose_and_repeat_nothing(tmp_path):
    """Commands and jobs killed at random moments: no finished point is touched again, and each ends with one result."""
    config, draw = written(tmp_path, 40, points_per_job=5, deaths=100, set={"seconds": 0.03}), random.Random(3)
    kept: dict[str, tuple[int, bytes]] = {}
    for _ in range(4):
        run = start("sweep", config, "--workers", 2)
        seen = len(noted(tmp_path / "log", "begin"))
        until(lambda seen=seen: len(noted(tmp_path / "log", "begin")) > seen or run.poll() is not None)  # noqa: B023
        time.sleep(draw.uniform(0, 0.3))
        run.kill()
        run.communicate()
        now = stamps(tmp_path / "sweep")
        assert now.items() >= kept.items()
        kept = now
    run = start("sweep", config, "--workers", 2)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, (out, err)
    sweep = open_sweep(tmp_path / "sweep")
    assert stamps(sweep.folder).items() >= kept.items()
    assert sorted(results(sweep)) == list(range(40))
    assert len(list((sweep.folder / "results").iterdir())) == 40


# Failures


def test_failures_are_recorded_retried_and_bounded(tmp_path):
    """A point that fails is tried `retries` more times, then recorded with sentence and traceback; others go on."""
    sweep = begun(tmp_path, set={"broken": [2]}, retries=2)
    end = run_job(sweep.folder, 0)
    assert (end.done, end.failed) == (5, 1)
    assert noted(tmp_path / "log", "begin") == [0, 1, 2, 2, 2, 3, 4, 5]
    found = results(sweep)[2]
    assert (found["state"], found["error"], found["metrics"]) == ("failed", "RuntimeError: point 2 is broken", {})
    assert len(found["failures"]) == 3
    assert 'raise RuntimeError(f"point {x} is broken")' in found["failures"][-1]["traceback"]
    assert run_job(sweep.folder, 0).failed == 1
    assert len(noted(tmp_path / "log", "begin")) == 8
    told = status(sweep.folder)
    assert told.missing == ""
    assert "RuntimeError: point 2 is broken" in told.describe()


def test_more_retries_are_used_up_and_a_mended_point_is_done(tmp_path):
    """More retries try a failed point again, that often; --retry-failed begins anew."""
    begun(tmp_path, set={"broken": [2]}, retries=0)
    assert run_job(tmp_path / "sweep", 0).failed == 1
    sweep = begun(tmp_path, set={"broken": [2]}, retries=1)
    assert array_of(sweep).missing == (0,)
    assert run_job(sweep.folder, 0).failed == 1
    assert noted(tmp_path / "log", "begin").count(2) == 2
    (tmp_path / "mended").touch()
    assert run_job(sweep.folder, 0).failed == 1
    assert forget_failures(sweep) == 1
    assert run_job(sweep.folder, 0).done == 6
    assert results(sweep)[2]["failures"] == []


def test_a_failure_that_is_mended_is_told_beside_the_result(tmp_path):
    """A point that failed once and then succeeded is done, and its result still holds the failure."""
    sweep = begun(tmp_path, set={"broken": [2]}, retries=3)
    attempts: list[int] = []

    def mend(*args):
        attempts.append(1)
        if len(attempts) == 4:  # the second attempt at point 2
            (tmp_path / "mended").touch()
        return run(*args)

    run, tasks.run_point = tasks.run_point, mend
    try:
        assert run_job(sweep.folder, 0).done == 6
    finally:
        tasks.run_point = run
    assert [f["error"] for f in results(sweep)[2]["failures"]] == ["RuntimeError: point 2 is broken"]


def test_what_another_attempt_would_repeat_is_not_tried_again(tmp_path):
    """A wrong setting, or metrics that are none, fail at once."""
    sweep = begun(tmp_path, 2, base="tests.support.sweep_points.wrong", retries=5)
    assert run_job(sweep.folder, 0).failed == 2
    told = [results(sweep)[i] for i in range(2)]
    assert [len(f["failures"]) for f in told] == [1, 1]
    assert "returned 4; expected metrics by name" in told[0]["error"]
    assert "square is 'four'; expected a number" in told[1]["error"]


def test_faults_of_the_environment_stop_the_job(tmp_path, monkeypatch):
    """A full disk is no point's failure: the job stops, and the point is tried again, after the others."""
    sweep = begun(tmp_path)
    run = tasks.run_point

    def full(made, point):
        if point.number == 1:
            raise OSError(28, "No space left on device", "there")
        return run(made, point)

    monkeypatch.setattr(tasks, "run_point", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        run_job(sweep.folder, 0)
    assert sorted(results(sweep)) == [0]
    monkeypatch.setattr(tasks, "run_point", run)
    assert run_job(sweep.folder, 0).done == 6
    assert noted(tmp_path / "log", "begin") == [0, 2, 3, 4, 5, 1]
    assert results(sweep)[1]["failures"] == []


# The folder


def test_points_are_written_once(tmp_path):
    """The points file has a line for the sweep and one a point; the same command leaves it as it is."""
    sweep = begun(tmp_path)
    lines = (sweep.folder / "points.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["points"] == 6
    assert [json.loads(line)["parameters"] for line in lines[1:]] == [{"x": i} for i in range(6)]
    before = (sweep.folder / "points.jsonl").stat().st_mtime_ns
    assert begun(tmp_path).points == sweep.points
    assert (sweep.folder / "points.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"points": 7}, r"grid\.x: \[0, 1, 2, 3, 4, 5\] there"),
        ({"points_per_job": 2}, "points_per_job: 6 there, 2 here"),
        ({"set": {"seconds": 0.5}}, r"set\.seconds: None there, 0\.5 here"),
        ({"score": {"truth": "labels"}}, r"score\.truth: None there, 'labels' here"),
    ],
)
def test_another_sweep_in_the_folder_is_refused(tmp_path, more, words):
    """A changed config is refused, and what differs is named; nothing changes."""
    sweep = begun(tmp_path)
    before = (sweep.folder / "sweep.json").read_bytes()
    with pytest.raises(ConfigError, match=words):
        begun(tmp_path, **more)
    assert (sweep.folder / "sweep.json").read_bytes() == before


def test_how_hard_to_try_may_change(tmp_path):
    """Retries, deaths, the measure and what is kept do not make it another sweep."""
    begun(tmp_path)
    output = {"path": str(tmp_path / "sweep"), "keep": False}
    sweep = begun(tmp_path, retries=7, deaths=9, output=output, score={"measure": "square"})
    assert (sweep.spec.retries, sweep.spec.deaths, sweep.spec.output.keep) == (7, 9, False)
    assert sweep.spec.score.measure == "square"


def test_a_changed_base_config_is_refused(tmp_path):
    """A sweep remembers its base config: points run on the one it began with, and a changed one is refused."""
    base = tmp_path / "base.yaml"
    base.write_text("output: t\ndata: {path: here}\nepochs: 3\n")
    more = {"kind": "train", "base": str(base), "set": {"batch": 2}, "grid": {"seed": [1]}}
    values = {k: v for k, v in spec(tmp_path).model_dump(mode="json").items() if k not in more} | more
    from tests.support.sweeps import read

    begin(ask(read(values)))
    base.write_text(base.read_text().replace("3", "4"))
    with pytest.raises(ConfigError, match=r"base\.epochs: 3 there, 4 here"):
        begin(ask(read(values)))


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    """A points file that was changed, a folder of other things, and no sweep at all: each one clear sentence."""
    sweep = begun(tmp_path)
    points = sweep.folder / "points.jsonl"
    points.write_text(points.read_text().replace('"x": 3', '"x": 8'))
    with pytest.raises(ResultsError, match="not as it was written"):
        open_sweep(sweep.folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(ConfigError, match="holds files that are no sweep"):
        begun(tmp_path, output={"path": str(tmp_path / "other")})
    with pytest.raises(ResultsError, match="holds no sweep"):
        open_sweep(tmp_path / "other")
    with pytest.raises(ConfigError, match="no sweep to resume"):
        begin(ask(spec(tmp_path, output={"path": str(tmp_path / "new")})), resume=True)


def test_a_sweep_killed_while_it_began_begins_again(tmp_path):
    """What a killed command had written before the folder was whole does not stand in the way."""
    sweep = begun(tmp_path)
    (sweep.folder / "sweep.json").unlink()
    assert begun(tmp_path).points == sweep.points


# The door for schedulers


def test_missing_jobs_are_told_as_ranges_and_as_a_file(tmp_path):
    """Jobs with a point to do are missing; their ranges and the lines of the indirection file are these jobs."""
    sweep = begun(tmp_path, 12, points_per_job=2, set={"broken": [5]}, retries=0)
    array = array_of(sweep)
    assert (array.jobs, array.ranges) == (6, "0-5")
    for index in (0, 2, 3):
        run_job(sweep.folder, index)
    array = array_of(sweep)
    assert array.missing == (1, 4, 5)
    assert array.ranges == status(sweep.folder).missing == "1,4-5"
    assert expand(array.ranges) == list(array.missing)
    file = array.indirection()
    assert [job_at(file, line) for line in range(3)] == [1, 4, 5]
    for line in (-1, 3):
        with pytest.raises(ConfigError, match=f"no job on line {line}"):
            job_at(file, line)
    for line in range(3):
        assert status_of(["sweep-task", str(sweep.folder), str(line), "--through", str(file)]) == 0
    assert array_of(sweep).missing == ()
    assert job_at(file, 2) == 5  # an array under way keeps its file


def test_commands(tmp_path, capsys):
    """dry-run writes nothing; exit statuses: 0 done, 3 some points failed, 2 wrong."""
    config = str(written(tmp_path, 4, points_per_job=3, set={"broken": [2]}, retries=0))
    assert status_of(["sweep", config, "--dry-run"]) == 0
    assert not (tmp_path / "sweep").exists()
    assert "4 points of kind call" in capsys.readouterr().out
    assert status_of(["sweep", config, "--resume"]) == 2
    assert status_of(["sweep-status", str(tmp_path / "sweep")]) == 1
    assert status_of(["sweep", config, "--scheduler", "slurm", "--dry-run"]) == 0
    assert "#SBATCH --array=0-1\n" in capsys.readouterr().out
    assert status_of(["sweep", config, "--scheduler", "slurm", "--submit", "--job", "cpus=0"]) == 2
    assert not (tmp_path / "sweep").exists()
    assert status_of(["sweep", config]) == 3
    assert "3 of 4 points done, 1 failed" in capsys.readouterr().out
    assert status_of(["sweep-task", str(tmp_path / "sweep"), "1"]) == 0
    assert status_of(["sweep-status", str(tmp_path / "sweep")]) == 0
    assert "failed: 00002" in capsys.readouterr().out
    (tmp_path / "mended").touch()
    assert status_of(["sweep", config, "--resume", "--retry-failed"]) == 0


def test_signals_are_heeded_in_the_background(tmp_path):
    """Ctrl-C ends the command with 130, and its jobs before it."""
    config = written(tmp_path, 2, set={"held": 0})
    run = start("sweep", config)
    until(lambda: 0 in noted(tmp_path / "log", "begin"), run)
    run.send_signal(signal.SIGTERM)
    assert "resume" in run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert status(tmp_path / "sweep").counts.running == 0
