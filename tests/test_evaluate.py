"""Laws of evaluation: any kind of side, nothing skipped in silence, means that add up, intervals over groups."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as run_lengths

from slidebatch import metrics
from slidebatch.cli import status_of
from slidebatch.errors import ConfigError, InputError
from slidebatch.evaluate import Bootstrap, Column, evaluate, open_side, write_coco
from slidebatch.evaluate.dsb_csv import Runs
from slidebatch.evaluate.intervals import ratio_intervals
from tests.support.oracle import bricks, disks
from tests.support.results_folder import Made, write_results

IMAGES = {"a": disks((80, 90)), "b": bricks((60, 70), gap=2), "c": disks((50, 60), seed=2)}


@pytest.fixture
def folders(tmp_path):
    """Truth of two images as PNG, predictions in two formats, one perfect."""
    truth, predicted = tmp_path / "truth", tmp_path / "predicted"
    truth.mkdir()
    predicted.mkdir()
    for name in "ab":
        Image.fromarray(IMAGES[name].astype(np.uint16)).save(truth / f"{name}.png")
    tifffile.imwrite(predicted / "a.tif", IMAGES["a"].astype(np.uint32))
    np.save(predicted / "b.npy", np.where(IMAGES["b"] % 3 == 0, 0, IMAGES["b"]))
    return predicted, truth


def add_truth(folders, name, labels):
    Image.fromarray(labels.astype(np.uint16)).save(folders[1] / f"{name}.png")


def numbered(labels):
    """Labels 1..n without gaps, as a run gives them."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint32)


def slow_rle(mask):
    """A mask's runs as the competition's page says it: number pixels down the columns from 1, list start and length."""
    on = [i + 1 for i, v in enumerate(mask.T.ravel()) if v]
    runs, previous = [], None
    for pixel in on:
        if previous is not None and pixel == previous + 1:
            runs[-1][1] += 1
        else:
            runs.append([pixel, 1])
        previous = pixel
    return " ".join(f"{start} {length}" for start, length in runs)


def write_csv(path, images, shapes=False):
    """A Data Science Bowl CSV of label images; with shapes as a solution has them."""
    rows = ["ImageId,EncodedPixels" + (",Height,Width,Usage" if shapes else "")]
    for name, labels in images.items():
        tail = f",{labels.shape[0]},{labels.shape[1]},Public" if shapes else ""
        names = np.unique(labels[labels > 0])
        rows += [f"{name},{slow_rle(labels == n)}{tail}" for n in names] or [f"{name},{tail}"]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_scores_are_the_metrics(folders):
    """A row holds what the metrics say of its two images; means are means over images."""
    found = evaluate(*folders)
    a, b = found.images
    assert (a.slide, a.dsb, a.f1, a.aji, a.fp, a.fn) == ("a", 1.0, 1.0, 1.0, 0, 0)
    truth = np.asarray(Image.open(folders[1] / "b.png"))
    pred = np.load(folders[0] / "b.npy")
    assert (b.dsb, b.f1) == (metrics.dsb_score(pred, truth), metrics.f1(pred, truth))
    assert (b.seg, b.aji, b.pq) == (
        metrics.seg(pred, truth),
        metrics.aji(pred, truth),
        metrics.panoptic(pred, truth).pq,
    )
    assert b.ap[5] == b.ap75 == metrics.average_precision(pred, truth, 0.75)
    assert b.fn > 0
    assert found.means["all"]["dsb"] == pytest.approx((a.dsb + b.dsb) / 2)
    assert found.ap["all"][0.75] == found.means["all"]["ap75"]
    pooled = 2 * (a.tp + b.tp) / (2 * (a.tp + b.tp) + b.fn)
    assert found.means["all"]["f1_pooled"] == pytest.approx(pooled)
    seg = (a.seg * a.truth + b.seg * b.truth) / (a.truth + b.truth)
    assert found.means["all"]["seg_pooled"] == pytest.approx(seg)


