"""A stand-in for OpenPBS: `qsub`, `qstat`, `qdel` and `pbsdsh` that refuse what OpenPBS refuses and run what it runs.

What it takes from OpenPBS 23 (User's Guide, qsub(1B), qstat(1B)): directives end at the first line of the script that
is no comment; -J wants X-Y with X < Y and no lists, and no more jobs than max_array_size; names, memory, times and
queues are checked; the submitter's environment does not travel; jobs start in the home folder, with their output
kept away until they end; SIGTERM at the time limit, SIGKILL later; a job that has ended is unknown to qstat, one of
an array is there in state X until the whole array has ended. Each job is run by a process of its own, without a server.

What `pbsdsh` takes from OpenPBS's source (pbsdsh.c, start_exec.c): it starts its program once for each chunk of the
job, in a session of its own, in the home folder, with the job's environment and umask as PBS made them, whatever the
script has set since; what programs print goes where the job's own output goes; asked to stop, it hands the signal on
and leaves at once; when the job's script ends, what it started is killed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

LARGEST, AT_ONCE, KILL_DELAY_S = 5, 3, 2.0
QUEUES = {"workq"}
CHECKS = {
    "-N": r"[A-Za-z0-9][\x21-\x7e]{0,229}",
    "-S": r"/\S+",
    "-q": "|".join(QUEUES),
    "-A": r"\S+",
    "-P": r"\S+",
    "-j": r"oe|eo|n",
    "-m": r"n|[abej]+",
    "-M": r"\S+",
    "-W": r"\w+=\S+",
    "-J": r"\d+-\d+(:\d+)?(%\d+)?",
}
RESOURCES = {
    "walltime": r"\d+:[0-5]\d:[0-5]\d",
    "select": r"\d+(:(ncpus|ngpus|mpiprocs)=\d+|:mem=\d+([kmgt]?[bw])|:gpu_model=\w+)*",
    "place": r"(free|pack|scatter|vscatter)(:(excl|exclhost|shared))?",
}


def main(command: str, arguments: list[str]) -> int:
    """One of the commands; its exit status."""
    return {"qsub": qsub, "qstat": qstat, "qdel": qdel, "run": run, "pbsdsh": pbsdsh}[command](arguments)


def home() -> Path:
    return Path(os.environ["FAKE_PBS"])


def fail(text: str, status: int) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.exit(status)


# qsub


def qsub(arguments: list[str]) -> int:
    """Check the script, take a copy of it, start a process that runs it, print the job's id."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        fail("usage: qsub script", 2)
    text = Path(arguments[0]).read_text()
    options = dict(checked(directives(text)))
    folder = next(f for n in range(1, 10_000) if (f := _new(home() / str(n))))
    (folder / "script").write_text(text)
    (folder / "workdir").write_text(os.getcwd())
    for key, value in options.items():
        (folder / key).write_text(value)
    for index in indices(options.get("-J")):
        (folder / f"state.{index}").write_text("Q")
    command = [sys.executable, "-m", "tests.support.fake_pbs", "run", folder.name]
    null = subprocess.DEVNULL  # whoever reads what qsub says waits until nobody could say more
    subprocess.Popen(command, start_new_session=True, stdin=null, stdout=null, stderr=null)
    sys.stdout.write(f"{folder.name}{'[]' if '-J' in options else ''}.fake\n")
    return 0


def _new(folder: Path) -> Path | None:
    try:
        folder.mkdir()
    except FileExistsError:
        return None
    return folder


def directives(text: str) -> Iterator[tuple[str, str]]:
    """Options and values of the lines before the first command."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return
        if line.startswith("#PBS "):
            words = shlex.split(line[5:])
            if len(words) != 2:
                fail(f"qsub: illegal directive {line!r}", 2)
            yield words[0], words[1]


def checked(options: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The options, -l as its resources; ends where OpenPBS would refuse one."""
    for option, value in options:
        if option == "-l":
            name, _, amount = value.partition("=")
            if not re.fullmatch(RESOURCES.get(name, "(?!)"), amount):
                fail(f"qsub: Illegal attribute or resource value for {name}", 168)
            yield name, amount
            continue
        if not re.fullmatch(CHECKS.get(option, "(?!)"), value):
            fail("qsub: Unknown queue" if option == "-q" else f"qsub: illegal {option} value", 2)
        if option == "-J":
            _check_array(value)
        yield option, value


