"""Laws of focus stacks in separate files: the planes of a channel are one image with z planes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import Slide, Source, SourceFile, caches, open_slide
from slidebatch.sources import InputSpec, find
from tests.support.position import position_grey, position_rgb

SHAPE = (150, 210)
DEPTH = 3
HARMONY = "r{row:02d}c{column:02d}f01p{plane:02d}-ch{channel}sk1fk1fl1.tiff"


def plane(channel: int, z: int) -> np.ndarray:
    """(Y, X) uint16 that says its place, channel and plane; which plane is brightest differs over the image."""
    place = position_grey(SHAPE)[channel]
    return (place + 1000 * ((z + channel + place // 50) % DEPTH)).astype(np.uint16)


STACK = np.stack([[plane(c, z) for z in range(DEPTH)] for c in range(2)])  # (C, Z, Y, X)


def harmony(folder: Path, lacking: str = "", suffix: str = ".tiff") -> Path:
    """Two wells as Operetta's software names their files: planes from 1, written last plane first."""
    (folder / "Images").mkdir()
    for row in (1, 2):
        for c, channel in enumerate((1, 3)):
            for z in reversed(range(DEPTH)):
                name = HARMONY.format(row=row, column=4, plane=z + 1, channel=channel)
                if name != lacking:
                    tifffile.imwrite(folder / "Images" / name, STACK[c, z] + row, rowsperstrip=16)
    return folder


def first_source(folder: Path) -> Source:
    return find(InputSpec(path=str(folder), preset="operetta")).sources[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return first_source(harmony(tmp_path_factory.mktemp("plate")))


def expected(z: int | str) -> np.ndarray:
    return (STACK.max(axis=1) if z == "max" else STACK[:, z]) + 1


@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_every_window_of_a_stack_holds_the_pixels_of_its_place(source: Source, draw: st.DataObject) -> None:
    """Files named as Operetta writes them give, through the finder and the door, any window of any plane or of
    the maximum, exactly as written."""
    z = draw.draw(st.sampled_from(["max", *range(DEPTH)]))
    y, x = (sorted(draw.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in SHAPE)
    channels = draw.draw(st.sampled_from([None, [0], [1], [1, 0]]))
    with open_slide(source, z=z) as slide:
        box = Box(y[0], x[0], y[1], x[1])
        pixels = slide.read(box, 0, channels)
    chosen = [0, 1] if channels is None else channels
    np.testing.assert_array_equal(pixels, expected(z)[chosen][(slice(None), *box.slices())])
    assert pixels.dtype == np.uint16


def test_a_stack_tells_what_was_written(source: Source) -> None:
    """A stack has one channel for each channel of the field, in order, and travels by pickle."""
    slide = open_slide(source, z=1)
    assert (slide.shape, slide.channels, slide.dtype, slide.rgb) == (SHAPE, ("1", "3"), np.dtype(np.uint16), False)
    copy: Slide = pickle.loads(pickle.dumps(slide))
    np.testing.assert_array_equal(copy.read(whole(SHAPE)), expected(1))


def test_planes_count_in_ascending_z_whatever_the_order_of_files(source: Source) -> None:
    """The order in which a source names its planes plays no part, and z counts from the lowest plane there is."""
    turned = Source("here", tuple(reversed(source.files)))
    assert open_slide(turned).channels == ("3", "1")
    np.testing.assert_array_equal(open_slide(turned, z=2).read(whole(SHAPE)), expected(2)[::-1])


def refusal(source: Source, z: Any = "max") -> str:
    with pytest.raises(InputError) as caught:
        open_slide(source, z=z)
    return str(caught.value)


def test_a_plane_beyond_the_stack_is_refused(source: Source) -> None:
    """A z index beyond the stack names how many planes there are; asking for one plane refuses a stack."""
    assert "has 3 z planes, so there is no plane 3" in refusal(source, 3)
    assert "0..2" in refusal(source, 3)
    assert "has 3 z planes, expected one" in refusal(source, None)


def test_missing_planes_are_named_with_their_channel(tmp_path: Path, source: Source) -> None:
    """A channel that lacks planes which another has is refused by name, by the finder and by the door."""
    files = [f for f in source.files if (f.channel, f.z) not in {("1", 2), ("1", 3)}]
    message = refusal(Source("here", tuple(files)))
    assert "channel '1' lacks focus plane 2, 3 of 1, 2, 3" in message
    lacking = HARMONY.format(row=1, column=4, plane=2, channel=3)
    found = find(InputSpec(path=str(harmony(tmp_path, lacking)), preset="operetta"))
    assert [s.slide for s in found.sources] == ["B04"]
    assert "channel 3 lacks focus plane 2 of 1, 2, 3" in found.faults[0].sentence


def test_two_files_for_one_plane_are_refused(source: Source) -> None:
    """Two files for one plane, and a file without a plane beside planes, are errors and not a choice."""
    first = source.files[0]
    assert "two files for channel '1', focus plane 1" in refusal(Source("here", (*source.files, first)))
    flat = SourceFile(first.path, channel="1")
    assert "beside files with one" in refusal(Source("here", (*source.files, flat)))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.zeros((150, 211), np.uint16), r"shape \(y, x\) is \(150, 211\), expected \(150, 210\)"),
        (np.zeros(SHAPE, np.uint8), "uint8, expected uint16"),
        (np.zeros((2, *SHAPE), np.uint16), "holds 2 channels, expected one"),
    ],
)
def test_planes_of_different_fields_are_refused(tmp_path: Path, other: np.ndarray, words: str) -> None:
    """Planes that differ in shape, dtype or channel count are refused, naming the file."""
    source = first_source(harmony(tmp_path))
    tifffile.imwrite(source.files[1].path, other, photometric="minisblack")
    with pytest.raises(InputError, match=words) as caught:
        open_slide(source)
    assert source.files[1].path in str(caught.value)


