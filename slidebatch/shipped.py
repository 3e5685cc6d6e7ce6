"""Finds the files shipped beside the code, `conf/` and `jobs/`, in a checkout and in an installed copy.

An installed copy has them in `slidebatch/shipped/` (see pyproject.toml); a checkout (also one installed in
editable mode) has them beside the package.
"""

from __future__ import annotations

from pathlib import Path

from slidebatch.errors import ConfigError

FOLDERS = ("conf", "jobs")


def root() -> Path:
    """The folder that holds `conf/` and `jobs/`.

    :raises ConfigError: neither place has them (an incomplete installation).
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "shipped", package.parent):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    raise ConfigError(
        f"The files shipped with slidebatch (conf/, jobs/) are not beside {package}; expected them in "
        f"{package / 'shipped'} or {package.parent}: install slidebatch again."
    )


def shipped(name: str) -> Path | None:
    """The shipped file called `name` (such as "conf/plate.yaml"); None if none is shipped by that name."""
    parts = Path(name).parts
    if not parts or parts[0] not in FOLDERS or ".." in parts:
        return None
    path = root().joinpath(*parts)
    return path if path.is_file() else None


def configs() -> tuple[str, ...]:
    """Names of the shipped configs, those of runs first: ("conf/plate.yaml", ..., "conf/train/small_unet.yaml")."""
    folder = root() / "conf"
    found = sorted(folder.glob("*.yaml")) + sorted(folder.glob("*/*.yaml"))
    return tuple(path.relative_to(folder.parent).as_posix() for path in found)


def find_config(name: str) -> Path:
    """The config file that `name` means: that path if it exists, else the shipped file of that name.

    :raises ConfigError: neither; lists what is shipped.
    """
    path = Path(name)
    if path.is_file():
        return path
    found = shipped(name)
    if found is not None:
        return found
    if name and path.is_dir():
        raise ConfigError(
            f"{name} is a folder, expected a config, a YAML file; `slidebatch plan {name}` says how to run the images "
            "in a folder."
        )
    raise ConfigError(
        f"{name}: this config does not exist; expected a YAML file, or one of the shipped ones: {', '.join(configs())}."
    )
