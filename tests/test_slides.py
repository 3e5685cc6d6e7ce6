"""Laws of the door and of every reader: what is read is what lies there, whatever the window."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import Slide, Source, caches, open_slide
from tests.support.position import FORMATS, SHAPE, Written, file_per_channel, ome_subifds, one_file, position_grey


@pytest.fixture(scope="module", params=[*FORMATS])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return FORMATS[request.param](tmp_path_factory.mktemp("format"))


@pytest.fixture(scope="module", params=["by window", "staged"])
def slide(
    request: pytest.FixtureRequest, written: Written, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slide]:
    """The written source, as it is and with so small a limit that what cannot be read by window is staged."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "staged":
            patch.setattr(caches, "WHOLE_CACHE_BYTES", 1000)
        opened = open_slide(written.source, staged=str(tmp_path_factory.mktemp("staged")))
    yield opened
    opened.close()


def boxes(shape: tuple[int, int]) -> st.SearchStrategy[Box]:
    """Any box inside an image, empty ones too."""
    sides = [st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted) for size in shape]
    return st.tuples(*sides).map(lambda yx: Box(yx[0][0], yx[1][0], yx[0][1], yx[1][1]))


@settings(max_examples=25, deadline=None)
@given(draw=st.data())
def test_every_window_holds_the_pixels_of_its_place(slide: Slide, written: Written, draw: st.DataObject) -> None:
    """Every format gives, for any window of any level and any channels, exactly the pixels written there."""
    level = draw.draw(st.integers(0, len(written.levels) - 1))
    box = draw.draw(boxes(written.levels[level].shape[1:]))
    count = len(slide.channels)
    channels = draw.draw(st.none() | st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    pixels = slide.read(box, level, channels)
    chosen = range(count) if channels is None else channels
    np.testing.assert_array_equal(pixels, written.levels[level][list(chosen)][(slice(None), *box.slices())])
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_a_slide_tells_what_was_written(slide: Slide, written: Written) -> None:
    """Levels, channels, dtype and colour are those of the pixels that were written."""
    assert [level.shape for level in slide.levels] == [pixels.shape[1:] for pixels in written.levels]
    assert [level.step for level in slide.levels] == [(2.0**i, 2.0**i) for i in range(len(written.levels))]
    assert slide.shape == SHAPE
    assert len(slide.channels) == len(written.levels[0])
    assert slide.dtype == written.levels[0].dtype
    assert slide.rgb == (slide.channels == ("R", "G", "B")) == (len(written.levels[0]) == 3)
    assert slide.pyramid == (len(written.levels) > 1)
    assert not slide.vendor


def test_threads_read_what_one_thread_reads(slide: Slide, written: Written) -> None:
    """Many threads reading windows of one slide at once get what was written."""
    corners = [(y, x) for y in range(0, SHAPE[0], 45) for x in range(0, SHAPE[1], 45)]
    places = [Box(y, x, y + 90, x + 90).clip(whole(SHAPE)) for y, x in corners]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(slide.read, places))
    for box, pixels in zip(places, found, strict=True):
        np.testing.assert_array_equal(pixels, written.levels[0][(slice(None), *box.slices())])


def test_a_slide_travels_by_pickle(slide: Slide, written: Written) -> None:
    """A slide and its source survive pickling: the copy reads the same pixels."""
    assert pickle.loads(pickle.dumps(written.source)) == written.source
    box = Box(3, 5, 40, 300)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(slide)).read(box), slide.read(box))


def test_a_closed_slide_opens_again(tmp_path: Path) -> None:
    """Reading after `close` gives the same pixels: closing only frees."""
    made = ome_subifds(tmp_path)
    with open_slide(made.source) as slide:
        slide.read(whole(SHAPE))
    np.testing.assert_array_equal(slide.read(whole(SHAPE)), made.levels[0])


