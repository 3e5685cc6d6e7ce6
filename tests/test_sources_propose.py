"""Laws of proposals: what is proposed reads the names, tells all of them apart, and makes nothing up."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidebatch.config import parse_override
from slidebatch.errors import ConfigError
from slidebatch.sources import InputSpec, find
from slidebatch.sources.pattern import compile_pattern, fitting
from slidebatch.sources.propose import propose

WELLS = ("B02", "B03", "C02", "D11")
TWO = ("1", "2")


def names(form: str, **values: tuple[str, ...]) -> list[str]:
    """Names of every combination of values."""
    return [form.format(**dict(zip(values, row, strict=True))) for row in itertools.product(*values.values())]


@pytest.mark.parametrize(
    ("form", "values", "key", "value"),
    [
        ("Plate7_{w}_s{s}_w{c}.tif", {"w": WELLS, "s": TWO, "c": TWO}, "preset", "imagexpress"),
        ("r{r}c{k}f01p01-ch{c}sk1fk1fl1.tiff", {"r": ("01", "02"), "k": ("03", "04"), "c": TWO}, "preset", "operetta"),
        ("p_{w}_T0001F00{f}L01A01Z01C0{c}.tif", {"w": WELLS, "f": TWO, "c": TWO}, "preset", "cellvoyager"),
        (
            "Well {w}/img_00{f}_{c}.tif", {"w": WELLS, "f": TWO, "c": ("FITC", "Hoechst")},
            "pattern", "Well {well}/img_{field}_{channel}.tif",
        ),
        ("{w}_{c}.tif", {"w": WELLS, "c": ("A594", "DAPI")}, "pattern", "{well}_{channel}.tif"),
        ("x_r{r}_c{k}_f{f}.png", {"r": TWO, "k": TWO, "f": TWO}, "pattern", "x_r{row}_c{column}_f{field}.png"),
        (
            "p_{r}_{k}_{c}.tif", {"r": ("A", "B"), "k": TWO, "c": ("a9", "b")},
            "pattern", "p_{row}_{column}_{channel}.tif",
        ),
        (
            "P{p}/{w}/{w}_{f}_z{z}_ch{c}.ome.tif", {"p": TWO, "w": WELLS, "f": TWO, "z": TWO, "c": TWO},
            "pattern", "{plate}/{well}/{well}_{field}_z{z}_ch{channel}.ome.tif",
        ),
        ("{s}_{c}.tif", {"s": ("liver", "lung", "skin"), "c": ("DAPI", "GFP")}, "pattern", "{slide}_{channel}.tif"),
    ],
)  # fmt: skip
def test_usual_names_are_read(form: str, values: dict[str, tuple[str, ...]], key: str, value: str) -> None:
    """Names as instruments and people write them give the preset or the pattern that one would write."""
    made = names(form, **values)
    found = propose(made)
    assert found is not None
    assert (found.key, found.value, found.fits, found.of) == (key, value, len(made), len(made))


def test_a_number_for_each_well_is_no_field() -> None:
    """A number that says no more than the well is the image's, so that no well has a field 96."""
    wells = enumerate(itertools.product("ABC", range(1, 13)), 1)
    made = [f"Channel{c}-{n:02d}-{r}-{k:02d}.tif" for n, (r, k) in wells for c in TWO]
    found = propose(made)
    assert found is not None
    assert found.value == "Channel{channel}-{image}-{row}-{column}.tif"


@pytest.mark.parametrize(
    "made",
    [
        [], ["a.tif"], ["tumour.tif", "liver.tif"], [f"slide{n}.svs" for n in range(9)],
        ["TCGA-3C-AAAU-01A.svs", "TCGA-3C-AALI-01A.svs", "TCGA-4H-AAAK-01A.svs"],
    ],
)  # fmt: skip
def test_slides_are_no_plate(made: list[str]) -> None:
    """Names of slides, which have neither wells nor channels that all of them share, propose nothing."""
    assert propose(made) is None


WORD = st.text("abxYZ09", min_size=1, max_size=3)


@given(st.lists(st.lists(WORD, min_size=1, max_size=4).map(lambda w: "_".join(w) + ".tif"), max_size=12, unique=True))
def test_what_is_proposed_reads_the_names_apart(made: list[str]) -> None:
    """Whatever the names are, a proposed pattern compiles, reads as many as it says, and no two of them the same."""
    found = propose(made)
    if found is None or found.key != "pattern":
        return
    read = [tuple(sorted(fields.items())) for name in made if (fields := compile_pattern(found.value).match(name))]
    assert len(read) >= found.fits
    assert len(set(read)) == len(read)
    assert 2 * found.fits >= found.of == len(made)


def touch(folder: Path, made: list[str]) -> Path:
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_pattern_that_fits_nothing_is_answered_by_one_that_does(tmp_path: Path) -> None:
    """The sentence shows a name, how far it fits, and the setting that reads it, which then finds all images."""
    touch(tmp_path, names("X7-{w}-s{s}-{c}.tif", w=WELLS, s=TWO, c=("DAPI", "GFP")))
    with pytest.raises(ConfigError) as refused:
        find(InputSpec(path=str(tmp_path), pattern="{plate}-{well}-f{field}-{channel}.tif"))
    said = str(refused.value)
    assert "fits '{plate}-{well}', but what follows is not '-f{field}-{channel}.tif'" in said
    assert "--set 'input.pattern=X7-{well}-s{field}-{channel}.tif' reads all 16 names" in said
    assert "row B, column 02, field 1, channel DAPI" in said
    assert len(find(InputSpec(path=str(tmp_path), pattern="X7-{well}-s{field}-{channel}.tif")).sources) == 8


@pytest.mark.parametrize("pattern", [None, "{well}_{channel}.tif"])
def test_images_in_folders_below_are_answered_by_a_pattern(tmp_path: Path, pattern: str | None) -> None:
    """A folder whose images lie in its sub-folders is refused with the pattern that names those."""
    touch(tmp_path, names("{w}/{c}.tif", w=WELLS, c=("DAPI", "GFP")))
    with pytest.raises(ConfigError, match=r"input.pattern=\{well\}/\{channel\}.tif' reads all 8 names"):
        find(InputSpec(path=str(tmp_path), pattern=pattern))


def test_how_far_a_name_fits() -> None:
    """What of a pattern a name's beginning fits, and the rest, make the pattern."""
    assert fitting("{well}_{channel}.tif", "B02-DAPI.tif") == ("{well}", "_{channel}.tif")
    assert fitting("x{well}.tif", "B02.tif") == ("", "x{well}.tif")


def test_patterns_need_no_quotes_of_their_own() -> None:
    """A pattern that begins with a brace is text on the command line, though YAML would read a mapping."""
    for text in ("{well}_{channel}.tif", "{well}", "Channel{channel}.tif"):
        assert parse_override(f"input.pattern={text}").value == text
