"""Laws of crops: the same by number, image and labels together, drawn as asked, each patch of a grid once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from slidebatch.errors import ConfigError
from slidebatch.training import feed, warp
from slidebatch.training.colour import recolour, restained
from slidebatch.training.crops import Crops, chances
from slidebatch.training.dataset import Example, load, split
from slidebatch.training.grid import Grid
from slidebatch.training.spec import AugmentSpec
from slidebatch.training.warp import Warp
from tests.support.oracle import bricks, disks
from tests.support.training_sets import PLAIN, STILL, augment, picture, settings, write_set

ALWAYS = {"rotate_chance": 1, "elastic_chance": 1, "scale": (0.65, 1.6)}
EVERYTHING = {f"{name}_chance": 1 for name in ("rotate", "elastic", "stain", "noise", "blur", "invert")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def example(labels, id="a", modality="m", group="g", seed=0) -> Example:
    image = np.ascontiguousarray(picture(labels, seed).transpose(2, 0, 1))
    return Example(id, modality, group, image, labels, colour=False)


def crops(examples, **more) -> Crops:
    return Crops(examples, settings(".", **more), channels=3)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# By number


def test_crops_are_known_by_number(dataset):
    """A number gives the same crop in any order, from any copy of the set; others and other seeds give others."""
    spec = settings(dataset, augment=EVERYTHING)
    examples = load(spec.data, split(spec.data, 0).fit)
    one, two = (Crops(examples, spec, 3) for _ in range(2))
    forward, backward = [one[k] for k in range(6)], [two[k] for k in reversed(range(6))]
    assert all(same(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not any(torch.equal(forward[0][0], c[0]) for c in forward[1:])
    assert not same(Crops(examples, settings(dataset, seed=1, augment=EVERYTHING), 3)[0], forward[0])


@pytest.mark.parametrize("loaders", [0, 1])
def test_batches_are_known_by_step(dataset, loaders):
    """A step's batch is the same whoever makes it, wherever one begins, and shared out it is the same crops."""
    spec = settings(dataset, loaders=loaders, batch=4)
    source = feed.source(load(spec.data, split(spec.data, 0).fit), spec, 3)
    batch = list(feed.batches(source, spec, range(5, 7)))[1]
    for k, crop in enumerate(source[number] for number in range(24, 28)):
        assert same([part[k] for part in batch], crop)
    parts = [next(iter(feed.batches(source, spec, range(6, 7), (rank, 2)))) for rank in range(2)]
    assert same([torch.stack(pair, 1).flatten(0, 1) for pair in zip(*parts, strict=True)], batch)


def test_crops_are_what_networks_take(dataset):
    """Images float32 in 0..1, classes uint8, weights float32, all contiguous, whatever is done to them."""
    spec = settings(dataset, augment=EVERYTHING)
    source = Crops(load(spec.data, split(spec.data, 0).fit), spec, 3)
    for image, classes, weights in (source[k] for k in range(20)):
        assert (image.shape, classes.shape, weights.shape) == ((3, 32, 32), (32, 32), (32, 32))
        assert (image.dtype, classes.dtype, weights.dtype) == (torch.float32, torch.uint8, torch.float32)
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.is_contiguous()


# Other positions


@pytest.mark.parametrize("more", [{}, {"flips": True}, {"rotate_chance": 1}, {"elastic_chance": 1}, ALWAYS])
def test_image_and_labels_stay_together(more):
    """After any change of position the bright pixels are the labelled ones, up to the rims' half pixels."""
    source = crops([example(disks((120, 110), seed=s)) for s in range(3)], augment={**STILL, **PLAIN, **more})
    bright, inside = [], []
    for image, classes, _ in (source[k] for k in range(40)):
        bright.append(image[0].numpy() > 105 / 255)
        inside.append(classes.numpy() > 0)
    assert np.mean(inside) > 0.1
    assert (np.array(bright) == np.array(inside)).mean() > 0.985


