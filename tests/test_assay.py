"""Figures of an assay: separation of controls, bootstrap intervals, dose response; of arrays and of a real run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import norm, spearmanr

import slidebatch
from slidebatch.assay import (
    AssaySpec,
    bootstrap,
    dose_medians,
    ec50_interval,
    four_parameter_fit,
    robust_zprime,
    spearman,
    ssmd,
    zprime,
)
from slidebatch.cli import status_of
from slidebatch.errors import ConfigError, ResultsError
from slidebatch.plate_assay import describe, judge
from slidebatch.results import Results
from slidebatch.store import read_json

Floats = npt.NDArray[np.float64]
VALUES = st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=2, max_size=12)


def test_figures_of_known_wells() -> None:
    """The figures of wells worked out by hand."""
    negative, positive = np.array([1.0, 2.0, 3.0]), np.array([20.0, 22.0, 24.0])
    assert zprime(negative, positive) == pytest.approx(1 - 3 * (1 + 2) / 20)
    assert ssmd(negative, positive) == pytest.approx(20 / math.sqrt(5))
    assert robust_zprime(negative, positive) == pytest.approx(1 - 3 * 1.4826 * (1 + 2) / 20)
    odd = np.array([1.0, 2.0, 3.0, 2.0, 2.0, 90.0])
    assert robust_zprime(odd, positive) == pytest.approx(1 - 3 * 1.4826 * (0.5 + 2) / 20), "one odd well hardly counts"
    assert zprime(odd, positive) < 0


def test_what_cannot_be_told_apart() -> None:
    """Groups that agree have no separation, groups that do not vary an endless difference, single wells no figure."""
    same = np.array([1.0, 2.0])
    assert zprime(same, same) == -math.inf
    assert ssmd(same, same) == 0
    assert ssmd(np.ones(3), np.full(3, 2.0)) == math.inf
    assert ssmd(np.full(3, 2.0), np.ones(3)) == -math.inf
    assert math.isnan(ssmd(np.ones(3), np.ones(3)))
    for figure in (zprime, robust_zprime, ssmd):
        assert math.isnan(figure(np.ones(1), same))


@settings(max_examples=100, deadline=None)
@given(VALUES, VALUES, st.floats(0.1, 10), st.floats(-50, 50))
def test_figures_do_not_depend_on_units(one: list[float], other: list[float], scale: float, shift: float) -> None:
    """Other units, or a shifted zero, change no figure; the groups changed about turn the sign of SSMD alone."""
    a, b = np.array(one), np.array(other)
    if np.ptp(a) < 0.1 or np.ptp(b) < 0.1 or abs(a.mean() - b.mean()) < 0.1 or abs(np.median(a) - np.median(b)) < 0.1:
        return
    for figure in (zprime, robust_zprime, ssmd):
        assert figure(a * scale + shift, b * scale + shift) == pytest.approx(figure(a, b), rel=1e-6, abs=1e-6)
    assert zprime(b, a) == pytest.approx(zprime(a, b))
    assert ssmd(b, a) == pytest.approx(-ssmd(a, b))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of many plates drawn from one truth, most intervals hold the figure of endless wells, and some do not."""
    rng, held = np.random.default_rng(0), 0
    truth = 1 - 3 * (1 + 2) / 20
    for plate in range(100):
        low, high = bootstrap(zprime, rng.normal(0, 1, 30), rng.normal(20, 2, 30), 300, plate)
        held += low <= truth <= high
    assert 80 <= held < 100


def test_intervals_follow_the_seed() -> None:
    """The same seed gives the same interval; no draws, or one well, none."""
    a, b = np.random.default_rng(0).normal(0, 1, 8), np.random.default_rng(1).normal(9, 1, 8)
    assert bootstrap(ssmd, a, b, 200, 3) == bootstrap(ssmd, a, b, 200, 3) != bootstrap(ssmd, a, b, 200, 4)
    low, high = bootstrap(zprime, a, b, 500, 0)
    assert low < zprime(a, b) < high
    for few in (bootstrap(zprime, a, b, 0, 0), bootstrap(zprime, a[:1], b, 9, 0)):
        assert all(math.isnan(end) for end in few)


# Doses


def curve(x: Floats, bottom: float, top: float, ec50: float, hill: float) -> Floats:
    with np.errstate(divide="ignore"):
        return bottom + (top - bottom) / (1 + (ec50 / x) ** hill)


