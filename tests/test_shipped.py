"""Finding the files that are shipped, from a checkout and from an installed copy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from slidebatch.errors import ConfigError
from slidebatch.shipped import configs, find_config, root, shipped

ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import json
from slidebatch import shipped
found = {name: str(shipped.find_config(name)) for name in shipped.configs()}
print(json.dumps([str(shipped.root()), found, str(shipped.shipped("jobs/slurm/run.sh"))]))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package's code and shipped files as pyproject.toml says that a wheel holds them."""
    site = tmp_path / "site"
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    (site / "slidebatch").mkdir(parents=True)
    for module in (ROOT / "slidebatch").glob("*.py"):
        shutil.copy(module, site / "slidebatch")
    for source, target in rules["force-include"].items():
        shutil.copytree(ROOT / source, site / target)
    return site


def test_installed_copy_finds_its_own_files(installed: Path, tmp_path: Path) -> None:
    """Away from any checkout, an installed copy finds every shipped config and job script inside itself."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    folder, found, job = json.loads(ended.stdout)
    assert Path(folder).is_relative_to(installed)
    assert set(found) == set(configs())
    assert all(Path(path).is_relative_to(installed) for path in [*found.values(), job])


def test_checkout_finds_its_own_files() -> None:
    """In a checkout the shipped files are those beside the package."""
    assert root() == ROOT
    assert {"conf/plate.yaml", "conf/slide.yaml", "conf/plate_files.yaml"} <= set(configs())


def test_shipped_configs_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a shipped config works from a folder that has no conf/."""
    monkeypatch.chdir(tmp_path)
    assert find_config("conf/plate.yaml") == ROOT / "conf" / "plate.yaml"


def test_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name in the working folder is taken, not the shipped one."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "plate.yaml").write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    assert find_config("conf/plate.yaml").resolve() == tmp_path / "conf" / "plate.yaml"


@pytest.mark.parametrize("name", ["plat.yaml", "conf/../pyproject.toml", "conf", "", "/nowhere/plate.yaml"])
def test_what_is_not_there_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config that is neither there nor shipped is refused with the list of shipped ones."""
    monkeypatch.chdir(tmp_path)
    assert shipped(name) is None
    with pytest.raises(ConfigError, match=r"conf/plate\.yaml"):
        find_config(name)