@pytest.mark.parametrize("size", [(20, 24), (21, 25)])
def test_no_warp_is_a_plain_cut(size):
    """Without enlargement, turning and distortion a crop is the image's own pixels."""
    shape = (70, 60)
    image = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
    labels = np.arange(70 * 60, dtype=np.int32).reshape(shape)
    centre = np.array([30, 25]) + np.array(size) % 2 / 2
    found, names = warp.sample(image, labels, Warp(size, np.eye(2)), centre)
    y, x = (int(c - s / 2) for c, s in zip(centre, size, strict=True))
    cut = np.s_[y : y + size[0], x : x + size[1]]
    np.testing.assert_array_equal(names, labels[cut])
    np.testing.assert_allclose(found.numpy(), image[(slice(None), *cut)] / 255, atol=1e-4)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_mirroring_and_quarter_turns_move_whole_pixels(quarters, mirrored):
    """Each of the eight views of a square holds every pixel once, where numpy puts it."""
    labels = np.arange(1, 24 * 24 + 1, dtype=np.int32).reshape(24, 24)
    image = (labels[None] % 251).astype(np.uint8)
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    matrix = np.array([[cos, -sin], [sin, cos]], float) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    found, names = warp.sample(image, labels, Warp((24, 24), matrix), np.array([12.0, 12.0]))
    views = [np.rot90(labels, k)[::m] for k in range(4) for m in (1, -1)]
    assert sum(np.array_equal(names, view) for view in views) == 1
    assert np.array_equal(names, labels) == (quarters == 0 and not mirrored)
    np.testing.assert_allclose(found[0].numpy(), (names % 251) / 255, atol=1e-4)


def test_all_eight_views_are_drawn():
    """With `flips` and nothing else, each of the eight views of a square comes up."""
    rng = np.random.default_rng(0)
    drawn = {tuple(np.round(warp.draw((8, 8), augment(flips=True), rng).matrix).ravel() + 0.0) for _ in range(200)}
    assert len(drawn) == 8


@pytest.mark.parametrize("seed", range(5))
def test_turning_keeps_shapes(seed):
    """Whatever is drawn, positions are turned and enlarged alike in all directions, by the scale, and not sheared."""
    drawn = warp.draw((32, 32), augment(**{**ALWAYS, "scale": (2, 2)}, flips=True), np.random.default_rng(seed))
    np.testing.assert_allclose(drawn.matrix @ drawn.matrix.T, np.eye(2) / 4, atol=1e-12)


@pytest.mark.parametrize("shift", [(3, 0), (0, -2), (4, 5)])
def test_a_distortion_that_is_the_same_everywhere_is_a_shift(shift):
    """Control points that are all moved alike move the whole crop, down and to the right where they are positive."""
    labels = np.arange(70 * 60, dtype=np.int32).reshape(70, 60)
    knots = np.broadcast_to(np.array(shift, np.float32)[:, None, None], (2, 4, 4)).copy()
    moved = warp.sample(
        np.zeros((1, 70, 60), np.uint8), labels, Warp((20, 24), np.eye(2), knots), np.array([30.0, 25.0])
    )
    y, x = 20 + shift[0], 13 + shift[1]
    np.testing.assert_array_equal(moved[1], labels[y : y + 20, x : x + 24])


def test_enlargement_is_one():
    """A scale of 2 doubles lengths: a square of 10 px becomes one of 20 px."""
    labels = np.zeros((60, 60), np.int32)
    labels[25:35, 25:35] = 1
    drawn = warp.draw((40, 40), augment(scale=(2, 2)), np.random.default_rng(0))
    names = warp.sample(np.zeros((1, 60, 60), np.uint8), labels, drawn, np.array([30.0, 30.0]))[1]
    assert names.sum() == 400


def test_crops_stay_inside_where_they_can():
    """A plain crop never looks out of an image that holds it, and reaches all of it; a larger one is mirrored."""
    labels = np.arange(1, 41 * 50 + 1, dtype=np.int32).reshape(41, 50)
    source = crops([example(np.ones((41, 50), np.int32))])
    seen = np.zeros(labels.size + 1, bool)
    for number in range(300):
        rng = np.random.default_rng(number)
        drawn = warp.draw(source.size, augment(), rng)
        centre = warp.anywhere(labels.shape, drawn, rng)
        names = warp.sample(np.zeros((1, 41, 50), np.uint8), labels, drawn, centre)[1]
        assert len(np.unique(names)) == 32 * 32
        seen[names] = True
    assert seen[1:].mean() > 0.98
    wide = warp.sample(np.zeros((1, 41, 50), np.uint8), labels, Warp((81, 98), np.eye(2)), np.array([20.5, 25.0]))[1]
    np.testing.assert_array_equal(wide, np.pad(labels, [(20, 20), (24, 24)], mode="symmetric"))


