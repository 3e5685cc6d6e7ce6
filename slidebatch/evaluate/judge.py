"""Which images are compared, what becomes of those that one side lacks, and the comparison itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate.intervals import Bootstrap
from slidebatch.evaluate.scores import ALL, Evaluation, ImageScore, image_score, missing_score
from slidebatch.evaluate.sides import Side, open_side
from slidebatch.evaluate.tables import Column, few, of_all, read_column, read_ids, read_shapes
from slidebatch.metrics import LabelImage, Overlap, Ranked, overlap, ranked, scores_of, unpredicted


def evaluate(
    predicted: str | Path,
    truth: str | Path,
    subset: str | Path | None = None,
    groups: str | Path | Column | None = None,
    bootstrap: Bootstrap | None = None,
    shapes: str | Path | None = None,
) -> Evaluation:
    """Score predicted label images against true ones.

    Images are those of `subset`, else those that the run set out to segment, else (where the prediction is no
    results folder) all true ones. One that is not predicted scores 0 and is named in the notes; predictions
    without truth are named there and ignored.

    :param predicted, truth: each a results folder of slidebatch, a folder of label images named by id
        (.tif, .npy, .zarr, .png; integers (Y, X), 0 = background), or a Data Science Bowl CSV.
    :param subset: file of ids, one a line; each must have truth.
    :param groups: tab-separated table whose column `id` names images; its column (default `modality`) says
        under which heading their means are taken.
    :param bootstrap: how intervals are made; default: 2000 draws of single images.
    :param shapes: tab-separated table with columns id, height, width, for CSVs.
    :raises ConfigError: a folder, file or column that is not there, or a table that lacks an image. InputError:
        ids of the subset without truth, no image with truth at all, or images that differ in size.
    """
    sizes = read_shapes(Path(shapes)) if shapes is not None else {}
    ours, theirs = open_side(predicted, sizes), open_side(truth, sizes)
    chosen = choose(ours, theirs, read_ids(Path(subset)) if subset is not None else None)
    how = bootstrap or Bootstrap()
    heading = grouped(Column(Path(groups)) if isinstance(groups, str | Path) else groups, chosen.ids, "modality")
    cluster = grouped(how.groups, chosen.ids, "group") if how.groups else {i: i for i in chosen.ids}
    found = [_score(i, (heading[i], cluster[i]), ours, theirs) for i in chosen.ids]
    ranks = [rank for _, rank in found if rank is not None]
    known = tuple(ranks) if len(ranks) == len(found) and any(i in ours.ids for i in chosen.ids) else ()
    return Evaluation(tuple(row for row, _ in found), how, chosen.notes, chosen.extra, known)


@dataclass(frozen=True)
class Chosen:
    """The ids to compare, those predicted without truth, and what must be said about the choice; sorted."""

    ids: tuple[str, ...]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def choose(ours: Side, theirs: Side, subset: Sequence[str] | None = None) -> Chosen:
    """Which images are compared; see `evaluate`. InputError: none has truth, or one of the subset has not."""
    if subset is not None:
        lacking = sorted(set(subset) - theirs.ids)
        if lacking:
            raise InputError(f"{theirs.name} lacks the truth of {few(lacking)} of the subset; leave these out of it.")
        wanted = set(subset)
    else:
        wanted = set(theirs.ids if ours.asked is None else ours.asked & theirs.ids)
    if not (wanted & ours.ids if ours.asked is None else wanted):
        raise InputError(
            f"{ours.name} and {theirs.name} have no image in common; the ids (names of files or slides) must agree."
        )
    narrowed = subset is not None
    extra = [] if narrowed else sorted((ours.ids | (ours.asked or frozenset())) - theirs.ids)
    unasked = [] if narrowed else sorted(theirs.ids - wanted)
    notes = _notes((ours.name, theirs.name), sorted(wanted - ours.ids), extra, unasked)
    return Chosen(tuple(sorted(wanted)), tuple(extra), tuple(notes))


class Named(Protocol):
    """Images by id, and what they are called together."""

    @property
    def name(self) -> str: ...
    @property
    def ids(self) -> frozenset[str]: ...


def on_both(ours: Named, theirs: Named, subset: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """The images that both sides have, sorted, and notes on those that one has alone.

    InputError: there are none, or one of the subset lacks a side.
    """
    if subset is None:
        both, alone = sorted(ours.ids & theirs.ids), sorted(ours.ids ^ theirs.ids)
        if not both:
            raise InputError(f"{ours.name} and {theirs.name} have no image in common; their ids must agree.")
        return both, [f"note: {few(alone)} are in {ours.name} or the truth alone and are left out"] if alone else []
    for side in (ours, theirs):
        if lacking := sorted(set(subset) - side.ids):
            raise InputError(f"{side.name} lacks {few(lacking)} of the subset; leave these out of it.")
    return sorted(subset), []


def _notes(names: tuple[str, str], missing: list[str], extra: list[str], unasked: list[str]) -> list[str]:
    """A line for each kind of image that one side lacks."""
    ours, theirs = names
    told = [
        (missing, f"warning: {ours} lacks {few(missing)}, which score 0"),
        (extra, f"warning: {theirs} has no truth for {few(extra)} of {ours}, which are ignored"),
        (unasked, f"note: {few(unasked)} of {theirs} were not part of the run and are left out"),
    ]
    return [line for ids, line in told if ids]


def grouped(column: Column | None, ids: Sequence[str], default: str) -> dict[str, str]:
    """The group of each id; "" for all without a table. ConfigError: the table lacks one."""
    if column is None:
        return dict.fromkeys(ids, "")
    found = of_all(read_column(column, default), ids, column.path)
    if ALL in found.values():
        raise ConfigError(f"{column.path} calls a group {ALL!r}, which is the name of all images; name it otherwise.")
    return found


def label_images(image: str, ours: Side, theirs: Side) -> tuple[LabelImage, LabelImage]:
    """An image's labels (Y, X) on both sides. InputError where the sizes differ; ConfigError where none is known."""
    shape = theirs.shape(image) or ours.shape(image)
    predicted, truth = ours.read(image, shape), theirs.read(image, shape)
    if tuple(predicted.shape) != tuple(truth.shape):
        raise InputError(
            f"{image}: predicted labels are {tuple(predicted.shape)}, the truth is {tuple(truth.shape)} pixels (y, x); "
            "both must be on the same grid (run with input.scale=1)."
        )
    return predicted, truth


def _score(image: str, groups: tuple[str, str], ours: Side, theirs: Side) -> tuple[ImageScore, Ranked | None]:
    """An image's row, and its ranking where the prediction has scores."""
    if image not in ours.ids:
        truths = theirs.count(image)
        return missing_score(image, *groups, truth=truths), unpredicted(truths)
    try:
        found = overlap(*label_images(image, ours, theirs))
    except ValueError as error:
        raise InputError(f"{image}: {error}") from error
    told = ours.scores(image)
    return image_score(image, *groups, scores_of(found)), None if told is None else _ranked(image, found, told)


def _ranked(image: str, found: Overlap, told: dict[int, float]) -> Ranked:
    try:
        return ranked(found, [told[label] for label in found.pred_label.tolist()])
    except KeyError as error:
        raise InputError(f"{image}: the table of nuclei has no row for {error}; validate the results.") from error
