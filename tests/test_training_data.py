"""Laws of training sets: every layout tells the same, what may be seen, and what is wrong is said."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from slidebatch.config import read
from slidebatch.errors import ConfigError
from slidebatch.evaluate.tables import Column, read_column
from slidebatch.metrics import equal_up_to_renaming
from slidebatch.training import loop
from slidebatch.training.dataset import ALL, IGNORED, by_modality, cleaned, load, split
from slidebatch.training.readers import find
from slidebatch.training.spec import DataSpec, TrainSpec
from tests.support.oracle import bricks, disks
from tests.support.training_sets import (
    packed,
    polygon,
    settings,
    unpacked,
    write_bowl,
    write_coco,
    write_folders,
    write_set,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def data(path, **more) -> DataSpec:
    return DataSpec.model_validate({"path": str(path), **more})


def everything(spec: DataSpec):
    return load(spec, [p.id for p in find(spec)])


# Layouts

LAYOUTS = {
    "folders": write_folders,
    "dsb": write_bowl,
    "coco, packed": lambda folder, truth: write_coco(folder, truth, packed),
    "coco, run lengths": lambda folder, truth: write_coco(folder, truth, unpacked),
    "coco, polygons": lambda folder, truth: write_coco(folder, truth, polygon),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_tells_the_same(layout, tmp_path):
    """One truth, written in each layout, is found without being told which it is, with the same pixels and labels."""
    whole = bricks((60, 76), height=11, width=14, gap=0)
    truth = {"a": np.where(whole % 3 == 0, whole, 0).astype(np.int32), "b": np.zeros((40, 52), np.int32)}
    truth["a"][:, 70:] = 0  # a brick that the image's edge does not cut
    expected = everything(data(write_folders(tmp_path / "plain", truth)))
    found = everything(data(LAYOUTS[layout](tmp_path / "other", truth)))
    assert [e.id for e in found] == ["a", "b"]
    for one, other, labels in zip(found, expected, truth.values(), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert equal_up_to_renaming(one.labels, labels)
        assert (one.modality, one.group, one.colour) == (ALL, one.id, False)


@pytest.mark.parametrize("form", [packed, unpacked])
def test_run_lengths_hold_any_shape(form, tmp_path):
    """Round nuclei come back from run lengths pixel by pixel, the one in the first pixel too."""
    labels = disks((50, 60))
    labels[0:3, 0:2] = labels.max() + 1
    found = everything(data(write_coco(tmp_path / "c", {"a": labels}, form)))
    assert equal_up_to_renaming(found[0].labels, labels)


def test_a_pixel_of_two_masks_belongs_to_the_first(tmp_path):
    """Where masks of the Data Science Bowl overlap, the first by name keeps the pixels; none is lost."""
    folder = write_bowl(tmp_path / "d", {"a": np.zeros((30, 40), np.int32)})
    first, second = np.zeros((2, 30, 40), np.uint8)
    first[5:20, 5:20] = second[10:25, 10:30] = 255
    Image.fromarray(first).save(folder / "a" / "masks" / "p.png")
    Image.fromarray(np.stack([second, second, second, second], -1)).save(folder / "a" / "masks" / "q.png")
    labels = everything(data(folder))[0].labels
    assert equal_up_to_renaming(labels, np.where(first > 0, 1, np.where(second > 0, 2, 0)))


def test_crowds_are_no_nuclei(tmp_path):
    """A COCO annotation of a crowd is not learned as a nucleus."""
    labels = bricks((30, 40), height=9, width=12, gap=4)
    path = write_coco(tmp_path / "c", {"a": labels}, packed)
    told = json.loads(path.read_text())
    told["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(told))
    assert equal_up_to_renaming(np.maximum(everything(data(path))[0].labels, 0), np.where(labels == 1, 0, labels))


def test_coco_images_may_lie_elsewhere(tmp_path):
    """`data.images` names the folder of a COCO file's images."""
    path = write_coco(tmp_path / "c", {"a": disks((40, 40))}, packed)
    (tmp_path / "pixels").mkdir()
    (tmp_path / "c" / "a.png").rename(tmp_path / "pixels" / "a.png")
    assert [e.id for e in everything(data(path, images=str(tmp_path / "pixels")))] == ["a"]


