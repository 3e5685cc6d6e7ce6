"""Laws of finding inputs: nothing is lost, nothing doubled, whatever is wrong is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from slidebatch.errors import ConfigError
from slidebatch.slides.source import SourceFile
from slidebatch.sources import Found, InputSpec, called, find, regions_path
from slidebatch.sources.names import natural, row_letters, row_number, safe, unique
from slidebatch.sources.pattern import compile_pattern

REAL = "Channel{channel}-{image}-{row}-{column}.tif"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def by_pattern(folder: Path, pattern: str, **more: Any) -> Found:
    return find(InputSpec(path=str(folder), pattern=pattern, **more))


def ids(found: Found) -> list[str]:
    return [source.slide for source in found.sources]


# Patterns


def test_a_pattern_reads_its_own_names_back() -> None:
    """What a pattern's fields are filled with is what it reads from the name."""
    pattern = compile_pattern("{plate}/x(1)+[{well}]_f{field}_{channel}-*.tif")
    assert pattern.match("p_1/x(1)+[B07]_f12_GFP-.tif") == {
        "plate": "p_1", "well": "B07", "field": "12", "channel": "GFP",
    }  # fmt: skip
    assert pattern.match("p_1/x(1)+[B07]_f12_GFP-z9.tif") is not None
    assert pattern.match("p_1/x1+[B07]_f12_GFP-.tif") is None
    assert pattern.match("q/p_1/x(1)+[B07]_f12_GFP-.tif") is None


@given(
    row=st.sampled_from(["A", "h", "P", "AF"]), column=st.integers(1, 48), field=st.integers(0, 9999),
    channel=st.text("abcXYZ019 -.+", min_size=1, max_size=6), z=st.integers(0, 99),
)  # fmt: skip
def test_patterns_read_any_values(row: str, column: int, field: int, channel: str, z: int) -> None:
    """Whatever values the fields hold, the pattern reads the same ones from the name."""
    pattern = compile_pattern("{row}{column}_{field}_{channel}_z{z}.ome.tif")
    found = pattern.match(f"{row}{column}_{field}_{channel}_z{z}.ome.tif")
    assert found == {"row": row, "column": str(column), "field": str(field), "channel": channel, "z": str(z)}


def test_a_field_named_twice_must_agree() -> None:
    """A field that a pattern names twice matches only the same text twice."""
    pattern = compile_pattern("{plate}/{plate}_{well}.tif")
    assert pattern.match("p/p_A01.tif") is not None
    assert pattern.match("p/q_A01.tif") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{well", "brace"), ("well}_{field}", "brace"), ("{well}{field}.tif", "nothing tells"), ("{a}{b}", "nothing"),
        ("{field}{z}", "nothing tells"), ("{field:d}.tif", "is no field"), ("{}.tif", "is no field"),
        ("x.tif", "no field"), ("{channel}*.tif", "nothing tells"),
    ],
)  # fmt: skip
def test_patterns_that_say_nothing_are_refused(text: str, words: str) -> None:
    """Stray braces, odd names and fields that run together are refused by a sentence."""
    with pytest.raises(ConfigError, match=words):
        compile_pattern(text)


# Plates of files


@pytest.mark.realdata
def test_the_real_plate(realdata: Path) -> None:
    """All 96 wells of the real plate in order, two channels each, dose and control joined from its table."""
    found = by_pattern(realdata / "plate_sbs", REAL, facts=str(realdata / "plate_sbs" / "1049_Metadata.csv"))
    assert ids(found) == [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)]
    assert found.plate
    assert not found.faults
    assert all([f.channel for f in s.files] == ["1", "2"] for s in found.sources)
    assert all(Path(f.path).is_file() for s in found.sources for f in s.files)
    controls = [dict(source.facts)["SBS_Controls"] for source in found.sources]
    assert (controls.count("-1"), controls.count("1")) == (16, 8)
    assert dict(found.sources[2].facts) == {"image": "3", "SBS_Doses": "1", "SBS_Controls": "0"}


def plate(folder: Path, wells: str = "A01 A02 B11", fields: int = 2) -> Path:
    names = [f"p_{w}_f{f}_{c}.tif" for w in wells.split() for f in range(1, fields + 1) for c in ("GFP", "DNA")]
    return touch(folder, *names)


