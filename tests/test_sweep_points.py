"""Laws of a sweep's points: their order, ids, rules and draws; the shipped sweeps; lists of jobs."""

from __future__ import annotations

import json
import runpy
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.config import check, parse_override, read
from slidebatch.errors import ConfigError
from slidebatch.models import networks
from slidebatch.sweep import SweepSpec, ask
from slidebatch.sweep.plan import describe
from slidebatch.sweep.plan import networks as runs_of
from slidebatch.sweep.points import id_of, points_of
from slidebatch.sweep.ranges import compress, expand
from slidebatch.sweep.space import axes_of, canonical, drawn, holds
from slidebatch.sweep.spec import Random
from slidebatch.training import TrainSpec
from slidebatch.training.feed import check_size
from slidebatch.yaml_place import Document
from tests.conftest import ROOT
from tests.support.sweeps import read as spec_of

NUMBERS = st.sets(st.integers(0, 300))
SCALARS = st.one_of(st.integers(-5, 5), st.booleans(), st.sampled_from([0.5, 1.5, "a", "1", None]))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2))
AXIS = st.one_of(
    st.lists(SCALARS, min_size=1, max_size=3, unique_by=canonical),
    st.lists(st.lists(SCALARS, max_size=2), min_size=1, max_size=3, unique_by=canonical),
)
AXES = st.dictionaries(st.sampled_from(["a", "b.c", "d"]), AXIS, min_size=1)


def sweep(**more):
    """A sweep of a function that does nothing."""
    return spec_of({"kind": "call", "base": "tests.support.sweep_points.point", "output": {"path": "x"}, **more})


# Lists of jobs


@given(NUMBERS)
def test_ranges_are_inverse(numbers):
    """What is compressed expands to the same numbers, in ascending order."""
    assert expand(compress(numbers)) == sorted(numbers)


@given(NUMBERS)
def test_ranges_are_shortest(numbers):
    """There are as many parts as runs of consecutive numbers."""
    runs = sum(n - 1 not in numbers for n in numbers)
    assert len(compress(numbers).split(",")) == max(1, runs)


@pytest.mark.parametrize("text", ["3-1", "1,1", "2,1", "a", "1-", "1,,2", "0-2,2", " 1", "-1"])
def test_other_lists_are_refused(text):
    """What is no ascending list of numbers and ranges is an error that shows the text."""
    with pytest.raises(ConfigError, match="expected numbers and ranges that ascend"):
        expand(text)


# Order and ids


@given(AXES)
def test_a_grid_is_every_combination_once(axes):
    """As many points as combinations, all different, numbered in order; the last parameter changes fastest."""
    points = points_of(sweep(grid=axes))
    size = 1
    for values in axes.values():
        size *= len(values)
    assert len(points) == len({p.id for p in points}) == size
    assert [p.number for p in points] == list(range(size))
    for i, point in enumerate(points):
        for key, values in reversed(axes.items()):
            i, place = divmod(i, len(values))
            assert point.parameters[key] == values[place]


@given(st.dictionaries(st.sampled_from("abcd"), VALUES), st.randoms())
def test_ids_do_not_depend_on_how_parameters_are_written(parameters, random):
    """The order of keys, and 1 or 1.0, make no other id."""
    keys = list(parameters)
    random.shuffle(keys)
    as_floats = {k: float(v) if type(v) is int else v for k in keys for v in [parameters[k]]}
    assert id_of(as_floats) == id_of(parameters)


@given(st.dictionaries(st.sampled_from("ab"), VALUES), st.dictionaries(st.sampled_from("ab"), VALUES))
def test_other_parameters_have_other_ids(one, other):
    """Ids are the same for the same parameters only: true is not 1, text is no number."""
    alike = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (id_of(one) == id_of(other)) == alike


def test_ids_never_change():
    """An id that was once written is made again."""
    assert id_of({"optimiser.learning_rate": 1e-3, "network.settings.widths": [4, 8]}) == "49ead8bf3c70"


def test_overrides_name_axes_of_the_grid():
    """`--set grid.a.b=[3]` takes the place of the file's list `a.b`, in its place."""
    values = {"grid": {"a.b": [1, 2], "c": [5]}}
    overridden = check(
        SweepSpec,
        Document("s.yaml", {"kind": "call", "base": "os.getcwd", "output": {"path": "x"}, **values}, None),
        [parse_override("grid.a.b=[3]")],
    )
    assert list(axes_of(overridden.grid).items()) == [("a.b", [3]), ("c", [5])]


# Rules


@given(AXES, st.data())
def test_exclude_leaves_out_what_it_says_and_nothing_else(axes, data):
    """The points are those of the whole grid for which no rule holds, in the same order."""
    keys = data.draw(st.sets(st.sampled_from(sorted(axes)), min_size=1))
    rule = {k: data.draw(st.sampled_from(axes[k])) for k in sorted(keys)}
    whole = [p.parameters for p in points_of(sweep(grid=axes))]
    kept = [p for p in whole if any(canonical(p[k]) != canonical(v) for k, v in rule.items())]
    if kept:
        assert [p.parameters for p in points_of(sweep(grid=axes, exclude=[rule]))] == kept
    else:
        with pytest.raises(ConfigError, match="no point is left"):
            points_of(sweep(grid=axes, exclude=[rule]))