def test_images_of_five_channels_train_a_network_of_five(tmp_path):
    """Images keep all their channels, and a network with as many learns from them; one with three refuses them."""
    folder = write_folders(tmp_path / "f", {"a": disks((60, 60)), "b": disks((60, 60), seed=1)})
    for id in "ab":
        (folder / "images" / f"{id}.png").unlink()
        pixels = np.random.default_rng(0).integers(0, 4000, (5, 60, 60)).astype(np.uint16)
        tifffile.imwrite(folder / "images" / f"{id}.tif", pixels, metadata={"axes": "CYX"}, photometric="minisblack")
    assert everything(data(folder))[0].image.shape == (5, 60, 60)
    short = {"epochs": 1, "steps_per_epoch": 1, "data": {"holdout": 0}}
    five = {"settings": {"widths": (4, 8), "channels": 5}}
    assert loop.run(settings(folder, tmp_path / "five", network=five, **short)).epoch == 1
    with pytest.raises(ConfigError, match=r"channels is 3, but there are images of 5 channels"):
        loop.run(settings(folder, tmp_path / "three", **short))


def test_example_is_shown_as_the_engine_shows_it(dataset):
    """Training images go through the engine's own window: 0..1, the ends of the window reached."""
    shown = load(data(dataset), ["x01"])[0].normalised()
    assert shown.shape == (3, 90, 100)
    assert (shown.min(), shown.max()) == (0, 1)


def test_stained_images_are_in_colour_and_grey_ones_not(dataset):
    """Three channels alike are no colour, whatever the file says."""
    stained, grey = load(data(dataset), ["x00", "x01"])
    assert (stained.colour, grey.colour) == (True, False)
    assert (stained.modality, grey.modality) == ("stained-purple", "fluorescence")


# What may be seen


def test_excluded_groups_are_never_seen(dataset):
    """No excluded image, none of its group, and no group on both sides of the split."""
    parts = split(data(dataset, exclude="validation.txt", holdout=0.3), seed=0)
    group = read_column(Column(dataset / "groups.tsv"), "group")
    assert parts.excluded == ("x03",)
    assert not {"x02", "x03"} & {*parts.fit, *parts.held}
    assert len(parts.fit) + len(parts.held) == 10
    assert parts.held
    assert not {group[i] for i in parts.fit} & {group[i] for i in parts.held}


def test_only_the_listed_images_are_seen(dataset):
    """With `only` no other image is fitted on or held out; an excluded one may be any."""
    (dataset / "some.txt").write_text("x01\nx04\nx07\nx10\n")
    parts = split(data(dataset, only="some.txt", exclude="validation.txt", holdout=0.3), seed=0)
    assert sorted([*parts.fit, *parts.held]) == ["x01", "x04", "x07", "x10"]
    assert parts.excluded == ("x03",)


def test_other_images_move_no_group(dataset, tmp_path):
    """A group's side depends on its name and the seed: fewer images or modalities leave the others where they were."""
    parts = split(data(dataset, holdout=0.4), seed=0)
    some = split(data(dataset, holdout=0.4, mix={"fluorescence": 1.0}), seed=0)
    assert some.fit == tuple(i for i in parts.fit if int(i[1:]) % 3)
    assert some.held == tuple(i for i in parts.held if int(i[1:]) % 3)
    assert any(split(data(dataset, holdout=0.4), seed).held != parts.held for seed in (1, 2, 3))


