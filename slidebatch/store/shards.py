"""Shards of nuclei: named arrays in one file that carries the fingerprint of its making."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save

from slidebatch.faults import readable
from slidebatch.instances import Instances
from slidebatch.store.files import write_atomically


def write_shard(path: Path, arrays: dict[str, npt.NDArray[Any]], fingerprint: str) -> None:
    """Write named arrays as one safetensors file that carries the fingerprint of its making."""
    contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    write_atomically(path, save(contiguous, {"fingerprint": fingerprint}))


def read_shard(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a shard by name, or only those asked for. ResultsError if it is missing or broken."""
    with readable(path, "the shard is"), safe_open(str(path), framework="np") as shard:
        return {name: shard.get_tensor(name) for name in names or shard.keys()}


def read_instances(path: Path) -> Instances:
    """The nuclei of a shard."""
    return Instances(**read_shard(path, list(Instances.__dataclass_fields__)))
