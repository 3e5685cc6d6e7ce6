"""What a tuning found: the settings, the scores before and after, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slidebatch.decode import DecodeSpec
from slidebatch.evaluate.intervals import Bootstrap, ratio_intervals
from slidebatch.evaluate.scores import ALL, finite
from slidebatch.evaluate.text import span, table
from slidebatch.tuning.space import Settings
from slidebatch.tuning.spec import TuneSpec
from slidebatch.tuning.trial import MEASURES, Decoder, Floats

GAIN = "gain"
"""What cross-fitting says that tuning is worth: cross-fitted minus before, image by image."""


@dataclass(frozen=True)
class Fold:
    """Images that were left out, and the settings that were chosen without them."""

    images: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its 95 % bootstrap interval over groups (NaN where there is none)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = span(self.low, self.high)
        return f"{self.mean:.4f}" + (f" ({interval})" if interval else "")


@dataclass(frozen=True)
class Tuned:
    """The result of `tune`.

    chosen   the settings to use, chosen on all images
    cases    (image, heading, group) of each image
    scores   by name (before, cross-fitted, after): (N, M) of `MEASURES`. "after" is on the very images that the
             settings were chosen on, and flatters them; "cross-fitted" does not
    """

    spec: TuneSpec
    sampler: str
    base: Decoder
    chosen: Settings
    folds: tuple[Fold, ...]
    cases: tuple[tuple[str, str, str], ...]
    scores: dict[str, Floats]
    notes: tuple[str, ...] = ()

    @cached_property
    def best(self) -> Decoder:
        """What was tuned, with the settings to use."""
        return self.base.having(self.chosen)

    @property
    def decode(self) -> DecodeSpec:
        """The section `decode` to use."""
        return self.best.decode

    @cached_property
    def means(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """Heading -> before, cross-fitted, after, gain -> measure -> estimate; the heading `all` comes last."""
        headings = sorted({heading for _, heading, _ in self.cases} - {"", ALL})
        rows = {h: [i for i, c in enumerate(self.cases) if c[1] == h] for h in headings}
        every = {**rows, ALL: list(range(len(self.cases)))}
        return {h: {name: self._means(h, name, index) for name in (*self.scores, GAIN)} for h, index in every.items()}

    def _means(self, heading: str, name: str, rows: list[int]) -> dict[str, Estimate]:
        difference = self.scores["cross-fitted"] - self.scores["before"]
        values = (difference if name == GAIN else self.scores[name])[rows]
        how = Bootstrap(resamples=self.spec.resamples, seed=self.spec.seed)
        clusters = [self.cases[i][2] for i in rows]
        spans = ratio_intervals(values, np.ones_like(values), clusters, how, heading)
        parts = zip(MEASURES, values.mean(axis=0), spans, strict=True)
        return {measure: Estimate(float(mean), float(low), float(high)) for measure, mean, (low, high) in parts}

    def to_text(self) -> str:
        """The measure before and after for each heading, with intervals; the settings; the notes."""
        columns = (*self.scores, GAIN)
        rows = [[self.spec.measure, "images", *columns]]
        for heading, found in self.means.items():
            n = sum(heading in (ALL, c[1]) for c in self.cases)
            rows.append([heading, str(n), *(str(found[name][self.spec.measure]) for name in columns)])
        changes = table([["setting", "was", "is"], *([k, str(self.base.value(k)), str(v)] for k, v in self.chosen)])
        searched = f"searched by {self.sampler}, {len(self.folds)} folds of groups"
        return "\n\n".join([table(rows), changes, "\n".join([searched, *self.notes, *self._warning()])])

    def _warning(self) -> list[str]:
        gain = self.means[ALL][GAIN][self.spec.measure]
        if gain.low > 0:
            return []
        return ["note: the gain's interval reaches 0 or there is none: these images do not prove that tuning helps"]

    def to_yaml(self) -> str:
        """Sections for a config, `decode` or `ensemble`: what was tuned, and what else differs from the defaults."""
        found = self.means[ALL]
        told = ", ".join(f"{name} {found[name][self.spec.measure]}" for name in (*self.scores, GAIN))
        lines = [f"# {self.spec.measure}: {told}", f"# {len(self.cases)} images, searched by {self.sampler}"]
        return "\n".join([*lines, self.best.to_yaml({name for name, _ in self.chosen})])

    def to_json(self) -> str:
        """Everything: settings, folds, means with intervals, scores of every image."""
        told: dict[str, Any] = {
            "measure": self.spec.measure,
            "sampler": self.sampler,
            "seed": self.spec.seed,
            **self.best.sections(),
            "base": self.base.sections(),
            "folds": [{"images": f.images, "settings": dict(f.settings)} for f in self.folds],
            "means": {
                h: {n: {m: vars(e) for m, e in row.items()} for n, row in t.items()} for h, t in self.means.items()
            },
            "images": [self._image(i) for i in range(len(self.cases))],
            "notes": self.notes,
        }
        return json.dumps(finite(told), indent=1, allow_nan=False)

    def _image(self, row: int) -> dict[str, Any]:
        image, heading, cluster = self.cases[row]
        scores = {n: dict(zip(MEASURES, map(float, s[row]), strict=True)) for n, s in self.scores.items()}
        return {"image": image, "heading": heading, "cluster": cluster, **scores}
