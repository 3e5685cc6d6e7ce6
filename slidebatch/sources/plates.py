"""OME-Zarr plates (0.4 and 0.5): their wells and fields, from their JSON alone.

Format: https://ngff.openmicroscopy.org, "High-content screening".
"""

from __future__ import annotations

import json
import os
from typing import Any

from slidebatch.sources.names import safe, stem
from slidebatch.sources.records import Record, canonical
from slidebatch.sources.spec import Fault


def attributes(folder: str) -> dict[str, Any] | None:
    """The OME attributes of a zarr group (of `zarr.json`, or of `.zattrs`); None without readable ones."""
    for name, keys in (("zarr.json", ("attributes", "ome")), (".zattrs", ())):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found = json.load(file)
            for key in keys:
                found = found[key]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return found if isinstance(found, dict) else None
    return None


def is_plate(folder: str) -> bool:
    """Whether a folder is an OME-Zarr plate."""
    found = attributes(folder)
    return found is not None and isinstance(found.get("plate"), dict)


def plate_name(folder: str) -> str:
    """What a plate calls itself, or else its folder's name."""
    plate = (attributes(folder) or {}).get("plate", {})
    return str(plate.get("name") or stem(folder))


def plate_records(folder: str, name: str) -> tuple[list[Record], list[Fault]]:
    """A record for every field of every well of the plate `name`, and a fault for every well without metadata.

    Records carry `inner` ("B/03/0"); a field is called by its path where that is a number, else by its
    position.
    """
    plate = (attributes(folder) or {}).get("plate", {})
    records, faults = [], []
    for well in plate.get("wells", []):
        path = str(well.get("path", "")) if isinstance(well, dict) else ""
        images = _images(os.path.join(folder, path)) if path else None
        place = path.strip("/").split("/")
        if images is None or len(place) != 2:
            wrong = "has no readable metadata, though the plate declares it; copy the plate again"
            faults.append(Fault(safe("".join(place) or name), (folder,), f"well {path or '?'} of {folder} {wrong}"))
            continue
        for position, image in enumerate(images):
            number = image if image.isdigit() else str(position)
            fields = canonical({"plate": name, "row": place[0], "column": place[1], "field": number})
            inner = f"{path.strip('/')}/{image}"
            if isinstance(fields, str):
                faults.append(Fault(safe("".join(place)), (folder,), f"well {path} of {folder}: {fields}"))
            else:
                records.append(Record(folder, f"{os.path.basename(folder)}/{inner}", fields, inner))
    return records, faults


def _images(well: str) -> list[str] | None:
    """Paths of a well's fields; None without readable metadata."""
    try:
        return [str(image["path"]).strip("/") for image in (attributes(well) or {})["well"]["images"]]
    except (KeyError, TypeError):
        return None
