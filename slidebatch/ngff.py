"""OME-Zarr 0.5 metadata as plain dictionaries, and the same as 0.4. Source: the OME-NGFF specification.

One door: nothing else in slidebatch writes an `ome` attribute.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

VERSION = "0.5"
OLDER = "0.4"


def multiscales(name: str, levels: int, um_per_px: float | None, channels: bool) -> dict[str, Any]:
    """`multiscales` of an image whose levels halve; axes (c,) y, x.

    `um_per_px` None leaves the unit out: the scale then counts pixels.
    """
    unit = {} if um_per_px is None else {"unit": "micrometer"}
    axes: list[dict[str, str]] = [{"name": n, "type": "space", **unit} for n in ("y", "x")]
    if channels:
        axes.insert(0, {"name": "c", "type": "channel"})
    return {
        "version": VERSION,
        "multiscales": [
            {
                "name": name,
                "axes": axes,
                "datasets": [_dataset(i, um_per_px, channels) for i in range(levels)],
            }
        ],
    }


def _dataset(level: int, um_per_px: float | None, channels: bool) -> dict[str, Any]:
    """One level: pixel i of level k covers pixels [i 2^k, (i + 1) 2^k) of the finest, so its centre moves."""
    step = (1.0 if um_per_px is None else um_per_px) * 2**level
    shift = (step - step / 2**level) / 2
    lead = [1.0] if channels else []
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [*lead, step, step]}]
    if level:
        transforms.append({"type": "translation", "translation": [*([0.0] if channels else []), shift, shift]})
    return {"path": str(level), "coordinateTransformations": transforms}


def image(name: str, levels: int, um_per_px: float | None, channels: Sequence[str], rgb: bool) -> dict[str, Any]:
    """Attributes of an image group: multiscales and channel names."""
    colours = ["FF0000", "00FF00", "0000FF"] if rgb else ["FFFFFF"] * len(channels)
    omero = {"channels": [{"label": n, "color": c, "active": True} for n, c in zip(channels, colours, strict=True)]}
    return {"ome": {**multiscales(name, levels, um_per_px, channels=True), "omero": omero}}


def label_image(levels: int, um_per_px: float | None, source: str | None) -> dict[str, Any]:
    """Attributes of a label image; `source` is the relative path of its image, None where there is none."""
    label: dict[str, Any] = {} if source is None else {"source": {"image": source}}
    return {"ome": {**multiscales("nuclei", levels, um_per_px, channels=False), "image-label": label}}


def labels_group() -> dict[str, Any]:
    """Attributes of the `labels` group of an image."""
    return {"ome": {"version": VERSION, "labels": ["nuclei"]}}


def plate(name: str, wells: Sequence[tuple[str, str]], fields: int) -> dict[str, Any]:
    """Attributes of a plate with these wells (row, column) and at most `fields` fields a well."""
    rows = sorted({r for r, _ in wells}, key=lambda r: (len(r), r))
    columns = sorted({c for _, c in wells}, key=lambda c: (len(c), c))
    placed = sorted(wells, key=lambda w: (rows.index(w[0]), columns.index(w[1])))
    return {
        "ome": {
            "version": VERSION,
            "plate": {
                "name": name,
                "version": VERSION,
                "field_count": fields,
                "rows": [{"name": r} for r in rows],
                "columns": [{"name": c} for c in columns],
                "wells": [
                    {"path": f"{r}/{c}", "rowIndex": rows.index(r), "columnIndex": columns.index(c)} for r, c in placed
                ],
            },
        }
    }


def well(fields: Sequence[str]) -> dict[str, Any]:
    """Attributes of a well with these fields (paths)."""
    return {"ome": {"version": VERSION, "well": {"version": VERSION, "images": [{"path": f} for f in fields]}}}


def as_04(
    attributes: dict[str, Any], below: Collection[str], windows: Sequence[dict[str, float]] = ()
) -> dict[str, Any]:
    """The attributes of a group of version 0.5 as version 0.4 has them.

    below    paths of the groups below it: wells of a plate and images of a well that are not there are left out
    windows  of each channel of an image (min, max, start, end), which 0.4 asks for and 0.5 does not
    """
    told = {key: value for key, value in attributes.get("ome", {}).items() if key != "version"}
    for one in told.get("multiscales", []):
        one["version"] = OLDER
    if "image-label" in told:
        told["image-label"] = {**told["image-label"], "version": OLDER}
    if "omero" in told:
        pairs = zip(told["omero"]["channels"], windows, strict=True)
        told["omero"] = {"version": OLDER, "channels": [{**channel, "window": window} for channel, window in pairs]}
    if "plate" in told:
        wells = [well for well in told["plate"]["wells"] if well["path"] in below]
        told["plate"] = {**told["plate"], "version": OLDER, "wells": wells}
    if "well" in told:
        images = [image for image in told["well"]["images"] if image["path"] in below]
        told["well"] = {**told["well"], "version": OLDER, "images": images}
    return told
