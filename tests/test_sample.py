"""Laws of the samples: real files, true truth, the same for everybody."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from slidebatch.errors import ConfigError
from slidebatch.sample import Sample, write_sample
from slidebatch.sample.nuclei import touching
from slidebatch.sample.plate import CHANNELS, WELLS, Well, plate_field
from slidebatch.sample.tissue import tissue_slide
from slidebatch.sources import Found, InputSpec, find


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_sample("plate", tmp_path_factory.mktemp("sample") / "plate")


@pytest.fixture(scope="module")
def found(plate: Sample) -> Found:
    return find(InputSpec(**plate.input))


def truths(plate: Sample) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted(plate.truth.iterdir()):
        yield path.stem, tifffile.imread(path)


def test_truth_is_named_by_the_ids_that_find_gives(plate: Sample, found: Found) -> None:
    """Every field that `find` finds has its truth of the same name and shape, and there is no other truth."""
    assert found.plate
    assert not found.faults
    assert {s.slide for s in found.sources} == {name for name, _ in truths(plate)}
    for source in found.sources:
        assert [file.channel for file in source.files] == list(CHANNELS)
        shape = tifffile.imread(plate.truth / f"{source.slide}.tif").shape
        assert all(tifffile.imread(file.path).shape == shape for file in source.files)


def test_the_plate_is_small_enough_to_be_the_first_thing_one_runs(found: Found) -> None:
    """Twelve wells of two fields, at most 8 megapixels of one channel."""
    assert len({s.well for s in found.sources}) == 12
    assert len(found.sources) == 24
    assert sum(tifffile.imread(s.files[0].path).size for s in found.sources) <= 8e6


def test_truth_is_one_piece_per_nucleus_of_ordinary_size(plate: Sample) -> None:
    """Ids are 1..n, every nucleus is one connected piece, and diameters lie between 12 and 30 px."""
    diameters = []
    for _, labels in truths(plate):
        ids = np.unique(labels)
        assert np.array_equal(ids, np.arange(len(ids)))
        for number, where in enumerate(ndimage.find_objects(labels), start=1):
            assert ndimage.label(labels[where] == number, np.ones((3, 3)))[1] == 1
        inner = np.setdiff1d(ids, [0, *labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]])
        diameters += np.sqrt(4 / np.pi * np.bincount(labels.ravel(), minlength=len(ids))[inner]).tolist()
    assert 16 < np.median(diameters) < 24
    assert np.mean((np.array(diameters) > 11) & (np.array(diameters) < 31)) > 0.99


def test_a_third_of_the_nuclei_touch(plate: Sample) -> None:
    """At least 30 % of all nuclei touch another one, counted pixel by pixel."""
    touch = np.concatenate([touching(labels) for _, labels in truths(plate)])
    assert 0.3 <= touch.mean() <= 0.7
    assert touching(np.array([[1, 0, 2], [0, 0, 2], [3, 0, 0], [0, 4, 4]])).tolist() == [False, False, True, True]


def test_wells_differ_in_density_and_one_is_empty(plate: Sample) -> None:
    """Each row holds more nuclei than the one before; the empty well holds none."""
    count = {name: int(labels.max()) for name, labels in truths(plate)}
    rows = [np.mean([n for name, n in count.items() if name[0] == row and n]) for row in "ABC"]
    assert rows[0] * 1.5 < rows[1] < rows[2] / 1.5 * 1.2
    assert [name for name, n in sorted(count.items()) if n == 0] == ["C04_f1", "C04_f2"]


def test_the_reporter_moves_with_dose(plate: Sample, found: Found) -> None:
    """The ratio of the reporter in the nucleus to that around it rises with every dose."""
    ratios: dict[float, list[float]] = {}
    for source in found.sources:
        labels = tifffile.imread(plate.truth / f"{source.slide}.tif")
        if labels.any():
            gfp = tifffile.imread(source.files[1].path).astype(float)
            ring = ndimage.binary_dilation(labels > 0, iterations=5) & (labels == 0)
            ratio = gfp[labels > 0].mean() / gfp[ring].mean()
            ratios.setdefault(float(dict(source.facts)["dose_um"]), []).append(ratio)
    means = [np.mean(ratios[dose]) for dose in sorted(ratios)]
    assert len(means) == 4
    assert all(np.diff(means) > 0)
    assert means[-1] > 2 * means[0]


def test_two_focus_levels(plate: Sample, found: Found) -> None:
    """The first field of a well is sharper than the second: steeper edges for the brightness of its nuclei."""
    for source in found.sources[::2]:
        if source.well == "C04":
            continue
        sharp = []
        for field in (1, 2):
            name = f"{source.well}_f{field}"
            image = tifffile.imread(next(plate.images.glob(f"*_{name}_DNA.tif"))).astype(float)
            labels = tifffile.imread(plate.truth / f"{name}.tif")
            slope = ndimage.gaussian_gradient_magnitude(image, 1.0)
            edge = (labels > 0) & ~ndimage.binary_erosion(labels > 0)
            sharp.append(slope[edge].mean() / (image[labels > 0].mean() - np.median(image[labels == 0])))
        assert sharp[0] > 1.1 * sharp[1]


def test_nuclei_stand_out_in_the_dna_channel(found: Found, plate: Sample) -> None:
    """DNA is bright in nuclei and dark elsewhere, with noise; the empty well is nothing but noise."""
    for source in found.sources:
        image = tifffile.imread(source.files[0].path).astype(float)
        labels = tifffile.imread(plate.truth / f"{source.slide}.tif")
        assert image.dtype == float
        assert image[labels == 0].std() > 5
        if labels.any():
            assert np.median(image[labels > 0]) > 3 * np.median(image[labels == 0])
        else:
            assert image.max() < 400


def test_facts_tell_dose_and_control(plate: Sample) -> None:
    """The table of facts has one row per well with dose and control."""
    with (plate.folder / "facts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["well"] for row in rows] == [well.name for well in WELLS]
    assert {row["control"] for row in rows} == {"negative", "positive", "empty", ""}


def test_the_same_seed_gives_the_same_pixels() -> None:
    """A field depends on well, field and seed alone."""
    one, again = plate_field(Well("A", 2), 1, 0), plate_field(Well("A", 2), 1, 0)
    assert np.array_equal(one[0], again[0])
    assert np.array_equal(one[1], again[1])
    assert not np.array_equal(one[1], plate_field(Well("A", 2), 1, 1)[1])
    assert not np.array_equal(one[1], plate_field(Well("A", 2), 2, 0)[1])


def test_a_complete_sample_is_left_alone_and_a_broken_one_is_written_anew(plate: Sample, tmp_path: Path) -> None:
    """Writing again touches nothing; without its marker a folder counts as foreign and is never replaced."""
    before = {p: p.stat().st_mtime_ns for p in plate.folder.rglob("*")}
    assert write_sample("plate", plate.folder) == plate
    assert {p: p.stat().st_mtime_ns for p in plate.folder.rglob("*")} == before
    assert [p.name for p in plate.folder.parent.iterdir()] == [plate.folder.name]
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="is no slidebatch sample"):
        write_sample("plate", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_sample_of_another_version_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that says it holds an older sample is written anew, and a failure leaves no half sample."""
    folder = tmp_path / "plate"
    folder.mkdir()
    (folder / "sample.json").write_text('{"kind": "plate", "version": 0}')
    (folder / "old").write_text("")

    def fail(aside: Path) -> None:
        aside.mkdir()
        raise OSError("no space")

    monkeypatch.setattr("slidebatch.sample.write.write_plate", fail)
    with pytest.raises(OSError, match="no space"):
        write_sample("plate", folder)
    assert [p.name for p in tmp_path.iterdir()] == ["plate"]
    assert (folder / "old").exists()
    monkeypatch.setattr("slidebatch.sample.write.write_plate", lambda aside: aside.mkdir())
    write_sample("plate", folder)
    assert [p.name for p in folder.iterdir()] == ["sample.json"]