FIELDS = "{plate}_{well}_f{field}_{channel}.tif"


def test_fields_of_wells_are_found_in_order(tmp_path: Path) -> None:
    """Several fields per well give ids with the field; one plate needs no name in them."""
    found = by_pattern(plate(tmp_path, fields=11), FIELDS, mpp=0.65)
    assert ids(found)[:2] + ids(found)[10:12] == ["A01_f1", "A01_f2", "A01_f11", "A02_f1"]
    one = found.sources[0]
    assert (one.plate, one.row, one.column, one.field, one.well, one.mpp) == ("p", "A", "01", 1, "A01", 0.65)
    assert one.files == tuple(SourceFile(str(tmp_path / f"p_A01_f1_{c}.tif"), "", c) for c in ("DNA", "GFP"))
    (tmp_path / "single").mkdir()
    assert ids(by_pattern(plate(tmp_path / "single", fields=1), FIELDS)) == ["A01", "A02", "B11"]


def test_a_missing_channel_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A field without one of the plate's channels is quarantined by name; no other field is touched."""
    plate(tmp_path)
    (tmp_path / "p_A02_f1_DNA.tif").unlink()
    found = by_pattern(tmp_path, FIELDS)
    assert ids(found) == ["A01_f1", "A01_f2", "A02_f2", "B11_f1", "B11_f2"]
    (fault,) = found.faults
    assert fault.slide == "A02_f1"
    assert fault.paths == (str(tmp_path / "p_A02_f1_GFP.tif"),)
    assert "channel DNA is missing" in fault.sentence


def test_two_files_for_one_field_are_named(tmp_path: Path) -> None:
    """Two files for the same channel of a field quarantine that field with both names."""
    plate(tmp_path)
    touch(tmp_path, "p_a1_f01_GFP.tif")
    found = by_pattern(tmp_path, FIELDS)
    assert [fault.slide for fault in found.faults] == ["A01_f1"]
    assert len(found.faults[0].paths) == 3
    assert "p_a1_f01_GFP.tif" in found.faults[0].sentence
    assert len(found.sources) == 5


def test_names_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """An image whose name does not fit the pattern is a fault; other kinds of files and hidden ones are not."""
    plate(tmp_path)
    touch(tmp_path, "readme.txt", ".p_A09_f1_GFP.tif", "overview.tif", "p_Q_f1_GFP.tif")
    found = by_pattern(tmp_path, FIELDS)
    assert [fault.slide for fault in found.faults] == ["overview", "p_Q_f1_GFP"]
    assert len(found.sources) == 6


def test_nothing_found_shows_what_is_there(tmp_path: Path) -> None:
    """Where no name fits, the message says what was looked for and shows at most three names."""
    touch(tmp_path, *(f"image_{i}.tif" for i in range(9)))
    with pytest.raises(ConfigError) as refused:
        by_pattern(tmp_path, FIELDS)
    assert FIELDS in str(refused.value)
    assert "image_0.tif, image_1.tif, image_2.tif, ..." in str(refused.value)
    assert "image_3" not in str(refused.value)


def test_focus_planes_in_files_of_their_own_form_a_stack(tmp_path: Path) -> None:
    """Files that differ only in z are one source whose files carry z, in order; a plane that lacks is named."""
    touch(tmp_path, *(f"{w}_{c}_z{z}.tif" for w in ("A01", "A02") for c in ("x", "y") for z in (1, 2, 10)))
    pattern = "{well}_{channel}_z{z}.tif"
    (one, _) = by_pattern(tmp_path, pattern).sources
    assert [(f.channel, f.z) for f in one.files] == [(c, z) for c in ("x", "y") for z in (1, 2, 10)]
    (tmp_path / "A01_x_z2.tif").unlink()
    found = by_pattern(tmp_path, pattern)
    assert (ids(found), found.faults[0].slide) == (["A02"], "A01")
    assert "channel x lacks focus plane 2 of 1, 2, 10" in found.faults[0].sentence


