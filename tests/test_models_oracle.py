"""Laws of the oracles: perfect answers decode to the truth, errors depend on nuclei and not on patches."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch import models
from slidebatch.decode import DecodeSpec, decode_dense
from slidebatch.errors import InputError, ModelError
from slidebatch.geometry import Box, whole
from slidebatch.instances import painted
from slidebatch.metrics import areas, equal_up_to_renaming
from slidebatch.models.oracle import Chances
from slidebatch.models.protocol import Place
from slidebatch.models.truth import Truth
from slidebatch.paste import paste
from tests.support.oracle import bricks, disks, oracle_spec, write_truth

BLANK = np.zeros((1, 1, 1, 1), np.float32)


def maps_of(model, slide, box):
    return model.maps(BLANK, [Place(slide, box)])[0]


def detect(model, slide, box):
    return model.detect(BLANK, [Place(slide, box)])[0]


def decoded(maps, grow_px=4):
    box = whole(maps.shape[1:])
    return decode_dense(np.ascontiguousarray(maps), box, DecodeSpec(grow_px=grow_px)).labels


FIELDS = {
    "bricks that touch": bricks((120, 150)),
    "thin bricks that touch": bricks((92, 95), height=4, width=10),
    "bricks a pixel apart": bricks((120, 150), gap=1),
    "slivers a pixel apart": bricks((60, 60), height=1, width=20, gap=1),
    "disks that touch": disks((150, 170)),
    "a nucleus as large as the image": np.ones((64, 64), np.int32),
    "nothing": np.zeros((40, 40), np.int32),
}


@pytest.mark.parametrize("name", FIELDS)
def test_dense_decodes_to_the_truth(tmp_path, name):
    """The dense oracle's maps decode to the truth pixel for pixel, up to renaming."""
    truth = FIELDS[name]
    write_truth(tmp_path, "a", truth)
    model = models.load(oracle_spec(tmp_path))
    assert equal_up_to_renaming(decoded(maps_of(model, "a", whole(truth.shape))), truth)


def test_detections_paste_to_the_truth(tmp_path):
    """Rectangles pasted from detections are the truth exactly, each once."""
    truth = bricks((100, 130), height=13, width=33)
    write_truth(tmp_path, "a", truth)
    model = models.load(oracle_spec(tmp_path, "oracle_detections"))
    found = detect(model, "a", whole(truth.shape))
    pasted = paste(found, whole(truth.shape))
    assert len(found) == len(areas(truth))
    assert equal_up_to_renaming(painted(pasted, truth.shape), truth)


def test_only_whole_boxes_are_detected(tmp_path):
    """A nucleus is detected where its whole box lies in the patch, and nowhere else."""
    truth = bricks((100, 130), gap=2)
    write_truth(tmp_path, "a", truth)
    model = models.load(oracle_spec(tmp_path, "oracle_detections"))
    patch = Box(5, 7, 60, 90)
    found = {tuple(b) for b in detect(model, "a", patch).box.astype(int).tolist()}
    _, boxes = Truth(tmp_path / "a.tif").boxes
    assert found == {tuple(b) for b in boxes.tolist() if patch.contains(Box(*b))}
    assert found


ERRORS = {"drop": 0.2, "jitter": 0.3, "split": 0.2, "seed": 3}


@settings(max_examples=25, deadline=None)
@given(st.integers(-20, 100), st.integers(-20, 100), st.integers(1, 70), st.integers(1, 70))
def test_dense_maps_do_not_depend_on_the_patch(tmp_path_factory, y, x, height, width):
    """Any window shows what the whole shows there, errors included; beyond the slide there is nothing."""
    folder = tmp_path_factory.getbasetemp() / "windows"
    truth = disks((110, 120))
    if not folder.exists():
        write_truth(folder, "a", truth)
    model = models.load(oracle_spec(folder, **ERRORS))
    everything = maps_of(model, "a", whole(truth.shape).grow(100))
    window = Box(y, x, y + height, x + width)
    expected = everything[:, *window.shift(100, 100).slices()]
    np.testing.assert_array_equal(maps_of(model, "a", window), expected)


@pytest.mark.parametrize("error", ["drop", "split", "jitter"])
def test_dense_errors_come_at_their_rates(tmp_path, error):
    """A rate of a third hits about a third of the nuclei, another seed hits others, and rate 0 none."""
    truth = bricks((400, 400), gap=3)
    write_truth(tmp_path, "a", truth)
    n = len(areas(truth))

    def found(rate, seed=0):
        model = models.load(oracle_spec(tmp_path, **{error: rate, "seed": seed}))
        return decoded(maps_of(model, "a", whole(truth.shape)))

    assert equal_up_to_renaming(found(0.0), truth)
    third = found(1 / 3)
    hit = {
        "drop": n - len(areas(third)),
        "split": len(areas(third)) - n,
        "jitter": len(np.unique(truth[(truth > 0) & (third == 0)])),
    }[error]
    assert 0.23 < hit / n < 0.43
    assert not np.array_equal(third > 0, found(1 / 3, seed=1) > 0) or error == "split"
    assert np.array_equal(third, found(1 / 3))


