"""YAML 1.2 with places: the values of a file, and the line and column of every key and value.

Owns the reading of YAML (ruamel.yaml). The values come from its safe loader, the places from its node
tree; both are read from the same text. Duplicate keys are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from slidebatch.errors import ConfigError

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file: `name` as the user wrote it, `values` as plain Python, `root` of the node tree."""

    name: str
    values: Any
    root: Node | None

    def place(self, loc: Sequence[str | int]) -> str:
        """`name:line:column` of the key at `loc`, or of the deepest part of `loc` that the file has."""
        mark = _mark(self.root, list(loc))
        return self.name if mark is None else f"{self.name}:{mark.line + 1}:{mark.column + 1}"


def _loader() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    yaml.allow_duplicate_keys = False
    return yaml


def _mark(node: Node | None, loc: list[str | int]) -> Any:
    """The start mark of the key (or list item) at `loc` below `node`; where it is missing, its parent's."""
    if node is None:
        return None
    mark = node.start_mark
    for part in loc:
        step = _child(node, part)
        if step is None:
            break
        mark, node = step
    return mark


def _child(node: Node, part: str | int) -> tuple[Any, Node] | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark, value
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark, node.value[part]
    return None


def _reason(error: YAMLError) -> str:
    """ruamel's own words on one line, without its advice on its own settings."""
    if isinstance(error, MarkedYAMLError) and error.problem:
        return " ".join(error.problem.split()).removesuffix(".")
    return " ".join(str(error).split("\n", 1)[0].split())


def read_document(path: Path, name: str) -> Document:
    """Read one YAML file.

    :param path: the file.
    :param name: what messages call it (as the user wrote it).
    :returns: its values (None for an empty file) and places.
    :raises ConfigError: not readable, not UTF-8, not YAML, or a duplicate key; names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read ({error}); expected a YAML file in UTF-8.") from error
    try:
        return Document(name, _loader().load(text), _loader().compose(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        raise ConfigError(f"{where}: {_reason(error)}; correct the file (YAML 1.2).") from error
    except YAMLError as error:
        raise ConfigError(f"{name}: {_reason(error)}; correct the file (YAML 1.2).") from error


def read_value(text: str, blame: str) -> Any:
    """The value that `text` means in YAML 1.2: `1024` an integer, `[a, b]` a list, nothing None.

    :raises ConfigError: not YAML; `blame` says where the text stood.
    """
    try:
        return _loader().load(text)
    except YAMLError as error:
        raise ConfigError(f"{blame}: the value is not YAML ({_reason(error)}); quote it.") from error
