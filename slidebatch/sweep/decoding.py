"""Points that differ in how class maps are decoded: the networks run once for all that share their settings.

Whatever a network's answer depends on (input, model, normalisation, tissue, patches) makes a key; the run of each
key keeps its class maps in `maps/<key>`, and points are decoded from these and scored, as `slidebatch tune` does.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from slidebatch import batch
from slidebatch.config import RunConfig, load
from slidebatch.errors import ConfigError, LeaseError
from slidebatch.lease import lease
from slidebatch.planning import SAMPLES
from slidebatch.sample import write_sample
from slidebatch.store import digest, read_json
from slidebatch.sweep.folder import Sweep
from slidebatch.sweep.kinds import Worth, numbers, subset_of, truth_of
from slidebatch.sweep.points import Point
from slidebatch.tuning import Choice
from slidebatch.tuning.cases import Given, read_cases
from slidebatch.tuning.trial import MEASURES, score_cases

WAIT_S = 1.0
"""Between looks at whether another process has made the class maps."""


def decode_point(sweep: Sweep, point: Point) -> Worth:
    """Decode the class maps that a point shares and score them: means over images of `tuning.trial.MEASURES`."""
    config = load(str(sweep.base_file), point.overrides)
    results = made_maps(sweep, config)
    if not (results / "work" / "maps").is_dir():
        raise ConfigError("model: the network leaves detections, not class maps; take a sweep of kind run.")
    given = _cases(str(results), str(_truth(sweep, config)), subset_of(sweep))
    means = score_cases(given.cases, given.base.decoding(config.decode)).mean(axis=0)
    metrics = {"images": len(given.cases), **dict(zip(MEASURES, map(float, means), strict=True))}
    return Worth(numbers(metrics), {"maps": results.name}, given.notes)


@lru_cache(maxsize=1)
def _cases(results: str, truth: str, subset: Path | None) -> Given:
    """Maps and truth in memory, for the points that follow each other with the same maps."""
    return read_cases(results, truth, Choice(subset=subset))


def maps_key(config: RunConfig) -> str:
    """What class maps depend on, as a name: all settings but how they are decoded and where work goes."""
    told = config.model_dump(mode="json", exclude={"name": True, "decode": True, "output": True, "cluster": True})
    told["tiling"] = {k: v for k, v in told["tiling"].items() if k != "core_px"}
    return digest(told)[:12]


def made_maps(sweep: Sweep, config: RunConfig) -> Path:
    """The results folder of the run that makes a config's class maps; runs it, or waits while another process does."""
    results = sweep.folder / "maps" / maps_key(config)
    while not _whole(results):
        try:
            with lease(sweep.folder / "work" / "maps" / results.name):
                if not _whole(results):
                    batch.run(_maps_config(sweep, config, results))
        except LeaseError:
            time.sleep(WAIT_S)
    return results


def _whole(results: Path) -> bool:
    """Whether a run has ended there."""
    try:
        return bool(read_json(results / "manifest.json")["state"] == "done")
    except (OSError, ValueError):
        return False


def _maps_config(sweep: Sweep, config: RunConfig, results: Path) -> RunConfig:
    """The run that makes the maps. It decodes as the base config does: no point's settings decide how it fares."""
    output = config.output.model_copy(update={"path": str(results), "keep_maps": True})
    return config.model_copy(update={"output": output, "decode": load(str(sweep.base_file)).decode})


def _truth(sweep: Sweep, config: RunConfig) -> Path:
    """The truth to score by. ConfigError: the config names none and the input is no sample."""
    named = truth_of(sweep)
    if named is not None:
        return named
    if config.input.sample is None:
        raise ConfigError("score.truth: missing; a sweep of kind decode needs the true nuclei of its images.")
    return write_sample(config.input.sample, SAMPLES / config.input.sample).truth
