"""Counts, masks and tables of a split of masks against scikit-learn on the saved PNGs; tiles against whole pictures."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, recall_score

from segmented import CLASSES, SIZE, VALIDATE, Made, card, evaluate, logits, pictures, validate, write_split
from stillframe.drawing.class_map import encode_class_map, palette
from stillframe.tasks.calibration import bin_sums, calibration_error
from stillframe.tasks.segmentation import IGNORE
from stillframe.tasks.segmentation.collectors import ImageCollector, PixelSampler
from stillframe.tasks.segmentation.evaluation import MASKS


def read_masks(out):
    with zipfile.ZipFile(out / MASKS) as archive:
        return {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()}


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("tiled", [False, True])
def test_scores_are_those_of_scikit_learn_on_the_saved_masks(tmp_path, tiled, world):
    split = write_split(tmp_path / "test", tiled=tiled)
    metrics = evaluate(Made(split, world), tmp_path)
    predictions, masks = pd.read_parquet(tmp_path / "predictions.parquet"), read_masks(tmp_path)
    assert list(predictions["id"]) == [f"{at}.png" for at in range(7)]
    truth, answer = [], []
    for (_, mask), name in zip(pictures(7, tiled), predictions["mask"], strict=True):
        said = masks[name][: mask.shape[0], : mask.shape[1]]
        truth.append(mask[mask != IGNORE])
        answer.append(said[mask != IGNORE])
    label, said = np.concatenate(truth), np.concatenate(answer)
    assert metrics["accuracy"] == pytest.approx((label == said).mean(), abs=1e-6) and metrics["accuracy"] < 1
    for name, score in (("iou", jaccard_score), ("f1", f1_score), ("recall", recall_score)):
        assert metrics[f"{name}_macro"] == pytest.approx(score(label, said, average="macro"), abs=1e-6)
        for at, value in enumerate(score(label, said, average=None)):
            assert metrics[f"{name}/{CLASSES[at]}"] == pytest.approx(value, abs=1e-6)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_two_processes_write_what_one_writes(tmp_path):
    split = write_split(tmp_path / "test", tiled=True)
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
        evaluate(Made(split, world), tmp_path / str(world))
    files = {path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()}
    assert {str(path) for path in files} >= {MASKS, "predictions.parquet", "per_class.csv", "gallery/001.png"}
    for path in files:
        assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes(), path


def test_a_net_without_a_field_answers_tiles_as_it_answers_the_whole_picture(tmp_path):
    keep = ImageCollector(tuple(CLASSES), 1.5, None, 10, True)
    rows = Made(write_split(tmp_path / "test", tiled=True))(keep)
    for (image, mask), png in zip(pictures(7, True), rows["png"], strict=True):
        whole = logits(image.transpose(2, 0, 1)[None].astype(np.float32))[0].argmax(0)
        said = np.asarray(Image.open(io.BytesIO(png)))[: mask.shape[0], : mask.shape[1]]
        np.testing.assert_array_equal(said, whole)


def test_a_net_with_a_small_field_shows_no_seam(tmp_path):
    """Away from the border of a picture a 3 x 3 mean of tiles is that of the picture: the windows hide tile borders."""

    def smooth(image):
        padded = torch.nn.functional.avg_pool2d(torch.from_numpy(logits(image)), 3, 1, 1, count_include_pad=False)
        return padded.numpy()

    keep = ImageCollector(tuple(CLASSES), 1.5, None, 10, True)
    rows = Made(write_split(tmp_path / "test", tiled=True, overlap=0.5), answer=smooth)(keep)
    far = []
    for (image, mask), png in zip(pictures(7, True), rows["png"], strict=True):
        whole = smooth(image.transpose(2, 0, 1)[None].astype(np.float32))[0].argmax(0)
        said = np.asarray(Image.open(io.BytesIO(png)))[: mask.shape[0], : mask.shape[1]]
        far.append((said != whole)[1:-1, 1:-1].mean())
    assert max(far) < 0.004


def test_the_calibration_error_is_that_of_all_pixels(tmp_path):
    split = write_split(tmp_path / "test")
    metrics = evaluate(Made(split), tmp_path)
    said = np.concatenate([logits(i.transpose(2, 0, 1)[None].astype(np.float32)) for i, _ in pictures(7, False)])
    label = np.stack([mask for _, mask in pictures(7, False)])
    pixel, logits_PK = label != IGNORE, said.transpose(0, 2, 3, 1)
    for name, temperature in (("ece", 1.5), ("ece_uncalibrated", 1.0)):
        share = torch.from_numpy(logits_PK[pixel] / temperature).softmax(1).numpy()
        assert metrics[name] == pytest.approx(
            calibration_error(bin_sums(share.max(1), share.argmax(1) == label[pixel], 10)), abs=1e-5
        )


def test_validation_tunes_on_pixels_and_counts_all_of_them(tmp_path):
    split = write_split(tmp_path / "val")
    metrics, choices = validate(Made(split), VALIDATE, card(), tmp_path)
    assert choices["temperature"] != 1.0 and choices["threshold"] is None
    assert metrics["ece"] < metrics["ece_uncalibrated"]
    sample = Made(split, 2)(PixelSampler())
    pd.testing.assert_frame_equal(sample, Made(split, 1)(PixelSampler()))
    assert len(sample) == sum(int((mask != IGNORE).sum()) for _, mask in pictures(7, False))


def test_the_worst_picture_comes_first_and_is_drawn_three_times(tmp_path):
    evaluate(Made(write_split(tmp_path / "test")), tmp_path)
    gallery, predictions = pd.read_csv(tmp_path / "gallery.csv"), pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(gallery["iou"]) == pytest.approx(sorted(predictions["iou"])[:3], abs=1e-9)
    with Image.open(tmp_path / gallery["file"][0]) as drawn:
        assert drawn.size == (3 * SIZE + 8, SIZE)


def test_intervals_hold_the_scores_and_the_background_is_the_baseline(tmp_path):
    metrics = evaluate(Made(write_split(tmp_path / "test")), tmp_path, bootstrap=200)
    intervals = json.loads((tmp_path / "intervals.json").read_text())
    for name in ("accuracy", "iou_macro", "f1_macro", "recall_macro", "boundary_f1", "iou/tree"):
        low, high = intervals[name]
        assert low <= metrics[name] <= high and low < high
    baseline = json.loads((tmp_path / "baseline.json").read_text())
    assert baseline["class"] == "ground" and baseline["recall/ground"] == 1.0 and baseline["iou/tree"] == 0.0


def test_a_mask_is_an_indexed_png_with_the_names_of_its_classes():
    mask = np.array([[0, 1], [2, IGNORE]], dtype=np.uint8)
    image = Image.open(io.BytesIO(encode_class_map(mask, ["ground", "tree", "straße"])))
    assert image.mode == "P" and json.loads(image.text["classes"])[2] == "straße"
    np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[1, 1], palette()[IGNORE])
    assert palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_two_classes_are_decided_by_the_tuned_threshold(tmp_path):
    """A class that is rare in confident answers is found from a lower probability on."""
    two = replace(card(), classes=CLASSES[:2])

    def answer(image):
        return logits(image)[:, :2] + np.array([2.5, 0.0], np.float32)[:, None, None]

    split = write_split(tmp_path / "val", classes=2)
    metrics, choices = validate(Made(split, answer=answer), VALIDATE, two, tmp_path)
    assert 0 < choices["threshold"] < 0.5
    plain, _ = validate(Made(split, answer=answer), replace(VALIDATE, threshold="argmax"), two, tmp_path)
    assert metrics["f1_macro"] > plain["f1_macro"]
