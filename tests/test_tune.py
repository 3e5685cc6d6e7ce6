"""Laws of tuning: honest folds, searches that only improve, settings that a run accepts, the engine's own nuclei."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from slidebatch.cli import status_of
from slidebatch.config import load
from slidebatch.decode import DecodeSpec, label_image
from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate import Column
from slidebatch.metrics import dsb_score, equal_up_to_renaming
from slidebatch.tuning import Choice, TuneSpec, tune
from slidebatch.tuning.cases import open_maps
from slidebatch.tuning.crossfit import deal
from slidebatch.tuning.network import Network
from slidebatch.tuning.space import SPACE
from slidebatch.tuning.trial import MEASURES, Case, score_cases, scorer
from tests.support.oracle import disks
from tests.support.runs import config, run, write_slides
from tests.support.runs import labels_of as painted

BASE = Network(DecodeSpec.model_validate({}))
QUICK = TuneSpec(sampler="grid", settings=("seed_threshold", "min_area_px"), folds=3, resamples=200, workers=1)


def maps_of(truth, seed, bright=0.62):
    """Class maps (2, Y, X) uint8 of a network that is too sure: neighbours merge at 0.5 and part above `bright`."""
    rng = np.random.default_rng(seed)
    inside = ndimage.minimum_filter(truth, 3) == ndimage.maximum_filter(truth, 3)
    chance = np.where(truth > 0, np.where(inside, 0.95, bright - 0.05), 0.04) + rng.normal(0, 0.01, truth.shape)
    speck = rng.random(truth.shape) < 0.002
    chance[ndimage.binary_dilation(speck, iterations=2) & (ndimage.maximum_filter(truth, 9) == 0)] = 0.9
    nucleus = np.rint(255 * np.clip(chance, 0, 1)).astype(np.uint8)
    return np.stack([nucleus, np.zeros_like(nucleus)])


@pytest.fixture
def folders(tmp_path):
    """Six images of three groups: class maps as .npy, truth as .npy, tables of groups and headings."""
    for name in ("maps", "truth"):
        (tmp_path / name).mkdir()
    rows = []
    for i in range(6):
        truth = disks((90, 100), seed=i)
        np.save(tmp_path / "maps" / f"i{i}.npy", maps_of(truth, i))
        np.save(tmp_path / "truth" / f"i{i}.npy", truth)
        rows.append(f"i{i}\tg{i // 2}\t{'dark' if i < 4 else 'light'}\n")
    (tmp_path / "groups.tsv").write_text("id\tgroup\tmodality\n" + "".join(rows))
    return tmp_path


def choice_of(folder, **more):
    table = folder / "groups.tsv"
    return Choice(groups=Column(table), clusters=Column(table), **more)


def case(image, cluster, heading="", seed=0):
    truth = disks((60, 60), seed=seed)
    return Case(image, heading, cluster, (maps_of(truth, seed),), truth)


def test_tuning_finds_what_is_wrong(folders):
    """Where neighbours merge at the default threshold, a better one is found, on images it was not chosen on too."""
    found = tune(folders / "maps", folders / "truth", choice_of(folders), QUICK)
    assert dict(found.chosen)["seed_threshold"] > 0.5
    means = {name: row["dsb"].mean for name, row in found.means["all"].items()}
    assert means["cross-fitted"] > means["before"] + 0.1
    assert means["gain"] == pytest.approx(means["cross-fitted"] - means["before"])
    assert means["after"] >= means["cross-fitted"]
    assert list(found.means) == ["dark", "light", "all"]


def test_scores_are_those_of_the_settings(folders):
    """Before, after and each fold's scores are what the decoder and the metrics give with those settings."""
    found = tune(folders / "maps", folders / "truth", choice_of(folders), QUICK)
    settings = {image: fold.settings for fold in found.folds for image in fold.images}
    for row, (image, _, _) in enumerate(found.cases):
        maps, truth = (np.load(folders / kind / f"{image}.npy") for kind in ("maps", "truth"))
        expected = {"before": BASE, "cross-fitted": BASE.having(settings[image]), "after": found.best}
        for name, spec in expected.items():
            assert found.scores[name][row, MEASURES.index("dsb")] == dsb_score(label_image(maps, spec.decode), truth)


