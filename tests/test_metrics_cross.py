"""The metrics against other people's: StarDist's matching, the Cell Tracking Challenge in Python, and COCO's matching.

Each library is a witness only: where one is not installed, its tests are skipped by name.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from slidebatch import metrics
from tests.support.oracle import bricks, disks


def damaged(labels, seed):
    """Labels with nuclei lost, moved, merged, halved and made up, at random."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        mask, fate = labels == label, rng.integers(0, 7)
        if fate == 0:
            continue
        if fate == 1:
            mask = np.roll(mask, rng.integers(-4, 5, 2), (0, 1))
        if fate == 2:
            mask &= (np.indices(mask.shape)[0] + label) % 5 > 0
        name = label + 1000 * (np.indices(mask.shape)[1] % 16 < 8) if fate == 3 else label
        if fate == 4 and label > 1:
            name = label - 1
        out[mask] = np.broadcast_to(name, mask.shape)[mask]
    out[:4, :9] = 5000
    return out


IMAGES = {
    "disks": disks((160, 170)),
    # A rim of background: py-ctcmetrics takes the lowest label for it, and would drop a nucleus.
    "touching": np.pad(bricks((120, 130)), 2),
    "apart": bricks((110, 100), gap=3),
}


@pytest.fixture(params=[(name, seed) for name in IMAGES for seed in range(3)], ids=lambda p: f"{p[0]}-{p[1]}")
def pair(request):
    """A prediction and its truth."""
    name, seed = request.param
    return damaged(IMAGES[name], seed), IMAGES[name]


@pytest.fixture(scope="module")
def matching():
    """StarDist's matching module."""
    wheels = sys.version_info < (3, 14)
    why = "stardist is not installed: pip install stardist" if wheels else "stardist has no wheels for this Python"
    return pytest.importorskip("stardist.matching", reason=why)


@pytest.mark.parametrize("iou", metrics.DSB_THRESHOLDS)
def test_counts_equal_stardist(pair, matching, iou):
    """True and false positives, misses, AP (its accuracy) and F1 equal StarDist's at every threshold."""
    pred, truth = pair
    theirs = matching.matching(truth, pred, thresh=iou - 1e-6)  # it compares float32 IoUs: give it the same room
    ours = metrics.counts(pred, truth, iou)
    assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
    assert ours.average_precision == pytest.approx(theirs.accuracy)
    assert (ours.f1, ours.precision, ours.recall) == pytest.approx((theirs.f1, theirs.precision, theirs.recall))


def test_panoptic_quality_equals_stardist(pair, matching):
    """PQ, SQ (its mean matched score) and RQ equal StarDist's just above IoU 0.5."""
    pred, truth = pair
    theirs = matching.matching(truth, pred, thresh=0.5 + 1e-6)
    ours = metrics.panoptic(pred, truth)
    assert 0.1 < ours.pq < 0.95  # damaged, but not beyond recognition
    found = theirs.panoptic_quality, theirs.mean_matched_score, theirs.f1
    assert (ours.pq, ours.sq, ours.rq) == pytest.approx(found, abs=1e-6)


def test_data_set_scores_equal_stardist(matching):
    """Counts added up over images equal StarDist's for a data set, and so does the mean AP by image."""
    pairs = [(damaged(truth, seed), truth) for seed, truth in enumerate(IMAGES.values())]
    preds, truths = [p for p, _ in pairs], [t for _, t in pairs]
    pooled = matching.matching_dataset(truths, preds, thresh=0.7 - 1e-6, show_progress=False)
    total = sum((metrics.counts(p, t, 0.7) for p, t in pairs), metrics.Counts(0, 0, 0))
    assert (total.tp, total.fp, total.fn, total.f1) == (pooled.tp, pooled.fp, pooled.fn, pytest.approx(pooled.f1))
    by_image = matching.matching_dataset(truths, preds, thresh=0.7 - 1e-6, by_image=True, show_progress=False)
    assert np.mean([metrics.average_precision(p, t, 0.7) for p, t in pairs]) == pytest.approx(by_image.accuracy)


def test_seg_equals_the_cell_tracking_challenge(pair, tmp_path):
    """SEG equals py-ctcmetrics' on the same frames."""
    ctc = pytest.importorskip("ctc_metrics.utils.representations", reason="py-ctcmetrics is not installed")
    from ctc_metrics.metrics.technical.seg import seg

    pred, truth = pair
    for name, labels in (("truth", truth), ("pred", pred)):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels.astype(np.uint16))
    labels_truth, _, _, _, iou = ctc.match(str(tmp_path / "truth.tif"), str(tmp_path / "pred.tif"))
    assert metrics.seg(pred, truth) == pytest.approx(seg([labels_truth], [iou]))


