"""Laws of collecting: the table is the results, effects are means, the front is not beaten, the report shows it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidebatch.cli import status_of
from slidebatch.errors import ResultsError
from slidebatch.store import write_json
from slidebatch.sweep import Sweep, ask, begin, run_job
from slidebatch.sweep.collect import Collected, collect
from slidebatch.sweep.effects import effects, front
from slidebatch.sweep.report import markdown, sections
from tests.support.sweeps import begun, read, results


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)


def scored(folder: Path, worth, **axes) -> Collected:
    """A sweep over axes with results as a function of the parameters, without running it."""
    values = {"kind": "call", "base": "tests.support.sweep_points.point", "output": {"path": str(folder)}}
    sweep = begin(ask(read({**values, "grid": {k: list(v) for k, v in axes.items()}})))
    for point in sweep.points:
        found = {"number": point.number, "id": point.id, "name": "", "parameters": point.parameters, "state": "done"}
        cost = {"wall_s": float(point.number + 1), "cpu_s": 1.0, "peak_bytes": 1, "host": "h"}
        told = {"metrics": {"dsb": worth(**point.parameters)}, "facts": {}, "notes": [], "cost": cost}
        write_json(sweep.result(point), {"sweep": sweep.digest, **found, **told, "failures": [], "deaths": 0})
    return collect(folder)


def parquet(sweep: Sweep) -> pd.DataFrame:
    return pd.read_parquet(sweep.folder / "table.parquet")


def test_collect_equals_the_results(tmp_path, capsys):
    """One row a result, in order, with its parameters, metrics, costs and errors; parquet and CSV are the same."""
    sweep = begun(tmp_path, 6, points_per_job=3, set={"broken": [1]}, retries=1)
    run_job(sweep.folder, 0)
    assert status_of(["sweep-collect", str(sweep.folder)]) == 0
    assert "3 of 6 points" in capsys.readouterr().out
    run_job(sweep.folder, 1)
    assert status_of(["sweep-collect", str(sweep.folder)]) == 0
    table = parquet(sweep)
    assert list(table["number"]) == list(range(6))
    assert table["x"].dtype == np.int64
    for row in table.to_dict("records"):
        found = results(sweep)[row["number"]]
        assert (row["id"], row["state"], row["x"]) == (found["id"], found["state"], found["parameters"]["x"])
        assert (row["failures"], row["deaths"], row["error"]) == (len(found["failures"]), 0, found.get("error", ""))
        for name in ("wall_s", "cpu_s", "peak_bytes", "host", "gpu"):
            assert row[f"cost.{name}"] == found["cost"][name]
        square = row["score.square"]
        assert (None if np.isnan(square) else square) == found["metrics"].get("square")
        assert np.isnan(row["score.nothing"])
    written = pd.read_csv(sweep.folder / "table.csv", keep_default_na=True)
    pd.testing.assert_frame_equal(written[["number", "x", "score.square"]], table[["number", "x", "score.square"]])


def test_parameters_that_a_point_does_not_set_are_the_base_configs(tmp_path):
    """A row of points that are written out shows the base's value, defaults filled in; lists are JSON."""
    values = {"kind": "train", "base": "conf/train/system_a.yaml", "output": {"path": str(tmp_path / "s")}}
    points = [
        {"name": "base"},
        {"name": "few", "set": {"batch": 11, "loss.class_weights": [1, 1, 1]}},
        {"name": "seeded", "set": {"seed": 4, "network.name": "unet", "network.settings": {}}},
    ]
    sweep = begin(ask(read({**values, "points": points})))
    for point in sweep.points:
        head = {"number": point.number, "id": point.id, "name": point.name, "parameters": point.parameters}
        told = {"metrics": {"held_out": 0.5}, "facts": {"weights": "w"}, "notes": [], "cost": {"wall_s": 1.0}}
        end = {"state": "done", "failures": [], "deaths": 0}
        write_json(sweep.result(point), {"sweep": sweep.digest, **head, **told, **end})
    table = collect(sweep.folder).table
    assert list(table["name"]) == ["base", "few", "seeded"]
    assert list(table["batch"]) == [44, 11, 44]
    assert list(table["seed"]) == [0, 0, 4]
    assert list(table["network.name"]) == ["small_unet_dense", "small_unet_dense", "unet"]
    assert [json.loads(v) for v in table["loss.class_weights"]] == [[0.01, 1.0, 0.95], [1, 1, 1], [0.01, 1.0, 0.95]]


