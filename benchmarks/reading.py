"""Opening a large result and asking for one column: seconds, and memory beyond the imports.

    python benchmarks/reading.py [--quick]

Two made-up results, a plate of 1,000 fields with 1,000 nuclei each and a slide of 1,000,000 nuclei, with the columns of
the default measurements of two channels. Each question is asked in a process of its own, whose libraries are already
imported; memory is the highest resident memory of that process less what it was after the imports. The floor is
reading the bytes of that column's chunks from the files' page cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import arguments, row, spread

from slidebatch.measure import STORED
from slidebatch.measurements import MeasureSpec, column_names, recipe

BAR_S, BAR_MB = 1.0, 300

QUESTIONS = {
    "one column": "results.instances(columns=['nucleus_to_ring_GFP'])",
    "one column, rows by a condition": "results.instances(columns=['area'], where=('mean_DNA', '>', 0.9))",
    "one column of one slide": "results.instances(results.names[0], ['area'])",
    "slides": "results.slides",
    "wells, one column": "results.wells(['nucleus_to_ring_GFP'])",
}

ASK = """
import time
import numpy, pandas, pyarrow.dataset, pyarrow.parquet, pyarrow.compute, pyarrow.fs
import slidebatch.results
pandas.DataFrame({{"a": [1]}})
def megabytes(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024 / 1e6
before = megabytes("VmRSS:")
start, busy = time.perf_counter(), time.process_time()
results = slidebatch.results.open_results({folder!r})
answer = {question}
print(time.perf_counter() - start, time.process_time() - busy, megabytes("VmHWM:") - before, len(answer))
"""


def table(nuclei: int, seed: int) -> pa.Table:
    """A table of nuclei as a run writes it, of random values."""
    rng = np.random.default_rng(seed)
    how = recipe(MeasureSpec(), "made", ["GFP", "DNA"], False, 0.5)
    whole = {n: np.arange(1, nuclei + 1, dtype=np.uint32) for n in ("label", "area")}
    place = {n: rng.random(nuclei) for n in ("y", "x", "area_um2")}
    boxes = {n: rng.integers(0, 1000, nuclei).astype(np.int32) for n in ("y0", "x0", "y1", "x1")}
    return pa.table({**whole, **place, **boxes, **{n: rng.random(nuclei, np.float32) for n in column_names(how)}})


def write_results(folder: Path, slides: int, nuclei: int, plate: bool) -> Path:
    """A finished results folder with tables alone."""
    (folder / "instances").mkdir(parents=True)
    entries = []
    for i in range(slides):
        name = f"s{i:04d}"
        pq.write_table(table(nuclei, i), folder / "instances" / f"{name}.parquet", **STORED)
        well = f"{chr(65 + i // 4 // 24)}{i // 4 % 24 + 1:02d}"
        place = {"plate": "p", "row": well[0], "column": well[1:], "well": well, "field": i % 4} if plate else {}
        entries.append({"slide": name, "state": "done", "nuclei": nuclei, "channels": ["GFP", "DNA"], **place})
    pq.write_table(pa.table({"slide": [e["slide"] for e in entries]}), folder / "summary.parquet")
    told = {"format_version": 1, "name": "made", "state": "done", "slides": entries}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def ask(folder: Path, question: str) -> tuple[float, float, float, int]:
    """Seconds, processor seconds, megabytes beyond the imports, rows of the answer, in a process of its own."""
    code = ASK.format(folder=str(folder), question=question)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, busy, more, rows = ended.stdout.split()
    return float(took), float(busy), float(more), int(rows)


def floor_s(folder: Path, column: str = "nucleus_to_ring_GFP") -> float:
    """Seconds to read the bytes of one column's chunks, nothing decoded."""
    places = []
    for path in sorted((folder / "instances").glob("*.parquet")):
        told = pq.read_metadata(path)
        at = told.schema.names.index(column)
        chunks = [told.row_group(g).column(at) for g in range(told.num_row_groups)]
        places += [(path, c.data_page_offset, c.total_compressed_size) for c in chunks]
    start = time.perf_counter()
    for path, offset, size in places:
        with open(path, "rb") as file:
            file.seek(offset)
            file.read(size)
    return time.perf_counter() - start


def main() -> None:
    """Print seconds and megabytes of every question."""
    options = arguments(__doc__, repeats=5).parse_args()
    fields, nuclei = (20, 100) if options.quick else (1000, 1000)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folders = {
            f"{fields} fields of {nuclei} nuclei": write_results(Path(made) / "plate", fields, nuclei, True),
            f"a slide of {fields * nuclei} nuclei": write_results(Path(made) / "slide", 1, fields * nuclei, False),
        }
        row("result", "question", "rows", "s", "processor s", "MB beyond imports", "bar")
        row(*["---"] * 7)
        for name, folder in folders.items():
            for question, code in QUESTIONS.items():
                if "wells" in question and name.startswith("a slide"):
                    continue
                asked = [ask(folder, code) for _ in range(options.repeats)]
                took, busy, more = ([one[i] for one in asked] for i in range(3))
                bar = f"{BAR_S} s, {BAR_MB} MB" if question == "one column" else ""
                row(name, question, asked[0][3], spread(took), spread(busy), f"{max(more):.0f}", bar)
            print(f"    floor: the bytes of the column are read in {floor_s(folder):.3f} s", flush=True)


if __name__ == "__main__":
    main()
