"""The search for the best settings on some of the images: optuna's sampler, or a plain grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ConfigError
from slidebatch.tuning.space import Knob, Pick, Settings, Space, Value, grid
from slidebatch.tuning.spec import TuneSpec
from slidebatch.tuning.trial import MEASURES, Score

if TYPE_CHECKING:
    import optuna

Rows = npt.NDArray[np.int64]
Search = Callable[[Score, Rows], Settings]
"""(score, rows of the images that may be looked at) -> the best settings found."""


def search_of(spec: TuneSpec, space: Space, start: Settings) -> tuple[str, Search]:
    """The search that a spec asks for, and its name; over the settings of a space that `start` names.

    Both searches begin with `start`, and only a strictly better mean takes its place. ConfigError: optuna was
    asked for and is not installed, or a grid is too large.
    """
    installed = find_spec("optuna") is not None
    if spec.sampler == "optuna" and not installed:
        raise ConfigError("sampler optuna is not installed; install slidebatch[tune], or take the sampler grid.")
    column = MEASURES.index(spec.measure)
    if spec.sampler == "grid" or not installed:
        tried = [start, *grid(space, [name for name, _ in start])]
        return "grid", lambda score, rows: _best(tried, score, rows, column)
    return "optuna", lambda score, rows: _tpe(spec, {n: space[n] for n, _ in start}, start, (score, rows))


def mean_of(score: Score, settings: Settings, rows: Rows, column: int) -> float:
    """Mean of one measure over some images."""
    return float(score(settings)[rows, column].mean())


def _best(tried: Sequence[Settings], score: Score, rows: Rows, column: int) -> Settings:
    """The first of the best."""
    return tried[int(np.argmax([mean_of(score, s, rows, column) for s in tried]))]


def _tpe(spec: TuneSpec, space: Space, start: Settings, judged: tuple[Score, Rows]) -> Settings:
    """Tree-structured Parzen estimator, seeded. Source: Bergstra et al. 2011, NeurIPS 24:2546.

    The first third of the trials is random and the same in every search, so their scores are already there.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    score, rows = judged
    column = MEASURES.index(spec.measure)
    sampler = optuna.samplers.TPESampler(seed=spec.seed, n_startup_trials=max(10, spec.trials // 3))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    tried = [start]
    for _ in range(spec.trials):
        trial = study.ask()
        tried.append(tuple((name, _suggested(trial, name, knob)) for name, knob in space.items()))
        study.tell(trial, mean_of(score, tried[-1], rows, column))
    return _best(tried, score, rows, column)


def _suggested(trial: optuna.Trial, name: str, knob: Knob | Pick) -> Value:
    """A trial's value of a setting, on the setting's steps."""
    if isinstance(knob, Pick):
        return str(trial.suggest_categorical(name, knob.grid))
    low, high, step = knob.low, knob.high, knob.step
    if knob.whole:
        return trial.suggest_int(name, int(low), int(high), step=int(step))
    found: Any = trial.suggest_float(name, low, high, step=step)
    return round(float(found), 6)  # 0.2 + 0.02 k, without the rounding of the sum
