"""Real fields with real seams and real truth, put together again from neighbouring crops of one micrograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from slidebatch.config import RunConfig
from slidebatch.metrics import f1, overlap
from slidebatch.validate import validate
from tests.realdata.crops import Field, assemble, groups_of_four
from tests.support.runs import contents, labels_of, run

pytestmark = pytest.mark.realdata

GROUPS = ("g012", "g120", "g033")
"""Two fluorescence fields and a stained one, 200 to 300 nuclei each."""


@pytest.fixture(scope="module")
def fields(realdata: Path) -> dict[str, Field]:
    folder = realdata / "dsb2018"
    groups = groups_of_four(folder)
    return {name: assemble(folder, groups[name]) for name in GROUPS}


@pytest.fixture(scope="module")
def folder(fields: dict[str, Field], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fields as image files, their four crops each as files of their own, and their truth."""
    root = tmp_path_factory.mktemp("fields")
    for name in ("fields", "crops", "truth"):
        (root / name).mkdir()
    for name, field in fields.items():
        Image.fromarray(field.image).save(root / "fields" / f"{name}.png")
        tifffile.imwrite(root / "truth" / f"{name}.tif", field.truth)
        for place, part in quarters(field).items():
            Image.fromarray(field.image[part]).save(root / "crops" / f"{name}-{place}.png")
    return root


def quarters(field: Field) -> dict[str, tuple[slice, slice]]:
    """Where the four crops of a field lie."""
    y, x = field.crop
    halves_y, halves_x = (slice(0, y), slice(y, 2 * y)), (slice(0, x), slice(x, 2 * x))
    return {f"{i}{j}": (halves_y[i], halves_x[j]) for i in (0, 1) for j in (0, 1)}


def segment(folder: Path, images: str, output: str, **sections: Any) -> Path:
    """Run over a folder of images; the results, once they are found valid."""
    values: dict[str, Any] = {
        "name": output,
        "input": {"path": str(folder / images)},
        "tissue": {"enabled": "off"},
        "output": {"path": str(folder / output), "chunk_px": 128, "shard_px": 256},
        "cluster": {"kind": "serial"},
        **sections,
    }
    assert run(RunConfig.model_validate(values)).exit_status == 0
    assert validate(folder / output) == []
    return folder / output


@pytest.fixture(scope="module")
def tiled(folder: Path) -> Path:
    """The shipped network on patches of 304 px around cells of 192, in tiles that cut nuclei every 128 px."""
    return segment(folder, "fields", "tiled", tiling={"patch_px": 304, "core_px": 128, "largest_px": 8})


@pytest.fixture(scope="module")
def in_one(folder: Path) -> Path:
    """The shipped network on one patch and in one tile per field."""
    return segment(folder, "fields", "in_one", tiling={"patch_px": 752, "core_px": 1024})


def test_a_field_equals_itself_in_one_tile(tiled: Path, in_one: Path) -> None:
    """Cut into cells and tiles, each field gives the nuclei of one patch and one tile, to the byte."""
    for name in GROUPS:
        whole = labels_of(in_one, name)
        assert whole.max() > 50
        np.testing.assert_array_equal(labels_of(tiled, name), whole)
        assert f1(labels_of(tiled, name), whole, 0.9) == 1.0
    assert contents(tiled) == contents(in_one)


def in_one_piece(labels: npt.NDArray[Any], field: Field) -> int:
    """How many true nuclei on seams are found by exactly one nucleus, others counting from a tenth of the area."""
    pairs = overlap(labels, field.truth)
    area = np.array([field.area_px(int(t)) for t in pairs.truth])
    pieces = np.bincount(pairs.truth[pairs.shared_px * 10 >= area], minlength=int(field.truth.max()) + 1)
    return int((pieces[list(field.seam_labels)] == 1).sum())


def test_nuclei_on_seams_are_found_in_one_piece(fields: dict[str, Field], folder: Path, tiled: Path) -> None:
    """True nuclei that crop edges cut are one nucleus in the field, and pieces where crops are segmented alone."""
    crops = segment(folder, "crops", "by_crop", tiling={"patch_px": 304})
    whole = parted = on_seams = 0
    for name, field in fields.items():
        pasted = np.zeros(field.truth.shape, np.int64)
        for number, (place, part) in enumerate(quarters(field).items()):
            labels = labels_of(crops, f"{name}-{place}").astype(np.int64)
            pasted[part] = np.where(labels > 0, labels + 1_000_000 * number, 0)
        on_seams += len(field.seam_labels)
        whole += in_one_piece(labels_of(tiled, name), field)
        parted += in_one_piece(pasted, field)
    assert on_seams > 30
    assert whole > 0.75 * on_seams
    assert parted < 0.5 * on_seams


def test_perfect_maps_of_real_nuclei_give_the_truth(fields: dict[str, Field], folder: Path) -> None:
    """The dense oracle on real truth: no nucleus is merged, split or lost in any tile."""
    model = {"name": "oracle", "settings": {"truth": str(folder / "truth")}}
    decode = {"min_area_px": 1, "min_seed_px": 1, "fill_holes": False}
    tiling = {"patch_px": 64, "core_px": 96, "largest_px": 40}
    only = {"path": str(folder / "fields"), "channels": ["R"]}  # the oracle takes one channel, and looks at none
    results = segment(folder, "fields", "perfect", input=only, model=model, decode=decode, tiling=tiling)
    for name, field in fields.items():
        labels = labels_of(results, name)
        assert labels.max() == field.truth.max()
        assert f1(labels, field.truth, 0.9) == 1.0, name
