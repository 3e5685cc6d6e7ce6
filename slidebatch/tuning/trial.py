"""Scores of settings on images in memory, shared out over worker processes.

Every worker holds its own images for the whole search; only settings and scores travel. A worker of a single network
imports nothing but numpy, scipy, numba and the decoder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from slidebatch.decode import DecodeSpec
from slidebatch.instances import Instances
from slidebatch.metrics import Scores, scores
from slidebatch.tuning.space import Settings, Space, Value

Maps = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Kept = tuple[Maps, ...] | Instances
"""What networks left of an image: class maps (K, Y, X) of each, or the nuclei that each found, scores as they came."""

MEASURES = ("dsb", "ap50", "f1", "seg", "pq", "aji")
"""What is known of every image under every settings that were tried."""

WORTH_PX = 8e6
"""Fewer pixels than this are decoded here rather than by workers that first have to start."""


class Decoder(Protocol):
    """What is tuned: settings, and what they make of an image that networks have left. Values, small and picklable.

    space     names and ranges of the settings
    notes     what must be said about them
    value     of a setting
    having    the same with some settings replaced, checked
    decoding  the same with another section `decode`
    labels    the label image (Y, X) that a run makes, up to renaming
    sections  of a config that hold all settings, for JSON
    to_yaml   those sections as text: what was tuned, and what else differs from the defaults
    """

    @property
    def space(self) -> Space: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def decode(self) -> DecodeSpec: ...
    def value(self, name: str) -> Value: ...
    def having(self, settings: Settings) -> Decoder: ...
    def decoding(self, decode: DecodeSpec) -> Decoder: ...
    def labels(self, kept: Kept, shape: tuple[int, int]) -> npt.NDArray[np.int32]: ...
    def sections(self) -> dict[str, Any]: ...
    def to_yaml(self, tuned: Collection[str]) -> str: ...


@dataclass(frozen=True)
class Case:
    """One image: what networks left of it, true labels (Y, X); its heading, and the group it belongs to."""

    image: str
    heading: str
    cluster: str
    kept: Kept
    truth: npt.NDArray[np.integer]


Score = Callable[[Settings], Floats]
"""Settings -> (N, M) scores: images in order, measures as in `MEASURES`."""


def row_of(found: Scores) -> tuple[float, ...]:
    """The measures of an image, in the order of `MEASURES`."""
    half = found.half
    return found.dsb, half.average_precision, half.f1, found.seg, found.panoptic.pq, found.aji


def score_cases(cases: Sequence[Case], decoder: Decoder) -> Floats:
    """Scores (N, M) of images as a decoder has them. No images: (0, M)."""
    rows = [row_of(scores(decoder.labels(c.kept, (c.truth.shape[0], c.truth.shape[1])), c.truth)) for c in cases]
    return np.array(rows, np.float64).reshape(len(cases), len(MEASURES))


@contextmanager
def scorer(cases: Sequence[Case], base: Decoder, workers: int | Literal["auto"]) -> Iterator[Score]:
    """A function that scores settings on all cases and remembers what it has scored; its workers end with it."""
    shares = _shares(cases, _count(cases, workers))
    known: dict[Settings, Floats] = {}
    with ExitStack() as stack:
        if len(shares) == 1:
            parts = _here(cases)
        else:
            parts = _elsewhere([stack.enter_context(_worker([cases[i] for i in share])) for share in shares], shares)

        def score(settings: Settings) -> Floats:
            if settings not in known:
                known[settings] = parts(base.having(settings))
            return known[settings]

        yield score


Parts = Callable[[Decoder], Floats]


def _here(cases: Sequence[Case]) -> Parts:
    return lambda decoder: score_cases(cases, decoder)


def _elsewhere(pools: Sequence[ProcessPoolExecutor], shares: Sequence[Sequence[int]]) -> Parts:
    """Scores gathered from workers, in the order of the cases."""

    def score(decoder: Decoder) -> Floats:
        answers = [pool.submit(_score_held, decoder) for pool in pools]
        out = np.empty((sum(len(s) for s in shares), len(MEASURES)))
        for share, answer in zip(shares, answers, strict=True):
            out[list(share)] = answer.result()
        return out

    return score


def _count(cases: Sequence[Case], workers: int | Literal["auto"]) -> int:
    if workers != "auto":
        return max(1, min(workers, len(cases)))
    if sum(c.truth.size for c in cases) < WORTH_PX:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, len(cases)))


def _shares(cases: Sequence[Case], workers: int) -> list[list[int]]:
    """Rows of the cases of each worker: the largest first, to whoever has the fewest pixels."""
    shares: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for row in sorted(range(len(cases)), key=lambda i: -cases[i].truth.size):
        least = load.index(min(load))
        shares[least].append(row)
        load[least] += cases[row].truth.size
    return shares


def _worker(cases: Sequence[Case]) -> ProcessPoolExecutor:
    """One process that holds these cases. Spawned: numba and zarr do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_hold, initargs=(cases,))


_held: list[Case] = []
"""The cases of this worker."""


def _hold(cases: Sequence[Case]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, who then ends its workers
    _held[:] = cases


def _score_held(decoder: Decoder) -> Floats:
    return score_cases(_held, decoder)
