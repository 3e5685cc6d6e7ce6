"""Laws of the first look: images as they lie there, three commands, and labels, table and report are there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import tifffile

from slidebatch.cli import status_of
from slidebatch.errors import ConfigError
from slidebatch.first_look import first_look, is_images
from slidebatch.results import open_results
from slidebatch.sample import write_sample

WELLS = ("A01", "A02", "B01", "B02")
FLAT = "Plate7_{well}_s{field}_w{number}.tif"
NESTED = "Well {well}/img_{field:03d}_{stain}.tif"
FAST = ["cluster.kind=serial", "model.engine=eager", "model.precision=float32", "tiling.patch_px=256"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the sample plate."""
    return Path(str(write_sample("plate", tmp_path_factory.mktemp("sample")).input["path"]))


def write(images: Path, folder: Path, form: str) -> Path:
    """Corners of the sample plate's images, named in another way."""
    for well in WELLS:
        for number, (channel, stain) in enumerate((("GFP", "FITC"), ("DNA", "Hoechst")), 1):
            image = tifffile.imread(images / f"sample_{well}_f1_{channel}.tif")[:160, :160]
            for field in (1, 2):
                name = form.format(well=well, field=field, number=number, stain=stain)
                path = folder / "mine" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, image)
    return folder / "mine"


@pytest.mark.parametrize("form", [pytest.param(FLAT, marks=pytest.mark.long), NESTED])
def test_three_commands(
    images: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder named in a way of its own: `plan` names the run's command, which leaves labels, table and report."""
    write(images, tmp_path, form)
    monkeypatch.chdir(tmp_path)
    assert status_of(["plan", "mine/"]) == 0
    said = capsys.readouterr().out
    assert "mine/: 8 images of 4 wells" in said
    program, *words = shlex.split(said.splitlines()[-1])
    assert program == "slidebatch"
    assert status_of([*words, *(w for one in FAST for w in ("--set", one))]) == 0
    assert "report: " in capsys.readouterr().out
    assert status_of(["status", "results/mine"]) == 0
    assert "done, 8 slides" in capsys.readouterr().out
    results = open_results("results/mine")
    table = results.instances()
    assert set(results.wells()["well"]) == set(WELLS)
    assert len(table) >= 8
    for slide, rows in table.groupby("slide"):
        assert int(results.labels(str(slide)).max()) == len(rows)
    assert (tmp_path / "results" / "mine" / "report" / "index.html").stat().st_size > 10_000


@pytest.mark.parametrize(("form", "channel"), [(FLAT, "2"), (NESTED, "Hoechst")])
def test_the_channel_of_nuclei_is_told(images: Path, tmp_path: Path, form: str, channel: str) -> None:
    """Which channel is taken to show the nuclei is said, with why, and stands in the command."""
    look = first_look(str(write(images, tmp_path, form)))
    assert f'input.channels=["{channel}"]' in look.sets
    assert look.seen[-1].startswith(f"channels: {'1, 2' if channel == '2' else 'FITC, Hoechst'}; {channel} is taken")


def test_slides_are_taken_as_slides(tmp_path: Path) -> None:
    """Images whose names tell no well and no channel are slides, with what the user sets besides, last."""
    for name in ("tumour", "liver"):
        (tmp_path / f"{name}.svs").touch()
    look = first_look(str(tmp_path), ["input.mpp=0.5"])
    assert look.config == "conf/slide.yaml"
    assert look.sets == (f"input.path={tmp_path}", f"output.path=results/{tmp_path.name}", "input.mpp=0.5")
    assert first_look(str(tmp_path / "liver.svs")).seen == (f"{tmp_path / 'liver.svs'}: 1 images",)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    """A folder without images is refused by name; a config is no image."""
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds no image"):
        first_look(str(tmp_path))
    assert is_images(str(tmp_path))
    assert is_images("a.SVS")
    assert not is_images("conf/plate.yaml")


def test_a_folder_is_no_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` on a folder names the command that tells how to run it."""
    assert status_of(["run", str(tmp_path)]) == 2
    assert f"slidebatch plan {tmp_path}" in capsys.readouterr().err


def test_channels_taken_for_slides_are_noticed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plate's files planned as slides are told, with the setting that makes a plate of them."""
    write(images, tmp_path, FLAT)
    monkeypatch.chdir(tmp_path)
    assert status_of(["plan", "conf/slide.yaml", "--set", "input.path=mine/", *(["--set", FAST[1]])]) == 0
    said = capsys.readouterr().out
    assert "16 images" in said
    assert "each file is taken as an image of its own; as a plate, --set input.preset=imagexpress" in said
