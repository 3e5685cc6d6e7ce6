"""Laws of job scripts: amounts, the differences of schedulers, arrays, templates, quoting."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.cli import status_of
from slidebatch.errors import ConfigError
from slidebatch.jobscripts import RunAsked, job_spec, submit_run
from slidebatch.jobscripts.amounts import clock, memory_bytes, walltime_s
from slidebatch.jobscripts.parts import LONGEST_LIST, Part, parts_of
from slidebatch.jobscripts.queue import number_of
from slidebatch.jobscripts.schedulers import RULES
from slidebatch.jobscripts.spec import JobSpec
from slidebatch.jobscripts.sweeps import jobs_of
from slidebatch.jobscripts.templates import fill, job_name, quote
from tests.support import fake_pbs
from tests.test_docs import ROOT

SCHEDULERS = ["slurm", "pbs", "torque"]


def site(scheduler: str, **more: object) -> JobSpec:
    """What a site wants: the defaults and more."""
    return JobSpec.model_validate({"scheduler": scheduler, **more})


def values(**more: object) -> dict[str, object]:
    """What the templates are filled with."""
    told = {
        "name": "slidebatch-a",
        "template": "run",
        "folder": "/f",
        "jobs": "/f/out.jobs",
        "array": None,
        "own_log": False,
    }
    run = {"config": "conf/plate.yaml", "sets": [], "sweep": "/f/out", "nodes": 1, "offset": 0, "through": None}
    return {**told, **run, "processes": 2, **more}


# Amounts


@pytest.mark.parametrize(
    ("text", "size", "slurm", "pbs"),
    [
        ("32 GiB", 32 * 2**30, "32G", "32gb"),
        ("32GB", 32 * 10**9, "30518M", "30518mb"),
        ("1.5 GiB", 3 * 2**29, "1536M", "1536mb"),
        ("1 kB", 1000, "1M", "1mb"),
        ("2 TiB", 2**41, "2048G", "2048gb"),
    ],
)
def test_memory_is_the_schedulers_own_unit(text: str, size: int, slurm: str, pbs: str) -> None:
    """Powers of 1000 and of 1024 are told apart, and what a scheduler is asked for, in its units of 1024, is enough."""
    assert memory_bytes(text) == size
    assert RULES["slurm"].memory(size) == slurm
    assert RULES["pbs"].memory(size) == RULES["torque"].memory(size) == pbs


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("memory", text) for text in ("32G", "much", "-1 GB", "0 GB", "")),
        *(("walltime", text) for text in ("8", "8:00", "00:00:00", "1:60:00", "12 h", "1-2-3:00:00")),
        *(("queue", text) for text in ("a b", "a\n#SBATCH --x", "$(x)", "")),
        *(("directives", [text]) for text in ("--a\n--b", "")),
        *(("variables", {text: "x"}) for text in ("a b", "1a", "A=b")),
        ("modules", ["a; rm"]),
        ("grace_s", 28800),
        ("binds", ["/data"]),
        ("cpus", 0),
    ],
)
def test_what_no_scheduler_takes_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """A wrong wish of a site, or one that would end its line of directives, is refused with its place."""
    file = tmp_path / "site.yaml"
    file.write_text(json.dumps({"scheduler": "slurm", key: value}))  # JSON is YAML
    with pytest.raises(ConfigError, match=f"(?s)^{re.escape(str(file))}:1:.*{key}"):
        job_spec(str(file))


@given(st.integers(1, 10**7))
def test_times_are_read_back(seconds: int) -> None:
    """A time written for a scheduler is the time that was asked for, days and all."""
    assert walltime_s(clock(seconds)) == seconds
    assert walltime_s(f"1-{clock(seconds)}") == seconds + 86400


# Arrays


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@settings(max_examples=80)
@given(data=st.data())
def test_arrays_give_every_missing_job_once(tmp_path_factory, scheduler, data) -> None:
    """Whatever is missing and however small the limit, each missing job is given once, within the scheduler's rules."""
    missing = sorted(data.draw(st.sets(st.integers(0, 60), max_size=30) | st.just(set(range(20)))))
    largest = data.draw(st.integers(1, 25))
    file = tmp_path_factory.mktemp("array") / "lines"
    file.write_text("".join(f"{job}\n" for job in missing))
    rules = RULES[scheduler]
    parts = list(parts_of(missing, rules, largest, lambda: file))
    assert sorted(job for part in parts for job in jobs_of(part).values()) == missing
    for part in parts:
        assert 1 <= part.size <= largest
        if part.indices is None:
            assert not rules.one
            continue
        assert max(map(int, re.findall(r"\d+", part.indices))) < largest
        if scheduler == "pbs":
            assert fake_pbs.CHECKS["-J"]
            low, high = map(int, part.indices.split("-"))
            assert low < high


