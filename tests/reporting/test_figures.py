import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stillframe.reporting import figures
from stillframe.tasks import find_task


def size(figure, tmp_path):
    path = figures.save(figure, tmp_path / "figure.png")
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return image.size


@pytest.mark.parametrize("classes", [2, 10, 30, 100])
def test_confusion_matrices_from_two_to_a_hundred_classes(classes, tmp_path):
    counts = np.random.default_rng(0).integers(0, 3, (classes, classes)) + 40 * np.eye(classes, dtype=int)
    figure = figures.confusion_matrix(counts, [f"class number {at}" for at in range(classes)])
    width, height = size(figure, tmp_path)
    assert 400 < width < 2200 and 400 < height < 2200
    axes = figure.axes[0]
    assert len(axes.get_yticklabels()) == classes
    written = [text.get_text() for text in axes.texts]
    assert len(written) == (np.count_nonzero(counts) if classes <= 30 else 0)
    if classes == 2:
        assert written[0] == f"{counts[0, 0]}\n{100 * counts[0, 0] / counts[0].sum():.0f} %"


def test_a_class_without_images_has_an_empty_row(tmp_path):
    size(figures.confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"]), tmp_path)


def test_learning_curves_draw_what_there_is_and_count_epochs_from_one(tmp_path):
    history = pd.DataFrame({"epoch": [0, 1, 2], "train/loss": [3.0, 2.0, 1.0], "val/loss": [3.0, np.nan, 2.0]})
    figure = figures.learning_curves(history, best_epoch=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss"]
    train, val, best = figure.axes[0].lines
    assert train.get_xdata().tolist() == [1, 2, 3]
    assert val.get_xdata().tolist() == [1, 3]
    assert best.get_xdata()[0] == 3
    size(figure, tmp_path)
    full = figures.learning_curves(
        history.assign(**{"val/accuracy": 0.5, "lr": 0.1}), None, find_task("classification").metrics
    )
    assert len(full.axes) == 3


@pytest.mark.parametrize("classes", [1, 3, 25])
def test_the_legend_of_curves_is_capped(classes, tmp_path):
    names = [f"c{at}" for at in range(classes)]
    points = pd.concat([pd.DataFrame({"class": name, "x": [0, 0.2, 1], "y": [0, 0.8, 1]}) for name in names])
    figure = figures.roc_and_pr(points, points, names)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == (names if classes <= 8 else [*names[:8], "17 more"])
    size(figure, tmp_path)


def test_reliability_before_only_and_both(tmp_path):
    part = pd.DataFrame({"bin": [5, 9], "confidence": [0.55, 0.95], "accuracy": [0.4, 0.9], "count": [10, 90]})
    only = figures.reliability(part.assign(stage="before"))
    assert len(only.axes[0].lines) == 2
    both = figures.reliability(pd.concat([part.assign(stage="before"), part.assign(stage="after")]))
    assert len(both.axes[0].lines) == 3
    size(both, tmp_path)


def test_bars_show_intervals_and_of_many_classes_the_worst(tmp_path):
    table = pd.DataFrame({"class": [f"c{at}" for at in range(60)], "f1": np.linspace(0.2, 0.9, 60)})
    table["recall"] = table["precision"] = table["f1"]
    for kind in ("f1", "recall", "precision"):
        table[f"{kind}_low"], table[f"{kind}_high"] = table[kind] - 0.1, table[kind] + 0.05
    table.loc[0, ["recall", "recall_low", "recall_high"]] = np.nan
    metrics = list(find_task("classification").class_metrics().values())
    figure = figures.per_class_bars(table, metrics, metrics[-1])
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [f"c{at}" for at in range(23, -1, -1)]
    assert "24 classes with the lowest F1" in figure.axes[0].get_title(loc="left")
    size(figure, tmp_path)


def test_class_balance_counts_images(tmp_path):
    counts = {"train": {"a": 1200, "b": 30}, "val": {"a": 5}, "test": {"a": 7, "b": 3}}
    figure = figures.class_balance(counts, ["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["33", "1,212"]
    size(figure, tmp_path)


def test_any_class_name_can_be_drawn_and_the_same_figure_gives_the_same_bytes(tmp_path):
    names = ["$5", "名前", "a" * 60]
    first = figures.save(figures.confusion_matrix(np.eye(3, dtype=int), names), tmp_path / "a.png")
    second = figures.save(figures.confusion_matrix(np.eye(3, dtype=int), names), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    assert len(figures.short(names[2])) == 22
