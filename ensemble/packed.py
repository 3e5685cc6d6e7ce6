"""The layout of bit-packed masks, and how to read and set eight pixels of one at a time.

N masks are `box` (N, 4) half-open integer boxes (y0, x0, y1, x1), `bits` (B,) uint8 and `offset` (N + 1,)
int64: `offset[i]:offset[i + 1]` are the bytes of mask i, its own box's crop, rows first, eight pixels a byte,
the first pixel in the highest bit (numpy's `packbits`). Each crop starts
on a byte of its own, its rows do not.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

# numba's cache looks only at the file of the function that is called: after a change of one of
# these clear __pycache__, or the callers in iou.py, fuse.py, blend.py and decode.py go on with the old code.
ONES = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
"""How many bits of a byte are set."""


class Packed(NamedTuple):
    """Masks that were checked: int64 boxes and offsets, contiguous; safe to give to compiled loops."""

    box: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]


def packed(box: npt.ArrayLike, offset: npt.ArrayLike, bits: npt.ArrayLike) -> Packed:
    """The three arrays of N masks, checked: compiled loops trust them and read foreign memory otherwise.

    ValueError where a shape or kind is wrong, a box has a negative side, or a mask's bytes do not fit it.
    """
    boxes, starts, content = np.asarray(box), np.asarray(offset), np.asarray(bits)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not (boxes.dtype.kind in "iu" or boxes.size == 0):
        raise ValueError(f"boxes of masks are {boxes.dtype} {boxes.shape}, expected integers (N, 4): round them first")
    if starts.shape != (len(boxes) + 1,) or content.ndim != 1 or content.dtype != np.uint8:
        raise ValueError(
            f"offset is {starts.shape} and bits {content.dtype} {content.shape} for {len(boxes)} masks, "
            "expected (N + 1,) and uint8 (B,): pass the arrays of one table"
        )
    whole = Packed(
        np.ascontiguousarray(boxes, np.int64),
        np.ascontiguousarray(starts, np.int64),
        np.ascontiguousarray(content),
    )
    height, width = whole.box[:, 2] - whole.box[:, 0], whole.box[:, 3] - whole.box[:, 1]
    bad = (height < 0) | (width < 0) | (np.diff(whole.offset) != (height * width + 7) // 8)
    if bad.any() or whole.offset[0] != 0 or whole.offset[-1] != content.size:
        row = int(np.argmax(bad)) if bad.any() else 0
        raise ValueError(
            f"the bytes of mask {row} do not fit its box {boxes[row].tolist() if len(boxes) else []}: "
            "expected one bit a pixel, whole bytes a mask, offsets from 0 to the end of bits"
        )
    return whole


def as_words(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Bits (B,) uint8 as 64-bit words for `sixty_four_bits`, first bit highest; a word of zeros ends them."""
    whole = np.zeros((bits.size // 8 + 2) * 8, np.uint8)
    whole[: bits.size] = bits
    words = whole.view(np.uint64)
    return words.byteswap(inplace=True) if sys.byteorder == "little" else words


@njit(cache=True, nogil=True)
def sixty_four_bits(words, at):  # type: ignore[no-untyped-def]
    """The 64 bits from bit `at` on, first bit highest."""
    word, shift = at >> 6, np.uint64(at & 63)
    if shift == 0:
        return words[word]
    return (words[word] << shift) | (words[word + 1] >> (np.uint64(64) - shift))


@njit(cache=True, nogil=True)
def ones_of_first(word, count):  # type: ignore[no-untyped-def]
    """How many of the first `count` >= 1 bits of a 64-bit word are set (of all from 64 on)."""
    if count < 64:
        word >>= np.uint64(64 - count)
    # Sums of 2, 4 and 8 neighbouring bits, then of all bytes; compilers know it as one instruction.
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True)
def eight_bits(bits, at):  # type: ignore[no-untyped-def]
    """The eight bits from bit `at` on as an integer, first bit highest; bits beyond the end read 0."""
    byte, shift = at >> 3, at & 7
    word = np.int64(bits[byte]) << 8
    if shift != 0 and byte + 1 < bits.size:
        word |= np.int64(bits[byte + 1])
    return (word >> (8 - shift)) & 255


@njit(cache=True, nogil=True)
def keep_first(byte, count):  # type: ignore[no-untyped-def]
    """The byte with only its first `count` bits left (all of them from eight on)."""
    return byte if count >= 8 else byte & (0xFF00 >> count) & 255


@njit(cache=True, nogil=True)
def bit(bits, at):  # type: ignore[no-untyped-def]
    """The bit at `at`: 0 or 1."""
    return (bits[at >> 3] >> (7 - (at & 7))) & 1


@njit(cache=True, nogil=True)
def add_eight(bits, at, byte):  # type: ignore[no-untyped-def]
    """Set, in place, from bit `at` on, those of eight bits that are set in the integer `byte`."""
    first, shift = at >> 3, at & 7
    bits[first] |= byte >> shift
    if shift != 0 and first + 1 < bits.size:
        bits[first + 1] |= (byte << (8 - shift)) & 255


@njit(cache=True, nogil=True)
def set_bits(bits, start, stop):  # type: ignore[no-untyped-def]
    """Set, in place, the bits from `start` up to `stop` > start, byte by byte."""
    first, last = start >> 3, stop >> 3
    head, tail = 255 >> (start & 7), ~(255 >> (stop & 7)) & 255
    if first == last:
        bits[first] |= head & tail
        return
    bits[first] |= head
    for i in range(first + 1, last):
        bits[i] = 255
    if tail:
        bits[last] |= tail
