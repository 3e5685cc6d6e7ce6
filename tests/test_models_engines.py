"""Laws of fast inference: a pixel's bits depend on its surroundings alone, whatever engine, precision and view."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from slidebatch import models
from slidebatch.errors import ModelError
from slidebatch.evaluate.tables import Column, read_column
from slidebatch.models import engines, networks
from slidebatch.models.blocks import ready
from slidebatch.models.dense import DenseNetwork, Running
from slidebatch.models.engines import Choice, choose, forward, has_bfloat16, installed
from slidebatch.models.protocol import Card
from slidebatch.models.small_unet import class_maps
from slidebatch.models.spec import ModelSpec
from slidebatch.models.views import VIEWS
from slidebatch.models.weights_file import SHIPPED, load_weights, read_card
from slidebatch.training.dataset import load
from slidebatch.training.spec import DataSpec

CHOICES = [
    Choice(engine, precision)
    for engine in ("eager", "openvino", "onnx")
    for precision in ("float32", "bfloat16")
    if installed(engine) and (precision == "float32" or (engine != "onnx" and has_bfloat16("cpu")))
]
"""Every engine and precision that this machine offers."""

SETTINGS = {
    "small_unet": {},
    "simple_conv": {},
    "unet": {"widths": [16, 32, 48], "activation": "elu", "norm": "none", "dropout": 0.1},
    "unet selu": {"widths": [16, 24, 32, 40], "activation": "selu", "norm": "batch"},
    "small_unet_dense": {"widths": [8, 16, 32], "patch_px": [32, 40], "overlap_px": 4, "hidden": 32},
}


@cache
def trained(name: str) -> torch.nn.Module:
    """A network whose batch norms have seen images, so that their statistics are not the trivial ones."""
    torch.manual_seed(0)
    network = networks.build(name.split()[0], SETTINGS[name]).train()
    side = networks.architecture(name.split()[0], SETTINGS[name]).stride_px
    side *= -(-64 // side)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, side, side) * 3)
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return network.eval()


def model(name: str, choice: Choice, tta: str = "none") -> DenseNetwork:
    made = networks.architecture(name.split()[0], SETTINGS[name])
    card = Card(name, "dense", 3, ("nucleus", "contour"), made.margin_px, made.stride_px, None, "")
    return DenseNetwork(forward(trained(name), choice, "cpu", 1), card, Running(tta=tta))


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((3, height, width), np.float32)


def assert_gridded_is_whole(answer, picture: np.ndarray, margin: int, stride: int, cells: tuple[int, ...]) -> None:
    """Patches around cells of any size, anywhere on the stride, answer inside as the whole picture does."""
    whole = answer(picture[None])
    assert np.isfinite(whole).all()
    edge = -(-margin // stride) * stride
    rng = np.random.default_rng(1)
    for cell in cells:
        height, width = cell + 2 * edge, min(2 * cell + 2 * edge, picture.shape[2])
        for _ in range(2):
            y = int(rng.integers((picture.shape[1] - height) // stride + 1)) * stride
            x = int(rng.integers((picture.shape[2] - width) // stride + 1)) * stride
            found = answer(np.ascontiguousarray(picture[None, :, y : y + height, x : x + width]))
            inner = (..., slice(edge, height - edge), slice(edge, width - edge))
            expected = whole[..., y : y + height, x : x + width][inner]
            np.testing.assert_array_equal(found[inner], expected, err_msg=f"cell {cell}")


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.engine}-{c.precision}")
def test_logits_do_not_depend_on_the_patch(choice):
    """Before any rounding to grey levels, every bit of an answer is the same in patches of any size and place."""
    torch.set_num_threads(1)
    run = forward(trained("small_unet"), choice, "cpu", 1)

    def logits(patches):
        with torch.inference_mode():
            return run(torch.from_numpy(np.ascontiguousarray(patches))).numpy()

    assert_gridded_is_whole(logits, image(384, 416), 51, 8, (8, 16, 48, 104, 200))


@pytest.mark.parametrize("name", ["simple_conv", "unet", "unet selu", "small_unet_dense"])
@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.engine}-{c.precision}")
def test_every_network_is_seamless(name, choice):
    """Class maps of every kind of network are the same in patches of any size and place."""
    made = networks.architecture(name.split()[0], SETTINGS[name])
    if networks.unrolled(made) and choice.engine != "eager":
        with pytest.raises(ModelError, match="loops over its own patches"):
            choose(choice.engine, choice.precision, "cpu", True)
        return
    side = made.stride_px * (-(-240 // made.stride_px))
    cells = tuple(made.stride_px * n for n in (1, 2, 3) if made.stride_px * n + 2 * made.margin_px < 200)
    assert_gridded_is_whole(model(name, choice).maps, image(side, side), made.margin_px, made.stride_px, cells)


@pytest.mark.parametrize("tta", ["flips", "d4"])
@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.engine}-{c.precision}")
def test_augmented_answers_are_seamless(tta, choice):
    """The mean over mirrored and turned views is the same in patches of any size and place, oblong ones too."""
    assert_gridded_is_whole(model("unet", choice, tta).maps, image(160, 200), 23, 4, (4, 36, 60))


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.engine}-{c.precision}")
def test_batches_do_not_matter(choice):
    """Batch size and order change no bit."""
    made = model("small_unet", choice)
    patches = np.stack([image(200, 200)[:, i : i + 96, 2 * i : 2 * i + 96] for i in range(0, 40, 8)])
    together = made.maps(patches)
    np.testing.assert_array_equal(together, np.concatenate([made.maps(p[None]) for p in patches]))
    np.testing.assert_array_equal(together[::-1], made.maps(np.ascontiguousarray(patches[::-1])))


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.engine}-{c.precision}")
@pytest.mark.parametrize("weights", ["shipped", "small_unet", "unet selu"])
def test_engines_agree(weights, choice):
    """Each engine answers as the network that was trained: to a grey level in float32, to eight in bfloat16."""
    torch.set_num_threads(1)
    if weights == "shipped":
        path = SHIPPED / "small_unet.safetensors"
        network = networks.build("small_unet", read_card(path).architecture).eval()
        load_weights(network, path, "small_unet")
    else:
        network = trained(weights)
    picture = torch.from_numpy(smooth_blobs(256))
    with torch.inference_mode():
        expected = network(picture).softmax(1) * 255
        found = forward(network, choice, "cpu", 1)(picture).softmax(1) * 255
    off = (found - expected).abs()
    assert float(off.max()) <= (0.05 if choice.precision == "float32" else 8)
    assert float(off.mean()) <= (0.001 if choice.precision == "float32" else 1)
    assert float(expected.max() - expected.min()) > 20  # and has something to say


def smooth_blobs(side: int) -> np.ndarray:
    """A picture (1, 3, side, side) float32 with bright disks of several sizes on a noisy dark ground."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    picture = 0.05 * rng.random((side, side))
    for _ in range(40):
        cy, cx, radius = rng.random() * side, rng.random() * side, rng.uniform(4, 14)
        picture += rng.uniform(0.2, 0.8) / (1 + np.exp(np.hypot(y - cy, x - cx) - radius))
    return np.repeat(np.clip(picture, 0, 1)[None, None], 3, axis=1).astype(np.float32)


