"""Multi-label image classification: any number of labels an image."""

from functools import partial

from stillframe.tasks.base import Metric, ReportText, Task

Lower = partial(Metric, maximize=False, percent=False)  # an error or a loss

METRICS = (
    Metric("f1_macro", "Macro F1", "harmonic mean of precision and recall, mean over the labels", monitored=True),
    Metric("f1_micro", "Micro F1", "the same over all decisions together: frequent labels weigh more", monitored=True),
    Metric(
        "precision_macro", "Macro precision", "of the images predicted as X, the share that is X; mean", monitored=True
    ),
    Metric("recall_macro", "Macro recall", "of the images with X, the share predicted as X; mean", monitored=True),
    Metric("precision_micro", "Micro precision", "of all predicted labels, the share that is right", monitored=True),
    Metric("recall_micro", "Micro recall", "of all labels in the images, the share predicted", monitored=True),
    Metric("subset_accuracy", "Subset accuracy", "share of images with every label right", monitored=True),
    Metric("hamming_loss", "Hamming loss", "share of wrong decisions; lower is better", maximize=False, monitored=True),
    Metric("map_macro", "mAP", "area under precision and recall, mean over the labels", percent=False, additive=False),
    Lower("log_loss", "Log loss", "penalises confident errors, mean of a decision; lower is better"),
    Lower("ece", "Calibration error (ECE)", "gap between probability and frequency; lower is better"),
    Lower("ece_uncalibrated", "ECE before calibration", "the same without temperature scaling"),
    Metric(
        "precision", "precision", "of the images predicted as X, the share that is X", per_class=True, monitored=True
    ),
    Metric("recall", "recall", "of the images with X, the share predicted as X", per_class=True, monitored=True),
    Metric("f1", "F1", "harmonic mean of precision and recall", per_class=True, monitored=True),
)

REPORT = ReportText(
    answers="any of {count} labels: {classes}",
    unit="decisions",
    several_classes=True,
    headline="this model's macro F1 is {value}",
    brief="macro F1 {value}",
    baseline="predicting {answer} for every image would have {value}",
    bars=("precision", "recall", "f1"),
    weakest="f1",
    weakest_class="The weakest label is “{answer}”: F1 {value}, {count} have it.",
    calibration=("ece", "ece_uncalibrated"),
    tables=("per_class.csv", "pr.csv", "thresholds.csv", "reliability.csv", "explain/explain.csv"),
    gallery="The {count} test {samples} with the most wrong labels, of equals those with the largest loss.",
    caption="says <b>{predicted}</b><br>labelled <b>{actual}</b>",
    caption_correct="<b>{predicted}</b>, rightly",
)

TASK = Task(
    "multilabel",
    __name__,
    METRICS,
    lead="f1_macro",
    highlights=("f1_macro", "f1_micro", "map_macro", "subset_accuracy"),
    report=REPORT,
)
