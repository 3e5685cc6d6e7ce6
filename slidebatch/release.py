"""Which slidebatch this is: its version, and its source, which checkouts of one version may differ in."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def release() -> str:
    """Version and a digest of the package's source, as "0.1.0+1f2e3d4c"; taken once by a process."""
    folder = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    try:
        number = version("slidebatch")
    except PackageNotFoundError:  # found by PYTHONPATH alone
        number = "0"
    return f"{number}+{found.hexdigest()[:8]}"