def test_a_file_without_a_plane_beside_planes_is_named(tmp_path: Path) -> None:
    """A manifest that gives some files of an image a focus plane and others none quarantines the image."""
    touch(tmp_path, "a.tif", "b.tif", "c.tif")
    (tmp_path / "m.csv").write_text("path,well,z\na.tif,A1,1\nb.tif,A1,2\nc.tif,A1,\n")
    found = find(InputSpec(manifest=str(tmp_path / "m.csv")))
    assert not found.sources
    assert "without a focus plane beside" in found.faults[0].sentence


def test_time_series_are_refused_by_name(tmp_path: Path) -> None:
    """A field with several time points is quarantined and named; a single time point is an image."""
    touch(tmp_path, "A01_t1.tif", "A01_t2.tif", "A02_t1.tif")
    found = by_pattern(tmp_path, "{well}_t{time}.tif")
    assert ids(found) == ["A02"]
    assert found.faults[0].slide == "A01"
    assert "time series" in found.faults[0].sentence


def test_several_plates_in_one_run(tmp_path: Path) -> None:
    """Plates in folders, named by a field or by their folders, never share an id."""
    for name in ("p1", "p2"):
        touch(tmp_path / name, "A01_DNA.tif", "A02_DNA.tif")
    expected = ["p1_A01", "p1_A02", "p2_A01", "p2_A02"]
    assert ids(by_pattern(tmp_path, "{plate}/{well}_{channel}.tif")) == expected
    folders = InputSpec(path=[str(tmp_path / "p2"), str(tmp_path / "p1")], pattern="{well}_{channel}.tif")
    assert ids(find(folders)) == expected
    globbed = InputSpec(path=str(tmp_path / "*" / "*_DNA.tif"), pattern="{well}_{channel}.tif")
    assert ids(find(globbed)) == expected
    assert [s.plate for s in find(folders).sources] == ["p1", "p1", "p2", "p2"]


def test_images_without_wells_are_joined_by_what_tells_them_apart(tmp_path: Path) -> None:
    """Without a place the facts name the image; it is then no plate, and asking for one is refused."""
    touch(tmp_path, "s1_red.tif", "s1_blue.tif", "s2_red.tif", "s2_blue.tif")
    found = by_pattern(tmp_path, "{mouse}_{channel}.tif")
    assert (ids(found), found.plate) == (["s1", "s2"], False)
    assert dict(found.sources[0].facts) == {"mouse": "s1"}
    assert ids(by_pattern(tmp_path, "{slide}_{channel}.tif")) == ["s1", "s2"]
    with pytest.raises(ConfigError, match="no row and column"):
        by_pattern(tmp_path, "{slide}_{channel}.tif", kind="plate")


GUID = "0A1B2C3D-1111-2222-3333-0123456789AB"

