"""System A's table: one training for each value of each setting, scored with SEG on the four test images.

    python benchmarks/system_a.py [--quick] [--only NAME ...] [--output FOLDER] [--data FOLDER] [--set K=V ...]

Each row is `slidebatch train conf/train/system_a.yaml` with other settings, then `slidebatch run` with its weights on
the test images and `slidebatch evaluate`. A finished row is kept in the output folder and not run again, and a row
that was stopped goes on from its checkpoint: the same command again goes on. The settings of each row are written
out, so that they can be given to a sweep as they stand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timing import row

from slidebatch import batch
from slidebatch.config import load as load_config
from slidebatch.errors import OutOfTime
from slidebatch.evaluate import evaluate
from slidebatch.shipped import find_config
from slidebatch.training import train

CONFIG = "conf/train/system_a.yaml"
LESS = ("network.name=small_unet", "network.settings={}")
SMALL = ("network.settings={patch_px: [32, 40], overlap_px: 4, dropout: 0.3}",)
TINY = ("network.settings={widths: [16, 32, 64], patch_px: [16, 20], overlap_px: 4, dropout: 0.3}",)
WHOLE = ("network.settings={patch_px: [512, 640], overlap_px: 128, squeezed: 2, dropout: 0.3}", "batch=1")

ROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    "images 11": ("sampling.images=11",),
    "images 22": ("sampling.images=22",),
    "images 121": ("sampling.images=121",),
    "patch 512x640": ("sampling.divisions=1", *WHOLE),
    "patch 32x40": ("sampling.divisions=16", *SMALL),
    "patch 16x20": ("sampling.divisions=32", *TINY),
    "weights 0.001, 1.05, 0.93": ("loss.class_weights=[0.001, 1.05, 0.93]",),
    "weights 0.001, 1, 1": ("loss.class_weights=[0.001, 1, 1]",),
    "weights 1, 1, 1": ("loss.class_weights=[1, 1, 1]",),
    "batch 1": ("batch=1",),
    "batch 11": ("batch=11",),
    "batch 22": ("batch=22",),
    "batch 121": ("batch=121",),
    "blank patches left out": ("sampling.blank=false",),
    "sgd": ("optimiser.name=sgd",),
    "small_unet (no dense layer)": LESS,
    "simple_conv": ("network.name=simple_conv", "network.settings={dropout: 0.3}"),
    "unet": ("network.name=unet", "network.settings={widths: [32, 64, 128, 256], dropout: 0.3}"),
}
"""Rows of the table: name, and what differs from the config."""

SHOWN = ("row", "SEG", "DSB score", "wall time, min", "weights", "settings")


def result(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a row, from its file or by training and scoring it. The row's own settings win over `--set`."""
    quick = ["epochs=1", "sampling.most=2", "sampling.images=2", "steps_per_epoch=2"] if options.quick else []
    settings = [*options.set, *ROWS[name], *quick]
    folder = options.output / "".join(c if c.isalnum() else "_" for c in name)
    kept = folder / "result.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found["settings"] != settings:
            raise SystemExit(f"{kept} was made with {found['settings']}, not {settings}; name another --output.")
        return found
    started = time.perf_counter()
    weights = train(CONFIG, [f"output={folder}", f"data.path={options.data}", *settings])
    assert weights is not None
    card = json.loads(weights.with_suffix(".json").read_text())
    told = {"settings": settings, "weights": card["sha256"], "seconds": card["training"]["seconds"]}
    told |= scores(weights, folder, options.data) | {"with_scoring_s": time.perf_counter() - started}
    kept.write_text(json.dumps(told, indent=1))
    return told


def scores(weights: Path, folder: Path, data: Path) -> dict[str, float]:
    """SEG and Data Science Bowl score on the test images, through the engine."""
    tests = folder / "test"
    tests.mkdir(parents=True, exist_ok=True)
    for name in find_config("conf/train/system_a/test.txt").read_text().split():
        link = tests / f"{name}.png"
        link.unlink(missing_ok=True)
        link.symlink_to((data / "images" / f"{name}.png").resolve())
    changes = [f"input.path={tests}", f"model.weights={weights}", f"output.path={folder / 'results'}", "input.scale=1"]
    done = batch.run(load_config("conf/slide.yaml", changes))
    found = evaluate(done.results, data / "labels").means["all"]
    return {"seg": found["seg_pooled"], "seg_mean": found["seg"], "dsb": found["dsb"]}


def show(names: Sequence[str], options: argparse.Namespace) -> None:
    """Print each row as soon as it is known."""
    row(*SHOWN)
    row(*["---"] * len(SHOWN))
    for name in names:
        told = result(name, options)
        settings = ", ".join(told["settings"]) or "as the config"
        row(
            name,
            f"{told['seg']:.3f}",
            f"{told['dsb']:.3f}",
            f"{told['seconds'] / 60:.1f}",
            told["weights"][:12],
            settings,
        )


def main() -> None:
    """Train, score and print the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two images, two steps: shows that everything works")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("training/system_a"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dsb2018"))
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="changed in every row")
    options = parser.parse_args()
    try:
        show(options.only, options)
    except OutOfTime as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