# Other intensities


def test_grey_stays_grey():
    """An image whose channels are alike keeps them alike, whatever is done to it; of colour ones they differ."""
    image = torch.rand(1, 16, 16).expand(3, -1, -1)
    spec = AugmentSpec.model_validate({**EVERYTHING, "blur_chance": 0.5, "invert_chance": 0.5})
    for seed in range(20):
        found = recolour(image, spec, False, np.random.default_rng(seed))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
    assert not torch.equal(*recolour(image, spec, True, np.random.default_rng(0))[:2])


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("colour", [False, True])
def test_intensities_stay_in_range(channels, colour):
    """Whatever is done, intensities stay in 0..1 and the shape stays."""
    image = torch.rand(channels, 12, 14)
    for seed in range(20):
        spec = AugmentSpec.model_validate({**EVERYTHING, "invert_chance": 0.5, "contrast": (0.2, 4), "brightness": 0.5})
        found = recolour(image, spec, colour and channels == 3, np.random.default_rng(seed))
        assert found.shape == image.shape
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 1


def test_nothing_asked_changes_nothing():
    """With every range at its neutral value and every chance at 0 an image stays as it is."""
    image = torch.rand(3, 12, 14)
    torch.testing.assert_close(recolour(image, augment(), True, np.random.default_rng(0)), image)


def test_stains_of_strength_one_change_nothing():
    """Stains multiplied by 1 give the same colours, down to the darkest that is followed."""
    image = torch.rand(3, 20, 20)
    torch.testing.assert_close(restained(image, np.ones(3)), image.clamp(1 / 255), atol=1e-4, rtol=0)


@pytest.mark.parametrize("strengths", [(0.8, 1.2, 1.0), (1.25, 0.75, 1.1)])
def test_stains_are_multiplied(strengths):
    """Stain by stain the amounts are multiplied, as scikit-image parts them."""
    amounts = np.random.default_rng(0).uniform(0.01, 0.12, (20, 20, 3))
    image = torch.from_numpy(hed2rgb(amounts).transpose(2, 0, 1).astype(np.float32))
    found = rgb2hed(restained(image, np.array(strengths)).numpy().transpose(1, 2, 0))
    np.testing.assert_allclose(found, amounts * strengths, atol=2e-3)


# What is drawn


def shares(found, key) -> dict[str, float]:
    return {name: float(sum(p for p, e in found if key(e) == name)) for name in {key(e) for _, e in found}}


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_modalities_and_groups_are_drawn_as_asked(balance):
    """Modalities have the shares of `mix`; within one, a group of n images weighs n to the power 1 - balance."""
    labels = np.zeros((8, 8), np.int32)
    groups = ["a"] + ["b"] * 4 + ["c"] * 9
    examples = [example(labels, str(i), "one", g) for i, g in enumerate(groups)]
    examples += [example(labels, "x", "two", "d"), example(labels, "y", "out", "e")]
    spec = settings(".", data={"mix": {"one": 3.0, "two": 1.0}, "balance": balance})
    found = list(zip(chances(examples, spec), examples, strict=True))
    assert shares(found, lambda e: e.modality) == pytest.approx({"one": 0.75, "two": 0.25, "out": 0})
    size = np.array([1.0, 4.0, 9.0]) ** (1 - balance)
    wanted = dict(zip("abc", 0.75 * size / size.sum(), strict=True))
    assert {g: s for g, s in shares(found, lambda e: e.group).items() if g in "abc"} == pytest.approx(wanted)