def test_groups_have_their_own_means(folders, tmp_path):
    """A table of headings gives means by heading besides those over all; the column can be named."""
    (tmp_path / "index.tsv").write_text("id\tsize\tmodality\na\t1\tfluorescence\nb\t2\tstained\n")
    means = evaluate(*folders, groups=tmp_path / "index.tsv").means
    assert list(means) == ["fluorescence", "stained", "all"]
    assert means["fluorescence"]["dsb"] == 1.0 > means["stained"]["dsb"]
    by_size = evaluate(*folders, groups=Column(tmp_path / "index.tsv", "size"))
    assert list(by_size.means) == ["1", "2", "all"]


def test_tables_must_name_every_image(folders, tmp_path):
    """A table of headings or groups that lacks an image or the column is refused, never filled in."""
    table = tmp_path / "index.tsv"
    table.write_text("id\tmodality\na\tfluorescence\n")
    with pytest.raises(ConfigError, match=r"lacks 1 image \(b\)"):
        evaluate(*folders, groups=table)
    with pytest.raises(ConfigError, match=r"lacks 1 image \(b\)"):
        evaluate(*folders, bootstrap=Bootstrap(Column(table, "modality")))
    with pytest.raises(ConfigError, match="no column well; it has modality"):
        evaluate(*folders, groups=Column(table, "well"))
    table.write_text("a,b\n")
    with pytest.raises(ConfigError, match="must have a column id"):
        evaluate(*folders, groups=table)


def test_a_missing_prediction_scores_zero(folders, tmp_path):
    """What was not predicted scores 0 in everything, blank truth too, is named, and gives the exit status 3."""
    add_truth(folders, "c", IMAGES["c"])
    add_truth(folders, "blank", np.zeros((20, 30), int))
    found = evaluate(*folders)
    assert found.missing == ("blank", "c")
    rows = {s.slide: s for s in found.images}
    assert rows["c"].fn == rows["c"].truth == len(metrics.areas(IMAGES["c"]))
    assert rows["c"].dsb == rows["c"].seg == rows["blank"].dsb == rows["blank"].precision == 0.0
    assert found.means["all"]["dsb"] == pytest.approx((1 + rows["b"].dsb) / 4)
    assert "lacks 2 images (blank, c), which score 0" in found.describe()
    assert status_of(["evaluate", *map(str, folders)]) == 3
    (tmp_path / "ids.txt").write_text("a\n\nb\n")
    assert status_of(["evaluate", *map(str, folders), "--subset", str(tmp_path / "ids.txt")]) == 0


def test_an_extra_prediction_is_named_and_ignored(folders):
    """A prediction without truth changes no score and is named."""
    before = evaluate(*folders).images
    np.save(folders[0] / "z.npy", IMAGES["c"])
    found = evaluate(*folders)
    assert (found.images, found.extra) == (before, ("z",))
    assert any("no truth for 1 image (z)" in note for note in found.notes)


def test_a_subset_needs_truth(folders, tmp_path):
    """A subset is evaluated as given; ids without truth are an error that names them, ids not predicted score 0."""
    add_truth(folders, "c", IMAGES["c"])
    (tmp_path / "ids.txt").write_text("b\n")
    assert [s.slide for s in evaluate(*folders, subset=tmp_path / "ids.txt").images] == ["b"]
    (tmp_path / "ids.txt").write_text("a\nc\n")
    assert evaluate(*folders, subset=tmp_path / "ids.txt").missing == ("c",)
    (tmp_path / "ids.txt").write_text("a\nd\n")
    with pytest.raises(InputError, match=r"lacks the truth of 1 image \(d\)"):
        evaluate(*folders, subset=tmp_path / "ids.txt")


