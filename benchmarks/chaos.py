"""Runs under every fault at once: is the result the same, is a finished task done again.

    python benchmarks/chaos.py [--quick] [--oracle] [--folder chaos]

The shipped network on a piece of a real slide and images of the Data Science Bowl (`--oracle`: the dense oracle on
touching fields), two workers, results on a small disk of its own. Round after round a fresh run is disturbed at random
moments (fixed seed), each inside a task: workers, the driver or its whole group, and the scheduler of a Dask cluster
are killed with SIGKILL; task functions raise; files that finished tasks have made are cut, while nothing runs and while
stages run; the disk fills up. Where a run stops it must say in one sentence that the same command resumes it, and that
command is given. At the end of a round all files but those of `work` must be the undisturbed ones, apart from times,
and no task may have been begun after it was done. Rounds go on until each fault has come as often as the bar asks. In
the folder that --folder names they are kept: the same command goes on.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_faults import FAULTS, book_exceptions, schedule_exceptions
from chaos_inputs import Calm, run_calm, settings_of, write_images
from chaos_law import contents, differences, done_again
from chaos_place import Place, go_inside
from chaos_round import Broken, Round
from timing import arguments, row

GOALS = {
    "worker": 120,
    "scheduler": 20,
    "driver": 20,
    "exception": 20,
    "cut at rest": 10,
    "cut in a stage": 10,
    "disk": 10,
}
QUICK = {"worker": 4, "scheduler": 1, "driver": 2, "exception": 2, "cut at rest": 1, "cut in a stage": 1, "disk": 1}

LOCAL = {"worker": 12, "driver": 3, "exception": 2, "cut at rest": 1, "cut in a stage": 1, "disk": 1}
EXISTING = {"worker": 12, "driver": 1, "scheduler": 4, "exception": 2, "cut at rest": 1, "cut in a stage": 1, "disk": 1}
"""Faults of a round at most: with workers of the run's own, and on a Dask cluster that is there."""

MOST_ROUNDS = 60
DISK_BYTES = 256_000_000
MANIFEST = "manifest"
ORDER = ("prepare", "maps", "infer", "decode", "seams", "paint", "pyramid", "measure", "table", MANIFEST)
WEIGHT = {"infer": 5, "decode": 2, "paint": 2, "measure": 2}
"""How often a stage stands among those that are drawn from, where not once."""


@dataclass
class Kept:
    """Rounds that ended well, with their events; a file that outlives the program."""

    path: Path
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        return [event for one in self.rounds for event in one["events"]]

    def missing(self, goals: Mapping[str, int]) -> dict[str, int]:
        """How many of each fault are still to come."""
        counts = Counter(event["fault"] for event in self.events())
        return {fault: wanted - counts[fault] for fault, wanted in goals.items() if wanted > counts[fault]}

    def add(self, one: Mapping[str, Any]) -> None:
        self.rounds.append(dict(one))
        aside = self.path.with_suffix(".partial")
        aside.write_text(json.dumps({"rounds": self.rounds}, indent=1))
        aside.replace(self.path)


def kept_in(path: Path) -> Kept:
    """What an earlier start kept."""
    return Kept(path, json.loads(path.read_text())["rounds"] if path.exists() else [])


def drawn(missing: Mapping[str, int], existing: bool, stages: Sequence[str], chance: random.Random) -> list[Any]:
    """(stage, fault) of a round in order of the stages: what is missing, as far as a round has room for it."""
    places = [s for s in stages for _ in range(WEIGHT.get(s, 1))]
    found = []
    for fault, most in (EXISTING if existing else LOCAL).items():
        for _ in range(min(most, missing.get(fault, 0))):
            found.append((chance.choice([*places, MANIFEST] if fault == "driver" else places), fault))
    chance.shuffle(found)
    return sorted(found, key=lambda one: [*stages, MANIFEST].index(one[0]))