PRESETS: dict[str, tuple[list[str], list[str], list[list[str | None]]]] = {
    "imagexpress": (
        [f"TimePoint_1/My_plate_{w}_s{s}_w{c}{t}{GUID}.tif" for w in ("A01", "B12") for s in (1, 2) for c in (1, 2)
         for t in ("", "_thumb")],
        ["A01_f1", "A01_f2", "B12_f1", "B12_f2"], [["1", "2"]],
    ),
    "operetta": (
        [f"Images/r{r}c{c}f01p0{p}-ch{k}sk1fk1fl1.tiff" for r, c in (("01", "02"), ("16", "24")) for p in (1, 2)
         for k in (1, 3)] + ["Images/Index.idx.xml"],
        ["A02", "P24"], [["1", "1", "3", "3"]],
    ),
    "cellvoyager": (
        [f"plate_1_{w}_T0001F00{f}L01A0{c}Z01C0{c}.tif" for w in ("B03", "C07") for f in (1, 2) for c in (1, 2)]
        + ["DC_sCMOS #1_CAM1.tif", "SC_BP445-45_40x_M10_CH01.tif"],
        ["B03_f1", "B03_f2", "C07_f1", "C07_f2"], [["01", "02"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["imagexpress", "operetta", "cellvoyager"])
def test_presets_know_the_names_of_microscopes(tmp_path: Path, name: Any) -> None:
    """Names as the microscope writes them give all fields and channels; thumbnails and corrections are left out."""
    names, expected, channels = PRESETS[name]
    found = find(InputSpec(path=str(touch(tmp_path, *names)), preset=name))
    assert ids(found) == expected
    assert not found.faults
    assert [[f.channel for f in s.files] for s in found.sources[:1]] == channels
    assert found.plate


def test_imagexpress_names_may_leave_things_out(tmp_path: Path) -> None:
    """Without site and wavelength a well is one image; z-steps in folders are a stack."""
    touch(tmp_path / "a", "P_A01.tif", "P_A02.tif")
    assert ids(find(InputSpec(path=str(tmp_path / "a"), preset="imagexpress"))) == ["A01", "A02"]
    touch(tmp_path / "b", *(f"day/TimePoint_1/ZStep_{z}/P_A01_s1_w1.TIF" for z in (1, 2)))
    (one,) = find(InputSpec(path=str(tmp_path / "b"), preset="imagexpress")).sources
    assert [f.z for f in one.files] == [1, 2]


def test_images_of_a_well_never_share_a_field(tmp_path: Path) -> None:
    """Images of a well that only their number or their slide tells apart get fields of their own, in order."""
    touch(tmp_path / "a", *(f"C{c}-{i}-A-{w}.tif" for c in (1, 2) for i, w in ((1, 1), (2, 1), (10, 1), (11, 2))))
    sources = by_pattern(tmp_path / "a", "C{channel}-{image}-{row}-{column}.tif").sources
    assert [(s.slide, s.well, s.field) for s in sources] == [
        ("A01_i1", "A01", 0), ("A01_i2", "A01", 1), ("A01_i10", "A01", 2), ("A02_i11", "A02", 0),
    ]  # fmt: skip
    touch(tmp_path / "b", *(f"{i}_A01_f{f}.tif" for i in (1, 2) for f in (3, 4)))
    sources = by_pattern(tmp_path / "b", "{image}_{well}_f{field}.tif").sources
    assert sorted(s.field for s in sources) == [0, 1, 2, 3]


def test_plates_and_rows_are_safe_as_folders(tmp_path: Path) -> None:
    """Whatever a manifest calls a plate, its name is one folder; a row that is none is named."""
    touch(tmp_path, "a.tif", "b.tif", "c.tif")
    (tmp_path / "m.csv").write_text("path,plate,row,column\na.tif,../2024/x y,A,1\nb.tif,q,1,1\nc.tif,q,../A,1\n")
    found = find(InputSpec(manifest=str(tmp_path / "m.csv")))
    assert sorted((s.plate, s.row) for s in found.sources) == [("2024_x_y", "A"), ("q", "A")]
    assert "no name of a row" in found.faults[0].sentence


def test_a_fault_never_bears_the_name_of_an_image(tmp_path: Path) -> None:
    """A stray file called as a good image, or as another stray file, is a fault of its own; the image stays."""
    touch(tmp_path, "A01_DNA.tif", "A01.tif")
    found = by_pattern(tmp_path, "{well}_{channel}.tif")
    assert ids(found) == ["A01"]
    assert found.faults[0].slide.startswith("A01-")
    (tmp_path / "m.csv").write_text("path,slide\nA01.tif,x\ngone/x.tif,\nlost/x.tif,\n")
    found = find(InputSpec(manifest=str(tmp_path / "m.csv")))
    assert len({*ids(found), *(f.slide for f in found.faults)}) == 3
    assert ids(found) == ["x"]


# Manifests and facts


def test_a_manifest_tells_everything(tmp_path: Path) -> None:
    """A row per file, paths relative to the table; mpp and unknown columns go along; faulty rows are named."""
    touch(tmp_path, "img/a.tif", "img/b.tif", "img/c.tif", "img/d.tif")
    (tmp_path / "list.tsv").write_text(
        "Path\tWell\tChannel\tMPP\tdose\n"
        "img/a.tif\tb2\tDNA\t0.5\t3\nimg/b.tif\tB02\tGFP\t0.5\t3\n\n"
        "img/c.tif\tC3\tDNA\t0.5\t1\nimg/gone.tif\tC3\tGFP\t0.5\t1\n"
        "img/d.tif\t?\tDNA\t0.5\t1\n"
    )
    found = find(InputSpec(manifest=str(tmp_path / "list.tsv"), mpp=9))
    assert (ids(found), found.plate) == (["B02"], True)
    assert (found.sources[0].mpp, dict(found.sources[0].facts)) == (0.5, {"dose": "3"})
    assert [f.slide for f in found.faults] == ["C03", "d", "gone"]
    assert "line 6" in found.faults[2].sentence
    assert "channel GFP is missing" in found.faults[0].sentence


def test_a_manifest_of_slides(tmp_path: Path) -> None:
    """Without wells every row is a slide, called as its file or as the column slide says; wrong mpp is named."""
    touch(tmp_path, "x.svs", "y.svs")
    (tmp_path / "m.csv").write_text("path,slide,mpp\nx.svs,case 7,0.25\ny.svs,,fine\n")
    found = find(InputSpec(manifest=str(tmp_path / "m.csv")))
    assert (ids(found), found.plate, found.sources[0].mpp) == (["case_7"], False, 0.25)
    assert "'fine' is not a number" in found.faults[0].sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nx.tif\n", "no column path"),
        ("path,well\nx.tif\n", "1 cells"),
        ("", "no header"),
        ("a,a\n", "two col"),
    ],
)
def test_broken_manifests_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """A table that cannot be understood is refused with its name."""
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        find(InputSpec(manifest=str(tmp_path / "m.csv")))
    with pytest.raises(ConfigError, match="cannot be read"):
        find(InputSpec(manifest=str(tmp_path / "none.csv")))


def test_facts_join_by_any_place(tmp_path: Path) -> None:
    """Facts join by well, by row and column, or by field, however the table writes them."""
    plate(tmp_path)
    for text, expected in (
        ("Well;dose\na1;5\nB11;6\n", {"A01_f1": "5", "A01_f2": "5", "B11_f1": "6", "B11_f2": "6"}),
        ("row,COLUMN,dose\n1,1,5\n", {"A01_f1": "5", "A01_f2": "5"}),
        ("Metadata_Well,Site,dose\nA02,02,7\n", {"A02_f2": "7"}),
        ("slide,dose\nA01_f1,1\n", {"A01_f1": "1"}),
    ):
        (tmp_path / "facts.csv").write_text(text)
        found = by_pattern(tmp_path, FIELDS, facts=str(tmp_path / "facts.csv"))
        assert {s.slide: dict(s.facts)["dose"] for s in found.sources if s.facts} == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("drug,dose\nx,1\n", "no column"),
        ("well,dose\nH12,1\n", "no row"),
        ("well,d\nA1,1\nA01,2\n", "second, different"),
    ],
)
def test_facts_that_fit_nothing_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """Facts that cannot be joined, fit no image or contradict themselves are refused."""
    plate(tmp_path)
    (tmp_path / "facts.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        by_pattern(tmp_path, FIELDS, facts=str(tmp_path / "facts.csv"))


# OME-Zarr plates


@pytest.mark.realdata
def test_the_real_ome_zarr_plate(realdata: Path) -> None:
    """The one field of the real 0.4 plate, by its folder alone."""
    folder = realdata / "cardio_plate_v04.zarr"
    found = find(InputSpec(path=str(folder)))
    (one,) = found.sources
    assert found.plate
    assert (one.slide, one.well, one.field) == ("B03", "B03", 0)
    assert one.files == (SourceFile(str(folder), "B/03/0"),)


def zarr_plate(folder: Path, version: str, wells: dict[str, list[str]]) -> Path:
    def write(at: Path, content: dict[str, Any]) -> None:
        at.mkdir(parents=True, exist_ok=True)
        if version == "0.5":
            group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **content}}}
            (at / "zarr.json").write_text(json.dumps(group))
        else:
            (at / ".zgroup").write_text('{"zarr_format": 2}')
            (at / ".zattrs").write_text(json.dumps(content))

    write(folder, {"plate": {"name": folder.stem, "wells": [{"path": well} for well in wells]}})
    for well, images in wells.items():
        if images:
            write(folder / well, {"well": {"images": [{"path": image} for image in images]}})
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_plates_list_their_fields(tmp_path: Path, version: str) -> None:
    """Every declared field is a source with its inner path; a well without metadata is named; plates mix."""
    zarr_plate(tmp_path / "p.zarr", version, {"B/10": ["0"], "A/2": ["0", "1"], "C/1": []})
    found = find(InputSpec(path=str(tmp_path / "p.zarr")))
    assert ids(found) == ["A02_f0", "A02_f1", "B10_f0"]
    assert [s.files[0].inner for s in found.sources] == ["A/2/0", "A/2/1", "B/10/0"]
    assert [fault.slide for fault in found.faults] == ["C1"]
    zarr_plate(tmp_path / "q.zarr", version, {"A/2": ["0"]})
    both = find(InputSpec(path=str(tmp_path)))
    assert ids(both) == ["p_A02_f0", "p_A02_f1", "p_B10_f0", "q_A02_f0"]
    touch(tmp_path, "slide.svs")
    with pytest.raises(ConfigError, match="together"):
        find(InputSpec(path=str(tmp_path)))