@pytest.mark.parametrize(
    ("scheduler", "missing", "told"),
    [
        ("slurm", [0, 1, 2, 3], [("0-3", 0, False)]),
        ("slurm", [5], [("5", 0, False)]),
        ("slurm", [0, 2, 3], [("0,2-3", 0, False)]),
        ("slurm", [8, 9, 10, 11], [("8-9", 0, False), ("0-1", 10, False)]),
        ("pbs", [0, 1, 2, 3], [("0-3", 0, False)]),
        ("pbs", [5], [(None, 5, False)]),
        ("pbs", [0, 2, 3], [("0-2", 0, True)]),
        ("pbs", [0, 2], [("0-1", 0, True)]),
        ("pbs", list(range(11)), [("0-9", 0, False), (None, 10, False)]),
        ("pbs", [4, 9, *range(12, 21)], [("0-9", 0, True), (None, 10, True)]),
        ("torque", [0, 2, 3], [("0,2-3", 0, False)]),
        ("torque", [5], [("5", 0, False)]),
    ],
)
def test_how_schedulers_differ(scheduler, missing, told) -> None:
    """SLURM and Torque take lists and arrays of one job; OpenPBS takes neither; an offset stands for large numbers."""
    parts = parts_of(missing, RULES[scheduler], 10, lambda: Path("lines"))
    assert [(p.indices, p.offset, p.through is not None) for p in parts] == told


def test_long_lists_go_through_a_file() -> None:
    """A list that would be too long for a directive goes through a file, under SLURM too."""
    odd = list(range(1, 2000, 2))
    (part,) = parts_of(odd, RULES["slurm"], 5000, lambda: Path("lines"))
    assert part == Part("0-999", 0, Path("lines"))
    (short,) = parts_of(odd[:20], RULES["slurm"], 5000, lambda: Path("lines"))
    assert len(short.indices or "") < LONGEST_LIST
    assert list(parts_of([], RULES["pbs"], 5, lambda: Path("lines"))) == []


@pytest.mark.parametrize(
    ("scheduler", "option"), [("slurm", "--array=0-3%2"), ("pbs", "-J 0-3%2"), ("torque", "-t 0-3%2")]
)
def test_array_options_and_index_variables(scheduler: str, option: str) -> None:
    """An array's script asks for it in the scheduler's words and takes its number from the scheduler's variable."""
    rules = RULES[scheduler]
    assert rules.array.format("0-3%2") == option
    text = fill("sweep", site(scheduler), values(array=option, offset=7, template="sweep"))
    assert re.search(rf"^#(SBATCH|PBS) {re.escape(option)}$", text, re.MULTILINE)
    line = re.search(r"^number=.*$", text, re.MULTILINE)
    shown = subprocess.run(
        ["bash", "-uc", f"{line[0]}; echo $number"], env={rules.index: "3"}, capture_output=True, text=True
    )
    assert shown.stdout == "10\n"
    assert subprocess.run(["bash", "-uc", line[0]], env={}, capture_output=True).returncode != 0  # never a wrong job
    alone = re.search(r"^number=.*$", fill("sweep", site(scheduler), values(offset=7)), re.MULTILINE)
    assert alone[0] == "number=$((7 + 0))"


@pytest.mark.parametrize(
    ("said", "number"), [("17", "17"), ("17.server.org", "17"), ("17[].server", "17"), ("17[]", "17")]
)
def test_ids_of_jobs(said: str, number: str) -> None:
    """The number of a job is found in what SLURM, PBS and Torque call it."""
    assert number_of(said) == number


# Templates

