"""Chooses settings on what the networks of a run left: none of them runs, every score is honest.

Owns the settings that are searched (`space`), what makes labels under them (`network`, `ensemble`), the images
(`cases`), scoring them in worker processes (`trial`), the search (`search`), and cross-fitting by group (`crossfit`).
Workers import `trial` and what they are sent alone, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slidebatch.tuning.spec import Choice, TuneSpec

if TYPE_CHECKING:
    from slidebatch.tuning.result import Tuned

__all__ = ["Choice", "TuneSpec", "tune"]


def tune(
    source: str | Path,
    truth: str | Path,
    choice: Choice | None = None,
    spec: TuneSpec | None = None,
    overrides: Sequence[str] = (),
) -> Tuned:
    """Choose settings for what the networks of a finished run left, judged by truth: of decoding, or of an ensemble.

    :param source: a config (its `output.path` is the run; its `decode` or `ensemble` the settings to start from), the
        results folder of a run with `output.keep_maps`, or a folder of class maps (<id>.npy or <id>.zarr,
        (K, Y, X) uint8), which start from the decoder's defaults.
    :param truth: as for `slidebatch.evaluate.evaluate`.
    :param choice: which images, under which headings, and which groups must not be torn apart.
    :param spec: what is searched, how, and how long.
    :param overrides: `key=value` each, for a config.
    :raises ConfigError: no maps, a table or setting that is not there, fewer than two groups, optuna asked for
        but not installed. InputError: images without truth, or of another size than their truth.
    """
    from slidebatch.tuning.cases import read_cases  # late: reading maps imports zarr, which workers do without
    from slidebatch.tuning.crossfit import crossfit
    from slidebatch.tuning.trial import scorer

    how = spec or TuneSpec()
    given = read_cases(source, truth, choice or Choice(), overrides)
    with scorer(given.cases, given.base, how.workers) as score:
        return crossfit(given, score, how)
