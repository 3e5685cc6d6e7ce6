"""Laws of the network itself: a pixel's maps depend on its surroundings alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from slidebatch.models.blocks import fold_batch_norm
from slidebatch.models.dense import DenseNetwork, Running
from slidebatch.models.engines import Choice, forward
from slidebatch.models.protocol import Card
from slidebatch.models.small_unet import Architecture, SmallUNet, class_maps

ARCHITECTURE = Architecture()
MARGIN, STRIDE = ARCHITECTURE.margin_px, ARCHITECTURE.stride_px


@pytest.fixture(scope="module")
def trained():
    """A network whose batch norms have seen images, so that their statistics are not the trivial ones."""
    torch.manual_seed(0)
    network = SmallUNet(ARCHITECTURE).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 64) * 3)
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module")
def model(trained):
    card = Card("small_unet", "dense", 3, ("nucleus", "contour"), MARGIN, STRIDE, None, "")
    return DenseNetwork(forward(trained, Choice("eager", "float32"), "cpu", 1), card, Running())


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((3, 368, 416), np.float32)


def test_size():
    """About half a million parameters, margin at most 52 px."""
    assert 0.4e6 < sum(p.numel() for p in SmallUNet().parameters()) < 0.6e6
    assert MARGIN <= 52


def test_margin_is_the_receptive_field():
    """With positive weights everywhere, the farthest input with a gradient is the margin, at some output phase."""
    network = SmallUNet(ARCHITECTURE).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 0.01)
    reach = []
    for phase in range(STRIDE):
        image = torch.zeros(1, 3, 8, 256).requires_grad_()  # a constant image would hide what max pooling may see
        with torch.no_grad():
            image += torch.rand(image.shape)
        centre = 128 + phase
        seen = torch.zeros(256, dtype=torch.bool)
        for _ in range(12):  # the pooled maximum sits elsewhere each time
            with torch.no_grad():
                image.copy_(torch.rand(image.shape))
            gradient = torch.autograd.grad(network(image)[0, 1, :, centre].sum(), image)[0]
            seen |= gradient[0].abs().sum((0, 1)) > 0
        found = torch.nonzero(seen).ravel()
        reach.append(max(centre - int(found[0]), int(found[-1]) - centre))
    assert max(reach) == MARGIN


def test_gridded_equals_whole(model, image):
    """Patches of any size on the stride, margins thrown away, give the whole image's maps bit for bit."""
    whole = model.maps(image[None])[0]
    edge = -(-MARGIN // STRIDE) * STRIDE
    for cell in (8, 16, 32, 80, 128):
        side = cell + 2 * edge
        for y in range(0, image.shape[1] - side + 1, max(cell, 64)):
            for x in range(0, image.shape[2] - side + 1, max(cell, 64)):
                found = model.maps(image[None, :, y : y + side, x : x + side])[0]
                inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
                np.testing.assert_array_equal(found[inner], whole[:, y : y + side, x : x + side][inner])


def test_pixels_beyond_the_margin_do_not_matter(model, image):
    """Changing every pixel farther than the margin changes no bit; the nearest pixel does."""
    other = 1 - image
    y, x = 184, 208
    near = (slice(None), slice(y - MARGIN, y + MARGIN + 1), slice(x - MARGIN, x + MARGIN + 1))
    other[near] = image[near]
    before, after = model.maps(image[None])[0], model.maps(other[None])[0]
    np.testing.assert_array_equal(before[:, y, x], after[:, y, x])
    assert (before != after).any()


def test_batch_does_not_matter(model, image):
    """Batch size and order change no bit."""
    patches = np.stack([image[:, i : i + 128, 2 * i : 2 * i + 128] for i in range(0, 40, 8)])
    together = model.maps(patches)
    np.testing.assert_array_equal(together, np.concatenate([model.maps(p[None]) for p in patches]))
    np.testing.assert_array_equal(together[::-1], model.maps(np.ascontiguousarray(patches[::-1])))


def test_folding_changes_nothing(trained, image):
    """The network with folded batch norm answers as the one that was trained, to a grey level."""
    folded = fold_batch_norm(copy.deepcopy(trained))
    a, b = (class_maps(n, image[None, :, :128, :128]).astype(int) for n in (trained, folded))
    assert abs(a - b).max() <= 1
    assert np.ptp(a) > 20  # and has something to say


def test_maps_are_probabilities(model, image):
    """Maps are uint8, nucleus and contour together at most 255 (and rounding)."""
    maps = model.maps(image[None, :, :64, :64])
    assert maps.dtype == np.uint8
    assert maps.shape == (1, 2, 64, 64)
    assert maps.astype(int).sum(1).max() <= 256


def test_one_channel_is_repeated(model, image):
    """A single channel is what three equal channels are; other counts are refused."""
    grey = image[None, :1, :64, :64]
    np.testing.assert_array_equal(model.maps(grey), model.maps(np.repeat(grey, 3, axis=1)))
    with pytest.raises(Exception, match="takes 1 or 3 channels and was given 2"):
        model.maps(image[None, :2, :64, :64])
    with pytest.raises(ValueError, match="no multiple of the stride"):
        model.maps(image[None, :, :60, :64])


def test_empty_batch(model):
    """No patches, no maps."""
    assert model.maps(np.zeros((0, 3, 64, 64), np.float32)).shape == (0, 2, 64, 64)


def test_threads_are_kept(model, image):
    """The network runs with its own thread count, whatever a library before it set."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model.maps(image[None, :, :64, :64])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
