"""A whole export: what is asked for is checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slidebatch.errors import ConfigError
from slidebatch.export.formats import FORMATS, Format
from slidebatch.export.place import outside, placed
from slidebatch.export.wish import Wish, chosen
from slidebatch.results import Results, open_results


@dataclass(frozen=True)
class Exported:
    """What was exported: the file or folder, the slides in it, and those that are left out because they failed."""

    output: Path
    slides: tuple[str, ...]
    left_out: tuple[str, ...]


def export(results: str | Path | Results, wish: Wish) -> Exported:
    """Write results as another program's files.

    :param results: a results folder, or its path.
    :returns: what was written. Failed slides of a run that is done are left out, and named.
    :raises ConfigError: the output is there already, lies in the results, or is not named as the format has it.
    :raises ResultsError: the run is not done, or a slide asked for is not there or not done.
    :raises InputError: a slide that the format cannot hold.
    :raises EnvironmentFault: the disk failed. Nothing is left where the output was to be.
    """
    opened = results if isinstance(results, Results) else open_results(results)
    kind = _format(wish.to)
    slides, left_out = chosen(opened, wish.slides)
    _named(wish, kind, slides)
    outside(wish.output, opened)
    with placed(wish.output, wish.force, kind.is_export) as aside:
        if _folder_of_files(wish, kind):
            aside.mkdir()
            for slide in slides:
                kind.write(opened, (slide,), wish, aside / f"{slide}{kind.suffix}")
        else:
            kind.write(opened, slides, wish, aside)
    return Exported(wish.output, slides, left_out)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"there is no export to {name!r}; expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _folder_of_files(wish: Wish, kind: Format) -> bool:
    return kind.per_slide and not wish.output.name.endswith(kind.suffix)


def _named(wish: Wish, kind: Format, slides: Sequence[str]) -> None:
    """Is the output named as the format has it? ConfigError."""
    name = wish.output.name
    if kind.per_slide:
        if name.endswith(kind.suffix) and len(slides) != 1:
            raise ConfigError(
                f"{wish.output} is one file and there are {len(slides)} slides to write, a file each; "
                "name a folder, or one slide with --slide."
            )
    elif not name.endswith(kind.suffix):
        raise ConfigError(f"{wish.output} does not end in {kind.suffix}, as an export to {wish.to} does; call it so.")
