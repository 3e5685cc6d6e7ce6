"""The templates of job scripts, filled. The one door to jinja2.

A template is the text of a script with `{{ values }}`; every value that may hold any character is written as
`{{ value | quote }}`, one word of the shell. A value that a template names and nobody gives is an error.
"""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError

from slidebatch.errors import ConfigError
from slidebatch.jobscripts.amounts import clock
from slidebatch.jobscripts.schedulers import RULES, Rules
from slidebatch.jobscripts.spec import JobSpec
from slidebatch.shipped import root

LONGEST_NAME = 60


def fill(name: str, spec: JobSpec, values: Mapping[str, Any]) -> str:
    """A template's text with a site's wishes and the given values in their places.

    :param name: of the template: `run` for `run.sh`, from the site's own folder or else from jobs/<scheduler>/.
    :raises ConfigError: no such template, or it is wrong; names the file and line.
    """
    rules = RULES[spec.scheduler]
    own = [] if spec.templates is None else [spec.templates]
    shipped = root() / "jobs"
    made = Environment(  # autoescape is for HTML; here every value is quoted for the shell
        loader=FileSystemLoader([*own, shipped / rules.templates, shipped]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.filters["quote"] = quote
    _refuse_missing(f"{name}.sh", made)
    try:
        return made.get_template(f"{name}.sh").render(_values(spec, rules) | dict(values))
    except TemplateError as error:
        raise ConfigError(f"{_place(error)}: {error.message}; correct the template (see jobs/README.md).") from error


def _place(error: TemplateError) -> str:
    """File and line of what is wrong: jinja2 puts templates into tracebacks as if they were Python."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".sh")]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "the template"


def _refuse_missing(file: str, made: Environment) -> None:
    there = sorted(name for name in made.list_templates(["sh"]) if "/" not in name)
    if file not in there:
        known = ", ".join(name.removesuffix(".sh") for name in there)
        raise ConfigError(f"--template {file.removesuffix('.sh')}: no such template; known here: {known}.")


def quote(value: object) -> str:
    """A value as one word of the shell, whatever is in it.

    >>> quote("it's $(here)")
    '\\'it\\'"\\'"\\'s $(here)\\''
    """
    return shlex.quote(str(value))


def job_name(name: str) -> str:
    """A name that every scheduler takes: letters, digits, dots, underscores and hyphens, after `slidebatch-`.

    >>> job_name("my plate; $(x)")
    'slidebatch-my-plate-x'
    """
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
    return f"slidebatch-{plain}"[:LONGEST_NAME].rstrip("-.")


def _values(spec: JobSpec, rules: Rules) -> dict[str, Any]:
    """What every template may name."""
    return {
        "job": spec,
        "scheduler": spec.scheduler,
        "walltime": clock(spec.walltime_s),
        "walltime_s": spec.walltime_s,
        "memory": rules.memory(spec.memory_bytes),
        "index": rules.index,
        "python": _python(spec),
    }


def _python(spec: JobSpec) -> str:
    """The words of the shell that start Python in the job."""
    if spec.image is not None:
        words = ["apptainer", "exec", *(["--nv"] if spec.gpus else []), *(f"--bind={bind}" for bind in spec.binds)]
        return " ".join(quote(word) for word in [*words, spec.image, "python"])
    return "python" if spec.environment is not None else quote(sys.executable)
