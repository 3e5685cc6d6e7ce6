"""Results that others share: permissions, group, and copies of images on a node's own disk."""

from __future__ import annotations

import grp
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from slidebatch import scratch
from slidebatch.errors import ConfigError, EnvironmentFault
from slidebatch.slides import Source, SourceFile
from slidebatch.slides.alone import stands_alone
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    rng = np.random.default_rng(41)
    return write_slides(tmp_path, {"a": touching_field((300, 260), 24, rng), "b": touching_field((90, 120), 20, rng)})


def modes(results: Path) -> set[int]:
    """Permissions of all files."""
    return {stat.S_IMODE(p.stat().st_mode) for p in results.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"kind": "serial"}, {"kind": "local", "workers": 1}])
def test_the_umask_holds_for_every_file(slides: Path, kind: dict[str, object]) -> None:
    """With umask 027 and 002 the driver's files and the workers' have their permissions, and the process its own."""
    before = os.umask(0o022)
    try:
        for octal, mode in (("027", 0o640), ("002", 0o664)):
            run(config(slides, octal, cluster={**kind, "umask": octal}))
            assert modes(slides / octal) == {mode}
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
def test_results_belong_to_the_group(slides: Path) -> None:
    """Every file and folder of the results is the group's, those made later too; an unknown group is refused."""
    run(config(slides, "out", cluster={"kind": "serial", "group": "daemon"}))
    number = grp.getgrnam("daemon").gr_gid
    assert {p.stat().st_gid for p in (slides / "out", *(slides / "out").rglob("*"))} == {number}
    with pytest.raises(ConfigError, match=r"cluster\.group is 'nobody-has-it'.*name a group that you are in"):
        run(config(slides, "other", cluster={"kind": "serial", "group": "nobody-has-it"}))


@pytest.mark.slow
def test_copies_on_the_node_change_nothing(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `scratch` images are read from copies there, the results are the same, and the copies go at the end."""
    run(config(slides, "calm"))
    node = tmp_path / "node disk"
    monkeypatch.setenv("NODE_DISK", str(node))
    copied: list[str] = []
    real = scratch.near

    def near(source: Source, folder: Path) -> Source:
        made = real(source, folder)
        copied.extend(f.path for f in made.files)
        return made

    monkeypatch.setattr(scratch, "near", near)
    for name, cluster in (("one", {"kind": "serial"}), ("two", {"kind": "local", "workers": 2})):
        assert run(config(slides, name, cluster={**cluster, "scratch": "$NODE_DISK"})).exit_status == 0
        assert contents(slides / name) == contents(slides / "calm")
        assert not list(node.glob("*"))
    assert copied
    assert all(path.startswith(str(node)) for path in copied)


def test_a_copy_is_made_once_by_whoever_comes_first(slides: Path, tmp_path: Path) -> None:
    """Of several workers on a node one copies a file and the others take its copy; a changed file is copied anew."""
    original = slides / "images" / "a.tif"
    source = Source("a", (SourceFile(str(original)),))
    made: list[Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(Path(scratch.near(source, tmp_path / "n").files[0].path)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [copy] = set(made)
    assert copy.read_bytes() == original.read_bytes()
    assert [p for p in copy.parent.iterdir() if p.name != ".lock"] == [copy]
    tifffile.imwrite(original, np.zeros((30, 40), np.uint8))
    again = Path(scratch.near(source, tmp_path / "n").files[0].path)
    assert again != copy
    assert again.read_bytes() == original.read_bytes()


def test_only_files_that_stand_alone_are_copied(tmp_path: Path) -> None:
    """An OME-TIFF that names another file, an OME-Zarr and an unknown ending are read where they are."""
    lone, one = tmp_path / "lone.ome.tif", tmp_path / "one.ome.tif"
    pixels = np.zeros((2, 32, 32), np.uint8)
    tifffile.imwrite(lone, pixels, photometric="minisblack", metadata={"axes": "CYX"})
    with tifffile.TiffFile(lone) as file:
        told = file.ome_metadata
    assert told is not None
    of_a_set = told.replace("<TiffData ", '<TiffData FirstC="0" ').replace(
        "/>", '><UUID FileName="other.ome.tif">urn:uuid:1</UUID></TiffData>', 1
    )
    tifffile.imwrite(one, pixels, photometric="minisblack", description=of_a_set.encode(), metadata=None)
    (tmp_path / "image.zarr").mkdir()
    (tmp_path / "slide.mrxs").write_bytes(b"")
    (tmp_path / "broken.tif").write_bytes(b"no picture")
    (tmp_path / "p.png").write_bytes(b"")
    assert stands_alone(lone)
    assert stands_alone(tmp_path / "p.png")
    for name in ("one.ome.tif", "image.zarr", "slide.mrxs", "broken.tif"):
        assert not stands_alone(tmp_path / name), name


def test_a_scratch_that_a_node_does_not_have_stops_the_run(slides: Path) -> None:
    """A variable that is not set in a worker is no folder named after it."""
    with pytest.raises(EnvironmentFault, match=r"SCRATCH_OF_NOBODY.*not set in this worker"):
        run(config(slides, "out", cluster={"kind": "serial", "scratch": "$SCRATCH_OF_NOBODY/x"}))
