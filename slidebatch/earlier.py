"""What `auto` chose at an earlier start of a run, stored beside its plan: kept, so that the work done by it counts."""

from __future__ import annotations

from pathlib import Path

from slidebatch.config import RunConfig
from slidebatch.plan import Plan
from slidebatch.planning import Cut, Geometry
from slidebatch.store import digest, read_json, write_json


def remember(work: Path, config: RunConfig, plan: Plan) -> None:
    """Store how the networks' patches and the tiles of a plan are cut."""
    networks = [plan.of(k) for k in range(max(1, len(plan.members)))]
    told = {
        "cuts": [(network.patches.cell, network.block_cells) for network in networks],
        "core_px": plan.tiles.core_px,
        "tiling": _tiling_print(config),
    }
    write_json(work / "start.json", told)


def recall(config: RunConfig) -> Geometry | None:
    """What an earlier start of this very config chose; None where there was none, or it asked for something else."""
    try:
        told = read_json(Path(config.output.path) / "work" / "start.json")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if told["tiling"] != _tiling_print(config):
        return None
    return Geometry(tuple(Cut((y, x), block_cells) for (y, x), block_cells in told["cuts"]), told["core_px"])


def _tiling_print(config: RunConfig) -> str:
    """What the choice of patch shapes depends on; other tiles must not make the networks run again."""
    tiling = (config.tiling.patch_px, config.tiling.largest_px)
    members = None if config.ensemble is None else [(m.model.model_dump(), m.patch_px) for m in config.ensemble.members]
    return digest(tiling, config.model.model_dump(), config.input.model_dump(), members)