def test_a_run_is_judged_on_what_it_set_out_to_do(tmp_path, folders):
    """Of a results folder every planned slide counts, failed ones as 0; other truth is left out and told."""
    add_truth(folders, "c", IMAGES["c"])
    results = write_results(tmp_path / "results", [Made(n, numbered(IMAGES[n])) for n in "ab"])
    found = evaluate(results, folders[1])
    assert [(s.slide, s.dsb) for s in found.images] == [("a", 1.0), ("b", 1.0)]
    assert any("1 image (c)" in note and "left out" in note for note in found.notes)
    manifest = json.loads((results / "manifest.json").read_text())
    manifest["slides"][0]["state"] = "failed"
    (results / "manifest.json").write_text(json.dumps(manifest))
    found = evaluate(results, folders[1])
    assert found.missing == ("a",)
    assert [s.dsb for s in found.images] == [0.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 3)))
def test_runs_are_pixels_down_the_columns(labels):
    """Nuclei written as the competition says are read back pixel for pixel."""
    texts = [slow_rle(labels == n) for n in np.unique(labels[labels > 0])]
    read = Runs("x.csv", {"i": texts}, {}).labels("i", labels.shape)
    assert metrics.equal_up_to_renaming(read, labels)


def test_csvs_stand_on_either_side(folders, tmp_path):
    """A CSV scores as the label images it was made of: as prediction, as truth, and on both sides."""
    expected = evaluate(*folders).images
    predicted = {"a": IMAGES["a"], "b": np.load(folders[0] / "b.npy")}
    ours = write_csv(tmp_path / "ours.csv", predicted)
    theirs = write_csv(tmp_path / "theirs.csv", {n: IMAGES[n] for n in "ab"}, shapes=True)
    assert evaluate(ours, folders[1]).images == expected
    assert evaluate(folders[0], theirs).images == expected
    assert evaluate(ours, theirs).images == expected


def test_csvs_alone_need_shapes(folders, tmp_path):
    """Two CSVs that state no shape are refused, and scored once a table gives the shapes."""
    ours = write_csv(tmp_path / "ours.csv", {n: IMAGES[n] for n in "ab"})
    with pytest.raises(ConfigError, match="does not say how large a is"):
        evaluate(ours, ours)
    sizes = "".join(f"{n}\t{IMAGES[n].shape[0]}\t{IMAGES[n].shape[1]}\n" for n in "ab")
    (tmp_path / "index.tsv").write_text("id\theight\twidth\n" + sizes)
    assert evaluate(ours, ours, shapes=tmp_path / "index.tsv").means["all"]["dsb"] == 1.0


def test_a_missing_image_of_a_csv_scores_zero(folders, tmp_path):
    """An image that only a CSV without shapes has scores 0, with all its nuclei missed."""
    truth = write_csv(tmp_path / "truth.csv", IMAGES)
    found = evaluate(folders[0], truth)
    assert found.missing == ("c",)
    assert [(s.fn, s.dsb) for s in found.images if s.slide == "c"] == [(len(metrics.areas(IMAGES["c"])), 0.0)]


def test_a_blank_image_of_a_csv_is_blank(tmp_path):
    """A row without runs is an image without nuclei: found empty it scores 1; images called Ignored are left out."""
    blank = {"e": np.zeros((5, 6), int)}
    theirs = write_csv(tmp_path / "theirs.csv", blank, shapes=True)
    with theirs.open("a") as file:
        file.write("skip,1 1,5,6,Ignored\n")
    found = evaluate(write_csv(tmp_path / "ours.csv", blank), theirs)
    assert [(s.slide, s.dsb, s.seg, s.pq, s.aji) for s in found.images] == [("e", 1.0, 1.0, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (["1 2 3"], "pairs of whole numbers"),
        (["1 x"], "pairs of whole numbers"),
        (["0 2"], "starts count from 1"),
        (["29 3"], "leaves the image of 30 pixels"),
        (["1 3", "3 1"], "two nuclei of e share pixels"),
    ],
)
def test_wrong_runs_are_refused(tmp_path, runs, words):
    """Runs that are no pairs, leave the image or share pixels are one clear sentence."""
    path = tmp_path / "wrong.csv"
    path.write_text("ImageId,EncodedPixels\n" + "".join(f"e,{r}\n" for r in runs))
    with pytest.raises(InputError, match=words):
        open_side(path).read("e", (5, 6))


