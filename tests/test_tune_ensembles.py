"""Laws of tuning ensembles on kept output: the engine's own nuclei, the better setting, sections that a run accepts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.calibrate import Calibration
from slidebatch.cli import status_of
from slidebatch.config import load
from slidebatch.errors import ConfigError
from slidebatch.instances import SCORE_MAX
from slidebatch.metrics import dsb_score, equal_up_to_renaming
from slidebatch.tuning import TuneSpec, tune
from slidebatch.tuning.cases import open_maps
from slidebatch.tuning.ensemble import Ensemble
from tests.support.runs import labels_of, run, write_slides
from tests.test_ensembles import ensemble, member
from tests.test_laws_detections import rectangles, spaced

SHAPE = (200, 220)
SLIDES = "abcd"
QUICK = TuneSpec(sampler="grid", folds=2, resamples=100, workers=1)


def kept(folder: Path, output: str, members: list[dict[str, Any]], **fusion: Any) -> Any:
    """The config of an ensemble that keeps what its networks left; it has been run."""
    settings = ensemble(folder, output, members, **fusion)
    settings = settings.model_copy(update={"output": settings.output.model_copy(update={"keep_maps": True})})
    assert run(settings).exit_status == 0
    return settings


def slides(folder: Path, made: Any = spaced) -> Path:
    """Four slides with truth."""
    return write_slides(folder, {name: made(SHAPE, i) for i, name in enumerate(SLIDES)})


def unlike(folder: Path, **detections: Any) -> list[dict[str, Any]]:
    """Members that err each in its own way: two families."""
    return [
        member(folder, drop=0.2, jitter=0.4, split=0.2, seed=1),
        member(folder, "oracle_detections", drop=0.2, double=0.3, jitter=0.3, seed=2, **detections),
    ]


def only(*names: str, **more: Any) -> TuneSpec:
    """A quick search of these settings."""
    return replace(QUICK, settings=names, **more)


@pytest.mark.parametrize(
    "fusion",
    [
        {"rule": "mean"},
        {"rule": "maximum"},
        {"rule": "nms", "iou_threshold": 0.4, "scores": "mean", "min_votes": 2},
        {"rule": "fill", "masks": "weighted", "least_share": 0.7},
    ],
    ids=lambda fusion: str(fusion["rule"]),
)
def test_kept_output_gives_the_nuclei_of_the_run(tmp_path: Path, fusion: dict[str, Any]) -> None:
    """What tuning makes of kept output with a run's settings is the run's label image, up to renaming."""
    folder = write_slides(tmp_path, {"a": rectangles((260, 280), 5)})
    members = unlike(folder)
    members[0]["decode"] = {**members[0]["decode"], "score_threshold": 0.4}
    members[1]["decode"] = {**members[1]["decode"], "score_threshold": 0.7}
    if fusion["rule"] in {"mean", "maximum"}:
        members = [members[0], {**member(folder, drop=0.4, seed=5), "weight": 2}]
    kept(folder, "out", members, **fusion)
    source = open_maps(folder / "out")
    painted = labels_of(folder / "out", "a")
    assert painted.max() > 30
    assert equal_up_to_renaming(source.base.labels(*source.read("a")), painted)


def test_a_changed_setting_gives_the_nuclei_of_another_run(tmp_path: Path) -> None:
    """With other thresholds, votes and weights, kept output gives what a run with these settings gives."""
    folder = write_slides(tmp_path, {"a": rectangles((260, 280), 6)})
    members = unlike(folder)
    kept(folder, "out", members, rule="nms")
    members[1]["decode"] = {**members[1]["decode"], "score_threshold": 0.8}
    run(ensemble(folder, "other", members, rule="nms", iou_threshold=0.2, min_votes=2, masks="majority"))
    source = open_maps(folder / "out")
    changed = source.base.having(
        (("iou_threshold", 0.2), ("min_votes", 2), ("masks", "majority"), ("score_threshold.2", 0.8))
    )
    other = labels_of(folder / "other", "a")
    assert not equal_up_to_renaming(source.base.labels(*source.read("a")), other)
    assert equal_up_to_renaming(changed.labels(*source.read("a")), other)


def believing(folder: Path, odd: tuple[int, ...]) -> tuple[Path, dict[str, Any]]:
    """Slides whose truth is every second nucleus of a field, and a member that also believes in some of the others."""
    field = {name: spaced(SHAPE, i) for i, name in enumerate(SLIDES)}
    write_slides(folder, {name: np.where(every % 2, 0, every) for name, every in field.items()})
    beliefs = folder / f"beliefs{odd}"
    beliefs.mkdir()
    for name, every in field.items():
        np.save(beliefs / f"{name}.npy", np.where((every % 2 == 0) | np.isin(every % 4, odd), every, 0))
    return folder, {**member(folder), "model": {"name": "oracle", "settings": {"truth": str(beliefs)}}}


def test_votes_are_found(tmp_path: Path) -> None:
    """Where each member invents nuclei of its own, agreement is better, and is chosen on images left out too."""
    members = [believing(tmp_path, odd)[1] for odd in ((1,), (3,))]
    kept(tmp_path, "out", members, rule="nms")
    found = tune(tmp_path / "out", tmp_path / "truth", None, only("min_votes", "iou_threshold"))
    assert dict(found.chosen)["min_votes"] == 2
    assert found.means["all"]["cross-fitted"]["dsb"].mean == 1.0
    assert found.means["all"]["gain"]["dsb"].low > 0


def test_weights_are_found(tmp_path: Path) -> None:
    """Of maps of unlike worth the better network gets more weight; both sections are told and accepted."""
    folder, dreamer = believing(tmp_path, (1, 3))
    settings = kept(folder, "out", [member(folder), dreamer], rule="mean", scores="best")
    conf = folder / "conf.json"
    conf.write_text(settings.model_dump_json())
    section, told = folder / "section.yaml", folder / "told.json"
    command = ["tune", str(conf), str(folder / "truth"), "--yaml", str(section), "--json", str(told)]
    quick = ["--sampler", "grid", "--settings", "weight", "--folds", "2", "--resamples", "50"]
    assert status_of([*command, *quick]) == 0
    stored = json.loads(told.read_text())
    assert [m["weight"] for m in stored["ensemble"]["members"]] == [2, 1]
    minimal = (
        f"input: {{path: {folder}/images}}\noutput: {{path: {folder}/new}}\ntissue: {{enabled: 'off'}}\n"
        "cluster: {kind: serial}\nreport: {enabled: false}\ntiling: {patch_px: 128, largest_px: 32}\n"
    )
    (folder / "new.yaml").write_text(minimal + section.read_text())
    accepted = load(str(folder / "new.yaml"))
    assert accepted.ensemble is not None
    assert accepted.ensemble.model_dump(mode="json") == stored["ensemble"]
    assert accepted.decode.model_dump(mode="json") == stored["decode"]
    run(accepted)
    truths = [np.where(spaced(SHAPE, i) % 2, 0, spaced(SHAPE, i)) for i in range(len(SLIDES))]
    scores = [dsb_score(labels_of(folder / "new", name), truth) for name, truth in zip(SLIDES, truths, strict=True)]
    assert scores == [image["after"]["dsb"] for image in stored["images"]] == [1.0] * len(SLIDES)


def test_a_threshold_for_one_member(tmp_path: Path) -> None:
    """A member whose unsure nuclei are wrong gets a threshold of its own; scores are raw there, calibrated after it."""
    folder = slides(tmp_path)
    kept(folder, "out", unlike(folder), rule="fill")
    source = open_maps(folder / "out")
    assert isinstance(source.base, Ensemble)
    (found, shape), top = source.read("a"), 0.75
    flat = Calibration((0, SCORE_MAX), (100, 100), 1)
    plan = source.base.plan
    members = tuple(replace(m, calibration=flat) for m in plan.members)
    calibrated = replace(source.base, plan=replace(plan, members=members))
    some = calibrated.having((("score_threshold.2", top),))
    sure = found.take((found.member == 0) | (found.score >= round(top * SCORE_MAX)))
    assert 0 < len(sure) < len(found)
    np.testing.assert_array_equal(some.labels(found, shape), calibrated.labels(sure, shape))
    assert some.value("score_threshold.2") == top
    assert some.value("score_threshold.1") == source.base.value("score_threshold.1") == 0


def test_optuna_searches_rules_too(tmp_path: Path) -> None:
    """Optuna picks named values and numbers on their steps, the same with the same seed."""
    pytest.importorskip("optuna", reason="optuna is not installed: pip install slidebatch[tune]")
    folder = slides(tmp_path)
    kept(folder, "out", unlike(folder), rule="fill")
    spec = TuneSpec(sampler="optuna", trials=8, folds=2, resamples=50, workers=1)
    first, second = (tune(folder / "out", folder / "truth", None, spec) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert {name for name, _ in first.chosen} == set(first.base.space)
    assert first.means["all"]["after"]["dsb"].mean >= first.means["all"]["before"]["dsb"].mean


def test_what_cannot_be_tuned_is_refused(tmp_path: Path) -> None:
    """Settings of another rule, other networks, a rule on maps of detectors, output not kept: one clear sentence."""
    folder = slides(tmp_path)
    settings = kept(folder, "out", unlike(folder), rule="nms")
    with pytest.raises(ConfigError, match="settings fill_threshold: expected some of iou_threshold"):
        tune(folder / "out", folder / "truth", None, only("fill_threshold"))
    conf = folder / "conf.json"
    conf.write_text(settings.model_dump_json())
    with pytest.raises(ConfigError, match="a member leaves detections"):
        open_maps(conf, ["ensemble.rule=mean"])
    conf.write_text(ensemble(folder, "out", [member(folder), member(folder)], rule="nms").model_dump_json())
    with pytest.raises(ConfigError, match="the config's ensemble has others"):
        open_maps(conf)
    run(ensemble(folder, "lost", unlike(folder), rule="nms"))
    with pytest.raises(ConfigError, match=r"output\.keep_maps=true"):
        open_maps(folder / "lost")
    (folder / "one.yaml").write_text(f"input: {{path: {folder}/images}}\noutput: {{path: {folder}/out}}\n")
    with pytest.raises(ConfigError, match="the config asks for other networks"):
        open_maps(folder / "one.yaml")
