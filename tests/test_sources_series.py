"""Laws of OME-Zarr folders that hold several images, as bioformats2raw writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from slidebatch.errors import InputError
from slidebatch.geometry import whole
from slidebatch.slides import SourceFile, open_slide
from slidebatch.sources import InputSpec, find
from tests.support.position import position_grey, write_ome_zarr

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])
XML = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'


def converted(folder: Path, version: str, names: list[str], listed: bool = True) -> Path:
    """A folder as bioformats2raw writes it: image n is n px higher than the first."""
    layout: dict[str, Any] = {"bioformats2raw.layout": 3}
    group(folder, version, layout)
    for n in range(len(names)):
        write_ome_zarr(folder / str(n), version, [position_grey((40 + n, 50))], {"axes": "cyx"})
    group(folder / "OME", version, {"series": [str(n) for n in range(len(names))]} if listed else {})
    images = "".join(f'<Image ID="Image:{n}" Name="{name}"/>' for n, name in enumerate(names))
    (folder / "OME" / "METADATA.ome.xml").write_text(XML.format(images))
    return folder


def group(folder: Path, version: str, told: dict[str, Any]) -> None:
    attributes = told if version == "0.4" else {"ome": {"version": version, **told}}
    zarr.open_group(folder, mode="a", zarr_format=2 if version == "0.4" else 3).attrs.update(attributes)


def found(path: Path) -> dict[str, SourceFile]:
    return {s.slide: s.files[0] for s in find(InputSpec(path=str(path))).sources}


@VERSIONS
@pytest.mark.parametrize("listed", [True, False])
def test_every_series_is_an_image_of_its_own(tmp_path: Path, version: str, listed: bool) -> None:
    """Each series is a source called as its folder and number, and its reader gives that series' pixels."""
    folder = converted(tmp_path / "scan.ome.zarr", version, [f"pos {n}" for n in range(11)], listed)
    sources = find(InputSpec(path=str(folder))).sources
    assert [s.slide for s in sources] == [f"scan_{n}" for n in range(11)]
    for n in (0, 2, 10):
        slide = open_slide(sources[n])
        assert slide.shape == (40 + n, 50)
        np.testing.assert_array_equal(slide.read(whole(slide.shape)), position_grey((40 + n, 50)))


@VERSIONS
def test_one_series_is_called_as_its_folder(tmp_path: Path, version: str) -> None:
    """A folder of one series beside an ordinary image and other conversions gives ids without numbers."""
    converted(tmp_path / "one.zarr", version, ["x"])
    converted(tmp_path / "two.zarr", version, ["x", "y"])
    write_ome_zarr(tmp_path / "plain.zarr", version, [position_grey((20, 30))], {"axes": "cyx"})
    files = found(tmp_path)
    assert list(files) == ["one", "plain", "two_0", "two_1"]
    assert files["one"] == SourceFile(str(tmp_path / "one.zarr"), "0")
    assert files["plain"].inner == ""


def test_ids_of_series_never_collide_with_other_names(tmp_path: Path) -> None:
    """A series and an image whose names would be the same get different ids."""
    converted(tmp_path / "a.zarr", "0.5", ["x", "y"])
    write_ome_zarr(tmp_path / "a_1.zarr", "0.5", [position_grey((20, 30))], {"axes": "cyx"})
    assert len(found(tmp_path)) == 3


def test_pictures_of_the_label_and_the_glass_are_left_out(tmp_path: Path) -> None:
    """What the OME-XML calls label or macro image is never an input; without names all series are."""
    folder = converted(tmp_path / "cmu.zarr", "0.4", ["Series 1", "label image", "macro image"])
    assert found(folder) == {"cmu": SourceFile(str(folder), "0")}
    (folder / "OME" / "METADATA.ome.xml").write_text("<OME")
    assert list(found(folder)) == ["cmu_0", "cmu_1", "cmu_2"]


def test_a_conversion_without_images_is_named_by_its_reader(tmp_path: Path) -> None:
    """A folder that promises series and holds none is one source, which the door refuses by name."""
    (tmp_path / "empty.zarr").mkdir()
    told = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"bioformats2raw.layout": 3}}}
    (tmp_path / "empty.zarr" / "zarr.json").write_text(json.dumps(told))
    (source,) = find(InputSpec(path=str(tmp_path))).sources
    with pytest.raises(InputError, match=r"empty\.zarr: has no multiscales"):
        open_slide(source)
