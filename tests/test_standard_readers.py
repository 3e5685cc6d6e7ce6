"""Every file of a finished run opens in its own standard reader, with nothing of slidebatch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image
from ruamel.yaml import YAML
from safetensors import safe_open

from tests.support.fields import touching_field
from tests.support.runs import config, run, write_slides


def _safetensors(path: Path) -> None:
    with safe_open(str(path), framework="np") as file:
        for name in file.keys():  # noqa: SIM118  (the file is no mapping)
            file.get_tensor(name)


def _json_lines(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def _yaml(path: Path) -> None:
    YAML(typ="safe").load(path)


def _html(path: Path) -> None:
    HTMLParser().feed(path.read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".jsonl": _json_lines,
    ".parquet": pq.read_table,
    ".safetensors": _safetensors,
    ".yaml": _yaml,
    ".html": _html,
    ".png": lambda path: Image.open(path).load(),
    ".log": lambda path: path.read_text(encoding="utf-8"),
}
"""By suffix; what lies in a zarr is read by zarr."""


def opened(folder: Path) -> set[str]:
    """Open every file below a folder, whole; the suffixes that were met. Fails on a file that no reader knows."""
    met = set()
    zarrs = sorted(p.parent for p in folder.rglob("zarr.json") if not (p.parent.parent / "zarr.json").is_file())
    for root in zarrs:
        known = set(_zarr_files(root))
        unknown = {p for p in root.rglob("*") if p.is_file()} - known
        assert not unknown, f"no file of a zarr: {sorted(unknown)[:3]}"
        met.add("zarr")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if any(root in path.parents for root in zarrs):
            continue
        assert path.suffix in READERS, f"no reader for {path.relative_to(folder)}"
        READERS[path.suffix](path)
        met.add(path.suffix)
    return met


def _zarr_files(root: Path) -> Iterator[Path]:
    """The files that a zarr owns: metadata, and those under the names of chunks. Every pixel is read."""
    node = zarr.open(root, mode="r")
    nodes = [("", node), *(node.members(max_depth=None) if isinstance(node, zarr.Group) else ())]
    for name, one in nodes:
        assert one.metadata.zarr_format == 3
        yield root / name / "zarr.json"
        if isinstance(one, zarr.Array):
            one[...]
            step = one.shards or one.chunks
            for place in np.ndindex(*(-(-size // side) for size, side in zip(one.shape, step, strict=True))):
                yield root.joinpath(name, "c", *map(str, place))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two slides and one that is broken, with the images copied and all that `work` can hold kept."""
    folder = tmp_path_factory.mktemp("run")
    truth = touching_field((200, 260), 22, np.random.default_rng(7), gap=0.3)
    write_slides(folder, {"a": truth, "blank": np.zeros((90, 80), np.int32)})
    (folder / "images" / "broken.tif").write_bytes(b"II*\0")
    output = {"image": "copy", "keep_maps": True}
    assert run(config(folder, "out", input={"mpp": 0.5, "scale": 1.0}, output=output)).exit_status == 3
    return folder / "out"


def test_every_file_opens_in_its_standard_reader(finished: Path, sample_plate: Path) -> None:
    """Slides and a plate, one with a failure: labels, images, tables, lists and what `work` keeps, each file."""
    for folder in (finished, sample_plate):
        assert opened(folder) >= {"zarr", ".json", ".jsonl", ".parquet", ".safetensors"}
    assert (finished / "failures.jsonl").read_text()
    assert list((finished / "work" / "maps").iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [("notes.bin", "no reader"), ("labels.zarr/a/notes.json", "no file of a zarr"), ("torn.parquet", None)],
)
def test_a_file_that_does_not_open_is_noticed(finished: Path, tmp_path: Path, name: str, words: str | None) -> None:
    """A file of an unknown kind, one that zarr knows nothing of, or one that is torn fails the walk."""
    folder = shutil.copytree(finished, tmp_path / "r")
    (folder / name).write_bytes(b"PAR1")
    with pytest.raises(Exception, match=words) as caught:
        opened(folder)
    assert words is None or caught.type is AssertionError
