"""Laws of the kinds of dense networks: what their architectures say is what they do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from slidebatch import models
from slidebatch.errors import ModelError
from slidebatch.models import networks
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import SHIPPED, CardFile, load_weights, read_card, write_weights

CASES = {
    "simple_conv": ("simple_conv", {"widths": [4, 5, 6], "classes": 2, "channels": 1}),
    "small_unet": ("small_unet", {"widths": [4, 6, 8]}),
    "unet, two scales": ("unet", {"widths": [4, 6], "activation": "elu", "norm": "none", "dropout": 0.2}),
    "unet, three scales": ("unet", {"widths": [8, 8, 8], "activation": "selu", "norm": "batch", "classes": 2}),
    "small_unet_dense": ("small_unet_dense", {"widths": [4, 6], "patch_px": [16, 20], "overlap_px": 2, "hidden": 8}),
}


def write(folder, network: str, settings: dict, **card) -> str:
    """Untrained weights of a network, and a card that fits, changed by `card`."""
    torch.manual_seed(1)
    made = networks.architecture(network, settings)
    fits = CardFile(
        network=network,
        architecture=settings,
        maps=tuple(f"map{i}" for i in range(1, made.classes)),
        margin_px=made.margin_px,
        stride_px=made.stride_px,
    )
    path = folder / "own.safetensors"
    write_weights(path, networks.build(network, settings).state_dict(), fits.model_copy(update=card))
    return str(path)


@pytest.mark.parametrize("case", CASES)
def test_networks_answer_for_every_pixel(case):
    """(N, channels, Y, X) gives (N, classes, Y, X), and gradients reach every parameter."""
    made = networks.architecture(*CASES[case])
    network = networks.build(*CASES[case])
    side = made.stride_px * -(-32 // made.stride_px)
    answer = network(torch.rand(2, made.channels, side, 2 * side))
    assert answer.shape == (2, made.classes, side, 2 * side)
    answer.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("case", [c for c in CASES if c != "small_unet_dense"])
def test_the_margin_is_the_receptive_field(case):
    """The farthest pixel that can change an answer, at some place on the stride, is the margin away."""
    made, network = networks.architecture(*CASES[case]), networks.build(*CASES[case]).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 0.02)
    width = 8 * made.stride_px * (made.margin_px // made.stride_px + 2)
    reach = 0
    for phase in range(made.stride_px):
        centre = width // 2 // made.stride_px * made.stride_px + phase
        for _ in range(12):  # the pooled maximum sits elsewhere each time
            picture = torch.rand(1, made.channels, max(made.stride_px, 4), width).requires_grad_()
            answer = network(picture)[0, 1, :, centre].sum()
            seen = torch.autograd.grad(answer, picture)[0][0].abs().sum((0, 1)).nonzero().ravel()
            reach = max(reach, centre - int(seen[0]), int(seen[-1]) - centre)
    assert reach == made.margin_px


def test_a_dense_bottleneck_sees_its_own_patch_alone():
    """A fully connected bottleneck sees all of the patch around a cell, and nothing beyond it."""
    made, network = networks.architecture(*CASES["small_unet_dense"]), networks.build(*CASES["small_unet_dense"]).eval()
    picture = torch.rand(1, 3, 48, 48).requires_grad_()  # cells of 12 x 16: four rows of three
    answer = network(picture)[0, 1, 12:24, 16:32].sum()
    seen = torch.autograd.grad(answer, picture)[0][0].abs().sum(0) > 0
    expected = torch.zeros(48, 48, dtype=torch.bool)
    expected[10:26, 14:34] = True
    assert torch.equal(seen, expected)
    assert (made.stride_px, made.margin_px) == (48, 17)


def test_a_dense_bottleneck_trains_on_its_patch_and_answers_larger_images():
    """A lone patch is answered whole; inside an image its middle is the same; other sizes are refused."""
    torch.manual_seed(0)
    network = networks.build(*CASES["small_unet_dense"]).eval()
    picture = torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        alone = network(picture[:, :, 10:26, 14:34])
        torch.testing.assert_close(network(picture)[:, :, 12:24, 16:32], alone[:, :, 2:14, 2:18])
        with pytest.raises(ValueError, match="no whole cells"):
            network(picture[:, :, :40])


def test_blocks_of_deep_networks():
    """U-Nets of 9 and 13 blocks are five and seven widths; the deeper one looks 443 px far, or states an overlap."""
    nine = networks.architecture("unet", {"widths": [16, 32, 64, 128, 256]})
    settings = {"widths": [4, 4, 4, 4, 4, 4, 4], "activation": "elu", "norm": "none", "dropout": 0.1}
    thirteen = networks.architecture("unet", settings)
    assert (nine.stride_px, nine.margin_px) == (16, 107)
    assert (thirteen.stride_px, thirteen.margin_px) == (64, 443)
    network = networks.build("unet", settings)
    assert len(network.down) + len(network.up) == 13
    assert network(torch.rand(1, 3, 512, 512)).shape == (1, 3, 512, 512)
    assert networks.architecture("unet", settings | {"overlap_px": 64}).margin_px == 64


def test_shipped_weights_and_old_checkpoints_load():
    """The tensors of `small_unet` keep their names and shapes."""
    network = networks.build("small_unet", {})
    load_weights(network, SHIPPED / "small_unet.safetensors", "small_unet")
    names = list(network.state_dict())
    assert names[0] == "down.0.0.weight"
    assert {"down.3.4.running_mean", "up.0.0.weight", "up.2.3.weight", "head.bias"} <= set(names)
    assert read_card(SHIPPED / "small_unet.safetensors").network == "small_unet"


@pytest.mark.parametrize("case", CASES)
def test_any_network_runs_from_its_weights(tmp_path, case):
    """The card of a weights file decides which network is built, and its answers have its maps."""
    network, settings = CASES[case]
    spec = ModelSpec(weights=write(tmp_path, network, settings), engine="eager", precision="float32")
    model = models.load(spec)
    assert model.card.name == network
    side = model.card.stride_px * -(-32 // model.card.stride_px)
    maps = model.maps(np.random.default_rng(0).random((2, 1, side, side), np.float32), [])
    assert maps.shape == (2, len(model.card.maps), side, side)
    assert model.card == models.card(spec)


def test_group_norm_is_refused_unless_an_overlap_is_stated(tmp_path):
    """A norm over whole patches cannot be seamless: it runs only where the card states an overlap."""
    settings = {"widths": [8, 8], "norm": "group"}
    with pytest.raises(ModelError, match=r"cannot be run in patches: a group norm looks at the whole patch"):
        models.card(ModelSpec(weights=write(tmp_path, "unet", settings)))
    card = models.card(ModelSpec(weights=write(tmp_path, "unet", settings | {"overlap_px": 12})))
    assert card.margin_px == 12


def test_wrong_architectures_are_named(tmp_path):
    """Unknown networks, unknown settings and wrong values are named, all at once."""
    with pytest.raises(ModelError, match=r"no network is named 'unett'; did you mean unet\?"):
        networks.build("unett", {})
    with pytest.raises(ModelError, match=r"depth is no setting of unet .*activation: .*norm"):
        networks.architecture("unet", {"depth": 3, "activation": "tanh", "norm": 1})
    for name, settings in (
        ("simple_conv", {"channels": 0}),
        ("small_unet", {"classes": -1}),
        ("unet", {"widths": [0]}),
    ):
        with pytest.raises(ModelError, match=r"(channels|classes|widths\.0): Input should be greater than 0"):
            networks.architecture(name, settings)
    with pytest.raises(ModelError, match="multiples of 8 px"):
        networks.architecture("small_unet_dense", {"patch_px": [60, 80]})
    path = write(tmp_path, "unet", {"widths": [8, 8]})
    card = tmp_path / "own.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"architecture": {"width": 3}}))
    with pytest.raises(ModelError, match=r"own\.safetensors: its card cannot be used: .*width is no setting"):
        models.card(ModelSpec(weights=path))


def test_names_hold_networks_and_shipped_weights():
    """Every kind of network can be named without torch knowing it, and so can every weights file that ships."""
    assert set(models.DENSE) == set(networks.NETWORKS)
    assert set(models.DETECTORS) == set(networks.DETECTORS)
    assert {*networks.NETWORKS, *networks.DETECTORS, *(p.stem for p in SHIPPED.glob("*.safetensors")), "oracle"} <= set(
        models.names()
    )
    with pytest.raises(ModelError, match="there are no weights for unet"):
        models.card(ModelSpec(name="unet"))