def test_plates_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Two OME-Zarr plates that call themselves alike, and two folders of one name, are two plates."""
    for folder in ("x", "y"):
        zarr_plate(tmp_path / folder / "plate.zarr", "0.5", {"A/1": ["0"]})
    found = find(InputSpec(path=[str(tmp_path / f / "plate.zarr") for f in ("x", "y")]))
    assert not found.faults
    assert len({s.plate for s in found.sources}) == len(set(ids(found))) == 2
    touch(tmp_path, "x/p/A01.tif", "y/p/A01.tif")
    found = find(InputSpec(path=[str(tmp_path / f / "p") for f in ("x", "y")], pattern="{well}.tif"))
    assert not found.faults
    assert len({s.plate for s in found.sources}) == len(set(ids(found))) == 2


# Slides


def test_a_folder_of_slides(tmp_path: Path) -> None:
    """Images directly in a folder are slides; hidden files, other files and parts of slides are left out."""
    touch(
        tmp_path, "b10.svs", "b2.ndpi", "c.mrxs", "c/Data0001.jpg", "h.vms", "h-1.jpg", "k.OME.TIF", "n.txt", ".x.tif",
        "deep/z.tif", "v.zarr/zarr.json", "plain/readme.md",
    )  # fmt: skip
    found = find(InputSpec(path=str(tmp_path), mpp=0.25))
    assert ids(found) == ["b2", "b10", "c", "h", "k", "v"]
    assert not found.plate
    assert all(source.mpp == 0.25 for source in found.sources)
    every = find(InputSpec(path=str(tmp_path / "**" / "*")))
    assert ids(every) == ["b2", "b10", "c", "z", "h", "k", "v"]


def test_a_file_named_itself_may_have_any_name(tmp_path: Path) -> None:
    """A named file is taken whatever its ending, brackets and spaces included; its id is path-safe."""
    touch(tmp_path, "my [slide] 1.weird")
    assert ids(find(InputSpec(path=str(tmp_path / "my [slide] 1.weird")))) == ["my_slide_1"]


def test_ids_never_collide(tmp_path: Path) -> None:
    """Slides of one name get ids that depend on where they lie, not on what else is there or its order."""
    touch(tmp_path, "a/x.svs", "b/x.svs", "b/X.tif", "b/y.svs")
    names = ["b/X.tif", "a/x.svs", "b/y.svs", "b/x.svs"]
    spec = InputSpec(path=[str(tmp_path / n) for n in names])
    found = {Path(s.files[0].path).relative_to(tmp_path).as_posix(): s.slide for s in find(spec).sources}
    assert len({one.lower() for one in found.values()}) == 4
    assert found["b/y.svs"] == "y"
    assert find(InputSpec(path=[str(tmp_path / n) for n in sorted(names)])) == find(spec)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8, unique=True))
def test_ids_are_safe_and_unique_for_any_names(names: list[str]) -> None:
    """Any names at all give ids of plain signs, unique whatever the case of letters."""
    made = unique([safe(name) for name in names], names)
    assert all(one and set(one) <= set("-._") | set("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
               for one in made)  # fmt: skip
    assert not any(one.startswith(".") for one in made)
    assert len({one.lower() for one in made}) == len(names)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "exactly one"), ({"path": "x", "sample": "plate"}, "exactly one"),
        ({"sample": "plate"}, "not been written"),
        ({"path": "nowhere/x.svs"}, "does not exist"), ({"path": "*.nothing"}, "no file matches"),
        ({"path": []}, "empty"),
        ({"path": ".", "pattern": "{well}", "preset": "operetta"}, "both"), ({"path": "."}, "holds no image"),
        ({"manifest": "m", "pattern": "{well}"}, "leave"),
    ],
)  # fmt: skip
def test_wrong_sections_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], words: str
) -> None:
    """A section that contradicts itself or names nothing is refused by a sentence before anything starts."""
    touch(tmp_path, "notes.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        find(InputSpec(**more))


def test_wrong_numbers_are_refused() -> None:
    """Pixel sizes are above 0, and unknown keys are refused."""
    for more in ({"mpp": 0}, {"scale": -1}, {"paths": "x"}, {"kind": "wells"}):
        with pytest.raises(ValidationError):
            InputSpec(path="x", **more)


def test_regions_belong_to_slides(tmp_path: Path) -> None:
    """A template, one path, or a path per slide; a missing file quarantines its slide; unknown slides are refused."""
    touch(tmp_path, "a.svs", "b.svs", "a.geojson")
    spec = InputSpec(path=str(tmp_path), regions=str(tmp_path / "{slide}.geojson"))
    found = find(spec)
    assert (ids(found), found.faults[0].slide) == (["a"], "b")
    assert regions_path(spec, "a") == str(tmp_path / "a.geojson")
    some = InputSpec(path=str(tmp_path), regions={"a": str(tmp_path / "a.geojson")})
    assert ids(find(some)) == ["a", "b"]
    assert regions_path(some, "b") is None
    for regions, words in (({"c": "x"}, "'c'"), (str(tmp_path / "none.json"), "does not exist")):
        with pytest.raises(ConfigError, match=words):
            find(InputSpec(path=str(tmp_path), regions=regions))


# Order and channels


def test_the_order_of_files_plays_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the file system lists a folder, the same inputs come in the same order."""
    plate(tmp_path)
    touch(tmp_path, "bad.tif", "p_A01_f01_DNA.tif")
    expected = by_pattern(tmp_path, FIELDS)
    real: Callable[[str], list[Any]] = __import__("slidebatch.sources.folders", fromlist=["listed"]).listed

    def shuffled(folder: str) -> list[Any]:
        entries = real(folder)
        random.Random(5).shuffle(entries)
        return entries

    monkeypatch.setattr("slidebatch.sources.folders.listed", shuffled)
    assert by_pattern(tmp_path, FIELDS) == expected


