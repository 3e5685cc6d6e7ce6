"""Several images in one OME-Zarr: the layout that bioformats2raw writes when it converts a file.

The group's folder holds images "0", "1", ... and `OME/METADATA.ome.xml`, which names them in the same order.
Source: https://ngff.openmicroscopy.org/0.5/#bf2raw (0.4 alike). Only JSON and XML are read here.
"""

from __future__ import annotations

import os
from itertools import count, takewhile
from xml.etree import ElementTree

from slidebatch.sources.folders import is_zarr
from slidebatch.sources.plates import attributes

LAYOUT = "bioformats2raw.layout"
NO_TISSUE = {"label", "label image", "macro", "macro image"}
"""Names of a slide scanner's pictures of the glass's label and of the whole glass: never segmented, and the
label may show a patient's name. The same pictures of an SVS or NDPI file are left out by its reader."""


def series(folder: str) -> list[str] | None:
    """Paths of the images inside an OME-Zarr that holds several, in order; None where it is one image itself.

    Images that the OME-XML names as a slide's label or macro picture are left out. Without any image: None, so
    that the reader says what is wrong with the folder.
    """
    told = attributes(folder)
    if told is None or LAYOUT not in told or "multiscales" in told:
        return None
    images = _listed(folder)
    names = _names(folder)
    if len(names) == len(images):
        images = [image for image, name in zip(images, names, strict=True) if name.lower() not in NO_TISSUE]
    return images or None


def _listed(folder: str) -> list[str]:
    """The images as the group OME lists them, or else those that are there, counted from 0."""
    listed = (attributes(os.path.join(folder, "OME")) or {}).get("series")
    if isinstance(listed, list) and listed:
        return [str(path).strip("/") for path in listed]
    return list(takewhile(lambda n: is_zarr(os.path.join(folder, n)), map(str, count())))


def _names(folder: str) -> list[str]:
    """Names of the images by the OME-XML; none without a readable one."""
    try:
        root = ElementTree.parse(os.path.join(folder, "OME", "METADATA.ome.xml")).getroot()
    except (OSError, ElementTree.ParseError):
        return []
    return [element.get("Name", "").strip() for element in root if element.tag.rpartition("}")[2] == "Image"]
