"""Memory and times as people write them in a config: "32 GiB", "08:00:00", "2-12:00:00"."""

from __future__ import annotations

import re

BYTES = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
"""Units of memory in bytes, in lower case."""


def memory_bytes(text: str) -> int:
    """Bytes of memory, from a number with a unit: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024).

    >>> memory_bytes("1.5 GiB"), memory_bytes("32GB")
    (1610612736, 32000000000)

    :raises ValueError: no number above 0, or another unit (a lone G means one thing to SLURM and another to disks).
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in BYTES or float(found[1]) * BYTES[found[2].lower()] < 1:
        raise ValueError(f"found {text!r}; expected a number with a unit, such as 32 GiB or 32 GB")
    return round(float(found[1]) * BYTES[found[2].lower()])


def walltime_s(text: str) -> int:
    """Seconds of a time written as hours:minutes:seconds, with days before it if need be.

    >>> walltime_s("08:00:00"), walltime_s("2-12:00:00")
    (28800, 216000)

    :raises ValueError: anything else, or no time at all.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    if days + hours + minutes + seconds == 0:
        raise ValueError(f"found {text!r}; expected hours:minutes:seconds, such as 08:00:00 or 2-12:00:00")
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def clock(seconds: int) -> str:
    """Seconds as hours:minutes:seconds, hours beyond 24 and all: PBS and SLURM both read that.

    >>> clock(216000)
    '60:00:00'
    """
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
