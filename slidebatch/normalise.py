"""Intensity windows: what turns raw pixels into the 0..1 that networks see.

Owns `NormaliseSpec`, the `Sketch` of one image (fixed-size quantiles and noise, which pool over the fields of
a plate) and the `Window` that is computed from sketches once, stored, and applied to every patch alike. An
image without signal must stay without signal: a contrast floor keeps noise from being stretched to full
range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from slidebatch.spec import Spec

QUANTILES = 1025
"""Values that a sketch keeps per channel, at equal steps of probability from 0 to 1."""

NOISE_FACTOR = 6.0
"""A window is never narrower than this many standard deviations of the pixel noise."""

RGB_FACTOR = 4.0
"""Stained tissue on glass spans most of the range: the default floor of RGB images is this much wider."""

Real = npt.NDArray[np.float32]


class NormaliseSpec(Spec):
    """How intensities are brought to 0..1.

    per             "slide": a window per slide or field; "plate": one per plate; "auto": plate for plates
    low_percent     percentile that becomes 0
    high_percent    percentile that becomes 1
    contrast_floor  least width of a window in intensity units; None: 8 for 8 bits, 64 for 16, 0.02 for 0..1
    """

    per: Literal["auto", "slide", "plate"] = "auto"
    low_percent: float = Field(default=1.0, ge=0, lt=100)
    high_percent: float = Field(default=99.8, gt=0, le=100)
    contrast_floor: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> NormaliseSpec:
        if self.low_percent >= self.high_percent:
            raise ValueError(f"low_percent {self.low_percent} is not below high_percent {self.high_percent}; lower it")
        return self


@dataclass(frozen=True)
class Sketch:
    """What a window needs to know of one image of C channels.

    quantiles  (C, 1025) float32  in ascending order, probabilities 0, 1/1024, .. 1
    noise      (C,)      float32  standard deviation of the pixel noise
    pixels     int                finite pixels of a channel at most, the weight when sketches are pooled
    bits       8, 16, or 0 for floats: decides the default contrast floor
    """

    quantiles: Real
    noise: Real
    pixels: int
    bits: int

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_json` gives back the same sketch to the bit."""
        return {
            "quantiles": self.quantiles.tolist(),
            "noise": self.noise.tolist(),
            "pixels": self.pixels,
            "bits": self.bits,
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Sketch:
        quantiles = np.array(stored["quantiles"], np.float32).reshape(-1, QUANTILES)
        return Sketch(quantiles, np.array(stored["noise"], np.float32), int(stored["pixels"]), int(stored["bits"]))


@dataclass(frozen=True)
class Window:
    """The intensities that become 0 and 1, per channel: low (C,) and high (C,) float32, low < high."""

    low: Real
    high: Real

    def apply(self, image: npt.NDArray[Any]) -> Real:
        """(C, Y, X) of any real type -> a new (C, Y, X) float32 in 0..1; pixel by pixel; NaN becomes 0."""
        if len(image) != len(self.low):
            raise ValueError(f"the image has {len(image)} channels, its window {len(self.low)}")
        out = np.array(image, np.float32, order="C")
        out -= self.low[:, None, None]
        out *= (np.float32(1) / (self.high - self.low))[:, None, None]
        np.clip(out, 0, 1, out=out)
        if image.dtype.kind == "f":
            np.nan_to_num(out, copy=False, nan=0.0)
        return out

    def take(self, channels: Sequence[int]) -> Window:
        """The window of some channels, in the given order."""
        return Window(self.low[list(channels)], self.high[list(channels)])

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists; `from_json` gives back the same window to the bit."""
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @staticmethod
    def from_json(stored: Mapping[str, Sequence[float]]) -> Window:
        return Window(np.array(stored["low"], np.float32), np.array(stored["high"], np.float32))


def sketch(image: npt.NDArray[Any], dtype: npt.DTypeLike | None = None) -> Sketch:
    """The sketch of a (C, y, x) image, usually an overview of a slide or a whole field.

    `dtype` is the type of the file's own pixels, where `image` is a float32 overview of them; by default the
    image's own, and for floats the range of the values decides (up to 1, up to 255, more). Pixels that are
    not finite are left out; a channel without any is all zeros.
    """
    quantiles = np.stack([_quantiles(channel) for channel in image])
    noise = np.array([_noise(channel) for channel in image], np.float32)
    pixels = max(int(np.isfinite(channel).sum()) for channel in image)
    return Sketch(quantiles, noise, pixels, _bits(np.dtype(dtype or image.dtype), float(quantiles.max())))


def _quantiles(channel: npt.NDArray[Any]) -> Real:
    """What np.quantile says, to the bit, which takes a hundred times as long for so many of few pixels."""
    values = np.sort(channel[np.isfinite(channel)])
    if not values.size:
        return np.zeros(QUANTILES, np.float32)
    at = np.linspace(0, 1, QUANTILES) * (len(values) - 1)
    below = at.astype(np.int64)
    low, high = values[below].astype(np.float64), values[np.minimum(below + 1, len(values) - 1)].astype(np.float64)
    part = at - below
    found = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    return found.astype(np.float32)


def _noise(channel: npt.NDArray[Any]) -> float:
    """Standard deviation of the noise, from the median step between neighbours: edges hardly count."""
    step = np.abs(np.diff(channel.astype(np.float64), axis=1))
    step = step[np.isfinite(step)]
    # Between two normal values of deviation s the step's median is 0.6745 * sqrt(2) * s.
    return float(np.median(step)) / (0.6745 * np.sqrt(2)) if step.size else 0.0


def _bits(dtype: np.dtype[Any], most: float) -> int:
    if dtype.kind in "ui":
        return 8 if dtype.itemsize == 1 else 16
    if most <= 1:
        return 0
    return 8 if most <= 255 else 16


def window(sketches: Sequence[Sketch], spec: NormaliseSpec, rgb: bool) -> Window:
    """The window of all images together, each weighing as many pixels as it has; their order plays no part.

    RGB channels share one window, so that colour stays. ValueError without sketches, or where they differ in
    channels.
    """
    if not sketches or len({len(s.quantiles) for s in sketches}) != 1:
        raise ValueError("a window needs at least one sketch, and all with the same channels")
    channels = range(len(sketches[0].quantiles))
    if rgb:
        pooled = _ends([(s, c) for s in sketches for c in channels], spec, rgb)
        ends = [pooled for _ in channels]
    else:
        ends = [_ends([(s, c) for s in sketches], spec, rgb) for c in channels]
    return Window(np.array([e[0] for e in ends], np.float32), np.array([e[1] for e in ends], np.float32))


def _ends(parts: Sequence[tuple[Sketch, int]], spec: NormaliseSpec, rgb: bool) -> tuple[float, float]:
    """Low and high of the pooled channels, at least the contrast floor apart."""
    pixels = np.array([s.pixels for s, _ in parts])
    at = np.array([spec.low_percent, 50.0, spec.high_percent]) / 100
    low, middle, high = _pooled_rows(np.stack([s.quantiles[c] for s, c in parts]), pixels, at)
    noise = _pooled(np.array([s.noise[c] for s, c in parts], np.float64), pixels, np.array([0.5]))[0]
    width = max(high - low, _floor([s for s, _ in parts], spec, rgb), NOISE_FACTOR * noise)
    if rgb and middle > _bright(parts):
        return high - width, high  # bright glass without tissue stays bright
    return low, low + width


def _pooled(values: npt.NDArray[Any], weight: npt.NDArray[Any], at: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weighted quantiles at the probabilities `at`, linear between the middles of the steps."""
    order = np.lexsort((weight, values))
    values, weight = values[order], weight[order]
    total = max(int(weight.sum()), 1)
    middle = (2 * np.cumsum(weight) - weight) / (2 * total)
    return np.interp(at, middle, values)


def _pooled_rows(rows: Real, pixels: npt.NDArray[np.int64], at: npt.NDArray[Any]) -> list[float]:
    """What `_pooled` says of sketches' quantiles (N, 1025), each row weighing its `pixels` (N,), to the bit.

    Nothing is sorted: of thousands of fields that would take a gigabyte. Only values that are neighbours of an
    answer count, and these are found by halving the range of floats.
    """
    # Both end quantiles stand for half a step of probability; whole numbers make every order of sums exact.
    total = max(2 * (QUANTILES - 1) * int(pixels.sum()), 1)
    return [_pooled_at(rows, pixels, total, float(p)) for p in at]


def _pooled_at(rows: Real, pixels: npt.NDArray[np.int64], total: int, at: float) -> float:
    """The quantile at one probability."""
    here = _largest(rows, lambda value: _below(rows, pixels, value) <= at * total)
    near = [rows[rows < here].max(initial=-np.inf), here, rows[rows > here].min(initial=np.inf)]
    middles, values = [], []
    for value in (v for v in near if np.isfinite(v)):
        start, end = _below(rows, pixels, value), _below(rows, pixels, np.nextafter(value, np.float32(np.inf)))
        least, most = _weights(rows == value, pixels)
        middles += [(2 * start + least) / (2 * total), (2 * end - most) / (2 * total)]
        values += [float(value)] * 2
    return float(np.interp(at, middles, values))


def _largest(rows: Real, fits: Callable[[np.float32], bool]) -> np.float32:
    """The largest of the values for which `fits` holds; it holds for the least, and for none above one that fails."""
    low, high = _key(rows.min()), _key(rows.max()) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_value(middle)) else (low, middle)
    return np.float32(rows[rows <= _value(low)].max())