def test_detections_err_per_nucleus_but_jitter_per_view(tmp_path):
    """Two views agree which nuclei exist, are split or double; of their places some differ by one pixel."""
    truth = bricks((300, 300), gap=4)
    write_truth(tmp_path, "a", truth)
    spec = oracle_spec(tmp_path, "oracle_detections", jitter=0.5, drop=0.2, split=0.2, double=0.2)
    model = models.load(spec)
    one, two = (detect(model, "a", Box(-i, -i, 310, 310)) for i in (0, 1))
    assert len(one) == len(two)
    np.testing.assert_array_equal(one.score, two.score)
    away = np.abs(one.box - two.box).max(axis=1)
    assert 0 < (away > 0).mean() < 0.9
    assert away.max() <= 2  # at most one pixel each, in opposite ways
    again = detect(models.load(spec), "a", Box(0, 0, 310, 310))
    np.testing.assert_array_equal(again.box, one.box)


def test_detections_double_and_split(tmp_path):
    """At rate 1 every nucleus is found twice, or as two halves that together are the nucleus."""
    truth = bricks((60, 90), gap=4)
    write_truth(tmp_path, "a", truth)
    n = len(areas(truth))
    box = whole(truth.shape)
    plain = detect(models.load(oracle_spec(tmp_path, "oracle_detections")), "a", box)
    double = detect(models.load(oracle_spec(tmp_path, "oracle_detections", double=1.0)), "a", box)
    split = detect(models.load(oracle_spec(tmp_path, "oracle_detections", split=1.0)), "a", box)
    assert (len(plain), len(double), len(split)) == (n, 2 * n, 2 * n)
    assert ((plain.score >= 0.5) & (plain.score <= 1)).all()
    np.testing.assert_array_equal(painted(paste(split, box), truth.shape) > 0, truth > 0)


def test_chances_are_even():
    """The numbers behind the errors are spread evenly and differ by purpose."""
    chances = Chances(0, "a", np.arange(1, 20001))
    drop, split = chances.of("drop"), chances.of("split")
    assert abs(np.histogram(drop, 10, (0, 1))[0] / 2000 - 1).max() < 0.1
    assert abs(np.corrcoef(drop, split)[0, 1]) < 0.03


def test_every_kind_of_file_reads_alike(tmp_path):
    """TIFF in one piece or compressed, npy, zarr: the same windows and boxes."""
    truth = disks((80, 90)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", truth)
    tifffile.imwrite(tmp_path / "b.tif", truth, compression="zlib", tile=(32, 32))
    np.save(tmp_path / "c.npy", truth)
    array = zarr.create_array(str(tmp_path / "d.zarr"), shape=truth.shape, dtype=truth.dtype, chunks=(32, 32))
    array[:] = truth
    reads = [Truth(tmp_path / f) for f in ("a.tif", "b.tif", "c.npy", "d.zarr")]
    for read in reads:
        np.testing.assert_array_equal(read.read(Box(-5, 10, 60, 100))[5:, :80], truth[:60, 10:90])
        assert not read.read(Box(-5, 10, 60, 100))[:5].any()
        np.testing.assert_array_equal(read.boxes[0], list(areas(truth)))
        np.testing.assert_array_equal(read.boxes[1], reads[0].boxes[1])


def test_boxes_across_bands(tmp_path, monkeypatch):
    """A nucleus that a band of rows cuts has one box around all of it."""
    monkeypatch.setattr("slidebatch.models.truth.BAND_PX", 10)
    truth = disks((80, 90))
    np.save(tmp_path / "a.npy", truth)
    names, boxes = Truth(tmp_path / "a.npy").boxes
    for name, box in zip(names, boxes, strict=True):
        y, x = np.nonzero(truth == name)
        assert box.tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]


def test_missing_truth_and_wrong_settings(tmp_path):
    """A missing truth is the input's fault, wrong settings are the model's; both say what was expected."""
    model = models.load(oracle_spec(tmp_path))
    with pytest.raises(InputError, match=r"no truth for slide none; expected none with one of \.tif"):
        maps_of(model, "none", Box(0, 0, 4, 4))
    with pytest.raises(ModelError, match=r"drop: .*less than or equal to 1"):
        models.card(oracle_spec(tmp_path, drop=2))
    with pytest.raises(ModelError, match="double is for oracle_detections"):
        models.card(oracle_spec(tmp_path, double=0.1))
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"labels \(Y, X\)"):
        maps_of(model, "rgb", Box(0, 0, 4, 4))


def test_settings_change_the_digest(tmp_path):
    """Oracles that answer differently have different digests."""
    cards = [models.card(oracle_spec(tmp_path, **s)) for s in ({}, {"drop": 0.1}, {"seed": 1})]
    assert len({c.digest for c in cards}) == 3
