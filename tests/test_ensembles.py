"""Ensembles in the engine: runs of several networks, whose rule never depends on how the slide is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from pydantic import ValidationError

from slidebatch.batch import plan
from slidebatch.errors import ConfigError
from slidebatch.metrics import equal_up_to_renaming
from slidebatch.results import open_results
from slidebatch.validate import validate
from tests.support.runs import config, labels_of, run, write_slides
from tests.test_laws_detections import rectangles, spaced, touching

Labels = npt.NDArray[np.int32]
SHAPE = (300, 340)
RULES = ("nms", "fill")


def member(folder: Path, kind: str = "oracle", **errors: Any) -> dict[str, Any]:
    """An oracle as a member, with its own faults."""
    decode = {"min_area_px": 1, "min_seed_px": 1, "fill_holes": False}
    return {"model": {"name": kind, "settings": {"truth": str(folder / "truth"), **errors}}, "decode": decode}


def ensemble(folder: Path, output: str, members: list[dict[str, Any]], core_px: int = 96, **fusion: Any) -> Any:
    """The config of an ensemble over the slides of a folder."""
    tiling = {"patch_px": 128, "core_px": core_px, "largest_px": 32}
    return config(folder, output, ensemble={"members": members, **fusion}, tiling=tiling)


def found(folder: Path, output: str, *members: dict[str, Any], **how: Any) -> Labels:
    """The labels of the slide "a" that an ensemble leaves, once the results are found valid."""
    assert run(ensemble(folder, output, list(members), **how)).exit_status == 0
    assert validate(folder / output) == []
    return labels_of(folder / output, "a").astype(np.int32)


def table(folder: Path, output: str) -> pd.DataFrame:
    """The table of the slide "a"."""
    return open_results(folder / output).instances("a")


@pytest.mark.parametrize("rule", ["mean", "maximum", *RULES])
def test_twins_are_as_good_as_one(tmp_path: Path, rule: str) -> None:
    """Two members that say the same are one, and every nucleus has as many votes as the rule asked members."""
    folder = write_slides(tmp_path, {"a": touching(SHAPE, 3)})
    twins = found(folder, "twins", member(folder), member(folder), rule=rule)
    assert run(config(folder, "one")).exit_status == 0
    np.testing.assert_array_equal(twins, labels_of(folder / "one", "a"))
    assert set(table(folder, "twins")["votes"]) == {2 if rule in RULES else 1}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("masks", ["best", "majority"])
def test_tiles_do_not_matter(tmp_path: Path, rule: str, masks: str) -> None:
    """A rule on nuclei of unlike members gives the same labels, ids, scores and votes for every size of tile."""
    folder = write_slides(tmp_path, {"a": rectangles(SHAPE, 5)})
    members = (
        member(folder, drop=0.2, jitter=0.4, seed=1),
        member(folder, "oracle_detections", drop=0.2, double=0.3, jitter=0.3, seed=2),
        member(folder, jitter=0.5, split=0.3, seed=3),
    )
    whole = found(folder, "whole", *members, core_px=512, rule=rule, masks=masks)
    assert whole.max() > 50
    for core_px in (64, 96, 160):
        tiled = found(folder, f"tiled{core_px}", *members, core_px=core_px, rule=rule, masks=masks)
        np.testing.assert_array_equal(tiled, whole)
        pd.testing.assert_frame_equal(table(folder, f"tiled{core_px}"), table(folder, "whole"))


def test_nuclei_larger_than_tiles_take_part(tmp_path: Path) -> None:
    """A nucleus of a dense member that no tile sees whole is joined first, then competes like any other."""
    truth = np.zeros((260, 260), np.int32)
    truth[20:230, 30:240] = 1
    truth[0:10, 0:10] = 2
    folder = write_slides(tmp_path, {"a": truth})
    tiled = found(folder, "tiled", member(folder), member(folder, jitter=1.0), core_px=64, rule="nms")
    assert sorted(np.unique(tiled)) == [0, 1, 2]
    assert (tiled == 2).sum() >= 209 * 209
    assert set(table(folder, "tiled")["votes"]) == {2}


def test_what_lies_in_a_hole_stays(tmp_path: Path) -> None:
    """A nucleus of one member in the hole of another's, which no tile sees whole, is not filled over."""
    ring = np.zeros((300, 300), np.int32)
    ring[20:280, 20:280] = 1
    ring[40:260, 40:260] = 0
    spot = np.zeros_like(ring)
    spot[145:156, 145:156] = 1
    folder = write_slides(tmp_path, {"a": ring})
    inner = write_slides(tmp_path / "inner", {"a": spot})
    filling = {"decode": {"min_area_px": 1, "min_seed_px": 1}}
    members = ({**member(folder), **filling}, {**member(inner), **filling})
    for core_px in (64, 512):
        labels = found(folder, f"out{core_px}", *members, core_px=core_px, rule="nms")
        np.testing.assert_array_equal(labels > 0, (ring > 0) | (spot > 0))
        assert labels.max() == 2