@pytest.mark.realdata
def test_real_validation_groups_are_never_seen(realdata):
    """On the real training set neither fitting nor choosing sees a validation image or its micrograph."""
    folder = realdata / "dsb2018"
    group = read_column(Column(folder / "groups.tsv"), "group")
    banned = {group[i] for i in (folder / "validation.txt").read_text().split()}
    parts = split(data(folder, exclude="validation.txt"), seed=0)
    assert not banned & {group[i] for i in (*parts.fit, *parts.held)}
    assert len(parts.excluded) == 93
    assert len(parts.fit) > 450
    assert 20 < len(parts.held) < 100


# Masks that do not count


def holed_and_parted():
    """Labels (Y, X): 1 whole, 2 with a hole, 3 in two pieces, 4 in two that touch by a corner, 5 in the hole of 2."""
    labels = np.zeros((30, 60), np.int32)
    labels[2:8, 2:8] = 1
    labels[2:12, 12:24] = 2
    labels[4:10, 14:20] = 0
    labels[6:8, 16:18] = 5
    labels[2:6, 30:34] = labels[10:14, 30:34] = 3
    labels[2:6, 40:44] = labels[6:10, 44:48] = 4
    return labels


@pytest.mark.parametrize(("drop", "gone"), [((), ()), (("holes",), (2,)), (("pieces",), (3,))])
def test_masks_are_dropped_as_asked(drop, gone):
    """What is asked for is ignored with its holes; all other nuclei stay, one that lies in a hole too."""
    labels = holed_and_parted()
    found = cleaned(labels, drop)
    kept = ~np.isin(labels, gone) & (labels > 0)
    np.testing.assert_array_equal(found[kept], labels[kept])
    assert (found[np.isin(labels, gone)] == IGNORED).all()
    hole = (labels == 0) & (np.indices(labels.shape)[1] >= 14) & (np.indices(labels.shape)[1] < 20)
    hole &= (np.indices(labels.shape)[0] >= 4) & (np.indices(labels.shape)[0] < 10)
    assert (found[hole] == (IGNORED if 2 in gone else 0)).all()
    assert (found[(labels == 0) & ~hole] == 0).all()


def test_drop_reaches_the_training_set(tmp_path):
    """`data.drop` is followed where images are loaded."""
    folder = write_folders(tmp_path / "f", {"a": holed_and_parted()})
    found = everything(data(folder, drop=("holes", "pieces")))[0].labels
    np.testing.assert_array_equal(found, cleaned(holed_and_parted(), ("holes", "pieces")))
    assert set(np.unique(found)) == {IGNORED, 0, 1, 4, 5}


# What is wrong


def broken_sets(folder):
    """A training set of four in which one image, one label image and one pair are broken; the good one is `d`."""
    write_folders(folder, {id: disks((40, 40)) for id in "abcd"})
    (folder / "images" / "a.png").write_bytes(b"no image")
    (folder / "labels" / "b.png").unlink()
    Image.fromarray(np.zeros((30, 40), np.uint16)).save(folder / "labels" / "c.png")
    return folder


def test_broken_images_are_named_and_left_out(tmp_path, caplog):
    """An unreadable image, a missing truth and a truth of another shape are warned of by id; the rest is used."""
    with caplog.at_level(logging.WARNING):
        found = everything(data(broken_sets(tmp_path / "f")))
    assert [e.id for e in found] == ["d"]
    told = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert [t.split()[0] for t in told] == ["a", "b", "c"]
    assert "(40, 40)" in told[2]
    assert "(30, 40)" in told[2]


@pytest.mark.parametrize(
    "segmentation", [{"size": [4, 4], "counts": [1, 2]}, [], [[1, 2]], {"size": [40, 40]}, None, "text"]
)
def test_a_wrong_annotation_costs_its_image_only(segmentation, tmp_path, caplog):
    """A COCO annotation that is no mask of its image leaves that image out with a warning that names it."""
    path = write_coco(tmp_path / "c", {"a": disks((40, 40)), "b": disks((40, 40))}, packed)
    told = json.loads(path.read_text())
    told["annotations"][0]["segmentation"] = segmentation
    path.write_text(json.dumps(told))
    assert [e.id for e in everything(data(path))] == ["b"]
    assert "a is left out" in caplog.text


