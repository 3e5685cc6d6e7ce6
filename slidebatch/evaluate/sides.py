"""One side of a comparison: which images it has, and the label image of each, read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slidebatch.errors import ConfigError, ResultsError
from slidebatch.evaluate.dsb_csv import read_csv
from slidebatch.evaluate.tables import Shape
from slidebatch.metrics import LabelImage
from slidebatch.metrics.overlaps import nuclei
from slidebatch.models.truth import ENDINGS, Truth


@dataclass(frozen=True)
class Side:
    """Predictions or truth.

    name    as the user wrote it
    ids     images that have labels here
    asked   images that somebody set out to label here (those of a run, failed ones too); None: nobody says
    read    the lazy label image (Y, X) of an id; a CSV's needs its shape
    shape   what is known of an id's shape without the other side: (Y, X), or None
    count   nuclei of an id
    scores  how sure the network was of each nucleus of an id, by label; None where nobody says
    """

    name: str
    ids: frozenset[str]
    asked: frozenset[str] | None
    read: Callable[[str, Shape | None], LabelImage]
    shape: Callable[[str], Shape | None]
    count: Callable[[str], int]
    scores: Callable[[str], dict[int, float] | None] = lambda _: None


@dataclass(frozen=True)
class Folder:
    """Label images by id."""

    files: dict[str, Path]
    opened: dict[str, Truth] = field(default_factory=dict)

    def read(self, image: str, shape: Shape | None = None) -> LabelImage:
        found: LabelImage = self._open(image).array
        return found

    def shape(self, image: str) -> Shape:
        return self._open(image).box.shape

    def count(self, image: str) -> int:
        return nuclei(self.read(image))

    def _open(self, image: str) -> Truth:
        if image not in self.opened:
            self.opened.clear()  # one at a time: a plain PNG is in memory while it is open
            self.opened[image] = Truth(self.files[image])
        return self.opened[image]


def open_side(path: str | Path, shapes: Mapping[str, Shape] | None = None) -> Side:
    """A results folder, a folder of label images (file name = id), or a Data Science Bowl CSV.

    :param shapes: (Y, X) of images, for a CSV that does not state them.
    :raises ConfigError: it is none of these. ResultsError, InputError: it is broken.
    """
    place = Path(path)
    if (place / "manifest.json").is_file():
        return _results(place)
    if place.is_dir():
        return _folder(place)
    if place.suffix.lower() == ".csv" and place.is_file():
        return _csv(place, shapes or {})
    raise ConfigError(
        f"{place}: no such folder or CSV; name a results folder, a folder of label images, "
        "or a CSV with the columns ImageId and EncodedPixels."
    )


def _results(place: Path) -> Side:
    from slidebatch.results import open_results

    results = open_results(place)
    done = frozenset(results.slides.loc[results.slides["state"] == "done", "slide"])

    def read(image: str, shape: Shape | None) -> LabelImage:
        found: LabelImage = results.labels(image)
        return found

    def shape_of(image: str) -> Shape:
        y, x = results.labels(image).shape
        return y, x

    def scores_of(image: str) -> dict[int, float] | None:
        table = results.instances(image)
        if "score" not in table.columns:
            return None
        return dict(zip(table["label"].tolist(), table["score"].tolist(), strict=True))

    def count(image: str) -> int:
        return nuclei(results.labels(image))

    return Side(str(place), done, frozenset(results.names), read, shape_of, count, scores_of)


def _folder(place: Path) -> Side:
    if (place / "labels.zarr").is_dir() and (place / "work").is_dir():
        raise ResultsError(f"{place}: results without manifest.json: the run is not finished; give its command again.")
    # Of two files with one id the ending that comes first in ENDINGS counts, as for oracles and training.
    found = [p for p in sorted(place.iterdir()) if p.suffix.lower() in ENDINGS]
    files = {p.stem: p for p in sorted(found, key=lambda p: -ENDINGS.index(p.suffix.lower()))}
    if not files:
        raise ConfigError(f"{place} holds no label images; expected files with one of {', '.join(ENDINGS)}.")
    folder = Folder(files)
    return Side(str(place), frozenset(files), None, folder.read, folder.shape, folder.count)


def _csv(place: Path, shapes: Mapping[str, Shape]) -> Side:
    runs = read_csv(place)
    known = {**runs.shapes, **shapes}

    def read(image: str, shape: Shape | None) -> LabelImage:
        wanted = known.get(image) or shape
        if wanted is None:
            raise ConfigError(
                f"{place} does not say how large {image} is; name a table with the columns id, height and width "
                "(--shapes), or compare with label images."
            )
        return runs.labels(image, wanted)

    return Side(str(place), frozenset(runs.nuclei), None, read, known.get, lambda i: len(runs.nuclei[i]))
