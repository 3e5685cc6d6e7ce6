"""Laws of the registry and of weights on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from slidebatch import models
from slidebatch.errors import ModelError
from slidebatch.models.small_unet import Architecture, SmallUNet
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import SHIPPED, CardFile, write_weights


@pytest.fixture
def weights(tmp_path):
    """Untrained weights with a card that fits."""
    torch.manual_seed(1)
    architecture = Architecture()
    card = CardFile(
        network="small_unet",
        architecture={"widths": list(architecture.widths)},
        maps=("nucleus", "contour"),
        mpp=0.5,
        margin_px=architecture.margin_px,
        stride_px=architecture.stride_px,
    )
    write_weights(tmp_path / "own.safetensors", SmallUNet(architecture).state_dict(), card)
    return tmp_path / "own.safetensors"


def own(path, **more):
    return ModelSpec(weights=str(path), **more)


def test_bare_name_is_a_spec():
    """In the config one word is the network's name."""
    assert ModelSpec.model_validate("oracle") == ModelSpec(name="oracle")
    with pytest.raises(ValidationError):
        ModelSpec.model_validate({"nmae": "oracle"})


def test_unknown_name_names_the_nearest():
    """An unknown network is refused with the nearest name and all names."""
    with pytest.raises(ModelError, match=r"did you mean small_unet\? .*oracle_detections"):
        models.card(ModelSpec(name="smal_unet"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_gpu_is_an_error(weights):
    """A GPU that was asked for and is not there is never replaced by the CPU; auto takes what there is."""
    with pytest.raises(ModelError, match="no CUDA device"):
        models.load(own(weights), "cuda")
    assert models.pick_device("auto") == "cpu"


def test_card_is_the_loaded_card(weights):
    """What the plan is told before loading is what the loaded network says."""
    card = models.card(own(weights))
    assert models.load(own(weights)).card == card
    assert (card.margin_px, card.stride_px, card.maps, card.mpp) == (51, 8, ("nucleus", "contour"), 0.5)


def test_digest_follows_what_matters(weights):
    """Weights, thread count and device change the digest; asking twice does not."""
    base = models.card(own(weights)).digest
    assert models.card(own(weights)).digest == base
    assert models.card(own(weights, threads=2)).digest != base
    assert models.card(own(weights), "cuda").digest != base
    tensors = load_file(weights)
    tensors["head.bias"] += 1
    save_file(tensors, weights)
    card = json.loads(weights.with_suffix(".json").read_text())
    weights.with_suffix(".json").write_text(json.dumps(card | {"sha256": None}))
    assert models.card(own(weights)).digest != base


def test_changed_weights_are_named(weights):
    """Weights that are not the ones the card was written for are refused with both digests."""
    tensors = load_file(weights)
    tensors["head.bias"] += 1
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"sha256 .* their card expects"):
        models.load(own(weights))


def test_every_wrong_tensor_is_named(weights):
    """Missing, unexpected, misshapen and wrongly typed tensors are all named in one error."""
    tensors = load_file(weights)
    del tensors["head.bias"]
    tensors["extra.bias"] = torch.zeros(2)
    tensors["head.weight"] = torch.zeros(3, 16, 3, 3)
    tensors["down.0.0.weight"] = tensors["down.0.0.weight"].half()
    save_file(tensors, weights)
    card = json.loads(weights.with_suffix(".json").read_text())
    weights.with_suffix(".json").write_text(json.dumps(card | {"sha256": None}))
    with pytest.raises(ModelError) as error:
        models.load(own(weights))
    for words in (
        "missing head.bias",
        "unexpected extra.bias",
        "misshapen head.weight (found [3, 16, 3, 3]",
        "wrongly typed down.0.0.weight",
    ):
        assert words in str(error.value)


def test_broken_files_are_one_clear_error(weights, tmp_path):
    """No weights, no card, broken weights and a wrong card are each a ModelError that says what to do."""
    with pytest.raises(ModelError, match="there are no weights"):
        models.card(own(tmp_path / "none.safetensors"))
    with pytest.raises(ModelError, match="no setting scale"):
        models.card(ModelSpec(settings={"scale": 2}))
    card = weights.with_suffix(".json")
    good = json.loads(card.read_text())
    for wrong, words in (
        ({"margin_px": 20}, "expected at least 51"),
        ({"maps": ["nucleus"]}, "maps"),
        ({"mpp": -1}, "mpp"),
        ({"colour": 1}, "colour"),
    ):
        card.write_text(json.dumps(good | wrong))
        with pytest.raises(ModelError, match=words):
            models.card(own(weights))
    card.unlink()
    with pytest.raises(ModelError, match="no model card found"):
        models.card(own(weights))
    weights.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        models.card(own(weights))


def test_card_in_the_metadata(weights):
    """A card may travel inside the weights file."""
    text = json.dumps(json.loads(weights.with_suffix(".json").read_text()) | {"sha256": None})
    save_file(load_file(weights), weights, metadata={"card": text})
    weights.with_suffix(".json").unlink()
    assert models.card(own(weights)).margin_px == 51


def test_shipped_weights_load():
    """The shipped network loads by its name alone, is small, and finds a bright disk on a dark ground."""
    assert (SHIPPED / "small_unet.safetensors").stat().st_size <= 10_000_000
    network = models.load(ModelSpec())
    y, x = np.indices((128, 128))
    image = (np.hypot(y - 60, x - 70) < 10).astype(np.float32)[None, None] * 0.9 + 0.05
    nucleus, contour = network.maps(image, ())[0]
    found = nucleus.astype(int) + contour > 127
    assert found[60, 70]
    assert not found[20, 20]
    assert 200 < found.sum() < 450  # the disk has 314 pixels
