"""What the text in a TIFF says: channel names and micrometres per pixel, format by format.

Sources: Aperio's ImageDescription ("MPP = 0.499"), the OME data model 2016-06 (PhysicalSizeX and its unit,
Channel Name), ImageJ's description (unit=micron), TIFF 6.0 (XResolution, YResolution, ResolutionUnit).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPage

from slidebatch.slides.facts import positive_mpp, unit_um

PLAUSIBLE_MPP_UM = (0.05, 10.0)  # resolution tags mostly hold a printer's 72 dpi: 353 micrometres
UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}  # inch, centimetre
APERIO_MPP = re.compile(r"\bMPP\s*=\s*([0-9]*\.?[0-9]+)")


def pixel_size_um(tiff: TiffFile) -> tuple[float, float] | None:
    """Micrometres per level-0 pixel (y, x), or None where the file does not say."""
    page = tiff.series[0].keyframe
    if tiff.is_svs:
        found = APERIO_MPP.search(page.description)
        return positive_mpp(float(found[1]), float(found[1])) if found else None
    if tiff.is_ome:
        return _ome_pixel_size(_ome_image(tiff))
    if tiff.is_imagej:
        return _imagej_pixel_size(tiff, page)
    return _resolution_tags(page)


def channel_names(tiff: TiffFile) -> list[str | None]:
    """Names of the channels in order, None for a nameless one; empty where the file names none."""
    if not tiff.is_ome:
        return []
    image = _ome_image(tiff)
    return [c.get("Name") for c in image.iterfind(".//{*}Channel")] if image is not None else []


def _ome_image(tiff: TiffFile) -> ElementTree.Element | None:
    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    except ElementTree.ParseError:
        return None
    return root.find("{*}Image")


def _ome_pixel_size(image: ElementTree.Element | None) -> tuple[float, float] | None:
    pixels = image.find("{*}Pixels") if image is not None else None
    if pixels is None:
        return None
    return positive_mpp(_ome_length(pixels, "PhysicalSizeY"), _ome_length(pixels, "PhysicalSizeX"))


def _ome_length(pixels: ElementTree.Element, name: str) -> float | None:
    value, um = pixels.get(name), unit_um(pixels.get(f"{name}Unit", "µm"))
    return float(value) * um if value and um else None


def _imagej_pixel_size(tiff: TiffFile, page: TiffPage) -> tuple[float, float] | None:
    um = unit_um((tiff.imagej_metadata or {}).get("unit"))
    y, x = _per_unit(page, "YResolution"), _per_unit(page, "XResolution")
    return positive_mpp(um / y, um / x) if um and y and x else None


def _resolution_tags(page: TiffPage) -> tuple[float, float] | None:
    um = UM_PER_RESOLUTION_UNIT.get(int(page.resolutionunit))
    y, x = _per_unit(page, "YResolution"), _per_unit(page, "XResolution")
    if not um or not y or not x:
        return None
    low, high = PLAUSIBLE_MPP_UM
    plausible = low <= min(um / y, um / x) and max(um / y, um / x) <= high
    return positive_mpp(um / y, um / x) if plausible else None


def _per_unit(page: TiffPage, name: str) -> float | None:
    tag = page.tags.get(name)
    if tag is None:
        return None
    numerator, denominator = tag.value
    return numerator / denominator if numerator and denominator else None