@settings(max_examples=60, deadline=None)
@given(
    bottom=st.floats(-5, 5),
    rise=st.floats(0.5, 20),
    falls=st.booleans(),
    place=st.floats(0.15, 0.85),
    hill=st.floats(0.6, 5),
)
def test_a_curve_without_noise_is_found(bottom: float, rise: float, falls: bool, place: float, hill: float) -> None:
    """Responses that lie on a curve give back its EC50, slope and ends, rising or falling, dose 0 among them."""
    dose = np.repeat([0, *np.geomspace(0.01, 100, 12)], 2)
    top = bottom - rise if falls else bottom + rise
    ec50 = float(0.01 * 10_000**place)
    fit = four_parameter_fit(dose, curve(dose, bottom, top, ec50, hill))
    assert fit.ec50 == pytest.approx(ec50, rel=1e-3)
    assert fit.hill == pytest.approx(hill, rel=1e-2)
    assert (fit.bottom, fit.top) == (pytest.approx(bottom, abs=0.01 * rise), pytest.approx(top, abs=0.01 * rise))
    assert fit.r_squared > 0.9999
    assert fit.inside
    np.testing.assert_allclose(fit.at(dose), curve(dose, bottom, top, ec50, hill), atol=0.01 * rise)


@pytest.mark.parametrize("seed", range(8))
def test_no_other_curve_lies_nearer(seed: int) -> None:
    """On noisy wells the squared distance is not larger than what SciPy's curve_fit reaches from the true curve."""
    rng = np.random.default_rng(seed)
    dose = np.repeat([0.0, 0.1, 0.3, 1, 3, 10, 30], 4)
    true = (1.0, 5.0, float(rng.uniform(0.3, 8)), float(rng.uniform(0.8, 3)))
    response = curve(dose, *true) + rng.normal(0, 0.3, len(dose))
    fit = four_parameter_fit(dose, response)
    theirs, _ = curve_fit(curve, dose, response, p0=true, bounds=([-9, -9, 1e-3, 0.1], [9, 9, 1e3, 20]))
    ours = float(((fit.at(dose) - response) ** 2).sum())
    assert ours <= float(((curve(dose, *theirs) - response) ** 2).sum()) * (1 + 1e-6)
    low, high = ec50_interval(dose, response, 60, 0)
    assert low < fit.ec50 < high


def test_an_ec50_beyond_the_doses_is_called_a_guess() -> None:
    """Responses that only begin to rise at the largest dose give an EC50 that says it lies outside."""
    dose = np.repeat([0.0, 1, 2, 4, 8], 3)
    assert not four_parameter_fit(dose, curve(dose, 0, 10, 60, 2)).inside


def test_too_few_doses() -> None:
    """Fewer than four doses make no curve."""
    with pytest.raises(ValueError, match="four different doses at least, found 3"):
        four_parameter_fit(np.array([0.0, 1, 2]), np.array([1.0, 2, 3]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=20))
def test_rank_correlation_equals_scipys(pairs: list[tuple[int, int]]) -> None:
    """Spearman's correlation, ties included, is SciPy's; NaN where one side does not vary."""
    a, b = np.array(pairs, np.float64).T
    ours = spearman(a, b)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(float(spearmanr(a, b).statistic))


def test_medians_by_dose() -> None:
    """Each dose once, ascending, with the median of its wells."""
    doses, medians = dose_medians(np.array([2.0, 0, 2, 0, 2]), np.array([5.0, 1, 9, 3, 6]))
    assert (doses.tolist(), medians.tolist()) == ([0, 2], [2, 6])


def test_the_scaled_deviation_is_the_normal_one() -> None:
    """The factor of robust Z' makes a normal distribution's median deviation its standard deviation."""
    from slidebatch.assay.quality import NORMAL

    assert pytest.approx(1 / norm.ppf(0.75), abs=1e-4) == NORMAL


# From results


@pytest.fixture
def sample(sample_plate: Path) -> Path:
    return sample_plate


@pytest.fixture
def readout() -> AssaySpec:
    return AssaySpec(column="nucleus_to_ring_GFP", resamples=100)


