"""Laws of evaluation: folders of either kind, strict ids, means that add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate import evaluate
from slidebatch.metrics import dsb_score, f1
from tests.support.oracle import bricks, disks


@pytest.fixture
def folders(tmp_path):
    """Truth of three images as PNG, predictions of two of them in two formats, one perfect."""
    truth, predicted = tmp_path / "truth", tmp_path / "predicted"
    truth.mkdir()
    predicted.mkdir()
    images = {"a": disks((80, 90)), "b": bricks((60, 70), gap=2), "c": disks((50, 60), seed=2)}
    for name, labels in images.items():
        Image.fromarray(labels.astype(np.uint16)).save(truth / f"{name}.png")
    tifffile.imwrite(predicted / "a.tif", images["a"].astype(np.uint32))
    np.save(predicted / "b.npy", np.where(images["b"] % 3 == 0, 0, images["b"]))
    return predicted, truth


def test_scores_are_the_metrics(folders):
    """A row holds what the metrics say of its two images; means are means over images."""
    found = evaluate(*folders)
    a, b = found.images
    assert (a.slide, a.dsb, a.f1, a.fp, a.fn) == ("a", 1.0, 1.0, 0, 0)
    truth = np.asarray(Image.open(folders[1] / "b.png"))
    pred = np.load(folders[0] / "b.npy")
    assert (b.dsb, b.f1) == (dsb_score(pred, truth), f1(pred, truth))
    assert b.fn > 0
    assert found.means["all"]["dsb"] == pytest.approx((a.dsb + b.dsb) / 2)
    pooled = 2 * (a.tp + b.tp) / (2 * (a.tp + b.tp) + b.fn)
    assert found.means["all"]["f1_pooled"] == pytest.approx(pooled)


def test_groups_have_their_own_means(folders, tmp_path):
    """A table of headings gives means by heading besides those over all."""
    (tmp_path / "index.tsv").write_text("id\tsize\tmodality\na\t1\tfluorescence\nb\t2\tstained\n")
    means = evaluate(*folders, groups=tmp_path / "index.tsv").means
    assert list(means) == ["fluorescence", "stained", "all"]
    assert means["fluorescence"]["dsb"] == 1.0 > means["stained"]["dsb"]


def test_subset_must_be_on_both_sides(folders, tmp_path):
    """A subset is evaluated as given; ids that one side lacks are an error that names them, never left out."""
    (tmp_path / "ids.txt").write_text("b\n")
    assert [s.slide for s in evaluate(*folders, subset=tmp_path / "ids.txt").images] == ["b"]
    (tmp_path / "ids.txt").write_text("a\nc\n")
    with pytest.raises(InputError, match=r"predicted lacks 1 of 2 images \(c"):
        evaluate(*folders, subset=tmp_path / "ids.txt")


def test_sizes_must_agree(folders):
    """Images of two sizes are refused by name."""
    np.save(folders[0] / "b.npy", np.zeros((5, 5), np.int32))
    with pytest.raises(InputError, match=r"b: predicted labels are \(5, 5\), the truth is \(60, 70\)"):
        evaluate(*folders)


def test_missing_folders_are_refused(folders, tmp_path):
    """No folder, an empty one, a missing subset: each one clear sentence."""
    with pytest.raises(ConfigError, match="no such folder"):
        evaluate(tmp_path / "none", folders[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no label images"):
        evaluate(tmp_path / "empty", folders[1])
    with pytest.raises(ConfigError, match="a subset is a text file of ids"):
        evaluate(*folders, subset=tmp_path / "none.txt")


def test_results_can_be_written_and_read(folders):
    """JSON holds means and rows, the text a line for each mean, the frame a row for each image."""
    found = evaluate(*folders)
    stored = json.loads(found.to_json())
    assert stored["means"]["all"]["images"] == len(stored["images"]) == len(found.frame()) == 2
    assert found.to_text().splitlines()[-1].split()[0] == "all"
