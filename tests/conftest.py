"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """All tests but those of tests/gpu, which are asked for by name, are of the CPU, also where there is a GPU."""
    if not any("gpu" in Path(str(asked).split("::")[0]).parts for asked in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def sample_plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a real run on the sample plate with its true nuclei; its wells have doses and controls."""
    from slidebatch.sample import write_sample
    from tests.support.runs import config, run

    folder = tmp_path_factory.mktemp("sample")
    made = write_sample("plate", folder / "sample")
    sections = {
        "model": {"name": "oracle", "settings": {"truth": str(made.truth)}},
        "output": {"chunk_px": 256, "shard_px": 1024},
        "tiling": {"core_px": 512, "patch_px": 256},
    }
    assert run(config(folder, "results/plate", input={"path": None, **made.input}, **sections)).exit_status == 0
    return folder / "results" / "plate"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real images, or a skip with its reason."""
    folder = Path(os.environ.get("SLIDEBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real images are not here: put them in ../shared/data or name them in SLIDEBATCH_TEST_DATA")
    return folder.resolve()
