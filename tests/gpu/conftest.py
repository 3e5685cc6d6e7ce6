"""Tests of this folder need a GPU; elsewhere they are skipped, and docs/gpu-queue.md has the command."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu() -> None:
    """A GPU, or a skip with its reason."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