def test_rules_take_lists_and_spans():
    """A rule holds for each value of a list, and for numbers between least and most, both included."""
    assert holds({"a": [1, 2]}, {"a": 2})
    assert not holds({"a": [1, 2]}, {"a": 3})
    assert holds({"a": [1, 2]}, {"a": [1, 2]})
    assert [holds({"a": {"least": 2, "most": 3}}, {"a": x}) for x in (1.9, 2, 3, 3.1)] == [False, True, True, False]
    assert holds({}, {"a": 1})


def test_what_follows_is_set_before_parameters():
    """Rules apply in order; a parameter is set after what follows, and a label is set nowhere."""
    follow = [
        {"set": {"n.settings": {}}},
        {"when": {"model": "big"}, "set": {"n.name": "unet", "n.settings": {"depth": 5}}},
    ]
    made = points_of(sweep(grid={"n.settings.drop": [0.1], "model": ["small", "big"]}, labels=["model"], follow=follow))
    assert [list(p.settings.items()) for p in made] == [
        [("n.settings", {}), ("n.settings.drop", 0.1)],
        [("n.name", "unet"), ("n.settings", {"depth": 5}), ("n.settings.drop", 0.1)],
    ]
    assert made[1].parameters == {"n.settings.drop": 0.1, "model": "big"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "found none of grid, random, points"),
        ({"grid": {"a": [1]}, "points": [{"name": "b"}]}, "found grid and points"),
        ({"grid": {"a": 3}}, r"grid\.a: found 3; expected a list"),
        ({"grid": {"a": [1, 2, 1.0]}}, "holds a value twice"),
        ({"grid": {}}, "found no lists"),
        ({"grid": {"a": [1]}, "exclude": [{"b": 1}]}, "exclude: b is no parameter of this sweep; expected one of a"),
        ({"grid": {"a": [1]}, "exclude": [{"a": 2}]}, "exclude: a is never 2"),
        ({"grid": {"a": [1]}, "exclude": [{}]}, "an empty rule"),
        ({"grid": {"a": [1]}, "exclude": [{"a": {"last": 3}}]}, "expected least and most"),
        ({"grid": {"a": [1]}, "labels": ["b"]}, "labels: b is no parameter"),
        ({"grid": {"a": [1]}, "follow": [{"when": {"a": [1, 5]}, "set": {}}]}, "follow: a is never 5"),
        ({"points": [{"name": "b"}], "exclude": [{"a": 1}]}, "for a grid or random points"),
        ({"points": [{"name": "b"}, {"name": "c"}]}, "numbers 0 and 1 have the same parameters"),
        ({"points": [{"name": "b"}, {"name": "b", "set": {"a": 1}}]}, "have the same name"),
        ({"random": {"n": 3, "ranges": {"a": {"choice": [1, 2]}}}}, "only 2 of 3 points differ"),
        ({"random": {"n": 3, "ranges": {"a": {"log": [0, 1]}}}}, "begins at or below 0"),
        ({"random": {"n": 3, "ranges": {"a": {"uniform": [1, 1]}}}}, "is empty"),
        ({"random": {"n": 3, "ranges": {"a": {"log": [1, 2], "choice": [1]}}}}, "found log and choice"),
        ({"grid": {"a": [1]}, "score": {"run": "conf/slide.yaml"}}, "score.run is for kind train"),
        ({"grid": {"a": [1]}, "base": "tests.support.nothing.here"}, "cannot be imported"),
    ],
)
def test_wrong_sweeps_are_refused(more, words):
    """Each fault of a sweep is one sentence that says what was expected."""
    with pytest.raises(ConfigError, match=words):
        ask(sweep(**more))


def test_points_that_make_no_config_are_refused():
    """A parameter that the base config does not know, or a value that it does not take, names the point."""
    grid = {"optimiser.learning_rate": [0.1, -1], "batch": [8]}
    values = {"kind": "train", "base": "conf/train/small_unet.yaml", "output": {"path": "x"}}
    with pytest.raises(ConfigError, match=r"point 1: optimiser\.learning_rate=-1: .*above 0"):
        ask(spec_of({**values, "grid": grid}))
    with pytest.raises(ConfigError, match=r"optimiser\.learning_rat: unknown key; did you mean"):
        ask(spec_of({**values, "grid": {"optimiser.learning_rat": [0.1]}}))
    with pytest.raises(ConfigError, match=r"set: bach=4: bach: unknown key"):
        ask(spec_of({**values, "grid": {"batch": [4]}, "set": {"bach": 4}}))


# Draws