def test_tissue_is_purple_nuclei_in_pink_on_white_glass() -> None:
    """Nuclei are bluer and darker than the tissue around them, glass is white, and many nuclei touch."""
    image, labels = tissue_slide((768, 1024), 0)
    grey = image.astype(float).mean(axis=2)
    glass = grey > 235
    pink = image[~glass & (ndimage.binary_dilation(labels > 0, iterations=3) == 0)].astype(float).mean(axis=0)
    purple = image[labels > 0].astype(float).mean(axis=0)
    assert labels.max() > 100
    assert touching(labels).mean() > 0.3
    assert 0.15 < glass.mean() < 0.7
    assert pink[0] > pink[1] + 20
    assert purple[2] > purple[0]
    assert purple.mean() < pink.mean() - 50
    assert not glass[labels > 0].any() or glass[labels > 0].mean() < 0.01


@pytest.mark.slow
def test_the_tissue_slide_is_a_pyramid_that_states_its_pixel_size(tmp_path: Path) -> None:
    """The file has tiled JPEG levels in SubIFDs, mpp 0.5 in OME-XML, truth of the same shape and the right id."""
    sample = write_sample("tissue", tmp_path / "tissue")
    source = find(InputSpec(**sample.input)).sources[0]
    with tifffile.TiffFile(source.files[0].path) as file:
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(2048, 3072, 3), (1024, 1536, 3), (512, 768, 3)]
        assert all(level.keyframe.is_tiled and level.keyframe.compression == 7 for level in levels)
        assert 'PhysicalSizeX="0.5"' in (file.ome_metadata or "")
        fine, coarse = levels[0].asarray(), levels[2].asarray()
    labels = tifffile.imread(sample.truth / f"{source.slide}.tif")
    assert labels.shape == fine.shape[:2]
    assert labels.max() > 1000
    means = fine.reshape(512, 4, 768, 4, 3).mean(axis=(1, 3))
    assert np.abs(means - coarse).mean() < 4
