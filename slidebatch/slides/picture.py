"""PNG and JPEG pictures. They can only be decoded whole: small ones are kept decoded, large ones are staged.

The header is read here (PNG: ISO/IEC 15948, chunk IHDR; JPEG: ITU-T T.81, marker SOF) so that a picture's
facts cost no decoding. Pixels are taken as stored: an EXIF orientation turns nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from slidebatch.slides import caches, facts
from slidebatch.slides.facts import Facts, Window

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_COLOUR_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # alpha not counted; a palette is looked up
JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


@dataclass(frozen=True)
class Header:
    """Shape (Y, X), colour samples without alpha, and bits per sample."""

    shape: tuple[int, int]
    samples: int
    bits: int


class Picture:
    """A PNG or JPEG file."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.key = caches.stamp(path)
            header = read_header(path)
        except OSError as error:
            facts.blame(path, error)
        if min(header.shape) < 1 or header.samples not in (1, 3):
            found = f"is a picture of {header.shape} px with {header.samples} samples, expected grey or RGB"
            facts.fail(path, found, "convert it to RGB")
        rgb = header.samples == 3
        self.facts = Facts(
            levels=facts.make_levels([header.shape]),
            channels=facts.RGB if rgb else ("C0",),
            depth=1,
            rgb=rgb,
            dtype=np.dtype(np.uint16 if header.bits > 8 else np.uint8),
        )

    def read(self, window: Window) -> npt.NDArray[Any]:
        pixels = caches.whole_cache.get((self.key,), self._decoded)
        rows, columns = window.box.slices()
        return np.stack([pixels[rows, columns, channel] for channel in window.channels])

    def unreadable(self) -> str | None:
        small = self.facts.decoded_bytes <= caches.WHOLE_CACHE_BYTES
        return None if small else "it is compressed as one piece"

    def close(self) -> None:
        caches.release(self.key)

    def _decoded(self) -> npt.NDArray[Any]:
        try:
            encoded = Path(self.path).read_bytes()
            decode = imagecodecs.png_decode if encoded.startswith(PNG_MAGIC) else imagecodecs.jpeg8_decode
            pixels = np.asarray(decode(encoded))
        except MemoryError:
            raise
        except OSError as error:
            facts.blame(self.path, error)
        except Exception as error:  # the codec's own errors
            facts.fail(self.path, f"cannot be decoded ({error})", "copy or write it again", error)
        pixels = pixels.reshape(*pixels.shape[:2], -1)[..., : len(self.facts.channels)]
        if pixels.shape != (*self.facts.levels[0].shape, len(self.facts.channels)):
            facts.fail(self.path, f"decodes to {pixels.shape}, not what its header says", "write it again")
        return pixels


def read_header(path: str) -> Header:
    """The header of a PNG or JPEG file; `InputError` where it is broken, OSError where it cannot be read."""
    with open(path, "rb") as file:
        head = file.read(33)
        if head.startswith(PNG_MAGIC) and len(head) == 33:
            width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
            return Header((height, width), PNG_COLOUR_SAMPLES.get(colour, 0), bits)
        file.seek(2)
        while marker := _next_marker(file):
            (size_bytes,) = struct.unpack(">H", file.read(2).rjust(2, b"\0"))
            if marker in JPEG_FRAMES:
                bits, height, width, samples = struct.unpack(">BHHB", file.read(6).ljust(6, b"\0"))
                return Header((height, width), samples, bits)
            file.seek(max(0, size_bytes - 2), 1)
    facts.fail(path, "has a broken PNG or JPEG header", "copy or write it again")


def _next_marker(file: Any) -> int:
    # Markers are FF and a code that is neither 00 nor FF; 0 stands for the end of the file.
    byte = file.read(1)
    while byte and byte != b"\xff":
        byte = file.read(1)
    while byte == b"\xff":
        byte = file.read(1)
    return byte[0] if byte else 0
