"""The package itself, its dependencies and its extras, as its own metadata names them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from slidebatch.doctor.finding import Finding
from slidebatch.release import release

EXTRAS = {
    "cuda": "cluster.kind cuda: a worker per GPU",
    "hpc": "cluster.kind slurm and pbs: jobs as workers",
    "wsi": "scanner formats that tifffile does not read (OpenSlide)",
    "fast": "faster networks on a CPU (OpenVINO, ONNX Runtime), faster files (zarrs)",
    "tune": "slidebatch tune by optuna",
    "test": "the tests",
}


def look() -> list[Finding]:
    """Findings of what is installed."""
    try:
        wanted = requires("slidebatch") or []
    except PackageNotFoundError:
        found = Finding(
            *("packages: slidebatch", "fault", f"{release()}, not installed", "the program and its extras"),
            "install it: pip install -e . in its folder",
        )
        return [found]
    own = Finding("packages: slidebatch", "fine", release(), "everything")
    return [own, _dependencies(wanted), *(_extra(name, use, wanted) for name, use in EXTRAS.items())]


def _dependencies(wanted: list[str]) -> Finding:
    missing, found = _sorted([line for line in wanted if "extra ==" not in line])
    name, use = "packages: dependencies", "everything"
    if missing:
        return Finding(name, "fault", f"missing: {', '.join(missing)}", use, "install slidebatch again")
    return Finding(name, "fine", f"{len(found)} installed, {', '.join(_shown(found))}", use)


def _shown(found: list[str]) -> list[str]:
    return [one for one in found if one.split()[0] in {"dask", "distributed", "numpy", "torch", "zarr"}]


def _extra(extra: str, use: str, wanted: list[str]) -> Finding:
    missing, found = _sorted([line for line in wanted if re.search(rf"extra == ['\"]{extra}['\"]", line)])
    if missing:
        return Finding(
            f"packages: extra {extra}", "absent", f"missing: {', '.join(missing)}", use, f"install slidebatch[{extra}]"
        )
    return Finding(f"packages: extra {extra}", "fine", ", ".join(found), use)


def _sorted(lines: list[str]) -> tuple[list[str], list[str]]:
    """Names that are not installed, and "name version" of those that are."""
    missing, found = [], []
    for line in lines:
        name = re.split(r"[\s\[;<>=!~(]", line, maxsplit=1)[0]
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return missing, found
