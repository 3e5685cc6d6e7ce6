"""Cross-fitting: settings are chosen on some groups of images and judged on others.

The score of settings on the very images they were chosen on flatters them. So the groups are dealt into folds, each
fold's images are scored with settings chosen without them, and these scores together say what tuning is worth. The
settings to use are then chosen on everything.
Source: Stone 1974, J. R. Statist. Soc. B 36:111 (cross-validatory choice and assessment).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ConfigError
from slidebatch.tuning.cases import Given
from slidebatch.tuning.result import Fold, Tuned
from slidebatch.tuning.search import search_of
from slidebatch.tuning.space import Settings, chosen
from slidebatch.tuning.spec import TuneSpec
from slidebatch.tuning.trial import Case, Decoder, Score

Rows = npt.NDArray[np.int64]


def crossfit(given: Given, score: Score, spec: TuneSpec) -> Tuned:
    """Search once without each fold and once on everything.

    ConfigError: fewer than two groups of images, or settings that what is tuned does not have.
    """
    start = settings_of(given.base, chosen(given.base.space, spec.settings))
    name, search = search_of(spec, given.base.space, start)
    before = score(start)
    fitted = np.empty_like(before)
    folds = []
    for left_out in deal(given.cases, spec.folds, spec.seed):
        others = np.setdiff1d(np.arange(len(given.cases)), left_out)
        settings = search(score, others)
        fitted[left_out] = score(settings)[left_out]
        folds.append(Fold(tuple(given.cases[i].image for i in left_out), settings))
    best = search(score, np.arange(len(given.cases)))
    notes = given.notes
    if spec.sampler == "auto" and name == "grid":
        notes = (*notes, "note: optuna is not installed (slidebatch[tune]); a plain grid was searched")
    return Tuned(
        spec=spec,
        sampler=name,
        base=given.base,
        chosen=best,
        folds=tuple(folds),
        cases=tuple((c.image, c.heading, c.cluster) for c in given.cases),
        scores={"before": before, "cross-fitted": fitted, "after": score(best)},
        notes=notes,
    )


def settings_of(base: Decoder, names: Sequence[str]) -> Settings:
    """The named settings as they are."""
    return tuple((name, base.value(name)) for name in names)


def deal(cases: Sequence[Case], folds: int, seed: int) -> list[Rows]:
    """Rows of the cases of each fold, ascending: every case in one fold, every group whole.

    Large groups first, each to the fold that has the fewest images of its headings, so that every fold sees every
    heading where there are groups enough. With fewer groups than folds, each group is a fold.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        groups[case.cluster].append(row)
    if len(groups) < 2:
        raise ConfigError(
            f"{len(cases)} images are {len(groups)} group; settings chosen on one group cannot be judged on another: "
            "give images of at least two groups."
        )
    names = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
    dealt: list[list[int]] = [[] for _ in range(min(folds, len(groups)))]
    for name in sorted(names, key=lambda g: -len(groups[g])):
        headings = {cases[row].heading for row in groups[name]}
        dealt[_emptiest(dealt, cases, headings)].extend(groups[name])
    return [np.sort(np.array(rows, np.int64)) for rows in dealt]


def _emptiest(dealt: Sequence[Sequence[int]], cases: Sequence[Case], headings: set[str]) -> int:
    """The fold with the fewest images of some headings, then with the fewest images."""
    load = [(sum(cases[row].heading in headings for row in rows), len(rows)) for rows in dealt]
    return load.index(min(load))