def test_ready_networks_compute_the_same():
    """Folding batch norms and parting joined convolutions changes a network by rounding alone, at the ends too."""
    for name in SETTINGS:
        network = trained(name)
        side = networks.architecture(name.split()[0], SETTINGS[name]).stride_px
        picture = torch.rand(2, 3, side * -(-48 // side), side * -(-64 // side))
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with torch.inference_mode():
            expected, found = network(picture), ready(network)(picture)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()), "the original was changed"
        assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.Dropout) for m in ready(network).modules())


@pytest.mark.parametrize("tta", VIEWS)
def test_views_come_back(tta):
    """Every view undone is the image, and no two views are the same."""
    picture = torch.rand(1, 2, 4, 6)
    seen = [v.of(picture) for v in VIEWS[tta]]
    assert all(torch.equal(v.back(s), picture) for v, s in zip(VIEWS[tta], seen, strict=True))
    assert len({(tuple(s.shape), s.flatten()[:6].numpy().tobytes()) for s in seen}) == len(VIEWS[tta])
    assert len(VIEWS[tta]) == {"none": 1, "flips": 4, "d4": 8}[tta]


def test_augmented_answers_turn_with_the_image():
    """The mean over all views of a turned or mirrored image is the turned or mirrored mean, to a grey level."""
    made = model("unet", Choice("eager", "float32"), "d4")
    picture = image(64, 96)[None]
    straight = made.maps(picture).astype(int)
    for turned, back in (
        (np.rot90(picture, 1, (2, 3)), lambda m: np.rot90(m, -1, (2, 3))),
        (picture[..., ::-1], lambda m: m[..., ::-1]),
    ):
        found = back(made.maps(np.ascontiguousarray(turned))).astype(int)
        assert abs(found - straight).max() <= 1
    alone = model("unet", Choice("eager", "float32")).maps(picture).astype(int)
    assert abs(alone - straight).max() > 1  # the views do differ