def test_a_fold_never_sees_its_own_images(folders):
    """The truth of a fold's images changes nothing in the settings that they are judged with."""
    before = tune(folders / "maps", folders / "truth", choice_of(folders), QUICK)
    for image in before.folds[0].images:
        truth = np.load(folders / "truth" / f"{image}.npy")
        np.save(folders / "truth" / f"{image}.npy", np.where(truth > 0, 1, 0))
    after = tune(folders / "maps", folders / "truth", choice_of(folders), QUICK)
    assert after.folds[0] == before.folds[0]
    changed = np.isin([c[0] for c in before.cases], before.folds[0].images)
    assert (after.scores["cross-fitted"] != before.scores["cross-fitted"])[changed].any()


def test_folds_keep_groups_whole():
    """Every image is in one fold, no group in two, and a heading with groups enough is in every fold."""
    cases = [case(f"{i}", f"g{i // 3}", "rare" if i < 12 else "common") for i in range(60)]
    folds = deal(cases, 4, seed=1)
    assert sorted(np.concatenate(folds)) == list(range(60))
    of_group = {}
    for number, rows in enumerate(folds):
        assert {cases[i].heading for i in rows} == {"rare", "common"}
        for i in rows:
            assert of_group.setdefault(cases[i].cluster, number) == number
    assert max(map(len, folds)) - min(map(len, folds)) <= 3
    assert [r.tolist() for r in deal(cases, 4, seed=1)] == [r.tolist() for r in folds]


def test_one_group_is_refused(folders):
    """Settings chosen on a group cannot be judged on it: one group is an error, two are two folds."""
    (folders / "one.tsv").write_text("id\tgroup\n" + "".join(f"i{i}\tg\n" for i in range(6)))
    with pytest.raises(ConfigError, match="at least two groups"):
        tune(folders / "maps", folders / "truth", Choice(clusters=Column(folders / "one.tsv")), QUICK)
    assert len(deal([case("a", "1"), case("b", "2")], 5, seed=0)) == 2


@pytest.mark.parametrize("sampler", ["grid", "optuna"])
def test_a_search_never_loses_what_it_started_with(folders, sampler):
    """On the images they are chosen on, settings are at least as good as before; the same seed gives the same."""
    if sampler == "optuna":
        pytest.importorskip("optuna", reason="optuna is not installed: pip install slidebatch[tune]")
    spec = TuneSpec(sampler=sampler, trials=12, folds=2, resamples=100, workers=1, settings=("grow_px", "min_seed_px"))
    first, second = (tune(folders / "maps", folders / "truth", choice_of(folders), spec) for _ in range(2))
    assert first.sampler == sampler
    assert first.means["all"]["after"]["dsb"].mean >= first.means["all"]["before"]["dsb"].mean
    assert (first.chosen, first.folds, first.to_json()) == (second.chosen, second.folds, second.to_json())
    for settings in [first.chosen, *(f.settings for f in first.folds)]:
        assert [name for name, _ in settings] == ["grow_px", "min_seed_px"]
        assert all(SPACE[name].low <= value <= SPACE[name].high for name, value in settings)


def test_settings_that_help_nobody_stay(tmp_path):
    """Where nothing is better than the settings to start from, they stay."""
    for kind in ("maps", "truth"):
        (tmp_path / kind).mkdir()
    for i in range(3):
        truth = np.zeros((30, 30), int)
        truth[5:15, 5:15] = 1
        np.save(tmp_path / "truth" / f"{i}.npy", truth)
        np.save(tmp_path / "maps" / f"{i}.npy", np.stack([truth * 255, truth * 0]).astype(np.uint8))
    found = tune(tmp_path / "maps", tmp_path / "truth", None, QUICK)
    assert dict(found.chosen) == {name: BASE.value(name) for name in QUICK.settings}
    assert "do not prove that tuning helps" in found.to_text()


def test_workers_change_nothing():
    """Scores from two worker processes are those of this process, in order."""
    cases = [case(f"{i}", f"{i}", seed=i) for i in range(5)]
    settings = (("seed_threshold", 0.7), ("grow_px", 3))
    with scorer(cases, BASE, 2) as score:
        found = score(settings)
    np.testing.assert_array_equal(found, score_cases(cases, BASE.having(settings)))