def test_fill_adds_what_was_missed(tmp_path: Path) -> None:
    """What the first member missed comes from the second, and from nowhere else; both are named in the table."""
    truth = spaced(SHAPE, 2)
    folder = write_slides(tmp_path, {"a": truth})
    dropping = [member(folder, drop=0.4, seed=seed) for seed in (1, 2)]
    alone = [found(folder, f"alone{k}", one, one, rule="nms") for k, one in enumerate(dropping)]
    filled = found(folder, "filled", *dropping, rule="fill")
    np.testing.assert_array_equal(filled > 0, (alone[0] > 0) | (alone[1] > 0))
    rows = table(folder, "filled")
    assert set(rows["member"]) == {0, 1}
    by_first = np.isin(filled, rows.loc[rows["member"] == 0, "label"])
    np.testing.assert_array_equal(by_first, alone[0] > 0)


def test_votes_decide(tmp_path: Path) -> None:
    """With min_votes 2 only what both found stays; what one found alone is gone."""
    folder = write_slides(tmp_path, {"a": spaced(SHAPE, 4)})
    dropping = [member(folder, drop=0.4, seed=seed) for seed in (1, 2)]
    alone = [found(folder, f"alone{k}", one, one, rule="nms") for k, one in enumerate(dropping)]
    both = found(folder, "both", *dropping, rule="nms", min_votes=2)
    np.testing.assert_array_equal(both > 0, (alone[0] > 0) & (alone[1] > 0))


def test_the_mean_weighs(tmp_path: Path) -> None:
    """Of two members' maps the heavier decides where they differ."""
    folder = write_slides(tmp_path, {"a": spaced(SHAPE, 6)})
    light, heavy = member(folder, drop=0.5, seed=1), member(folder, drop=0.5, seed=2)
    alone = found(folder, "alone", heavy, heavy, rule="mean")
    weighed = found(folder, "weighed", light, {**heavy, "weight": 2}, rule="mean")
    assert equal_up_to_renaming(weighed, alone)


def outputs_of_networks(results: Path) -> dict[str, int]:
    """When each file that networks left was written."""
    folders = [results / "work" / name for name in ("maps", "detections2")]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json"]
    return {str(p): p.stat().st_mtime_ns for p in files}


def test_another_rule_runs_no_network(tmp_path: Path) -> None:
    """Where maps are kept, changing the rule redoes what follows the networks, and nothing before."""
    folder = write_slides(tmp_path, {"a": spaced(SHAPE, 6)})
    members = [member(folder, drop=0.3, seed=1), member(folder, "oracle_detections", drop=0.3, seed=2)]
    written, labels = [], []
    for rule, votes in (("nms", 2), ("fill", 1)):
        settings = ensemble(folder, "out", members, rule=rule, min_votes=votes)
        kept = settings.output.model_copy(update={"keep_maps": True})
        assert run(settings.model_copy(update={"output": kept})).exit_status == 0
        written.append(outputs_of_networks(folder / "out"))
        labels.append(labels_of(folder / "out", "a"))
    assert len(written[0]) == 2
    assert written[0] == written[1]
    assert labels[0].max() < labels[1].max()
    assert validate(folder / "out") == []


def test_members_are_told(tmp_path: Path) -> None:
    """The manifest names the members with their digests, and twins are numbered."""
    folder = write_slides(tmp_path, {"a": spaced(SHAPE, 6)})
    found(folder, "out", member(folder), member(folder), {**member(folder, seed=5), "name": "third"}, rule="mean")
    told = open_results(folder / "out").manifest["digests"]["members"]
    assert list(told) == ["oracle (1)", "oracle (2)", "third"]
    assert told["oracle (1)"] == told["oracle (2)"] != told["third"]


def test_members_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A rule on maps refuses detectors, votes beyond the members are refused, and so is a device of a member's own."""
    folder = write_slides(tmp_path, {"a": spaced(SHAPE, 6)})
    detector = member(folder, "oracle_detections")
    with pytest.raises(ConfigError, match="joins class maps"):
        plan(ensemble(folder, "out", [member(folder), detector], rule="mean"))
    with pytest.raises(ValidationError, match="min_votes is 3 of 2"):
        ensemble(folder, "out", [detector, detector], rule="nms", min_votes=3)
    with pytest.raises(ValidationError, match="at least 2"):
        ensemble(folder, "out", [detector], rule="nms")
    own = {**member(folder), "model": {**member(folder)["model"], "device": "cpu"}}
    with pytest.raises(ConfigError, match="device of its own"):
        plan(ensemble(folder, "out", [own, detector], rule="nms"))