def test_ranking(tmp_path):
    """Points are ranked by the measure asked for, best first, equal ones in their order."""
    found = scored(tmp_path / "s", lambda x: float(x % 3), x=range(6))
    assert found.measure == "score.dsb"
    assert list(found.ranked["x"]) == [2, 5, 1, 4, 0, 3]
    sweep = begun(tmp_path, 4, score={"measure": "square", "largest": False})
    run_job(sweep.folder, 0)
    assert list(collect(sweep.folder).ranked["x"]) == [0, 1, 2, 3]
    begun(tmp_path, 4, score={"measure": "cube"})
    with pytest.raises(ResultsError, match="no result has cube; there are square"):
        collect(sweep.folder)


def test_nothing_to_collect(tmp_path):
    """Without a result there is no table; where all have failed there is one, without a ranking."""
    sweep = begun(tmp_path, 2, set={"broken": [0, 1]}, retries=0)
    with pytest.raises(ResultsError, match="no results yet"):
        collect(sweep.folder)
    run_job(sweep.folder, 0)
    assert status_of(["sweep-collect", str(sweep.folder)]) == 0
    found = collect(sweep.folder)
    assert (found.measure, len(found.table), effects(found)) == (None, 2, [])
    assert "point 1 is broken" in (sweep.folder / "report" / "report.md").read_text()


def test_effects_are_means_and_shares_of_variance(tmp_path):
    """In a sum of two parameters each one's means are its own, and the shares add up to all of the variance."""
    found = scored(tmp_path / "s", lambda a, b: 3.0 * a + 1.0 * b, a=[0, 1], b=[0, 1, 2])
    first, second = effects(found)
    assert (first.parameter, second.parameter) == ("a", "b")
    assert list(first.values["mean"]) == [1, 4]
    assert list(second.values["mean"]) == [1.5, 2.5, 3.5]
    assert list(second.values["points"]) == [2, 2, 2]
    variances = np.array([9 / 4, 2 / 3])
    np.testing.assert_allclose([first.share, second.share], variances / variances.sum())


def test_many_numbers_are_put_together(tmp_path):
    """A drawn parameter's effect is shown in quarters of its values, which hold all points."""
    found = scored(tmp_path / "s", lambda a: float(a), a=[i / 7 for i in range(40)])
    (effect,) = effects(found)
    assert list(effect.values["points"]) == [10, 10, 10, 10]
    assert effect.values["mean"].is_monotonic_increasing


POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS, st.booleans())
def test_the_front_is_what_no_other_beats(points, largest):
    """A point is on it exactly if no other is as cheap and better, or cheaper and as good; of equals, one."""
    cost, score = (pd.Series(v, dtype=float) for v in zip(*points, strict=True))
    on = front(cost, score, largest)
    sign = 1 if largest else -1
    for i, (c, s) in enumerate(points):
        beaten = any((d <= c and sign * t > sign * s) or (d < c and t == s) for d, t in points)
        same = [j for j, p in enumerate(points) if p == (c, s)]
        assert sum(on[j] for j in same) == (0 if beaten else 1), (i, points)


def test_the_report_shows_points_effects_costs_and_failures(tmp_path):
    """The page holds its pictures, and both forms the best point, the means and the failures, names escaped."""
    found = scored(tmp_path / "s", lambda a, b: a + (b == "<i>"), a=[0.25, 0.75], b=["<i>", "c|d"])
    assert status_of(["sweep-collect", str(tmp_path / "s")]) == 0
    report = tmp_path / "s" / "report"
    page, text = (report / "index.html").read_text(), (report / "report.md").read_text()
    assert len(re.findall(r'src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]{1000,}"', page)) == 2
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert re.search(r"\| 2 \| 0\.75 \| <i> \| 1\.75 \| 3 \|", text)
    for name in ("cost.png", "effects.png"):
        assert f"({name})" in text
        assert (report / name).read_bytes().startswith(b"\x89PNG")
    assert "c\\|d" in text
    titles = [s.title for s in sections(found, effects(found), ["cost.png", "effects.png"])]
    assert titles == ["Summary", "Best points", "Effect of each parameter", "Cost against score"]
    assert markdown("n", []).startswith("# n")


def test_every_column_can_be_written(tmp_path):
    """Columns of any mixture of JSON values go to parquet and come back as they are or as JSON."""
    kinds = [1, 2.5, "a", None, True, [1], {"k": 1}]
    for number, pair in enumerate(itertools.combinations(kinds, 2)):
        found = scored(tmp_path / str(number), lambda a: 1.0, a=pair)
        assert status_of(["sweep-collect", str(found.sweep.folder)]) == 0
        back = list(parquet(found.sweep)["a"])
        for value, wanted in zip(back, pair, strict=True):
            missing = wanted is None and (value is None or value != value)
            assert missing or value == wanted or json.loads(value) == wanted