FULL = {
    "queue": "workq", "account": "lab", "gpus": 2, "mail": "a@b.org", "mail_when": ["begin", "end", "fail"],
    "modules": ["gcc/12", "Python/3.11"], "setup": ["ulimit -c 0"], "variables": {"A": "it's $(x)\n"},
    "environment": "/opt/my env", "walltime": "2-00:00:00", "workers": 3, "at_once": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("scheduler", "template", "more"),
    [
        *product(SCHEDULERS, ["run", "sweep", "workers"], [{}, FULL]),
        *product(["slurm", "pbs"], ["run"], [{"image": "/my images/a.sif", "binds": ["/data:/in side"]}]),
    ],
)
def test_scripts_are_shell_that_their_scheduler_takes(scheduler, template, more, tmp_path) -> None:
    """Every template, bare and with every wish, is valid shell and strict; PBS's directives keep OpenPBS's rules."""
    array = RULES[scheduler].array.format("0-2") if template != "run" else None
    text = fill(template, site(scheduler, **more), values(array=array, template=template))
    assert text.startswith("#!/bin/bash\n")
    assert "\nset -euo pipefail\n" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""
    head = text[: text.index("set -euo")]
    assert "{" not in head
    if scheduler == "pbs":
        told = dict(fake_pbs.checked(fake_pbs.directives(text)))
        assert told["walltime"] == ("48:00:00" if more.get("walltime") else "08:00:00")
        assert ("ngpus=2" in told["select"]) == bool(more.get("gpus"))


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_every_wish_reaches_the_directives(scheduler: str) -> None:
    """Queue, account, time, cores, memory, GPUs, mail and further directives stand in the script's head."""
    wishes = {**FULL, "gpu_kind": "a100", "select": "gpu_model=a100", "directives": ["-W umask=027"]}
    head = fill("run", site(scheduler, **wishes), values()).split("set -euo")[0].splitlines()
    expected = {
        "slurm": ["--partition=workq", "--account=lab", "--time=48:00:00", "--cpus-per-task=8", "--mem=32G",
                  "--gres=gpu:a100:2", "--mail-user=a@b.org", "--mail-type=BEGIN,END,FAIL", "-W umask=027",
                  "--signal=B:TERM@120"],
        "pbs": ["-q workq", "-A lab", "-l walltime=48:00:00", "-M a@b.org", "-m bea", "-W umask=027",
                "-l select=1:ncpus=8:mem=32gb:ngpus=2:gpu_model=a100"],
    }  # fmt: skip
    prefix = "#SBATCH" if scheduler == "slurm" else "#PBS"
    assert {f"{prefix} {line}" for line in expected[scheduler]} <= set(head)


def test_torque_is_told_in_its_own_words() -> None:
    """Torque asks for nodes, cores and memory by words of its own."""
    head = fill("run", site("torque", gpus=1), values()).split("set -euo")[0]
    assert "#PBS -l nodes=1:ppn=8:gpus=1\n#PBS -l mem=32gb\n" in head
    assert "select" not in head


def test_an_image_is_entered_with_its_folders_and_gpus() -> None:
    """With an Apptainer image Python is started in it, whatever the names of image and folders."""
    text = fill("run", site("slurm", image="/my images/a.sif", binds=["/d a:/b"], gpus=1), values())
    assert "command=(apptainer exec --nv '--bind=/d a:/b' '/my images/a.sif' python -m slidebatch run" in text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20))
def test_quoted_text_reaches_the_engine_as_it_is(texts: list[str]) -> None:
    """Any text, quotes, newlines and $(...) among it, is one word of the shell and arrives unchanged."""
    line = re.search(r"^command=.*?\)$", fill("run", site("slurm"), values(sets=texts)), re.MULTILINE | re.DOTALL)
    script = f"{line[0]}\n" + 'printf "%s\\0" "${command[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True)
    words = done.stdout.decode().split("\0")[:-1]
    assert words[5:] == [word for text in texts for word in ("--set", text)]
    assert quote("a b") == "'a b'"


@given(st.text())
def test_names_of_jobs_are_plain(name: str) -> None:
    """Every name becomes one that SLURM and OpenPBS take."""
    assert re.fullmatch(r"slidebatch[A-Za-z0-9._-]*", job_name(name))
    assert re.fullmatch(fake_pbs.CHECKS["-N"], job_name(name))
    assert len(job_name(name)) <= 60


# One's own templates, and what is wrong