def _check_array(value: str) -> None:
    low, high = map(int, re.split(r"[:%]", value)[0].split("-"))
    if low >= high:
        fail("qsub: illegal -J value", 2)
    if high - low + 1 > LARGEST:
        fail("qsub: Array job exceeds server or queue size limit", 230)


def indices(array: str | None) -> list[str]:
    """The indices of an array; `single` for a job that is none."""
    if array is None:
        return ["single"]
    low, high = map(int, re.split(r"[:%]", array)[0].split("-"))
    return [str(index) for index in range(low, high + 1)]


# The process of a job


def run(arguments: list[str]) -> int:
    """Run a job, or the jobs of an array, a few at a time."""
    folder = home() / arguments[0]
    waiting = sorted((p.suffix[1:] for p in folder.glob("state.*")), key=lambda i: (len(i), i))
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    while waiting or running:
        for index in _cancelled(folder, waiting):
            waiting.remove(index)
            (folder / f"state.{index}").write_text("X")
        while waiting and len(running) < AT_ONCE:
            index = waiting.pop(0)
            (folder / f"state.{index}").write_text("R")
            running[index] = (_begin(folder, index), time.monotonic())
        for index, (process, since) in list(running.items()):
            _limit(folder, index, process, time.monotonic() - since)
            if process.poll() is not None:
                del running[index]
                _end(folder, index)
        time.sleep(0.05)
    (folder / "over").touch()
    return 0


def _cancelled(folder: Path, among: list[str]) -> list[str]:
    return [index for index in among if (folder / f"cancel.{index}").exists()]


def _begin(folder: Path, index: str, command: Sequence[str] = (), node: int = 0) -> subprocess.Popen[bytes]:
    """Start the script of a job, or another command of it on one of its nodes, as PBS starts either."""
    alone = index == "single"
    cores = re.search(r"ncpus=(\d+)", (folder / "select").read_text())
    scratch = folder / f"tmp.{index}.{node}"
    scratch.mkdir(exist_ok=True)
    told = {
        "HOME": str(home()),
        "PATH": f"{home() / 'bin'}:/usr/bin:/bin",
        "FAKE_PBS": str(home()),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": cores[1] if cores else "1",
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_NODENUM": str(node),
        "PBS_JOBID": f"{folder.name}.fake" if alone else f"{folder.name}[{index}].fake",
        "PBS_JOBNAME": (folder / "-N").read_text(),
        "PBS_O_WORKDIR": (folder / "workdir").read_text(),
        **({} if alone else {"PBS_ARRAY_INDEX": index, "PBS_ARRAY_ID": f"{folder.name}[].fake"}),
    }
    with open(folder / f"out.{index}", "ab") as out:
        return subprocess.Popen(
            command or ["/bin/bash", str(folder / "script")], cwd=home(), env=told, stdin=subprocess.DEVNULL,
            stdout=out, stderr=out, start_new_session=True, umask=0o077,
        )  # fmt: skip


def pbsdsh(arguments: list[str]) -> int:
    """Start a program once for each chunk of the job in which this is called, and wait for all."""
    if "PBS_ENVIRONMENT" not in os.environ:
        fail("pbsdsh: not executing under PBS", 1)
    if arguments[:1] != ["--"] or len(arguments) < 2:
        fail("Usage: pbsdsh [-c copies][-s][-v][-o] -- program [args...]", 1)
    job, index = _find(os.environ["PBS_JOBID"])
    chunks = int((job / "select").read_text().split(":")[0])
    started = [_begin(job, index or "single", arguments[1:], node) for node in range(chunks)]
    (job / f"tasks.{index or 'single'}").write_text(" ".join(str(task.pid) for task in started))

    def hand_on(number: int, _: object) -> NoReturn:
        for task in started:
            _signal(task.pid, signal.Signals(number))
        os._exit(1)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, hand_on)
    for node, task in enumerate(started):
        if status := task.wait():
            sys.stdout.write(f"pbsdsh: task {node:#010x} exit status {status}\n")
    return 0


