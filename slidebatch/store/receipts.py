"""Receipts: the fingerprint of all that a task depends on, with size and checksum of each of its outputs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slidebatch.store.files import read_json, size_of, write_json


def checksum(path: Path) -> list[int] | None:
    """[size, crc32] of a file's bytes; None where there is no file (zarr leaves out blank chunks)."""
    try:
        with open(path, "rb") as file:
            size, crc = 0, 0
            while block := file.read(1 << 22):
                size, crc = size + len(block), zlib.crc32(block, crc)
    except FileNotFoundError:
        return None
    return [size, crc]


def write_receipt(path: Path, fingerprint: str, outputs: Iterable[Path], facts: dict[str, Any]) -> dict[str, Any]:
    """Write the receipt that makes the outputs count; returns the receipt."""
    root = path.parent
    sums = {os.path.relpath(output, root): checksum(output) for output in outputs}
    receipt = {"fingerprint": fingerprint, "outputs": sums, **facts}
    write_json(path, receipt)
    return receipt


def valid_receipt(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The receipt, if it is there, has this fingerprint, and every output is still as it says; else None."""
    try:
        receipt: dict[str, Any] = read_json(path)
    except (FileNotFoundError, ValueError):
        return None
    if receipt.get("fingerprint") != fingerprint:
        return None
    whole = all(checksum(path.parent / name) == expected for name, expected in receipt["outputs"].items())
    return receipt if whole else None


def lost_output(path: Path) -> Path | None:
    """The first output that is not as large as its receipt says, or a lost receipt itself; None: all are there.

    Only sizes are looked at.
    """
    try:
        outputs = read_json(path)["outputs"]
    except (FileNotFoundError, ValueError):
        return path
    for name, expected in outputs.items():
        output = path.parent / name
        if (None if expected is None else expected[0]) != size_of(output):
            return output.resolve()
    return None