def test_without_optuna_a_grid_is_searched_and_told(folders, monkeypatch):
    """Without optuna `auto` searches the grid and says so; asking for optuna is refused."""
    there = importlib.util.find_spec
    monkeypatch.setattr("slidebatch.tuning.search.find_spec", lambda name: None if name == "optuna" else there(name))
    spec = TuneSpec(settings=("min_area_px",), folds=2, resamples=0, workers=1)
    found = tune(folders / "maps", folders / "truth", choice_of(folders), spec)
    assert found.sampler == "grid"
    assert "optuna is not installed" in found.to_text()
    with pytest.raises(ConfigError, match=r"install slidebatch\[tune\]"):
        tune(folders / "maps", folders / "truth", choice_of(folders), TuneSpec(sampler="optuna"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"measure": "auc"}, "expected one of dsb"),
        ({"settings": ("sead_threshold",)}, "expected some of seed_threshold"),
        ({"settings": ()}, "settings none"),
        ({"folds": 1}, "at least 2 folds"),
        ({"workers": 0}, "whole number above 0"),
    ],
)
def test_wrong_specs_are_refused(wrong, words):
    """A spec that cannot be carried out says what was expected."""
    with pytest.raises(ConfigError, match=words):
        TuneSpec(**wrong)


def test_wrong_inputs_are_refused(folders, tmp_path):
    """No maps, other arrays, another size, or a subset without truth: each one clear sentence."""
    truth = folders / "truth"
    (tmp_path / "ids.txt").write_text("i0\nnone\n")
    with pytest.raises(InputError, match=r"lacks 1 image \(none\)"):
        tune(folders / "maps", truth, Choice(subset=tmp_path / "ids.txt"), QUICK)
    np.save(folders / "maps" / "i0.npy", np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(InputError, match=r"class maps are \(5, 5\), the truth is \(90, 100\)"):
        tune(folders / "maps", truth, None, QUICK)
    np.save(folders / "maps" / "i0.npy", np.zeros((5, 5), np.float32))
    with pytest.raises(InputError, match="class maps are uint8"):
        tune(folders / "maps", truth, None, QUICK)
    (folders / "maps" / "i0.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"i0\.npy: no class maps can be read"):
        tune(folders / "maps", truth, None, QUICK)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no class maps"):
        tune(tmp_path / "empty", truth, None, QUICK)


def write_config(path: Path, settings) -> Path:
    """A run's config as JSON, which is YAML."""
    path.write_text(settings.model_dump_json())
    return path


def test_a_run_is_tuned_and_takes_the_settings(tmp_path, capsys):
    """From config to config: a run's own maps give its own nuclei, are tuned, and the section written is accepted."""
    truths = {name: disks((100, 120), seed=i) for i, name in enumerate("abc")}
    write_slides(tmp_path, truths)
    settings = config(tmp_path, "out", output={"keep_maps": True}, decode={"min_area_px": 200})
    run(settings)
    source = open_maps(tmp_path / "out")
    assert source.base == Network(settings.decode)
    for name in truths:
        assert equal_up_to_renaming(source.base.labels(*source.read(name)), painted(tmp_path / "out", name))
    conf, section, told = write_config(tmp_path / "conf.yaml", settings), tmp_path / "decode.yaml", tmp_path / "t.json"
    quick = ["--sampler", "grid", "--settings", "min_area_px,grow_px", "--folds", "3", "--resamples", "50"]
    where = [str(conf), str(tmp_path / "truth"), "--yaml", str(section), "--json", str(told)]
    assert status_of(["tune", *where, *quick]) == 0
    assert "cross-fitted" in capsys.readouterr().out
    stored = json.loads(told.read_text())
    assert stored["base"]["decode"]["min_area_px"] == 200 > stored["decode"]["min_area_px"]
    minimal = f"input: {{path: {tmp_path}/images}}\noutput: {{path: {tmp_path}/out}}\n"
    (tmp_path / "new.yaml").write_text(minimal + section.read_text())
    assert load(str(tmp_path / "new.yaml")).decode.model_dump() == stored["decode"]


def test_a_run_without_maps_is_refused(tmp_path, capsys):
    """A run that kept no maps says how to keep them, with status 2."""
    write_slides(tmp_path, {"a": disks((60, 60))})
    run(config(tmp_path, "out"))
    assert status_of(["tune", str(tmp_path / "out"), str(tmp_path / "truth")]) == 2
    assert "output.keep_maps=true" in capsys.readouterr().err
