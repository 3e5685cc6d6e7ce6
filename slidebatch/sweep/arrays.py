"""What a scheduler must know of a sweep: how many jobs there are, and which of them are missing.

This is the one door for schedulers: `jobscripts` goes through it for PBS and SLURM. A scheduler starts
`slidebatch sweep-task FOLDER INDEX` for each missing index; one that knows no lists of indices starts
`slidebatch sweep-task FOLDER I --through FILE` for each I from 0 to the number of lines of the indirection file,
whose line I (from 0) is the index meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slidebatch.errors import ConfigError
from slidebatch.store import digest, write_atomically
from slidebatch.sweep.folder import Asked, Sweep, open_sweep
from slidebatch.sweep.ledger import result_of
from slidebatch.sweep.ranges import compress


@dataclass(frozen=True)
class Array:
    """The jobs of a sweep for a scheduler.

    folder   of the sweep
    name     of the sweep
    jobs     how many there are in all: indices 0 to jobs - 1
    missing  indices of those with points that are not finished, ascending
    """

    folder: Path
    name: str
    jobs: int
    missing: tuple[int, ...]

    @property
    def ranges(self) -> str:
        """The missing indices as ranges: "0-3,7"; "" where none is missing."""
        return compress(self.missing)

    def indirection(self) -> Path:
        """Write the missing indices, one a line, to a file that never changes; its path."""
        path = self.folder / "work" / f"jobs-{digest(self.missing)}.txt"
        write_atomically(path, "".join(f"{index}\n" for index in self.missing).encode(), durable=True)
        return path


def array_of(sweep: Sweep) -> Array:
    """The jobs of a sweep and which are missing now. Reads every result."""
    size = sweep.spec.points_per_job
    missing = sorted({p.number // size for p in sweep.points if result_of(sweep, p) is None})
    return Array(sweep.folder, sweep.spec.name, sweep.jobs, tuple(missing))


def array_for(asked: Asked) -> Array:
    """The jobs of a sweep that may not have begun: then all are missing. Writes nothing."""
    folder = Path(asked.spec.output.path).absolute()
    if (folder / "sweep.json").is_file():
        return array_of(open_sweep(folder))
    jobs = -(-len(asked.points) // asked.spec.points_per_job)
    return Array(folder, asked.spec.name, jobs, tuple(range(jobs)))


def job_at(indirection: Path, line: int) -> int:
    """The job that a line (from 0) of an indirection file means. ConfigError: no such file or line."""
    try:
        return int(dict(enumerate(indirection.read_text().split()))[line])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{indirection} has no job on line {line} ({error}); name the sweep's own file.") from error