RANGES = {
    "rate": {"log": [1e-4, 1e-1]},
    "share": {"uniform": [-1, 2]},
    "count": {"integer": [1, 6]},
    "name": {"choice": ["a", "b", [1]]},
}


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_draws_are_reproducible_different_and_in_range(seed, n):
    """The same seed gives the same points; all differ and stay in their ranges."""
    random = Random.model_validate({"n": n, "seed": seed, "ranges": RANGES})
    points = list(drawn(random))
    assert points == list(drawn(random))
    assert len({canonical(p) for p in points}) == n
    for point in points:
        assert 1e-4 <= point["rate"] <= 1e-1
        assert -1 <= point["share"] <= 2
        assert point["count"] in range(1, 7)
        assert point["name"] in ("a", "b", [1])


def test_more_draws_leave_the_first_as_they_are():
    """More points, another order of parameters, or another parameter change no draw; another seed changes all."""

    def made(n, seed=1, ranges=RANGES):
        return list(drawn(Random.model_validate({"n": n, "seed": seed, "ranges": ranges})))

    assert made(30)[:10] == made(10)
    turned = dict(reversed(RANGES.items()))
    assert [canonical(p) for p in made(10, ranges=turned)] == [canonical(p) for p in made(10)]
    without = {k: v for k, v in RANGES.items() if k != "count"}
    assert made(10, ranges=without) == [{k: p[k] for k in without} for p in made(10)]
    assert all(a["rate"] != b["rate"] for a, b in zip(made(10), made(10, seed=2), strict=True))


def test_draws_are_even():
    """A logarithmic range has as many points in each decade, a uniform one on each side of its middle."""
    points = list(drawn(Random.model_validate({"n": 900, "ranges": RANGES})))
    decades = Counter(min(int(p["rate"] * 1e4 >= 10) + int(p["rate"] * 1e4 >= 100), 2) for p in points)
    assert all(240 < decades[i] < 360 for i in range(3))
    assert 390 < sum(p["share"] < 0.5 for p in points) < 510
    assert all(110 < n < 190 for n in Counter(p["count"] for p in points).values())


# The sweeps that are shipped


def shipped(name, *sets):
    return read(SweepSpec, f"conf/sweep/{name}.yaml", sets)


@pytest.mark.parametrize("name", ["quick", "decode", "system_a"])
def test_shipped_sweeps_are_right(name):
    """Each can be asked for as it stands and is described."""
    asked = ask(shipped(name))
    assert f"{len(asked.points)} points of kind" in describe(asked)


def test_system_a_grid_is_its_8192_points():
    """The grid has exactly the authors' factors, every combination once."""
    points = points_of(shipped("small_unet_grid"))
    factors = {
        "optimiser.name": ["adam", "sgd"],
        "optimiser.learning_rate": [1e-2, 1e-3, 1e-4, 5e-5],
        "network.settings.dropout": [0.3, 0.5],
        "batch": [11, 22, 44, 121],
        "sampling.images": [11, 22, 44, 121],
        "sampling.divisions": [1, 8, 16, 32],
        "sampling.blank": [False, True],
        "model": ["simple_conv", "small_unet", "small_unet_less", "unet"],
    }
    assert len(points) == 8192
    assert {canonical(p.parameters) for p in points} == {
        canonical(p.parameters) for p in points_of(sweep(grid=factors))
    }


def test_system_a_grid_has_networks_that_take_its_patches():
    """Every point makes a training config, whose network is the one meant and takes patches of its size."""
    spec = shipped("small_unet_grid", "grid.batch=[44]", "grid.sampling.images=[22]", "grid.optimiser.name=[sgd]")
    asked = ask(spec)
    assert len(asked.points) == 256
    made = {"simple_conv": "simple_conv", "small_unet": "small_unet_dense", "small_unet_less": "unet", "unet": "unet"}
    for point in asked.points:
        overrides = [parse_override(o) for o in point.overrides]
        config = check(TrainSpec, Document("base", asked.base, None), overrides)
        assert config.network.name == made[point.parameters["model"]]
        assert config.network.settings["dropout"] == point.parameters["network.settings.dropout"]
        division = point.parameters["sampling.divisions"]
        check_size(
            (512 // division, 640 // division), networks.architecture(config.network.name, config.network.settings)
        )


def test_system_a_rows_are_those_of_the_benchmark(monkeypatch):
    """The star of rows is the benchmark's, by name and setting."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    rows = runpy.run_path(str(ROOT / "benchmarks" / "system_a.py"))["ROWS"]
    sys.modules.pop("timing", None)
    points = points_of(shipped("system_a"))
    for point, (name, sets) in zip(points, rows.items(), strict=True):
        parsed = [parse_override(text) for text in sets]
        assert (point.name, point.settings) == (name, {".".join(o.loc): o.value for o in parsed})


def test_the_decode_sweep_needs_one_run():
    """Points that differ in the section decode alone share their class maps; other settings do not."""
    assert runs_of(ask(shipped("decode"))) == 1
    assert runs_of(ask(shipped("decode", "grid.model.tta=[none, flips]", "grid.tiling.core_px=[512, 1024]"))) == 2
