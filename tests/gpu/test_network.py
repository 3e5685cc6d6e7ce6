"""A dense network on a GPU: its answers beside a CPU's, copies that overlap, memory that runs out."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch

from slidebatch import models
from slidebatch.errors import EnvironmentFault
from slidebatch.models import SHIPPED, networks
from slidebatch.models.dense import DenseNetwork, Running
from slidebatch.models.lanes import GpuLane
from slidebatch.models.small_unet import class_maps
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import load_weights
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu

Patches = npt.NDArray[np.float32]
SIDE_PX = 512


@pytest.fixture(scope="session")
def patches(tissue: Any) -> Patches:
    """Eight patches of the made-up slide (8, 3, 512, 512), most of them with nuclei."""
    [path] = list((tissue.truth.parent / "images").glob("*.tif"))
    image = tifffile.imread(path, level=0)
    corners = [(y, x) for y in (256, 1024) for x in (256, 768, 1280, 2048)]
    cut = [image[y : y + SIDE_PX, x : x + SIDE_PX] for y, x in corners]
    return np.ascontiguousarray(np.stack(cut).transpose(0, 3, 1, 2) / np.float32(255), np.float32)


def network(device: str = "cuda", **settings: Any) -> Any:
    given = {"precision": "float32", "engine": "eager", **settings}
    return models.load(ModelSpec(name="small_unet", device=device, **given), device)  # type: ignore[arg-type]


def plain() -> torch.nn.Module:
    """The shipped network as it was trained: batch norm not folded."""
    made = networks.build("small_unet", {})
    load_weights(made, SHIPPED / "small_unet.safetensors", "small_unet")
    return made.eval()


def off(found: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Grey levels of 255 by which class maps differ."""
    assert found.shape == expected.shape
    assert expected.max() > 200, "the network has nothing to say"
    return np.abs(found.astype(np.int64) - expected)


# The same answers


@pytest.mark.parametrize(
    ("precision", "most", "share"), [("float32", 1, 0.0), ("bfloat16", 24, 0.01), ("float16", 8, 0.002)]
)
def test_a_gpu_answers_as_a_cpu_within_the_stated_tolerance(
    patches: Patches, precision: str, most: int, share: float
) -> None:
    """Maps differ from a CPU's in float32 by at most `most` grey levels, and by more than 2 in a share of the bytes."""
    found = off(network(precision=precision).maps(patches), network("cpu").maps(patches))
    assert found.max() <= most
    assert np.mean(found > 2) <= share


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 24), ("float16", 8)])
def test_narrow_arithmetic_is_what_autocast_does(patches: Patches, precision: str, most: int) -> None:
    """A network cast as a whole answers as PyTorch's autocast does on the plain network, to the same tolerance."""
    reference = plain().cuda().to(memory_format=torch.channels_last)
    with torch.autocast("cuda", getattr(torch, precision)):
        expected = np.concatenate([class_maps(reference, p[None]) for p in patches])
    assert off(network(precision=precision).maps(patches), expected).max() <= most


def test_auto_takes_bfloat16_where_the_gpu_has_it(patches: Patches) -> None:
    """auto is bfloat16 from capability 8.0 on; what it takes is in the settled spec, and answers the same bits."""
    settled = models.settle(ModelSpec(), "cuda")
    assert settled.engine == "eager"
    if torch.cuda.get_device_capability() >= (8, 0):
        assert settled.precision == "bfloat16"
    auto = models.load(ModelSpec(), "cuda")
    np.testing.assert_array_equal(
        auto.maps(patches, ()),  # type: ignore[union-attr]
        network(precision=settled.precision).maps(patches),
    )


def test_folding_changes_rounding_alone(patches: Patches) -> None:
    """With batch norm folded, channels last, maps are those of the plain network to a grey level."""
    made, reference = network(), plain().cuda()  # the first has switched TF32 off
    expected = np.concatenate([class_maps(reference, p[None]) for p in patches])
    assert off(made.maps(patches), expected).max() <= 1


@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_views_are_averaged_as_on_a_cpu(patches: Patches, tta: str) -> None:
    """Test-time augmentation on a GPU is that of a CPU, to a grey level."""
    some = patches[:3]
    assert off(network(tta=tta).maps(some), network("cpu", tta=tta).maps(some)).max() <= 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_batch_mates_do_not_matter(patches: Patches, precision: str) -> None:
    """A patch's bits do not depend on its place in a batch, on its mates, or on how full the batch is."""
    made = network(precision=precision)
    expected = made.maps(patches)
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [3], [0, 0, 5, 5], [2, 7, 1, 4, 6]):
        np.testing.assert_array_equal(made.maps(patches[order]), expected[order])
    np.testing.assert_array_equal(network(precision=precision).maps(patches), expected)


def test_one_channel_is_repeated_on_the_gpu(patches: Patches) -> None:
    """A grey patch is answered as the same patch in three channels."""
    grey = np.ascontiguousarray(patches[:, :1])
    made = network()
    np.testing.assert_array_equal(made.maps(grey), made.maps(np.repeat(grey, 3, axis=1)))


def test_no_patches_no_maps() -> None:
    """Empty in, empty out."""
    assert network().maps(np.zeros((0, 3, 64, 64), np.float32)).shape == (0, 2, 64, 64)


# Copies beside the computing


