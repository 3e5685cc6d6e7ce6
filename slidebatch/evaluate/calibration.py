"""What a network's scores are worth: from the score of a nucleus to the overlap with the truth to expect.

Each nucleus of a run is set beside the true one that it shares most pixels with. The mean of their intersection over
union, as a function of the score that never falls, is the calibration that ensembles compare members by. What it is
worth is told by fits that never saw the group of images that they are judged on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble import calibrate as maps
from ensemble.calibrate import Calibration
from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate.intervals import Bootstrap, Floats, ratio_intervals
from slidebatch.evaluate.judge import grouped, label_images, on_both
from slidebatch.evaluate.scores import finite
from slidebatch.evaluate.sides import Side, open_side
from slidebatch.evaluate.tables import few, read_ids, read_shapes
from slidebatch.evaluate.text import span, table
from slidebatch.instances import SCORE_MAX
from slidebatch.metrics import overlap, partner_iou
from slidebatch.models.spec import ModelSpec

Ints = npt.NDArray[np.int64]
ERRORS = ("before", "cross-fitted", "after", "gain")
"""Mean |score - IoU| of raw scores, of scores calibrated on other groups, on the same ones; before - cross-fitted."""
SHOWN_KNOTS = 9


@dataclass(frozen=True)
class Calibrated:
    """The result of `calibrate`.

    model        that made the results
    calibration  fitted on all nuclei
    image        (N,) row in `images` of each nucleus; `images` holds (id, group)
    score        (N,) integers, `iou` (N,) what they ought to say, `fitted` (N,) scores calibrated on other groups
    """

    model: ModelSpec
    calibration: Calibration
    images: tuple[tuple[str, str], ...]
    image: Ints
    score: Ints
    iou: Floats
    fitted: Ints
    bootstrap: Bootstrap
    notes: tuple[str, ...] = ()

    @cached_property
    def errors(self) -> dict[str, tuple[float, float, float]]:
        """Mean over nuclei of |score - IoU| by name (`ERRORS`), with its 95 % interval over groups (NaN: none)."""
        scores = (self.score, self.fitted, self.calibration.apply(self.score))
        rows = np.stack([np.abs(s / SCORE_MAX - self.iou) for s in scores], axis=1)
        rows = np.column_stack([rows, rows[:, 0] - rows[:, 1]])
        over, under = (np.zeros((len(self.images), len(ERRORS))) for _ in range(2))
        np.add.at(over, self.image, rows)
        np.add.at(under, self.image, 1.0)
        spans = ratio_intervals(over, under, [group for _, group in self.images], self.bootstrap, "calibration")
        found = zip(ERRORS, rows.mean(axis=0), spans, strict=True)
        return {name: (float(mean), float(low), float(high)) for name, mean, (low, high) in found}

    def to_text(self) -> str:
        """The errors with intervals, the map at a few scores, and the notes."""
        rows = [["mean |score - IoU|", *ERRORS], ["", *(f"{self.errors[n][0]:.4f}" for n in ERRORS)]]
        spans = [span(*self.errors[n][1:]) for n in ERRORS]
        rows += [["", *spans]] if any(spans) else []
        raw = np.array(self.calibration.raw)
        some = raw[np.unique(np.linspace(0, len(raw) - 1, SHOWN_KNOTS).round().astype(int))]
        worth = self.calibration.apply(some)
        knots = [[name, *(f"{v / SCORE_MAX:.3f}" for v in line)] for name, line in (("score", some), ("is", worth))]
        groups = len({group for _, group in self.images})
        counted = f"{len(self.score)} nuclei of {len(self.images)} images in {groups} groups"
        return "\n\n".join([table(rows), table(knots), "\n".join([counted, *self.notes])])

    def to_json(self) -> str:
        """The calibration as weights' cards hold it, errors with intervals, images with their groups, notes."""
        told = {
            "model": self.model.name,
            "calibration": self.calibration.as_dict(),
            "errors": {n: dict(zip(("mean", "low", "high"), e, strict=True)) for n, e in self.errors.items()},
            "images": [
                {"image": name, "group": group, "nuclei": int(count)}
                for (name, group), count in zip(
                    self.images, np.bincount(self.image, minlength=len(self.images)), strict=True
                )
            ],
            "notes": self.notes,
        }
        return json.dumps(finite(told), indent=1, allow_nan=False)


def calibrate(
    results: str | Path,
    truth: str | Path,
    subset: str | Path | None = None,
    bootstrap: Bootstrap | None = None,
    shapes: str | Path | None = None,
) -> Calibrated:
    """Fit the overlap to expect by score, on the nuclei of a finished run of one network.

    :param results: its results folder, whose tables have a score for each nucleus.
    :param truth, subset, shapes: as for `slidebatch.evaluate.evaluate`; images without results or truth are left out
        and noted, those of a subset must have both.
    :param bootstrap: its groups are never on both sides of a cross-fit; default: each image is its own.
    :raises ConfigError: no results of one network, no scores, nuclei of fewer than two groups. InputError: images
        that differ in size, a subset that lacks images.
    """
    model = network_of(results)
    ours, theirs = open_side(results), open_side(truth, read_shapes(Path(shapes)) if shapes is not None else {})
    ids, notes = on_both(ours, theirs, read_ids(Path(subset)) if subset is not None else None)
    how = bootstrap or Bootstrap()
    group = grouped(how.groups, ids, "group") if how.groups else {i: i for i in ids}
    pairs = [_scored(i, ours, theirs) for i in ids]
    image = np.repeat(np.arange(len(ids)), [len(score) for score, _ in pairs])
    score, iou = (np.concatenate(column) for column in zip(*pairs, strict=True))
    cluster = np.array([group[i] for i in ids])[image]
    if len(np.unique(cluster)) < 2:
        raise ConfigError(
            f"{len(score)} nuclei in {few(ids)} are of {len(np.unique(cluster))} groups; a fit on one group cannot "
            "be judged on another: give images with nuclei of at least two groups."
        )
    return Calibrated(
        model=model,
        calibration=maps.fit(score, iou),
        images=tuple((i, group[i]) for i in ids),
        image=image,
        score=score,
        iou=iou,
        fitted=maps.cross_fitted(score, iou, cluster),
        bootstrap=how,
        notes=tuple(notes),
    )


def network_of(results: str | Path) -> ModelSpec:
    """The network whose run left some results. ConfigError: they are no results, or an ensemble's."""
    from slidebatch.results import open_results

    config = open_results(results).manifest.get("config", {})
    if config.get("ensemble") is not None:
        raise ConfigError(
            f"{results} are the results of an ensemble; scores are calibrated for one network: run each member alone."
        )
    if "model" not in config:
        raise ConfigError(f"{results}: its manifest does not say which network ran; run it again.")
    return ModelSpec.model_validate(config["model"])


def _scored(image: str, ours: Side, theirs: Side) -> tuple[Ints, Floats]:
    """The scores 0..65535 of an image's nuclei, and the IoU of each with its true one."""
    told = ours.scores(image)
    if told is None:
        raise ConfigError(f"{ours.name}: the table of {image} has no column score; run it again with this slidebatch.")
    try:
        found = overlap(*label_images(image, ours, theirs))
        score = np.array([told[label] for label in found.pred_label.tolist()], np.float64)
    except ValueError as error:
        raise InputError(f"{image}: {error}") from error
    except KeyError as error:
        raise InputError(f"{image}: the table of nuclei has no row for {error}; validate the results.") from error
    return np.rint(score * SCORE_MAX).astype(np.int64), partner_iou(found)
