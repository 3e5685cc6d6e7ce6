"""How SLURM, PBS and Torque differ, where the difference is more than the words of a directive.

                     SLURM                  OpenPBS, PBS Pro        Torque
array option         --array=0-3,7%2        -J 0-3%2                -t 0-3,7%2
one job as an array  --array=0              refused (-J 0-0)        -t 0
lists of jobs        yes                    none: through a file    yes
index variable       SLURM_ARRAY_TASK_ID    PBS_ARRAY_INDEX         PBS_ARRAYID
largest index        MaxArraySize - 1       no limit to the index   no limit to the index
memory, of 1024      M, G                   mb, gb                  mb, gb
submit, and its id   sbatch: 17             qsub: 17.server, of an  qsub: 17.server, of an
                                            array 17[].server       array 17[].server

Sources: sbatch(1) of SLURM 22.05; OpenPBS 23 User's Guide, "Job Arrays"; Torque 6 manual, "Job arrays".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from slidebatch.jobscripts.spec import Scheduler


@dataclass(frozen=True)
class Rules:
    """What a scheduler takes and how it says it.

    templates    folder below jobs/ of its templates
    submit       command that takes a script and prints the id of its job
    listing      command that prints what is in the queue, arrays one line a job; ids of jobs are added to it
    array        option of an array; {} stands for the indices
    index        shell variable of a job's index in its array
    one          whether an array may have one job
    lists        whether an array may be a list of ranges
    units        of memory: 2**20 and 2**30 bytes
    """

    templates: str
    submit: tuple[str, ...]
    listing: tuple[str, ...]
    array: str
    index: str
    one: bool
    lists: bool
    units: tuple[str, str]

    def memory(self, size_bytes: int) -> str:
        """Memory in the scheduler's own unit, of 1024 each, rounded up to 1 MiB."""
        mebibytes = -(-size_bytes // 2**20)
        small, large = self.units
        return f"{mebibytes // 1024}{large}" if mebibytes % 1024 == 0 else f"{mebibytes}{small}"


PBS = Rules(
    templates="pbs",
    submit=("qsub",),
    listing=("qstat", "-t"),
    array="-J {}",
    index="PBS_ARRAY_INDEX",
    one=False,
    lists=False,
    units=("mb", "gb"),
)

RULES: dict[Scheduler, Rules] = {
    "slurm": Rules(
        templates="slurm",
        submit=("sbatch", "--parsable"),
        listing=("squeue", "--noheader", "--array", "--states=PD,CF,R,S,RQ", "--format=%i", "--jobs"),
        array="--array={}",
        index="SLURM_ARRAY_TASK_ID",
        one=True,
        lists=True,
        units=("M", "G"),
    ),
    "pbs": PBS,
    "torque": replace(PBS, array="-t {}", index="PBS_ARRAYID", one=True, lists=True),
}
"""The rules of each scheduler."""
