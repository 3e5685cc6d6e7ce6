"""The shape of the code: imports point down, libraries have doors, files and functions stay small."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "slidebatch").rglob("*.py"), *(ROOT / "ensemble").rglob("*.py")])

FLOORS = {
    0: {"ensemble"},
    1: {"allocator", "errors", "geometry", "instances", "spec", "events", "release", "ahead", "cores"},
    2: {
        *("tiling", "tissue", "normalise", "decode", "memory", "metrics", "ngff", "deadline", "overlaps", "faults"),
        *("measurements", "outlines", "assay", "runlengths", "pages"),
    },
    3: {"slides", "store", "models"},
    4: {
        *("scratch", "sources", "sample", "regions", "plan", "fingerprints", "patches", "job", "paste", "settle"),
        *("fusion", "members", "prepare", "infer", "classmaps", "tiles", "seams", "paint", "measure"),
    },
    5: {"stages"},
    6: {"executors"},
    8: {"config", "config_faults", "yaml_place", "shipped"},
    9: {
        *("batch", "pooling", "devices", "sharing", "planning", "networks_wanted", "projection", "finish", "lease"),
        *("progress", "status", "training", "evaluate", "tuning", "results", "validate", "plate_assay", "report"),
        *("sweep", "jobscripts", "doctor", "export", "first_look", "earlier"),
    },
    10: {"cli", "__main__"},
}
"""Modules and packages of slidebatch by floor, as docs/design.md tells them; `ensemble` stands by itself."""

ANYWHERE = {"numpy", "pydantic"}
DOORS = {
    "PIL": {"models", "pages", "training"},
    "dask": {"executors", "results"},
    "dask_cuda": {"executors"},
    "dask_jobqueue": {"executors"},
    "distributed": {"executors"},
    "imagecodecs": {"slides"},
    "numba": {
        *(
            "ensemble",
            "decode",
            "paste",
            "seams",
            "paint",
            "measurements",
            "outlines",
            "training",
            "runlengths",
        ),
    },
    "numcodecs": {"export"},
    "jinja2": {"jobscripts", "pages"},
    "markupsafe": {"pages"},
    "matplotlib": {"pages", "results", "training", "sweep"},
    "ome_zarr_models": {"validate"},
    "onnxruntime": {"models"},
    "openslide": {"slides"},
    "openvino": {"models"},
    "optuna": {"tuning"},
    "orjson": {"export"},
    "pandas": {"results", "report", "plate_assay", "evaluate", "training", "validate", "sweep"},
    "psutil": {"executors", "sweep"},
    "pycocotools": {"training", "runlengths"},
    "pyarrow": {"measure", "finish", "results", "export"},
    "rich": {"progress", "cli"},
    "ruamel": {"yaml_place"},
    "safetensors": {"store", "models"},
    "scipy": {"assay", "ensemble", "decode", "tissue", "models", "sample", "measure", "training"},
    "shapely": {"regions"},
    "skimage": {"training"},
    "tifffile": {"slides", "sample", "models", "export"},
    "torch": {"models", "training"},
    "torchvision": {"models", "training"},
    "typer": {"cli"},
    "xarray": {"results"},
    "zarr": {"store", "slides", "results", "export"},
    "zarrs": {"store"},
}
"""Which modules may import which library; what is not named here may be imported nowhere."""

MOST_LINES = 350
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 6


def top(module: str) -> str:
    """The module or package of slidebatch that a dotted name belongs to; `ensemble` for all of that."""
    parts = module.split(".")
    return parts[1] if parts[0] == "slidebatch" and len(parts) > 1 else parts[0]


def name_of(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, anywhere in it, with its line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by full name"
            module = str(node.module)
            if module == "slidebatch":
                yield from ((f"slidebatch.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def floor_of(module: str) -> int:
    found = [floor for floor, names in FLOORS.items() if top(module) in names]
    assert found, f"{module} has no floor: give it one in tests/test_floors.py and docs/design.md"
    return found[0]


def own(module: str) -> bool:
    return module.split(".")[0] in ("slidebatch", "ensemble")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """A module imports from its own floor and below; only the package's front door reaches up."""
    name = name_of(path)
    if name == "slidebatch":
        return
    for module, line in imported(path):
        if own(module):
            assert floor_of(module) <= floor_of(name), f"{name}:{line} imports {module} from above"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_are_imported_by_their_doors(path: Path) -> None:
    """A foreign library is imported only by the modules that are its doors."""
    for module, line in imported(path):
        library = module.split(".")[0]
        if own(module) or library in sys.stdlib_module_names or library in ANYWHERE:
            continue
        assert top(name_of(path)) in DOORS.get(library, set()), f"{path.name}:{line}: no door to {library}"


def test_no_cycles_between_modules() -> None:
    """Modules and packages do not import each other in a circle, not even late."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        name = name_of(path)
        if name != "slidebatch":
            below = {top(module) for module, _ in imported(path) if own(module)}
            graph.setdefault(top(name), set()).update(below - {top(name)})
    assert list(TopologicalSorter(graph).static_order())


def test_every_floor_is_inhabited() -> None:
    """The table names no module that is not there."""
    there = {top(name_of(path)) for path in FILES}
    assert {name for names in FLOORS.values() for name in names} <= there


def _compiled(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether numba compiles a function: such kernels take plain arrays one by one, never a spec."""
    return any("njit" in ast.unparse(decorator) for decorator in node.decorator_list)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    """Files have at most 350 lines, functions at most 60 lines and 6 parameters."""
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{name_of(path)} has {lines} lines"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{name_of(path)}.{node.name} has {length} lines"
            count = 0 if _compiled(node) else len(_parameters(node))
            assert count <= MOST_PARAMETERS, f"{name_of(path)}.{node.name} has {count} parameters"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_print_and_no_vague_names(path: Path) -> None:
    """The library never prints, and no module is a bag of this and that."""
    assert path.stem not in {"utils", "helpers", "misc", "manager", "common", "info"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{name_of(path)}:{node.lineno} prints"
