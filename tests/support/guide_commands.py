"""Commands as pages show them: found, made quick, and the files that they speak of, small and real."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import tifffile

from slidebatch.sample import write_sample
from slidebatch.sample.tissue import tissue_slide

FENCE = re.compile(r"```(?:bash|sh|console)\n(.*?)```", re.DOTALL)

QUICK = {
    "run": ["model.engine=eager", "model.precision=float32", "tiling.patch_px=624", "report.enabled=false"],
    "train": ["epochs=1", "steps_per_epoch=2", "batch=2", "sampling.crop_px=64", "loaders=0", "threads=1"],
    "sweep": ["set.epochs=1", "set.steps_per_epoch=2", "set.score_every=1"],
}
QUICK["plan"] = QUICK["submit"] = QUICK["run"]
FEW_DRAWS = {"evaluate", "tune", "assay"}
SIDE_PX = 224
WELLS = {"A01": (-1, 0), "A02": (-1, 0), "B01": (1, 9), "B02": (1, 9)}
"""Wells of `my_plate` with control and dose."""


def commands(page: Path) -> list[list[str]]:
    """The shell lines of a page that call slidebatch, as words from `slidebatch` on."""
    found = []
    for block in FENCE.findall(page.read_text()):
        for line in re.split(r"\n|&&", block.replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            words = words[1:] if words[:1] == ["$"] else words
            found += [["slidebatch", *words[1:]]] if words and Path(words[0]).name == "slidebatch" else []
    return found


def quick(words: list[str]) -> list[str]:
    """The words after `slidebatch`, with settings that make it small work: one process, few pixels, few draws."""
    name, *rest = words[1:]
    sets = [*QUICK.get(name, ())]
    if name in ("run", "plan") and "--cluster" not in rest:
        sets.append("cluster.kind=serial")
    if any(word.startswith("input.path=") for word in rest):
        sets.append("tiling.patch_px=256")  # images that `stage` made
    if "--cluster" in rest:
        sets += ["cluster.job.interface=lo", "cluster.job.memory_gb=3"]  # jobs of these tests meet on this machine
    few = ["--resamples", "20"] if name in FEW_DRAWS else []
    return [name, *rest, *few, *(word for one in sets for word in ("--set", one))]


def stage(folder: Path) -> Path:
    """What guides speak of, in a folder: my_plate, wells.csv, slides, labels, regions, tables, my_images."""
    _plate(folder)
    _slides(folder)
    write_sample("training", folder / "my_images")
    return folder


def _plate(folder: Path) -> None:
    images = Path(str(write_sample("plate", folder / "made").input["path"]))
    (folder / "my_plate").mkdir()
    for well in WELLS:
        for number, channel in enumerate(("GFP", "DNA"), 1):
            image = tifffile.imread(images / f"sample_{well}_f1_{channel}.tif")[:SIDE_PX, :SIDE_PX]
            tifffile.imwrite(folder / "my_plate" / f"Plate7_{well}_s1_w{number}.tif", image)
    rows = [f"{well},{control},{dose}" for well, (control, dose) in WELLS.items()]
    (folder / "wells.csv").write_text("\n".join(["well,control,dose", *rows, ""]))
    shutil.rmtree(folder / "made")


def _slides(folder: Path) -> None:
    image, truth = tissue_slide((256, 512), 0)
    for name in ("slides", "labels", "regions"):
        (folder / name).mkdir()
    for number, name in enumerate(("one", "two")):
        here = np.s_[:SIDE_PX, 256 * number : 256 * number + SIDE_PX]
        tifffile.imwrite(folder / "slides" / f"{name}.tif", image[here])
        tifffile.imwrite(folder / "labels" / f"{name}.tif", truth[here].astype(np.uint16))
        square = [[[10, 10], [200, 10], [200, 200], [10, 200], [10, 10]]]
        region = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": square}}
        content = {"type": "FeatureCollection", "features": [region]}
        (folder / "regions" / f"{name}.geojson").write_text(json.dumps(content))
    (folder / "index.tsv").write_text("id\tmodality\none\tstained\ntwo\tstained\n")
    (folder / "groups.tsv").write_text("id\tgroup\none\ta\ntwo\tb\n")