def test_nothing_readable_is_an_error(tmp_path):
    """A training without a readable image says so."""
    folder = broken_sets(tmp_path / "f")
    for name in ("images", "labels"):
        (folder / name / "d.png").unlink()
    with pytest.raises(ConfigError, match="none of the training images can be read"):
        loop.run(settings(folder, tmp_path / "out", data={"holdout": 0}))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"path": "nowhere"}, r"data\.path: nowhere does not exist"),
        ({"modality": "none.tsv"}, r"data\.modality: the table none\.tsv"),
        ({"groups": "none.tsv"}, r"data\.groups: the table none\.tsv"),
        ({"exclude": "none.txt"}, r"data\.exclude: none\.txt"),
        ({"exclude": "others.txt"}, r"others\.txt names .*y01, y02"),
        ({"groups": "short.tsv"}, r"short\.tsv lacks .*x11"),
        ({"mix": {"brightfield": 1.0}}, "no image is left to fit on"),
        ({"layout": "dsb"}, "no images as the layout dsb"),
        ({"layout": "coco", "path": "validation.txt"}, "is no COCO file"),
        ({"layout": "coco"}, "is no COCO file"),
    ],
)
def test_wrong_settings_are_named(dataset, more, told):
    """A setting of `data` that leads nowhere is named in the error."""
    (dataset / "others.txt").write_text("x01\ny01\ny02\n")
    lines = (dataset / "groups.tsv").read_text().splitlines()
    (dataset / "short.tsv").write_text("\n".join(lines[:-1]))
    path = dataset / more["path"] if more.get("path") == "validation.txt" else more.get("path", dataset)
    with pytest.raises(ConfigError, match=told):
        split(data(path, **{k: v for k, v in more.items() if k != "path"}), seed=0)


def test_choices_with_a_kind_say_what_may_be_written():
    """A fault below `sampling`, which is of one of two kinds, names what is allowed there."""
    for change, told in {
        "sampling.crop_px=abc": "found 'abc'; expected a whole number of at least 16 (pixels)",
        "sampling.crop=3": "did you mean sampling.crop_px (pixels)?",
        "sampling.kind=foo": "expected a section with the keys kind, crop_px",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(told)):
            read(TrainSpec, "conf/train/small_unet.yaml", [change])


def test_tables_that_lie_about_elsewhere_do_not_count(dataset, tmp_path, monkeypatch):
    """The usual tables are those beside the images; the folder that the command is given in adds none."""
    before = split(data(dataset, exclude="validation.txt"), seed=0)
    ids = [*before.fit, *before.held, *before.excluded]
    for name, column in (("groups.tsv", "group"), ("index.tsv", "modality")):
        (tmp_path / name).write_text(f"id\t{column}\n" + "".join(f"{i}\tone\n" for i in ids))
    (tmp_path / "validation.txt").write_text("\n".join(ids[1:]))
    monkeypatch.chdir(tmp_path)
    assert split(data(dataset, exclude="validation.txt"), seed=0) == before


def test_a_modality_without_images_is_named(dataset):
    """A share for a modality that the fitted images lack is an error that names it."""
    with pytest.raises(ConfigError, match="no brightfield images"):
        by_modality(load(data(dataset), ["x00"]), {"stained-purple": 0.5, "brightfield": 0.5})


def test_two_images_of_one_id_are_refused(tmp_path):
    """Images whose files differ by their endings alone cannot be told apart, and are named."""
    folder = write_folders(tmp_path / "f", {"a": disks((40, 40))})
    Image.open(folder / "images" / "a.png").save(folder / "images" / "a.tif")
    with pytest.raises(ConfigError, match="two images with the id a;"):
        find(data(folder))