def test_the_sample_assay(sample: Path, readout: AssaySpec) -> None:
    """The made-up assay is found to be what it was made: controls far apart, response rising with dose."""
    [assay] = judge(sample, readout)
    assert (assay.wells, assay.empty) == (11, 1)
    assert assay.controls is not None
    assert (assay.controls.fact, assay.controls.negative, assay.controls.positive) == ("control", 3, 2)
    wells = slidebatch.open_results(sample).wells(["nucleus_to_ring_GFP"]).set_index("control")["nucleus_to_ring_GFP"]
    negative, positive = wells["negative"].to_numpy(), wells["positive"].dropna().to_numpy()
    assert assay.controls.zprime.value == pytest.approx(zprime(negative, positive))
    assert assay.controls.zprime.value > 0.5
    assert assay.controls.ssmd.value > 5
    assert assay.doses is not None
    assert assay.doses.doses == (0, 0.1, 1, 10)
    assert assay.doses.spearman == 1
    assert assay.doses.fit is not None
    assert 0.3 < assay.doses.fit.ec50 < 3, "it was made with 0.7"


def test_the_config_names_the_readout(sample: Path, readout: AssaySpec) -> None:
    """Without a spec, what the run's config says counts; a readout that nobody names is asked for."""
    opened = slidebatch.open_results(sample)
    with pytest.raises(ConfigError, match="no readout is named"):
        judge(opened)
    manifest = {**opened.manifest, "config": {"assay": {"column": "mean_GFP", "resamples": 10}}}
    assert judge(Results(sample, manifest))[0].column == "mean_GFP"


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"column": "mean_RFP"}, ResultsError, "no column 'mean_RFP'; did you mean mean_GFP"),
        ({"control": "kind"}, ConfigError, "assay.control names 'kind', but the facts of the wells are"),
        ({"positive": "drug"}, ConfigError, "0 wells with nuclei are positive controls by control"),
        ({"dose": "control"}, ConfigError, "holds doses that are no numbers"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    sample: Path, readout: AssaySpec, said: dict[str, str], error: type[Exception], words: str
) -> None:
    """A readout, fact or value that is not there is refused in one sentence."""
    with pytest.raises(error, match=words) as told:
        judge(sample, readout.model_copy(update=said))
    assert "\n" not in str(told.value)


def edited(sample: Path, change: Callable[[dict[str, Any]], None]) -> Results:
    """The results with other facts of their fields."""
    manifest = read_json(sample / "manifest.json")
    for entry in manifest["slides"]:
        change(entry)
    return Results(sample, manifest)


def test_controls_and_doses_by_number(sample: Path, readout: AssaySpec) -> None:
    """Controls written as -1 and 1 are those of words; without such facts there are no figures, and that is said."""

    def numbered(entry: dict[str, Any]) -> None:
        entry["facts"]["control"] = {"negative": "-1", "positive": "1"}.get(entry["facts"]["control"], "0")

    assert judge(edited(sample, numbered), readout)[0].controls == judge(sample, readout)[0].controls
    [bare] = judge(edited(sample, lambda entry: entry["facts"].clear()), readout)
    assert bare.controls is bare.doses is None
    assert "no fact tells controls" in describe(bare)
    assert "no fact tells doses" in describe(bare)

    def twice(entry: dict[str, Any]) -> None:
        entry["facts"]["dose_nm"] = "1"

    with pytest.raises(ConfigError, match=r"several facts could be meant \(dose_um, dose_nm\); set assay.dose"):
        judge(edited(sample, twice), readout)


def test_plates_are_judged_apart(sample: Path, readout: AssaySpec) -> None:
    """Each plate of a run has figures of its own."""
    both = edited(sample, lambda entry: None)
    again = [{**entry, "plate": "second"} for entry in both.manifest["slides"]]
    found = judge(Results(sample, {**both.manifest, "slides": [*both.manifest["slides"], *again]}), readout)
    assert [one.plate for one in found] == ["sample", "second"]
    assert found[0].controls == found[1].controls


def test_the_command_prints_what_is_found(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`slidebatch assay` prints the figures and writes them as JSON; without a readout its status is 2."""
    file = tmp_path / "deep" / "assay.json"
    words = ["--column", "nucleus_to_ring_GFP", "--resamples", "50", "--json", str(file)]
    assert status_of(["assay", str(sample), *words]) == 0
    told = capsys.readouterr().out
    [written] = json.loads(file.read_text())
    assert f"Z' {written['controls']['zprime']['value']:.3g} (" in told
    assert f"EC50 {written['doses']['fit']['ec50']:.3g}" in told
    assert "Spearman of dose medians 1" in told
    assert status_of(["assay", str(sample)]) == 2
    assert "no readout is named" in capsys.readouterr().err
