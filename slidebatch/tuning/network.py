"""One dense network's class maps as what is tuned: the settings of its decoder."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.decode import DecodeSpec, label_image
from slidebatch.instances import Instances
from slidebatch.tuning.space import SPACE, Settings, Space, Value
from slidebatch.tuning.trial import Kept


@dataclass(frozen=True)
class Network:
    """A `trial.Decoder` of the class maps of one network."""

    decode: DecodeSpec

    @property
    def space(self) -> Space:
        return SPACE

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def value(self, name: str) -> Value:
        found: Value = getattr(self.decode, name)
        return found

    def having(self, settings: Settings) -> Network:
        return Network(DecodeSpec.model_validate(self.decode.model_dump() | dict(settings)))

    def decoding(self, decode: DecodeSpec) -> Network:
        return Network(decode)

    def labels(self, kept: Kept, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
        if isinstance(kept, Instances):
            raise TypeError("a network's decoder takes class maps, not nuclei")
        return label_image(kept[0], self.decode)

    def sections(self) -> dict[str, Any]:
        return {"decode": self.decode.model_dump(mode="json")}

    def to_yaml(self, tuned: Collection[str]) -> str:
        return yaml_of("decode", self.decode, tuned)


def yaml_of(name: str, spec: DecodeSpec, tuned: Collection[str]) -> str:
    """A section of a config: what was tuned, and what else differs from the defaults."""
    defaults = DecodeSpec.model_validate({})
    values = {k: v for k, v in spec.model_dump().items() if k in tuned or v != getattr(defaults, k)}
    return "\n".join([f"{name}:", *(f"  {k}: {json.dumps(v)}" for k, v in values.items())]) + "\n"