def annotations(coco_mask, labels, first, score=lambda label: 1.0, image=1):
    """COCO's records of a label image's nuclei, with scores."""
    rows = []
    for number, label in enumerate(np.unique(labels[labels > 0]), first):
        rle = coco_mask.encode(np.asfortranarray((labels == label).astype(np.uint8)))
        area, box = float(coco_mask.area(rle)), [float(v) for v in coco_mask.toBbox(rle)]
        shared = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "score": score(label)}
        rows.append({**shared, "segmentation": rle, "area": area, "bbox": box})
    return rows


def coco_run(coco, images, truths, found, thresholds):
    """COCO's own evaluation of records, all sizes, any number of detections."""
    listed = [{"id": i, "height": shape[0], "width": shape[1]} for i, shape in images.items()]
    judged = coco.COCO({"images": listed, "categories": [{"id": 1, "name": "nucleus"}], "annotations": truths})
    run = coco.COCOeval_faster(judged, judged.loadRes(found), iouType="segm", print_function=lambda *_: None)
    run.params.maxDets = [10_000]
    run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
    run.params.iouThrs = np.array(thresholds)
    run.evaluate()
    run.accumulate()
    return run


def test_true_positives_equal_coco(pair):
    """Above IoU 0.5, where partners are unique, COCO's matching finds as many true positives at every threshold."""
    coco = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    coco_mask = pytest.importorskip("faster_coco_eval.core.mask")
    pred, truth = pair
    thresholds = metrics.DSB_THRESHOLDS[1:]
    records = annotations(coco_mask, truth, 1), annotations(coco_mask, pred, 1)
    run = coco_run(coco, {1: truth.shape}, *records, thresholds)
    recall = np.asarray(run.eval["recall"]).reshape(len(thresholds))
    ours = [metrics.counts(pred, truth, t).recall for t in thresholds]
    assert recall.tolist() == pytest.approx(ours)


@pytest.mark.parametrize("seed", range(4))
def test_map_equals_coco(seed):
    """Over several images, with scores that tie now and then, mAP at every threshold is COCO's own."""
    coco = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    coco_mask = pytest.importorskip("faster_coco_eval.core.mask")
    rng = np.random.default_rng(seed)
    truths, found, ranks = [], [], []
    for i, truth in enumerate([*IMAGES.values(), np.zeros((40, 50), np.int32)], 1):
        pred = damaged(truth, seed + 10 * i)
        names = np.unique(pred[pred > 0])
        score = dict(zip(names.tolist(), rng.integers(1, 60, len(names)) / 64, strict=True))
        truths += annotations(coco_mask, truth, 1 + len(truths), image=i)
        found += annotations(coco_mask, pred, 1 + len(found), score.__getitem__, i)
        ranks.append(metrics.ranked(metrics.overlap(pred, truth), list(score.values())))
    shapes = {i: truth.shape for i, truth in enumerate([*IMAGES.values(), np.zeros((40, 50))], 1)}
    run = coco_run(coco, shapes, truths, found, metrics.DSB_THRESHOLDS)
    theirs = np.asarray(run.eval["precision"]).reshape(len(metrics.DSB_THRESHOLDS), 101).mean(1)
    assert 0 < theirs[-1] < theirs[0] < 1
    assert [metrics.coco_ap(ranks, t) for t in metrics.DSB_THRESHOLDS] == pytest.approx(theirs.tolist())
    assert metrics.coco_map(ranks) == pytest.approx(theirs.mean())


@pytest.mark.realdata
def test_real_labels_equal_stardist(realdata, matching):
    """On real annotations, scored against their own dilations, counts at all thresholds equal StarDist's."""
    from scipy import ndimage

    for path in sorted((realdata / "dsb2018" / "labels").glob("*.png"))[:4]:
        truth = np.asarray(Image.open(path)).astype(np.int32)
        pred = ndimage.maximum_filter(truth, 3)
        theirs = matching.matching(truth, pred, thresh=[t - 1e-6 for t in metrics.DSB_THRESHOLDS])
        ours = metrics.counts_by_threshold(pred, truth)
        assert [(c.tp, c.fp, c.fn) for c in ours.values()] == [(m.tp, m.fp, m.fn) for m in theirs]