def test_digests_tell_engines_apart():
    """Engine, its version, precision and augmentation change the digest; auto is what it becomes."""
    specs = [ModelSpec(engine=c.engine, precision=c.precision) for c in CHOICES] + [
        ModelSpec(engine="eager", precision="float32", tta="flips"),
        ModelSpec(engine="eager", precision="float32", tta="d4"),
    ]
    assert len({models.card(s).digest for s in specs}) == len(specs)
    settled = models.settle(ModelSpec())
    assert "auto" not in (settled.engine, settled.precision)
    assert models.card(settled).digest == models.card(ModelSpec()).digest


def test_digests_follow_an_engine_s_version(monkeypatch):
    """Another version of an engine is another digest."""
    spec = ModelSpec(engine="openvino" if installed("openvino") else "eager", precision="float32")
    before = models.card(spec).digest
    monkeypatch.setattr(engines, "version", lambda name: "0.0.1")
    assert (models.card(spec).digest != before) == installed("openvino")


def test_missing_engines_are_never_replaced(monkeypatch):
    """An engine that is not installed is refused where it is asked for, and passed over by auto."""
    monkeypatch.setattr(engines, "installed", lambda engine: engine == "eager")
    with pytest.raises(ModelError, match=r"openvino is not installed; install slidebatch\[fast\]"):
        models.card(ModelSpec(engine="openvino"))
    assert models.settle(ModelSpec()).engine == "eager"


def test_precision_that_a_processor_lacks_is_refused(monkeypatch):
    """bfloat16 is taken by auto only where the processor has it, and refused elsewhere."""
    monkeypatch.setattr(engines, "has_bfloat16", lambda device: False)
    assert choose("eager", "auto", "cpu", False) == Choice("eager", "float32")
    with pytest.raises(ModelError, match="no instructions for it; use float32"):
        models.card(ModelSpec(precision="bfloat16"))
    monkeypatch.setattr(engines, "has_bfloat16", lambda device: True)
    assert choose("eager", "auto", "cpu", False) == Choice("eager", "bfloat16")
    assert choose("auto", "auto", "cuda", False) == Choice("eager", "bfloat16")
    with pytest.raises(ModelError, match="runs on a CPU and the device is cuda"):
        choose("openvino", "auto", "cuda", False)


def test_other_families_know_no_engines(tmp_path):
    """Networks that slidebatch does not build itself refuse the settings that mean nothing to them."""
    with pytest.raises(ModelError, match=r"oracle is no network .* knows no engine, tta"):
        models.card(ModelSpec(name="oracle", engine="eager", tta="d4", settings={"truth": str(tmp_path)}))


@pytest.mark.realdata
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_engines_give_one_answer_within_the_stated_tolerance(choice, realdata):
    """On real images maps differ from the plain network's by at most 1 grey level of 255 in float32; in bfloat16
    by at most 24, and by more than 2 in one byte of 100."""
    network = models.load(ModelSpec(engine=choice.engine, precision=choice.precision))
    plain = networks.build("small_unet", {})
    load_weights(plain, SHIPPED / "small_unet.safetensors", "small_unet")
    for example in small_examples(realdata):
        patch = np.ascontiguousarray(example.normalised()[None, :, :256, :256])
        off = network.maps(patch).astype(int) - class_maps(plain.eval(), patch).astype(int)
        assert np.abs(off).max() <= (1 if choice.precision == "float32" else 24)
        assert np.mean(np.abs(off) > 2) <= 0.01


def small_examples(realdata):
    """A fluorescence, a stained and a brightfield image of the Data Science Bowl."""
    data = DataSpec(path=str(realdata / "dsb2018"))
    modality = read_column(Column(realdata / "dsb2018" / "index.tsv"), "modality")
    first = {kind: min(i for i, k in modality.items() if k == kind) for kind in sorted(set(modality.values()))}
    return load(data, first.values())
