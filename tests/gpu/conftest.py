"""Tests of this folder need a GPU; elsewhere they are skipped, and docs/gpu-queue.md has the command."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from slidebatch.config import RunConfig
from slidebatch.sample import write_sample


@pytest.fixture(autouse=True, scope="session")
def gpu() -> None:
    """A GPU, or a skip with its reason; SLIDEBATCH_GPU_TESTS=required makes a missing one a failure."""
    if torch.cuda.is_available():
        return
    if os.environ.get("SLIDEBATCH_GPU_TESTS") == "required":
        pytest.fail("no GPU here, and SLIDEBATCH_GPU_TESTS is required")
    pytest.skip("no GPU here")


@pytest.fixture(scope="session")
def tissue(gpu: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A made-up slide that a trained network finds nuclei in."""
    return write_sample("tissue", tmp_path_factory.mktemp("sample"))


@pytest.fixture
def settings(tissue: Any, tmp_path: Any) -> Any:
    """(name of the output, sections) -> the config of a run of `small_unet` on the made-up slide, in one process."""

    def made(name: str, **sections: Any) -> RunConfig:
        values: dict[str, Any] = {
            "input": dict(tissue.input),
            "model": {"name": "small_unet", **sections.pop("model", {})},
            "output": {"path": str(tmp_path / name)},
            "tiling": {"patch_px": 624},
            "cluster": {"kind": "serial"},
            **sections,
        }
        return RunConfig.model_validate(values)

    return made