def test_what_is_no_csv_is_refused(tmp_path):
    """Bytes that are no text are one clear sentence."""
    path = tmp_path / "wrong.csv"
    path.write_bytes("ImageId,EncodedPixels\né,1 1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"wrong\.csv is no CSV in UTF-8"):
        open_side(path)


def test_a_file_that_cannot_be_written_is_refused_first(folders, tmp_path, capsys):
    """Where scores cannot be written is told before any work is done, and nothing is left behind."""
    where = ["evaluate", *map(str, folders), "--csv", str(tmp_path / "new.csv"), "--json"]
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "scores.json"):
        assert status_of([*where, str(path)]) == 2
        assert f"{path} cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()


def test_folders_of_other_images_are_refused(folders, tmp_path):
    """Label images of which none has truth are a wrong folder, not images that nobody found."""
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "z.npy", IMAGES["a"])
    with pytest.raises(InputError, match="no image in common"):
        evaluate(tmp_path / "other", folders[1])


def test_label_images_may_be_named_in_capitals(folders, tmp_path):
    """The ending's case plays no part."""
    (folders[1] / "a.png").rename(folders[1] / "a.PNG")
    assert {s.slide for s in evaluate(*folders).images} == {"a", "b"}


@pytest.mark.parametrize("value", [-3, 2**63 + 5])
def test_labels_out_of_range_are_named(folders, value):
    """Labels that no label image may hold are an error that names the image."""
    labels = IMAGES["b"].astype(np.int64 if value < 0 else np.uint64)
    labels[0, 0] = value
    np.save(folders[0] / "b.npy", labels)
    with pytest.raises(InputError, match="b: A label image holds numbers below 0"):
        evaluate(*folders)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("id\tmodality\na\nb\tx\n", r"no modality for 1 image \(a\)"),
        ("id\tmodality\na\tx\nb\ty\na\ty\n", r"names 1 image \(a\) more than once"),
        ("id\tmodality\na\tall\nb\ty\n", "calls a group 'all'"),
    ],
)
def test_wrong_tables_are_refused(folders, tmp_path, table, told):
    """Short rows, ids that come twice and a heading that is the name of all: each one clear sentence."""
    (tmp_path / "index.tsv").write_text(table)
    with pytest.raises(ConfigError, match=told):
        evaluate(*folders, groups=tmp_path / "index.tsv")


def test_tables_may_begin_with_a_byte_order_mark(folders, tmp_path):
    """What spreadsheets write is read; what is no text is refused."""
    (tmp_path / "index.tsv").write_text("id\tmodality\na\tx\nb\ty\n", encoding="utf-8-sig")
    (tmp_path / "ids.txt").write_text("a\nb\n", encoding="utf-8-sig")
    found = evaluate(*folders, subset=tmp_path / "ids.txt", groups=tmp_path / "index.tsv")
    assert list(found.means) == ["x", "y", "all"]
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no text"):
        evaluate(*folders, subset=tmp_path / "ids.txt")


def test_a_row_that_is_cut_off_is_refused(tmp_path):
    """A row that ends after the id is no blank image."""
    (tmp_path / "cut.csv").write_text("ImageId,EncodedPixels\na,1 2\nb")
    with pytest.raises(InputError, match="the row of b ends after the id"):
        open_side(tmp_path / "cut.csv")


def test_sizes_must_agree(folders):
    """Images of two sizes are refused by name."""
    np.save(folders[0] / "b.npy", np.zeros((5, 5), np.int32))
    with pytest.raises(InputError, match=r"b: predicted labels are \(5, 5\), the truth is \(60, 70\)"):
        evaluate(*folders)