def _key(value: np.float32) -> int:
    """A whole number for each float32, in their order; both zeros are 0."""
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _value(key: int) -> np.float32:
    """The float32 of a key."""
    size = np.int32(abs(key)).view(np.float32)
    return np.float32(size if key >= 0 else -size)


def _below(rows: Real, pixels: npt.NDArray[np.int64], value: np.floating[Any]) -> int:
    """Weight of the values below `value`: inner ones count two steps, both ends one."""
    count = np.count_nonzero(rows < value, axis=1)
    steps = np.clip(2 * count - 1, 0, 2 * (QUANTILES - 1))
    return int((steps * pixels).sum())


def _weights(there: npt.NDArray[np.bool_], pixels: npt.NDArray[np.int64]) -> tuple[int, int]:
    """The least and the largest weight of the values marked in (N, 1025)."""
    ends, inner = there[:, 0] | there[:, -1], there[:, 1:-1].any(axis=1)
    weights = np.concatenate([pixels[ends], 2 * pixels[inner]])
    return int(weights.min()), int(weights.max())


def _floor(sketches: Sequence[Sketch], spec: NormaliseSpec, rgb: bool) -> float:
    if spec.contrast_floor is not None:
        return spec.contrast_floor
    return {0: 0.02, 8: 8.0, 16: 64.0}[max(s.bits for s in sketches)] * (RGB_FACTOR if rgb else 1.0)


def _bright(parts: Sequence[tuple[Sketch, int]]) -> float:
    """Half of the range: above it an RGB image lies on bright glass, below on a dark ground."""
    return {0: 0.5, 8: 127.5, 16: 32767.5}[max(s.bits for s, _ in parts)]