def test_a_plane_that_is_a_stack_itself_is_refused(tmp_path: Path) -> None:
    """A file of several planes cannot be one plane of a stack."""
    source = first_source(harmony(tmp_path))
    tifffile.imwrite(source.files[1].path, STACK[0], imagej=True, metadata={"axes": "ZYX"})
    assert "has 3 z planes, expected one" in refusal(source)


@pytest.mark.parametrize("z", ["max", 1])
def test_colour_planes_without_a_channel_are_a_stack(tmp_path: Path, z: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes that tell their own channels are a stack too; what must be staged is staged, unread planes are not."""
    pictures = [np.moveaxis(position_rgb(SHAPE) // (n + 1), 0, -1) for n in range(2)]
    for n, picture in enumerate(pictures):
        (tmp_path / f"A01_z{n}.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture)))
    (source,) = find(InputSpec(path=str(tmp_path), pattern="{well}_z{z}.png")).sources
    monkeypatch.setattr(caches, "WHOLE_CACHE_BYTES", 1000)
    slide = open_slide(source, z=z, staged=str(tmp_path / "staged"))
    wanted = position_rgb(SHAPE) if z == "max" else position_rgb(SHAPE) // 2
    np.testing.assert_array_equal(slide.read(whole(SHAPE)), wanted)
    assert (slide.rgb, slide.channels) == (True, ("R", "G", "B"))
    assert len(list((tmp_path / "staged").iterdir())) == (2 if z == "max" else 1)


def test_levels_that_differ_end_the_shared_pyramid(tmp_path: Path) -> None:
    """A level has the same number in all files: where one file's level differs, no further level is taken."""
    for name, second in (("a", (75, 105)), ("b", (76, 105))):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            for i, shape in enumerate((SHAPE, second, (37, 52))):
                pixels = np.full(shape, i, np.uint16)
                writer.write(pixels, tile=(32, 32), subfiletype=1 if i else 0, metadata=None)
    files = tuple(SourceFile(str(tmp_path / f"{name}.tif"), channel=name) for name in "ab")
    assert len(open_slide(Source("a", files[:1])).levels) == 3
    both = open_slide(Source("both", files))
    assert [level.shape for level in both.levels] == [SHAPE]