def test_own_templates_come_first_and_take_parts_of_the_shipped_ones(tmp_path, monkeypatch, capsys) -> None:
    """A template beside the cluster's config goes before the shipped one, may include its parts, and is found from
    any folder."""
    (tmp_path / "site" / "mine").mkdir(parents=True)
    (tmp_path / "site" / "mine" / "run.sh").write_text(
        '#!/bin/bash\n{% include "parts/directives.sh" %}\necho {{ config | quote }} {{ job.variables.WHERE }}\n'
    )
    config = tmp_path / "site" / "ours.yaml"
    config.write_text("scheduler: slurm\ntemplates: mine\nvariables: {WHERE: here}\n")
    monkeypatch.chdir(tmp_path)
    give = ["submit", "conf/plate.yaml", "--cluster-config", "site/ours.yaml", "--dry-run"]
    assert status_of(give) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("echo conf/plate.yaml here\n\n")
    assert "#SBATCH --cpus-per-task=8\n" in shown
    assert status_of([*give, "--template", "workers"]) == 0
    assert "--scheduler-file" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [tmp_path / "site"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("line\n{{ nothing }}\n", "run.sh:2: 'nothing' is undefined"),
        ("{% if %}", "run.sh:1: "),
        ('{% include "gone.sh" %}', "gone.sh"),
        ("{{ job.walltim }}", "walltim"),
    ],
)
def test_wrong_templates_are_told(tmp_path, text, words) -> None:
    """A template that names what nobody gives, or that is malformed, is refused with its file and line."""
    (tmp_path / "run.sh").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        fill("run", site("slurm", templates=str(tmp_path)), values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dry-run"], "give --scheduler pbs or --scheduler slurm"),
        (["--scheduler", "slurm", "--template", "walk"], "known here: run, sweep, workers"),
        (["--scheduler", "slurm", "--set", "tiling.core=3"], "did you mean tiling.core_px"),
        (["--scheduler", "slurm", "--job", "memory=32G"], "such as 32 GiB"),
        (["--scheduler", "pbs", "--cluster-config", "conf/cluster/slurm.yaml"], "is for slurm"),
        (["--scheduler", "slurm", "--job", "environment=/nowhere"], "/nowhere/bin/activate is not there"),
        (["--scheduler", "slurm"], "sbatch is not on PATH"),
        (["--scheduler", "pbs"], "qsub is not on PATH"),
    ],
)
def test_wrong_submissions_give_two(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    """What cannot be submitted is one sentence and status 2, and nothing is remembered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert status_of(["submit", "conf/plate.yaml", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert not list(tmp_path.rglob("submitted.jsonl"))


def test_a_run_takes_as_many_workers_as_its_job_has_cores(tmp_path) -> None:
    """Left to choose, a run takes the cores of its job, a network's threads each; told how many, it takes those."""
    shown: list[str] = []
    for sets in ((), ("model.threads=4",), ("cluster.workers=3",), ("cluster.kind=serial",)):
        submit_run(RunAsked("conf/plate.yaml", sets), site("slurm", cpus=8), send=False, say=shown.append)
    told = [re.findall(r"cluster\.\S+=\w+", text) for text in shown]
    assert told == [["cluster.workers=8"], ["cluster.workers=2"], ["cluster.workers=3"], ["cluster.kind=serial"]]


def test_a_job_with_a_gpu_has_its_cores_for_the_other_stages(tmp_path) -> None:
    """With a GPU the cores of a job are for workers besides the GPU's, unless the config counts them or has no GPU."""
    shown: list[str] = []
    for sets in ((), ("cluster.kind=cuda",), ("cluster.cpu_workers=3",), ("model.device=cpu",)):
        submit_run(RunAsked("conf/plate.yaml", sets), site("slurm", cpus=8, gpus=1), send=False, say=shown.append)
    told = [re.findall(r"cluster\.\S*workers=\w+", text) for text in shown]
    assert told == [
        ["cluster.cpu_workers=8"],
        ["cluster.cpu_workers=8"],
        ["cluster.cpu_workers=3"],
        ["cluster.workers=8"],
    ]


@pytest.mark.parametrize(("template", "nodes"), [("workers", 1), ("run", 3)])
def test_workers_of_nodes_that_meet_fit_their_node(template: str, nodes: int) -> None:
    """Each node starts as many workers as its GPUs, or as its cores hold with the network's threads each, or as it was
    told; they and the scheduler listen where they were told; the engine waits for them as long as they may take."""
    shown: list[str] = []
    for sets, wishes in (
        ((), {}),
        (("model.threads=4", "cluster.wait_s=5"), {"interface": "ib0"}),
        ((), {"per_job": 3}),
    ):
        asked = RunAsked("conf/plate.yaml", sets, template)
        submit_run(asked, site("slurm", cpus=8, nodes=nodes, **wishes), send=False, say=shown.append)
    assert [re.findall(r"--nworkers (\d+)", text) for text in shown] == [["8"], ["2"], ["3"]]
    assert [text.count("--interface ib0") for text in shown] == [0, 2, 0]
    assert [re.findall(r"cluster\.\S+=\w+", text) for text in shown] == [
        ["cluster.wait_s=600"], ["cluster.wait_s=5"], ["cluster.wait_s=600"]
    ]  # fmt: skip


def test_the_shipped_configs_agree_with_the_defaults() -> None:
    """conf/cluster/*.yaml are read, are for their scheduler, and show the defaults."""
    for scheduler in ("slurm", "pbs"):
        spec = job_spec(f"conf/cluster/{scheduler}.yaml")
        assert spec == site(scheduler)
        assert (ROOT / "conf" / "cluster" / f"{scheduler}.yaml").is_file()