def _signal(session: int, number: signal.Signals) -> None:
    """Signal the processes of a session, those of groups that an interactive shell would make left out."""
    with suppress(ProcessLookupError):
        os.killpg(session, number)


def _limit(folder: Path, index: str, process: subprocess.Popen[bytes], ran_s: float) -> None:
    """End a job whose time is over, or that was deleted: SIGTERM, and SIGKILL once that has had its time."""
    hours, minutes, seconds = map(int, (folder / "walltime").read_text().split(":"))
    asked = folder / f"cancel.{index}"
    if ran_s > hours * 3600 + minutes * 60 + seconds:
        asked.touch()
    if asked.exists():
        late = time.time() - asked.stat().st_mtime > KILL_DELAY_S
        for session in (process.pid, *_tasks(folder, index)):
            _signal(session, signal.SIGKILL if late else signal.SIGTERM)


def _tasks(folder: Path, index: str) -> list[int]:
    """What pbsdsh has started for a job."""
    noted = folder / f"tasks.{index}"
    return [int(word) for word in noted.read_text().split()] if noted.exists() else []


def _end(folder: Path, index: str) -> None:
    for session in _tasks(folder, index):
        _signal(session, signal.SIGKILL)
    (folder / f"state.{index}").write_text("X")
    name = (folder / "-N").read_text() + f".o{folder.name}" + ("" if index == "single" else f".{index}")
    Path((folder / "workdir").read_text(), name).write_bytes((folder / f"out.{index}").read_bytes())


# qstat and qdel


def _find(job: str) -> tuple[Path, str | None]:
    """The folder and the index that an id names: 17.fake, 17[].fake, 17[3].fake."""
    found = re.fullmatch(r"(\d+)(?:\[(\d*)\])?(?:\.fake)?", job)
    folder = home() / (found[1] if found else "none")
    if not found or not folder.is_dir():
        fail(f"qstat: Unknown Job Id {job}", 153)
    if (folder / "over").exists():
        fail(f"qstat: {job} Job has finished, use -x or -H to obtain historical job information", 35)
    return folder, found[2] or None


def qstat(arguments: list[str]) -> int:
    """`qstat -f JOB`: the time limit. `qstat -t JOB...`: a line for each job, and for each of an array."""
    if arguments[0] == "-f":
        folder, _ = _find(arguments[1])
        sys.stdout.write(f"Job Id: {arguments[1]}\n    Resource_List.walltime = {(folder / 'walltime').read_text()}\n")
        return 0
    sys.stdout.write("Job id            Name             User              Time Use S Queue\n" + "-" * 70 + "\n")
    for job in arguments[1:]:
        folder, _ = _find(job)
        name = (folder / "-N").read_text()[:15]
        if (folder / "-J").exists():
            sys.stdout.write(f"{folder.name}[].fake  {name}  root  0 B workq\n")
        for path in sorted(folder.glob("state.*")):
            index = "" if path.suffix == ".single" else f"[{path.suffix[1:]}]"
            sys.stdout.write(f"{folder.name}{index}.fake  {name}  root  00:00:01 {path.read_text() or 'R'} workq\n")
    return 0


def qdel(arguments: list[str]) -> int:
    """Delete jobs, whole arrays, or single jobs of an array."""
    for job in arguments:
        folder, index = _find(job)
        for path in folder.glob("state.*" if index is None else f"state.{index}"):
            (folder / f"cancel{path.suffix}").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