def test_larger_images_of_a_group_are_drawn_more():
    """Within a group an image's chance goes with the root of its area; without `mix` modalities come as they are."""
    small, large = np.zeros((8, 8), np.int32), np.zeros((16, 16), np.int32)
    examples = [example(small, "a"), example(large, "b"), example(small, "c", "other", "h")]
    found = chances(examples, settings("."))
    np.testing.assert_allclose(found, [2 / 9, 4 / 9, 1 / 3])


def test_what_is_drawn_follows_the_chances():
    """Of many crops each image has about its share."""
    examples = [example(np.full((40, 40), k, np.int32), str(k), group=str(k % 2)) for k in range(5)]
    for k, e in enumerate(examples):
        e.image[:] = 50 * k
    source = crops(examples, augment={**STILL, **PLAIN})
    drawn = np.bincount([round(float(source[n][0][0, 0, 0]) * 255) // 50 for n in range(2000)], minlength=5) / 2000
    np.testing.assert_allclose(drawn, source.chances, atol=0.04)


# The grid


def grid(examples, **more) -> Grid:
    kind = {"kind": "grid", "image_px": (48, 64), "images": len(examples), "divisions": 4, **more}
    return Grid(examples, settings(".", sampling=kind, steps_per_epoch=None), channels=3)


def patches(source: Grid, epoch: int = 0):
    count = len(source.places)
    return [source[epoch * count + k] for k in range(count)]


def test_patches_tile_the_images():
    """The patches of the images as they are, each once an epoch, are their middles cut into a grid."""
    wide = [example(np.arange(60 * 70, dtype=np.int32).reshape(60, 70) + 1, str(i), seed=i) for i in range(2)]
    source = grid(wide)
    assert len(source) == 2 * 16
    whole = [e.image[:, 6:54, 3:67] / 255 for e in wide]
    tiles = [w[:, y : y + 12, x : x + 16] for w in whole for y in range(0, 48, 12) for x in range(0, 64, 16)]
    for epoch in (0, 1):
        found = np.array([p[0].numpy() for p in patches(source, epoch)])
        distance = np.array([np.abs(found - t).max(axis=(1, 2, 3)) for t in tiles])
        assert ((distance < 1e-3).sum(axis=1) == 1).all()
        assert ((distance < 1e-3).sum(axis=0) == 1).all()
    assert not all(same(a, b) for a, b in zip(patches(source, 0), patches(source, 1), strict=True))


def test_blank_patches_are_dropped():
    """With `blank: false` exactly the patches without a nucleus are missing; ones that do not count are none."""
    labels = np.zeros((48, 64), np.int32)
    labels[:10, :10], labels[20, 40], labels[47, 63] = 1, 2, -1
    assert grid([example(labels)], blank=False).places == [(0, 0, 0), (0, 12, 32)]
    assert len(grid([example(labels)]).places) == 16
    with pytest.raises(ConfigError, match="all patches are blank"):
        grid([example(np.zeros_like(labels))], blank=False)


def test_copies_are_changed_and_known_by_number():
    """Beyond the images themselves come changed copies in turn, the same in any order."""
    examples = [example(bricks((48, 64), 9, 12, 3), str(i), seed=i) for i in range(2)]
    one, two = (grid(examples, images=5) for _ in range(2))
    numbers = range(5 * 16)
    assert all(same(one[k], c) for k, c in [(k, two[k]) for k in reversed(numbers)])
    assert not torch.equal(one.copy(0)[0], one.copy(2)[0])
    assert not torch.equal(one.copy(2)[0], one.copy(4)[0])
    assert (one.copy(4)[0].shape, one.copy(4)[1].shape) == ((3, 48, 64), (48, 64))


def test_only_large_enough_images_are_cut():
    """Images smaller than `image_px` are left out, `most` takes the first of the rest, and none is an error."""
    examples = [example(np.zeros((48 + k, 64), np.int32), str(k)) for k in (-1, 0, 1, 2)]
    assert [e.id for e in grid(examples).examples] == ["0", "1", "2"]
    assert [e.id for e in grid(examples, most=2).examples] == ["0", "1"]
    with pytest.raises(ConfigError, match="no image has"):
        grid(examples[:1])
    with pytest.raises(ConfigError, match="cannot be cut into 5"):
        grid(examples, divisions=5)
