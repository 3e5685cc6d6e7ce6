"""Which of an image's channels are meant by the names and indices of the config."""

from __future__ import annotations

from collections.abc import Sequence

from slidebatch.errors import ConfigError


def choose(names: Sequence[str], wanted: Sequence[str | int] | None) -> tuple[int, ...]:
    """Indices into `names` of the wanted channels, in the wanted order; all of them where none are named.

    A string is a name. A number is the channel of that name ("2") where there is one, otherwise an index from
    0. ConfigError lists what there is.
    """
    if wanted is None:
        return tuple(range(len(names)))
    chosen = tuple(_index(list(names), one) for one in wanted)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"input.channels {list(wanted)} must name channels, each once; there are {_list(names)}")
    return chosen


def _index(names: list[str], one: str | int) -> int:
    if str(one) in names:
        return names.index(str(one))
    if isinstance(one, int) and 0 <= one < len(names):
        return one
    raise ConfigError(f"input.channels names {one!r}, but there are {_list(names)}; name some of those")


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"{name!r} (index {i})" for i, name in enumerate(names)) or "no channels"
