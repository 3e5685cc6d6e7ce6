"""Options of a command as one frozen dataclass, so that a command with many options still is a small function."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def spread(command: Callable[..., int]) -> Callable[..., int]:
    """The command with the fields of its last parameter, a dataclass, in that parameter's place.

    Field types are typer's (`Annotated[..., typer.Option(...)]`), field defaults the options' defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    *own, last = inspect.signature(command).parameters.values()
    kind = hints[last.name]
    types = get_type_hints(kind, include_extras=True)
    options = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
        for f in dataclasses.fields(kind)
    ]
    parameters = [p.replace(annotation=hints[p.name]) for p in own]

    @functools.wraps(command)
    def run(**given: Any) -> int:
        chosen = kind(**{f.name: given.pop(f.name) for f in dataclasses.fields(kind)})
        return command(**given, **{last.name: chosen})

    # Typer reads both: the signature for order and defaults, the annotations for types.
    run.__signature__ = inspect.Signature([*parameters, *options], return_annotation=int)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*parameters, *options)}
    return run
