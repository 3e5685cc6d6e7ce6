"""One run as a job: filled, shown, submitted, remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slidebatch.config import RunConfig, load
from slidebatch.errors import ConfigError
from slidebatch.executors.spec import HERE
from slidebatch.jobscripts.folder import folder_of, remember, write_script
from slidebatch.jobscripts.queue import submit_script
from slidebatch.jobscripts.schedulers import RULES
from slidebatch.jobscripts.spec import JobSpec
from slidebatch.jobscripts.templates import fill, job_name
from slidebatch.sweep.ranges import compress

WAIT_S = 600
"""How long a run whose workers are on other nodes does without any of them."""


@dataclass(frozen=True)
class RunAsked:
    """A run as its command names it: a config and its `--set` values. template: `run`, `workers`, or one's own."""

    config: str
    sets: tuple[str, ...] = ()
    template: str = "run"


def submit_run(asked: RunAsked, spec: JobSpec, send: bool, say: Callable[[str], Any]) -> str | None:
    """Fill the script of a run, show it, and submit it.

    :param send: whether to submit, or only to show; then nothing is written.
    :param say: called with the script, and with what became of it.
    :returns: the id of the job; None where nothing was sent.
    :raises ConfigError: the config, the site's wishes or the template are wrong, or the scheduler refuses.
    """
    settings = load(asked.config, asked.sets)
    folder = folder_of(settings.output.path)
    text = fill(asked.template, spec, run_values(asked, spec, settings, folder))
    say(text)
    if not send:
        return None
    check_site(spec)
    script = write_script(folder, asked.template, text)
    job = submit_script(spec.scheduler, script)
    remember(folder, spec.scheduler, job, script, None)
    say(f"submitted: job {job}, {script}")
    return job


def run_values(asked: RunAsked, spec: JobSpec, settings: RunConfig, folder: Path) -> dict[str, Any]:
    """What the templates of a run may name."""
    config = Path(asked.config)
    return {
        **common_values(settings.name, asked.template, folder),
        "array": _members(spec, asked.template),
        "nodes": 1 if asked.template == "workers" else spec.nodes,
        "processes": spec.processes(settings.model.threads),
        "config": str(config.absolute()) if config.is_file() else asked.config,
        "sets": [*asked.sets, *_fitting(settings, spec, asked.template)],
    }


def common_values(name: str, template: str, folder: Path) -> dict[str, Any]:
    """What every template may name: the job's name, folders, its own name, whether SLURM cannot name its log."""
    places = {"folder": str(Path.cwd()), "jobs": str(folder), "own_log": any(sign in str(folder) for sign in "%\\")}
    return {"name": job_name(name), "template": template, **places}


def _members(spec: JobSpec, template: str) -> str | None:
    """The option of an array of jobs that meet; None for a lone job, also where an array cannot have one job."""
    rules = RULES[spec.scheduler]
    if template != "workers" or (spec.workers == 1 and not rules.one):
        return None
    return rules.array.format(compress(range(spec.workers)))


def _fitting(settings: RunConfig, spec: JobSpec, template: str) -> list[str]:
    """Settings that follow from the job, where the config leaves them open.

    A lone job takes workers for its cores: where a site does not bind jobs to cores, a job sees all of its machine's.
    Where nodes meet, the engine waits for a worker for longer than at a desk: many of them read a shared file system.
    """
    cluster = settings.cluster
    if template == "workers" or spec.nodes > 1:
        return [] if "wait_s" in cluster.model_fields_set else [f"cluster.wait_s={WAIT_S}"]
    if cluster.kind not in HERE:
        return []
    if spec.gpus and settings.model.device != "cpu":  # a worker for each GPU used, and these besides
        return [f"cluster.cpu_workers={spec.cpus}"] if cluster.cpu_workers == "auto" else []
    if cluster.kind != "local" or cluster.workers != "auto":
        return []
    return [f"cluster.workers={max(1, spec.cpus // settings.model.threads)}"]


def check_site(spec: JobSpec) -> None:
    """ConfigError: an environment, image or folder that a job would not find. Only where jobs are really sent."""
    wanted = {
        "environment": spec.environment and Path(spec.environment) / "bin" / "activate",
        "image": spec.image and Path(spec.image),
        "templates": spec.templates and Path(spec.templates),
    }
    for key, path in wanted.items():
        if path and not path.exists():
            raise ConfigError(f"{key}: {path} is not there; correct it in the cluster's config.")