def test_names_count_and_rows_go_on_after_z() -> None:
    """Natural order counts, and rows run A..Z, AA..AF as on a plate of 1,536 wells."""
    assert sorted(["f10", "f2", "F1"], key=natural) == ["F1", "f2", "f10"]
    rows = [row_letters(str(n)) for n in range(1, 33)]
    assert rows[25:28] == ["Z", "AA", "AB"]
    assert [row_number(row) for row in rows] == list(range(1, 33))


def test_channels_are_chosen_by_name_then_index() -> None:
    """A number is the channel of that name where there is one, otherwise an index; what is not there is listed."""
    assert called(("DNA", "GFP"), None).choose(["GFP", 0]) == (1, 0)
    assert called(("1", "2"), None).choose([2]) == (1,)
    assert called(("1", "2"), None).choose(["1"]) == (0,)
    assert called(("a", "b"), None).choose(None) == (0, 1)
    for wanted in (["gfp"], [2], [-1], []):
        with pytest.raises(ConfigError, match="DNA"):
            called(("DNA", "GFP"), None).choose(wanted)
    with pytest.raises(ConfigError, match="each once"):
        called(("DNA", "GFP"), None).choose(["DNA", 0])


def test_channels_are_called_as_the_config_says() -> None:
    """Channels get names by what their files call them, or by index; both names choose them afterwards."""
    named = called(("1", "2"), {"1": "GFP", "2": "DNA"})
    assert named.names == ("GFP", "DNA")
    assert named.choose(["DNA", "1"]) == (1, 0)
    assert called(("w1", "w2"), {"1": "DNA"}).names == ("w1", "DNA")
    assert called(("1", "2"), {"2": "1", "1": "2"}).choose(["1"]) == (1,), "the new name comes first"
    with pytest.raises(ConfigError, match=r"input.channel_names names 3, but there are '1' \(index 0\)"):
        called(("1", "2"), {"3": "DNA"})
    with pytest.raises(ConfigError, match="two channels one name"):
        called(("1", "2"), {"1": "DNA", "2": "DNA"})
