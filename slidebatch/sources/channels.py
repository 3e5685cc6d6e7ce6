"""What an image's channels are called, and which of them the names and indices of the config mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slidebatch.errors import ConfigError


@dataclass(frozen=True)
class Channels:
    """The channels of an image in its own order: `found` as the file names them, `names` as they are called here."""

    found: tuple[str, ...]
    names: tuple[str, ...]

    def choose(self, wanted: Sequence[str | int] | None, key: str = "input.channels") -> tuple[int, ...]:
        """Indices of the wanted channels, in the wanted order; all of them where none are named.

        A string is a name, the new or the file's. A number is the channel of that name ("2") where there is one,
        otherwise an index from 0. ConfigError lists what there is; `key` is the setting that names them.
        """
        if wanted is None:
            return tuple(range(len(self.names)))
        chosen = tuple(self._index(one, key) for one in wanted)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ConfigError(f"{key} {list(wanted)} must name channels, each once; there are {self._list()}")
        return chosen

    def _index(self, one: str | int, key: str) -> int:
        for names in (self.names, self.found):
            if str(one) in names:
                return names.index(str(one))
        if isinstance(one, int) and 0 <= one < len(self.names):
            return one
        raise ConfigError(f"{key} names {one!r}, but there are {self._list()}; name some of those")

    def _list(self) -> str:
        return ", ".join(f"{name!r} (index {i})" for i, name in enumerate(self.names)) or "no channels"


def called(found: Sequence[str], given: Mapping[str, str] | None) -> Channels:
    """The channels of an image whose file names them so, called as `input.channel_names` says.

    A key is a file's name for a channel, or its index from 0. ConfigError for a key that is neither, and where two
    channels would have one name.
    """
    before = Channels(tuple(found), tuple(found))
    names = list(found)
    for key, name in (given or {}).items():
        one = int(key) if key not in before.names and key.isdigit() else key
        names[before.choose([one], "input.channel_names")[0]] = name
    if len(set(names)) < len(names):
        raise ConfigError(f"input.channel_names gives two channels one name ({', '.join(names)}); tell them apart")
    return Channels(before.found, tuple(names))