def test_missing_folders_are_refused(folders, tmp_path):
    """No folder, an empty one, a missing or empty subset, nothing in common: each one clear sentence."""
    with pytest.raises(ConfigError, match="no such folder"):
        evaluate(tmp_path / "none", folders[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no label images"):
        evaluate(tmp_path / "empty", folders[1])
    with pytest.raises(ConfigError, match="a subset is a text file of ids"):
        evaluate(*folders, subset=tmp_path / "none.txt")
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(ConfigError, match="names no ids"):
        evaluate(*folders, subset=tmp_path / "none.txt")
    results = write_results(tmp_path / "results", [Made("other", numbered(IMAGES["a"]))])
    with pytest.raises(InputError, match="no image in common"):
        evaluate(results, folders[1])


def test_results_can_be_written_and_read(folders, tmp_path):
    """JSON holds means, intervals and rows, CSV and frame a row for each image, the text a line for each mean."""
    np.save(folders[0] / "z.npy", IMAGES["c"])
    scores, table = tmp_path / "new" / "scores.json", tmp_path / "images.csv"
    assert status_of(["evaluate", *map(str, folders), "--json", str(scores), "--csv", str(table)]) == 0
    found = evaluate(*folders)
    stored = json.loads(scores.read_text())
    assert stored == json.loads(found.to_json())
    assert stored["means"]["all"]["images"] == len(stored["images"]) == len(found.frame()) == 2
    assert (stored["missing"], stored["extra"]) == ([], ["z"])
    low, high = stored["intervals"]["all"]["dsb"]
    assert low <= stored["means"]["all"]["dsb"] <= high
    rows = list(csv.DictReader(table.open()))
    assert [(r["slide"], float(r["ap_0.95"])) for r in rows] == [(s.slide, s.ap[-1]) for s in found.images]
    assert found.to_text().splitlines()[1].split()[0] == "all"


def test_scores_of_results_give_map(folders, tmp_path):
    """Where the table of nuclei has scores, COCO's mAP is told by heading; an image not predicted lowers it."""
    results = write_results(tmp_path / "results", [Made(n, numbered(IMAGES[n])) for n in "ab"])
    assert evaluate(results, folders[1]).coco == {}
    for path in (results / "instances").iterdir():
        table = pd.read_parquet(path)
        table.assign(score=np.linspace(0.5, 1, len(table), dtype=np.float32)).to_parquet(path)
    found = evaluate(results, folders[1])
    assert found.coco["all"] == {"map50": 1.0, "map75": 1.0, "map": 1.0}
    assert json.loads(found.to_json())["coco"] == found.coco
    assert "map50" in found.describe()
    add_truth(folders, "c", IMAGES["c"])
    (tmp_path / "ids.txt").write_text("a\nb\nc\n")
    shares = [int(IMAGES[n].max()) for n in "abc"]
    lower = evaluate(results, folders[1], subset=tmp_path / "ids.txt").coco["all"]["map50"]
    assert lower == pytest.approx((sum(shares[:2]) / sum(shares)), abs=0.02)


def test_coco_files_hold_the_same_nuclei(folders, tmp_path):
    """Masks, boxes, areas and scores of COCO's files are those of both sides; COCO's own mAP of them is ours."""
    coco = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    shown = {n: numbered(np.where(IMAGES[n] % 4 == 1, 0, IMAGES[n])) for n in "ab"}
    results = write_results(tmp_path / "results", [Made(n, labels) for n, labels in shown.items()])
    scores = {}
    for name in "ab":
        path = results / "instances" / f"{name}.parquet"
        table = pd.read_parquet(path)
        scores[name] = np.random.default_rng(3).permutation(len(table)) / len(table)
        table.assign(score=scores[name]).to_parquet(path)
    out = tmp_path / "coco"
    assert status_of(["evaluate", str(results), str(folders[1]), "--coco", str(out)]) == 0
    truth, found = (json.loads((out / f"{n}.json").read_text()) for n in ("truth", "results"))
    assert [(i["id"], i["file_name"], i["height"]) for i in truth["images"]] == [(1, "a", 80), (2, "b", 60)]
    for rows, images in ((truth["annotations"], [IMAGES[n] for n in "ab"]), (found, list(shown.values()))):
        for number, labels in enumerate(images, 1):
            here = [r for r in rows if r["image_id"] == number]
            for label, row in zip(np.unique(labels[labels > 0]), here, strict=True):
                mask = labels == label
                np.testing.assert_array_equal(run_lengths.decode(row["segmentation"]), mask)
                y, x = np.nonzero(mask)
                assert row["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
                assert row["area"] == mask.sum()
    assert [r["score"] for r in found] == pytest.approx([*scores["a"], *scores["b"]], abs=1e-6)
    judged = coco.COCO(str(out / "truth.json"))
    run = coco.COCOeval_faster(judged, judged.loadRes(str(out / "results.json")), "segm", print_function=print)
    run.params.maxDets, run.params.areaRng, run.params.areaRngLbl = [10_000], [[0, 1e10]], ["all"]
    run.evaluate()
    run.accumulate()
    assert evaluate(results, folders[1]).coco["all"]["map"] == pytest.approx(run.eval["precision"].mean())


def test_coco_results_need_scores(folders, tmp_path):
    """A folder of label images has no scores, and is refused by name."""
    with pytest.raises(ConfigError, match="predicted has no scores"):
        write_coco(tmp_path / "coco", *folders)


def test_one_image_has_no_interval(folders, tmp_path):
    """What rests on a single group has no interval: null in JSON, nothing in the table."""
    (tmp_path / "ids.txt").write_text("b\n")
    found = evaluate(*folders, subset=tmp_path / "ids.txt")
    assert json.loads(found.to_json())["intervals"]["all"]["dsb"] == [None, None]
    assert len(found.to_text().splitlines()) == 2


def test_intervals_equal_drawing_groups_one_by_one():
    """Intervals agree with groups drawn in a plain loop, up to the noise of drawing."""
    rng = np.random.default_rng(3)
    values, groups = rng.random(60), [f"g{i // 3}" for i in range(60)]
    ((low, high),) = ratio_intervals(values[:, None], np.ones((60, 1)), groups, Bootstrap(resamples=4000), "all")
    parts = [values[3 * i : 3 * i + 3] for i in range(20)]
    drawn = [np.concatenate([parts[k] for k in rng.integers(0, 20, 20)]).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)


def test_intervals_follow_the_seed_and_the_groups():
    """The same seed draws the same, another differently; copies of an image in one group do not narrow an interval."""
    values = np.random.default_rng(0).random((12, 1))
    ones, names = np.ones((12, 1)), [str(i) for i in range(12)]
    first = ratio_intervals(values, ones, names, Bootstrap(), "all")
    np.testing.assert_array_equal(first, ratio_intervals(values, ones, names, Bootstrap(), "all"))
    assert not np.array_equal(first, ratio_intervals(values, ones, names, Bootstrap(seed=1), "all"))
    fourfold = ratio_intervals(
        np.repeat(values, 4, 0), np.repeat(ones, 4, 0), list(np.repeat(names, 4)), Bootstrap(), "all"
    )
    alone = ratio_intervals(
        np.repeat(values, 4, 0), np.repeat(ones, 4, 0), [str(i) for i in range(48)], Bootstrap(), "all"
    )
    assert np.ptp(fourfold) == pytest.approx(np.ptp(first), rel=0.1)
    assert np.ptp(alone) < 0.7 * np.ptp(fourfold)


@pytest.mark.realdata
def test_real_labels_against_themselves(realdata, tmp_path):
    """Real annotations equal themselves, over their headings and groups, through the command line."""
    data = realdata / "dsb2018"
    ids = (data / "validation.txt").read_text().split()[:12]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    tables = ["--groups", str(data / "index.tsv"), "--bootstrap-groups", str(data / "groups.tsv")]
    where = [str(data / "labels"), str(data / "labels"), "--subset", str(tmp_path / "ids.txt")]
    assert status_of(["evaluate", *where, *tables, "--json", str(tmp_path / "s.json")]) == 0
    means = json.loads((tmp_path / "s.json").read_text())["means"]
    assert {row["dsb"] for row in means.values()} == {row["aji"] for row in means.values()} == {1.0}
    assert means["all"]["images"] == 12
