"""How a TIFF series is to be understood: which axes it has, which pages hold a channel, what samples mean.

Owns every decision that needs no pixel: axes, alpha, palettes, inverted greys, what is refused and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tifffile import TiffFile, TiffPage, TiffPageSeries

from slidebatch.slides.facts import fail

# TIFF 6.0 and Adobe's photometric interpretations that are understood here
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB_COLOUR, PALETTE, YCBCR = 0, 1, 2, 3, 6
PHOTOMETRICS = {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB_COLOUR, PALETTE, YCBCR}
JPEG_COMPRESSIONS = {6, 7, 33007, 34892}
# codecs that give RGB back from YCbCr themselves; 33003 (Aperio's JPEG 2000 in YCbCr) does not
COLOUR_CODECS = {*JPEG_COMPRESSIONS, 33005, 34712, 50001, 50002, 34927, 34933, 34934, 22610}
APERIO_YCBCR = 33003
AXIS_WORDS = {
    "T": "time", "A": "angle", "P": "phase", "H": "lifetime", "M": "mosaic", "R": "revolution", "V": "event",
    "E": "lambda", "L": "exposure", "X": "x", "Y": "y", "Z": "z", "C": "channel", "S": "sample", "I": "page",
    "Q": "unnamed",
}  # fmt: skip
CHANNEL_AXES = "CIQ"  # the pages of a plain stack are channels: nothing is merged that nobody named


class Unsupported(Exception):
    """tifffile cannot read this file; another reader may."""


@dataclass(frozen=True)
class Layout:
    """Where channels and z planes lie in a series.

    lead       sizes of the axes (channel, z) that pages run along
    z_first    pages run along z outside and channels inside (ZC), not the other way
    samples    sample indices of a page that are kept (alpha is not)
    planar     samples of a page are stored one plane after the other
    rgb        the kept samples are red, green and blue
    """

    lead: tuple[int, int]
    z_first: bool
    samples: tuple[int, ...]
    planar: bool
    rgb: bool

    @property
    def channels(self) -> int:
        return self.lead[0] * len(self.samples)

    def page(self, channel: int, z: int) -> int:
        """Index of the page that holds a channel at a z plane."""
        lead_channel = channel // len(self.samples)
        return z * self.lead[0] + lead_channel if self.z_first else lead_channel * self.lead[1] + z

    def sample(self, channel: int) -> int:
        """Index of the sample of that page."""
        return self.samples[channel % len(self.samples)]


def understand(path: str, series: TiffPageSeries) -> Layout:
    """The layout of a series; `InputError` for axes that a slide cannot have, `Unsupported` for odd pages."""
    page = series.keyframe
    _refuse_odd_pages(series)
    axes, sizes = _lead_axes(path, series)
    channel_axes = [a for a in axes if a in CHANNEL_AXES and sizes[a] > 1]
    if len(channel_axes) > 1:
        fail(path, f"has two axes that could be channels ({', '.join(channel_axes)})", "write it as OME-TIFF")
    channels = sizes[channel_axes[0]] if channel_axes else 1
    order = [a for a in axes if a in (*channel_axes, "Z")]
    samples, rgb = _samples(page)
    if rgb and channels > 1:
        fail(path, f"has {channels} colour pictures where one is expected", "write one picture to a file")
    return Layout((channels, sizes.get("Z", 1)), order[:1] == ["Z"], samples, page.planarconfig == 2, rgb)


def pyramid(tiff: TiffFile) -> list[TiffPageSeries]:
    """The levels of the first series, finest first.

    tifffile finds pyramids of SubIFDs, of pages and of vendors. Older OME-TIFFs write each level as an image of
    its own: later series that are the first one shrunk by a whole number, stored the same way, are levels too.
    """
    levels = list(tiff.series[0].levels)
    if len(levels) > 1 or not tiff.is_ome:
        return levels
    for series in tiff.series[1:]:
        if _shrunk(levels[0], series) and series.keyframe.imagewidth < levels[-1].keyframe.imagewidth:
            levels.append(series)
    return levels


def _shrunk(base: TiffPageSeries, series: TiffPageSeries) -> bool:
    big, small = base.keyframe, series.keyframe
    factor = round(big.imagewidth / small.imagewidth)
    sizes = ((big.imagelength, small.imagelength), (big.imagewidth, small.imagewidth))
    return bool(
        factor > 1
        and all(level_px in (base_px // factor, -(-base_px // factor)) for base_px, level_px in sizes)
        and (series.axes, series.dtype) == (base.axes, base.dtype)
        and (small.is_tiled, small.photometric) == (big.is_tiled, big.photometric)
    )


def _lead_axes(path: str, series: TiffPageSeries) -> tuple[str, dict[str, int]]:
    # The axes a page spans itself are last; pages run along the ones before them.
    sizes = dict(zip(series.axes, series.shape, strict=True))
    lead = "".join(a for a in series.axes if a not in "YXS")
    if not {"Y", "X"} <= set(sizes):
        fail(path, f"has the axes {series.axes}, expected y and x", "give an image of at least 2 x 2 pixels")
    for axis in lead:
        if sizes[axis] > 1 and axis not in (*CHANNEL_AXES, "Z"):
            word = AXIS_WORDS.get(axis, "unknown")
            kind = "is a time series" if axis == "T" else "is a series"
            found = f"{kind}: it has {sizes[axis]} steps along the {word} axis ({axis})"
            fail(path, f"{found}, expected channels and z only", "write each step to a file of its own")
    return lead, sizes


def _refuse_odd_pages(series: TiffPageSeries) -> None:
    page = series.keyframe
    if series.transform is not None:
        raise Unsupported("its pixels are stored rotated or transformed")
    if page.imagedepth > 1 or page.dtype is None:
        raise Unsupported("its pages are volumes, or of an unknown pixel type")
    if page.photometric not in PHOTOMETRICS:
        model = getattr(page.photometric, "name", page.photometric)
        raise Unsupported(f"its colour model ({model}) is not known")
    wrong_colours = page.photometric == YCBCR and page.compression not in COLOUR_CODECS
    if page.compression == APERIO_YCBCR or wrong_colours:
        raise Unsupported("its colours are YCbCr under a codec that does not turn them into RGB")


def _samples(page: TiffPage) -> tuple[tuple[int, ...], bool]:
    palette = colours(page)
    if palette is not None:
        return tuple(range(palette.shape[1])), palette.shape[1] == 3
    count = page.samplesperpixel
    if page.photometric in (RGB_COLOUR, YCBCR) and count >= 3:
        return (0, 1, 2), True  # what follows the colours is alpha, or nobody's channel
    extra = tuple(int(kind) for kind in page.extrasamples)
    first_extra = count - len(extra)
    kept = tuple(i for i in range(count) if i < first_extra or extra[i - first_extra] not in (1, 2))
    return kept, False


def colours(page: TiffPage) -> npt.NDArray[Any] | None:
    """The colours (entries, 1 or 3) that the page's pixels are indices of; None: they are values themselves.

    ImageJ and OME write a palette over measured values, only to show them: those are values. A palette of
    greys gives one channel.
    """
    if page.photometric != PALETTE or page.is_imagej or page.parent.is_ome:
        return None
    palette = np.asarray(page.colormap).T  # (entries, 3), 16 bits as TIFF stores them
    grey = (palette == palette[:, :1]).all()
    palette = palette if page.bitspersample > 8 else (palette >> 8).astype(np.uint8)
    return palette[:, :1] if grey else palette


def meant_dtype(page: TiffPage) -> np.dtype[Any]:
    """The dtype of `meaning`'s result."""
    palette = colours(page)
    return np.dtype(page.dtype) if palette is None else palette.dtype


def meaning(page: TiffPage, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored (Y, X, S) samples as the picture means them: palettes looked up, inverted greys turned."""
    palette = colours(page)
    if palette is not None:
        looked_up: npt.NDArray[Any] = palette[pixels[..., 0]]
        return looked_up
    if page.photometric == WHITE_IS_ZERO:
        if pixels.dtype == bool:
            return np.logical_not(pixels)
        if pixels.dtype.kind == "u":
            return np.bitwise_not(pixels)
    return pixels


def plain(page: TiffPage) -> bool:
    """Whether rows lie in the file as they are in memory: they can be read without decoding."""
    return bool(
        page.compression == 1
        and page.predictor == 1
        and page.fillorder == 1
        and not page.is_tiled
        and not page.is_subsampled
        and page.dtype is not None
        and page.bitspersample == 8 * page.dtype.itemsize
    )