def test_windows_outside_are_refused(tmp_path: Path) -> None:
    """A box, level or channel that the slide does not have is a ValueError, never other pixels."""
    slide = open_slide(ome_subifds(tmp_path).source)
    for box, level, channels in (
        (Box(0, 0, SHAPE[0] + 1, 5), 0, None),
        (Box(-1, 0, 5, 5), 0, None),
        (Box(0, 0, *SHAPE), 1, None),
        (Box(0, 0, 5, 5), 2, None),
        (Box(0, 0, 5, 5), -1, None),
        (Box(0, 0, 5, 5), 0, [2]),
        (Box(0, 0, 5, 5), 0, [-1]),
    ):
        with pytest.raises(ValueError, match=r"here|leaves"):
            slide.read(box, level, channels)


def test_names_and_pixel_size_come_from_the_file_and_the_user_wins(tmp_path: Path) -> None:
    """Channel names and mpp are the file's; a stated mpp wins."""
    made = ome_subifds(tmp_path)
    slide = open_slide(made.source)
    assert slide.channels == ("DNA", "GFP")
    assert slide.mpp == pytest.approx(0.25)
    assert open_slide(Source("here", made.source.files, mpp=0.5)).mpp == 0.5


def test_channels_of_several_files_carry_their_names(tmp_path: Path) -> None:
    """A source of one file per channel has the channels its files are named for, in their order."""
    assert open_slide(file_per_channel(tmp_path).source).channels == ("GFP", "DNA")


def refusal(source: Source, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        open_slide(source, **how)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.zeros((300, 431), np.uint16), r"\(300, 431\), expected \(300, 430\)"),
        (np.zeros(SHAPE, np.uint8), "uint8, expected uint16"),
        (np.zeros((2, *SHAPE), np.uint16), "holds 2 channels, expected one"),
    ],
)
def test_channel_files_of_different_fields_are_refused(tmp_path: Path, other: np.ndarray, words: str) -> None:
    """Channel files that differ in shape, dtype or channel count are refused, naming the file."""
    first, second = file_per_channel(tmp_path).source.files
    tifffile.imwrite(second.path, other, photometric="minisblack")
    with pytest.raises(InputError, match=words) as caught:
        open_slide(Source("here", (first, second)))
    assert second.path in str(caught.value)


def test_two_files_for_one_channel_are_refused(tmp_path: Path) -> None:
    """Two files that claim one channel are an error, not a choice."""
    first, _ = file_per_channel(tmp_path).source.files
    assert "two files for channel 'GFP'" in refusal(Source("here", (first, first)))


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    """A file that is missing, empty, a bare folder, or of no known format is an InputError that names it."""
    (tmp_path / "empty.tif").touch()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("gone.tif", "no such file"),
        ("empty.tif", "is empty"),
        ("notes.txt", "no reader knows"),
        ("folder", "is a folder"),
    ):
        message = refusal(one_file(tmp_path / name))
        assert words in message
        assert name in message


def test_without_openslide_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown format without the extra says: pip install slidebatch[wsi]."""
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    (tmp_path / "slide.mrxs").write_bytes(b"MIRAX")
    assert "pip install slidebatch[wsi]" in refusal(one_file(tmp_path / "slide.mrxs"))


def test_a_truncated_file_is_an_input_error(tmp_path: Path) -> None:
    """A file cut short is refused when opened or when its lost pixels are read, and named."""
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, position_grey(SHAPE)[0], rowsperstrip=10)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(InputError, match=r"cut\.tif"):
        open_slide(one_file(path)).read(whole(SHAPE))


def test_a_damaged_tile_is_an_input_error(tmp_path: Path) -> None:
    """A tile that cannot be decoded is an InputError that names file and tile; other tiles still read."""
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, position_grey((128, 128))[0], tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[3]
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = b"\xff" * 20
    path.write_bytes(content)
    slide = open_slide(one_file(path))
    assert slide.read(Box(0, 0, 64, 128)).shape == (1, 64, 128)
    with pytest.raises(InputError, match=r"damaged\.tif: tile 3 cannot be decoded"):
        slide.read(Box(100, 100, 101, 101))
