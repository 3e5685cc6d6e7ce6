"""Exporting a slide of a million nuclei: processor seconds, memory and bytes of every format.

    python benchmarks/exporting.py [--quick] [--formats geojson,csv]

A made-up result: ellipses of 16 to 26 px across, 32 px apart, 1,048,576 of them on 32,768 x 32,768 px, with the columns
of the default measurements of two channels. Each export runs in a process of its own on one core; memory is the highest
resident memory of that process, all told. The floor is writing as many bytes to a file of the same disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from reading import table
from timing import arguments, row, spread

from slidebatch import ngff
from slidebatch.export import FORMATS
from slidebatch.geometry import Box
from slidebatch.measure import STORED
from slidebatch.store import create_array, write_group, write_region

BAR_S, BAR_MB = 60, 500
SPACING_PX = 32
SHARD_PX = 4096

ASK = """
import sys, time
from slidebatch.cli import status_of
def megabytes(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024 / 1e6
start = time.perf_counter()
assert status_of({words!r}) == 0
print(time.perf_counter() - start, time.process_time(), megabytes("VmHWM:"), file=sys.stderr)
"""


def ellipses(rng: np.random.Generator) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """A shard's worth of ellipses, one a square of SPACING_PX: its mask, and their boxes (n, n, 4) in it."""
    n = SHARD_PX // SPACING_PX
    a, b = rng.uniform(8, 13, (2, n, n, 1, 1))
    turn = rng.uniform(0, np.pi, (n, n, 1, 1))
    y, x = np.mgrid[:SPACING_PX, :SPACING_PX] - (SPACING_PX - 1) / 2
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    mask = (along / a) ** 2 + (across / b) ** 2 <= 1
    rows, columns = mask.any(axis=3), mask.any(axis=2)
    corner = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1) * SPACING_PX
    low = np.stack([rows.argmax(axis=2), columns.argmax(axis=2)], axis=-1) + corner
    high = np.stack([SPACING_PX - side[..., ::-1].argmax(axis=2) for side in (rows, columns)], axis=-1) + corner
    whole = mask.transpose(0, 2, 1, 3).reshape(SHARD_PX, SHARD_PX)
    return whole, np.concatenate([low, high], axis=-1)


def write_results(folder: Path, shards: int) -> int:
    """A finished results folder of one slide of shards x shards shards; how many nuclei it has."""
    mask, boxes = ellipses(np.random.default_rng(0))
    n, size = len(boxes), shards * SHARD_PX
    place = np.arange(size) // SPACING_PX
    group = folder / "labels.zarr" / "s"
    create_array(group / "0", (size, size), "uint32", (512, 512), (SHARD_PX, SHARD_PX))
    write_group(folder / "labels.zarr", {})
    write_group(group, ngff.label_image(1, 0.5, None))
    whole = np.zeros((n * shards, n * shards, 4), np.int32)
    for y in range(shards):
        for x in range(shards):
            box = Box(y, x, y + 1, x + 1)
            here = Box(*(SHARD_PX * side for side in box.tuple()))
            rows, columns = (place[side] for side in here.slices())
            label = (rows[:, None] * (n * shards) + columns[None, :] + 1).astype(np.uint32)
            write_region(group / "0", np.where(mask, label, np.uint32(0)), here)
            whole[y * n : y * n + n, x * n : x * n + n] = boxes + np.array([y, x, y, x]) * SHARD_PX
    nuclei = (n * shards) ** 2
    columns = table(nuclei, 0)
    for number, name in enumerate(("y0", "x0", "y1", "x1")):
        columns = columns.set_column(columns.schema.get_field_index(name), name, pa.array(whole[..., number].ravel()))
    ids = pa.array(np.arange(1, nuclei + 1, dtype=np.uint32))
    columns = columns.set_column(columns.schema.get_field_index("label"), "label", ids)
    (folder / "instances").mkdir()
    pq.write_table(columns, folder / "instances" / "s.parquet", **STORED)
    entry = {"slide": "s", "state": "done", "nuclei": nuclei, "channels": ["GFP", "DNA"], "mpp": 0.5, "scale": 1.0}
    told = {"format_version": 1, "name": "made", "state": "done", "slides": [entry | {"labels": "s", "image": None}]}
    (folder / "manifest.json").write_text(json.dumps(told))
    pq.write_table(pa.table({"slide": ["s"]}), folder / "summary.parquet")
    return nuclei


def bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def floor_s(folder: Path, count: int) -> float:
    """Processor seconds to write as many bytes."""
    piece, start = bytes(1 << 20), time.process_time()
    with (folder / "floor").open("wb") as file:
        for _ in range(count >> 20):
            file.write(piece)
    (folder / "floor").unlink()
    return time.process_time() - start


def measured(results: Path, name: str, columns: str | None) -> tuple[float, float, float, int]:
    """Seconds, processor seconds, megabytes and bytes written of one export."""
    output = results.parent / f"out{FORMATS[name].suffix}"
    words = ["export", str(results), "--to", name, "--output", str(output), "--force"]
    words += [] if columns is None else ["--columns", columns]
    ended = subprocess.run([sys.executable, "-c", ASK.format(words=words)], capture_output=True, text=True, check=True)
    took, busy, most = (float(word) for word in ended.stderr.split()[-3:])
    return took, busy, most, bytes_of(output)


def main() -> None:
    """Print seconds, megabytes and bytes of every format."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--formats", default=",".join(FORMATS), help="which, by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        results = Path(made) / "r"
        nuclei = write_results(results, 1 if options.quick else 8)
        print(f"{nuclei} nuclei; bar of geojson: {BAR_S} s, {BAR_MB} MB")
        row("format", "columns", "processor s", "s", "MB", "written MB", "floor s")
        row(*["---"] * 7)
        for name in options.formats.split(","):
            for columns in (None, "area_um2") if name == "geojson" else (None,):
                all_of = [measured(results, name, columns) for _ in range(options.repeats)]
                took, busy, most, size = zip(*all_of, strict=True)
                floor = floor_s(Path(made), size[0])
                told = f"{max(most):.0f}", f"{size[0] / 1e6:.0f}", f"{floor:.2f}"
                row(name, columns or "all", spread(busy), spread(took), *told)


if __name__ == "__main__":
    main()