def disturbed(place: Place, settings: Mapping[str, Any], calm: Calm, missing: Mapping[str, int], seed: str) -> Round:
    """One round to its end. Broken where a law does not hold."""
    chance, stages = random.Random(seed), calm.plan.stages
    existing = "scheduler" in missing and (chance.random() < 0.5 or "driver" not in missing)
    faults = drawn(missing, existing, stages, chance)
    one = Round(place, settings, [*stages, MANIFEST], calm.took, chance, existing)
    one.begin()
    schedule_exceptions(one, calm.plan, [stage for stage, fault in faults if fault == "exception"])
    for stage, fault in faults:
        if fault in FAULTS:
            FAULTS[fault](one, stage)
    one.finish()
    book_exceptions(one)
    judge(one, calm)
    return one


def judge(one: Round, calm: Calm) -> None:
    """Hold what a round left to the laws."""
    different = differences(contents(one.place.results), calm.left)
    again, unnoticed = done_again(calm.plan, one.log())
    if different or again or unnoticed:
        raise Broken(
            f"files other than undisturbed: {different}; tasks begun again after they were done: {again}; "
            f"tasks of files cut at rest that were not begun again: {unnoticed}"
        )


def rounds(place: Place, options: Any, kept: Kept, goals: Mapping[str, int]) -> None:
    """Rounds until nothing is missing."""
    write_images(place.folder / "images", options.quick, options.oracle)
    settings = settings_of(place, options)
    calm = run_calm(place, settings)
    print(f"undisturbed: {len(calm.left)} files, twice the same\n", flush=True)
    row("round", "cluster", "starts", *goals, "s", "identical")
    row(*["---"] * (len(goals) + 5))
    while missing := kept.missing(goals):
        number = len(kept.rounds)
        if number >= MOST_ROUNDS:
            raise SystemExit(f"{missing} are missing after {number} rounds: moments are missed, take larger images")
        begun, seed = time.monotonic(), f"{options.seed}-{number}"
        one = disturbed(place, settings, calm, missing, seed)
        counts, took_s = Counter(e["fault"] for e in one.events), time.monotonic() - begun
        cluster = "existing" if one.existing else "local"
        row(number, cluster, one.starts, *(counts[fault] for fault in goals), f"{took_s:.0f}", True)
        kept.add({"seed": seed, "cluster": cluster, "starts": one.starts, "seconds": took_s, "events": one.events})


def report(kept: Kept, goals: Mapping[str, int]) -> None:
    """What all rounds say together: faults by stage."""
    events = kept.events()
    stages = sorted({e["stage"] for e in events if e["stage"]}, key=lambda s: (ORDER.index(s.rstrip("0123456789")), s))
    print()
    row("fault", *stages, "all", "asked")
    row(*["---"] * (len(stages) + 3))
    for fault, wanted in goals.items():
        counts = Counter(e["stage"] for e in events if e["fault"] == fault)
        row(fault, *(counts[s] or "" for s in stages), counts.total(), wanted)
    stopped = Counter(e["status"] for e in events if e["fault"] == "stopped over a cut file")
    starts, took_s = (sum(one[key] for one in kept.rounds) for key in ("starts", "seconds"))
    print(
        f"\n{len(kept.rounds)} rounds, {starts} starts, {took_s / 60:.0f} minutes: identical {len(kept.rounds)}; "
        f"tasks begun again after they were done 0; runs that a file cut in a stage stopped {stopped.total()} "
        f"(status 1: {stopped[1]}, status 3: {stopped[3]})"
    )


def main() -> None:
    """Print a row per round, then faults by stage."""
    parser = arguments(__doc__)
    parser.add_argument("--oracle", action="store_true", help="the dense oracle instead of the network")
    parser.add_argument("--only", action="append", choices=GOALS, help="these faults alone; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    go_inside()
    goals = QUICK if options.quick else GOALS
    goals = {fault: goals[fault] for fault in options.only or goals}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(options.folder or made).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        place, kept = Place(folder, DISK_BYTES), kept_in(folder / "chaos.json")
        with place.mounted():
            rounds(place, options, kept, goals)
        report(kept, goals)


if __name__ == "__main__":
    main()
