"""Laws of the tissue mask: it errs on the side of keeping."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from slidebatch.tissue import TissueSpec, tissue_mask

SPEC = TissueSpec()


def glass(level: float, noise: float, shape: tuple[int, int, int] = (3, 200, 240)) -> np.ndarray:
    return np.random.default_rng(0).normal(level, noise, shape).clip(0, 255).round().astype(np.float32)


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize(("level", "noise"), [(242, 1.5), (255, 0), (242, 0), (0, 0), (9, 0.2), (9, 0.6), (12, 2.0)])
def test_a_blank_slide_has_no_tissue(level: float, noise: float, rgb: bool) -> None:
    """A slide of glass, padding or dark ground alone has no tissue, an ordinary result, however it rounds."""
    image = glass(level, noise)[: 3 if rgb else 2]
    assert not tissue_mask(image, rgb, 2.0, SPEC).any()


def test_a_slide_without_blank_is_all_tissue() -> None:
    """Where nothing is flat, everything is tissue, in colour and in fluorescence."""
    rough = ndimage.gaussian_filter(np.random.default_rng(1).random((3, 200, 200)), (0, 3, 3))
    rough = (40 + 180 * (rough - rough.min()) / np.ptp(rough)).astype(np.float32)
    assert tissue_mask(rough, True, 2.0, SPEC).all()
    assert tissue_mask(rough[:1], False, 2.0, SPEC).all()


@pytest.mark.parametrize("rgb", [True, False])
def test_tissue_on_blank_ground_is_found_with_its_margin(rgb: bool) -> None:
    """Tissue is kept with its surroundings, and ground far from it is not."""
    image = glass(240, 1.5) if rgb else glass(10, 1.5)
    spots = np.random.default_rng(2).normal(0, 25, (60, 60))
    image[:, 70:130, 90:150] = (170 if rgb else 90) + spots
    mask = tissue_mask(image, rgb, 2.0, SPEC)
    assert mask[70:130, 90:150].all()
    assert mask[60:140, 80:160].all()
    assert not mask[:30].any()
    assert not mask[:, 210:].any()


def test_one_stained_channel_is_enough() -> None:
    """A place is tissue if any channel shows something there."""
    image = glass(10, 1.0)
    image[2, 90:110, 100:120] += 60
    assert tissue_mask(image, False, 2.0, SPEC)[100, 110]
    assert not tissue_mask(image[:2], False, 2.0, SPEC)[100, 110]


def test_even_tissue_of_another_colour_is_kept() -> None:
    """What is flat but not the colour of the glass is tissue; padding never scanned is blank beside glass."""
    image = glass(240, 1.0)
    image[1, 60:120, 60:120] -= 40
    image[:, 150:] = 255
    mask = tissue_mask(image, True, 2.0, TissueSpec(dilate_um=0))
    assert mask[60:120, 60:120].all()
    assert not mask[170:].any()
    assert not mask[10:40].any()


def test_dilation_only_adds() -> None:
    """More dilation never takes tissue away."""
    image = glass(240, 1.5)
    image[:, 90:110, 100:120] -= 100
    masks = [tissue_mask(image, True, 2.0, TissueSpec(dilate_um=um)) for um in (0, 10, 40)]
    assert (masks[0] <= masks[1]).all()
    assert (masks[1] <= masks[2]).all()
    assert masks[0].sum() < masks[2].sum()


@pytest.mark.realdata
def test_no_true_nucleus_is_lost(realdata: Path) -> None:
    """On 100 real micrographs of three kinds no centre of a true nucleus lies outside the mask."""
    with (realdata / "dsb2018" / "index.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    small = [row for row in rows if int(row["height"]) <= 520]
    lost = 0
    for row in small[:: len(small) // 100][:100]:
        image = np.asarray(Image.open(realdata / "dsb2018" / "images" / f"{row['id']}.png").convert("RGB"))
        labels = np.asarray(Image.open(realdata / "dsb2018" / "labels" / f"{row['id']}.png")).astype(np.int32)
        ids = np.unique(labels[labels > 0])
        centre = np.round(ndimage.center_of_mass(labels > 0, labels, ids)).astype(int)
        planes = image.transpose(2, 0, 1).astype(np.float32)
        mask = tissue_mask(planes, True, 0.5, SPEC)
        lost += int((~mask[centre[:, 0], centre[:, 1]]).sum())
        if row["modality"] == "fluorescence":
            mask = tissue_mask(planes[:1], False, 0.5, SPEC)
            lost += int((~mask[centre[:, 0], centre[:, 1]]).sum())
    assert lost == 0


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("CMU-1-Small-Region.svs", 0.5, 0.75), ("tcga-cr-7395-01a-01-ts1.svs", 0.65, 0.9)],
)
def test_real_slides_keep_dark_places_and_drop_glass(realdata: Path, name: str, least: float, most: float) -> None:
    """On real slides every strongly stained place is tissue, and a good part of the glass is not."""
    image = tifffile.imread(realdata / "slides" / name)[::4, ::4].transpose(2, 0, 1).astype(np.float32)
    mask = tissue_mask(image, True, 2.0, SPEC)
    stained = ndimage.uniform_filter(image[1], 3) < 150
    assert mask[stained].all()
    assert least < mask.mean() < most