def pinned(made: Any, some: Patches) -> Patches:
    """A copy of patches in the network's own room."""
    room: Patches = made.room(some.shape)
    room[...] = some
    return room


def test_patches_lie_in_pinned_memory(patches: Patches) -> None:
    """The room that a network on a GPU gives is pinned, as PyTorch sees it, and so are slices of it."""
    room = pinned(network(), patches)
    assert torch.from_numpy(room).is_pinned()
    assert torch.from_numpy(room[2:5]).is_pinned()


def test_a_stream_answers_as_one_by_one(patches: Patches) -> None:
    """Sixty batches through pinned memory, each made while others compute: no answer is another's, none is torn."""
    made = network(precision="bfloat16")
    rng = np.random.default_rng(0)
    orders = [rng.permutation(8)[: 1 + i % 8] for i in range(60)]
    expected = made.maps(patches)

    def batches() -> Iterator[tuple[Patches, tuple[()]]]:
        for order in orders:
            yield pinned(made, patches[order]), ()

    for order, found in zip(orders, made.stream(batches()), strict=True):
        np.testing.assert_array_equal(found, expected[order])


def test_the_gpu_s_seconds_are_its_own(patches: Patches) -> None:
    """Seconds grow with every batch, and what the host dawdles away is not among them."""
    made = network()
    made.maps(patches)  # chooses routines
    before, began = made.busy_s, time.perf_counter()

    def batches() -> Iterator[tuple[Patches, tuple[()]]]:
        for _ in range(4):
            time.sleep(0.25)
            yield pinned(made, patches), ()

    seen = [made.busy_s for _ in made.stream(batches())]
    wall_s = time.perf_counter() - began
    assert seen == sorted(set(seen))
    assert before < seen[0]
    assert seen[-1] - before <= wall_s / 2


# What goes wrong


@pytest.fixture
def tight() -> Iterator[Callable[[float], None]]:
    """Limits what this process may take of the GPU's memory beyond what it holds, in bytes."""

    def limit(free_bytes: float) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + free_bytes) / whole))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_memory_that_runs_out_halves_the_batch(patches: Patches, tight: Callable[[float], None]) -> None:
    """With little memory left on the GPU a batch of 64 patches is halved, and every patch is answered in order."""
    many = np.concatenate([patches] * 8)
    roomy = network(batch=8).maps(patches)
    made = network(batch=64)
    tight(1.5e9)
    found = made.maps(many)
    assert made.halvings > 0
    assert off(found, np.concatenate([roomy] * 8)).max() <= 1
    after = made.halvings
    made.maps(many)
    assert made.halvings == after, "a batch that fits is halved again"


def test_a_patch_that_does_not_fit_is_refused_with_one_that_does(tight: Callable[[float], None]) -> None:
    """The sentence names the largest `patch_px`; a patch of that side runs then, in the same process."""
    made = network()
    tight(1.5e9)
    with pytest.raises(EnvironmentFault, match=r"set tiling\.patch_px to \d+ or less") as told:
        made.maps(np.zeros((1, 3, 8192, 8192), np.float32))
    named = int(str(told.value).split("set tiling.patch_px to ")[1].split()[0])
    assert 256 < named < 8192
    assert made.maps(np.zeros((1, 3, named, named), np.float32)).shape == (1, 2, named, named)


def test_a_gpu_without_room_for_the_weights_is_told(tight: Callable[[float], None]) -> None:
    """Where others fill the GPU, loading the network ends in a sentence."""
    tight(0)
    hoard: list[torch.Tensor] = []
    for count in (2**20, 2**10):  # what is left in blocks that PyTorch holds
        with suppress(torch.OutOfMemoryError):
            while True:
                hoard.append(torch.empty(count, dtype=torch.uint8, device="cuda"))
    with pytest.raises(EnvironmentFault, match="no room for the weights of small_unet"):
        network()


def test_numbers_that_leave_float16_are_refused(patches: Patches) -> None:
    """A network whose numbers overflow stops with a sentence, also while the next batch is in flight."""

    def forward(image: torch.Tensor) -> torch.Tensor:
        return (image.half() * 60_000 * 60_000).float()

    card = network().card
    made = DenseNetwork(forward, card, Running("cuda", batch=8, narrow=True), GpuLane("cuda"))
    with pytest.raises(EnvironmentFault, match="leave the range of float16"):
        list(made.stream([(patches, ()), (patches, ())]))


BREAKS = """
import numpy as np, torch
from slidebatch import models
from slidebatch.errors import EnvironmentFault
from slidebatch.models.dense import DenseNetwork, Running
from slidebatch.models.spec import ModelSpec

card = models.card(ModelSpec())
far = torch.full((64, 64), 1000, device="cuda")
made = DenseNetwork(lambda image: image[:, :, far, far], card, Running("cuda"))
try:
    made.maps(np.zeros((1, 3, 64, 64), np.float32))
except EnvironmentFault as fault:
    print("FAULT:", fault)
"""


def test_a_gpu_that_fails_is_a_fault_of_the_environment() -> None:
    """An assertion inside a kernel, which spoils the GPU for its process, ends in a sentence: no slide is to blame."""
    command = [sys.executable, "-c", BREAKS]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "FAULT: the GPU failed (" in ended.stdout, ended.stderr[-2000:]
    assert "look at it with nvidia-smi" in ended.stdout
