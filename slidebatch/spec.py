"""The base of every section of the config: frozen, strict about unknown keys.

A section's class lives beside the code that uses it; `slidebatch.config` only puts them together.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen section of the config that refuses unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
