"""Semantic segmentation: one class a pixel."""

from stillframe.store.columns import NO_VALUE
from stillframe.tasks.base import Metric, ReportText, Task

IGNORE = NO_VALUE  # class index of a pixel that is neither learnt from nor scored

METRICS = (
    Metric(
        "iou_macro",
        "Mean IoU",
        "intersection over union of predicted and true pixels, mean over the classes",
        monitored=True,
    ),
    Metric("iou_weighted", "Weighted IoU", "the same, classes weighted by their pixels", monitored=True),
    Metric("boundary_f1", "Boundary F1", "F1 of the contours, with a tolerance of 0.75 % of the image's diagonal"),
    Metric(
        "accuracy",
        "Accuracy",
        "share of pixels predicted correctly; high where the background is large",
        monitored=True,
    ),
    Metric(
        "f1_macro",
        "Macro F1",
        "Dice: overlap as a share of the mean of both areas, mean over the classes",
        monitored=True,
    ),
    Metric(
        "precision_macro",
        "Macro precision",
        "of the pixels predicted as X, the share that is X; mean over the classes",
        monitored=True,
    ),
    Metric(
        "recall_macro",
        "Macro recall",
        "of the pixels of X, the share predicted as X; mean over the classes",
        monitored=True,
    ),
    Metric(
        "ece",
        "Calibration error (ECE)",
        "gap between the confidence in a pixel and how often it is right; lower is better",
        maximize=False,
        percent=False,
    ),
    Metric(
        "ece_uncalibrated",
        "ECE before calibration",
        "the same without temperature scaling, on a grid of pixels",
        maximize=False,
        percent=False,
    ),
    Metric("iou", "IoU", "intersection over union of predicted and true pixels", per_class=True, monitored=True),
    Metric("f1", "Dice (F1)", "overlap as a share of the mean of both areas", per_class=True, monitored=True),
    Metric(
        "precision", "precision", "of the pixels predicted as X, the share that is X", per_class=True, monitored=True
    ),
    Metric("recall", "recall", "of the pixels of X, the share predicted as X", per_class=True, monitored=True),
    Metric("boundary_f1", "Boundary F1", "F1 of the contours", per_class=True),
)

REPORT = ReportText(
    answers="for each pixel one of {count} classes: {classes}",
    unit="pixels",
    several_classes=True,
    baseline="predicting “{answer}” everywhere would have {value}",
    correct="accuracy",
    fewer_errors="It predicts {share} fewer pixels wrongly.",
    bars=("iou", "f1", "recall"),
    weakest="iou",
    weakest_class="The class with the lowest IoU is “{answer}”: {value}, on {count}.",
    confusion="pixel_confusion.csv",
    confusion_title="Pixels of the test {samples} by actual and predicted class",
    calibration=("ece", "ece_uncalibrated"),
    tables=("per_class.csv", "reliability.csv"),
    gallery=(
        "The {count} test {samples} with the lowest mean IoU over the classes that occur or were predicted. "
        "From the left: the {sample}, the {sample} under its true mask, the {sample} under the predicted mask."
    ),
    caption=(
        "mean IoU <b>{iou:%}</b>, {accuracy:%} of the pixels right<br>weakest: <b>{weakest}</b>, IoU {weakest_iou:%}"
    ),
    legend=True,
    wide=True,
)

TASK = Task(
    "segmentation",
    __name__,
    METRICS,
    lead="iou_macro",
    highlights=("iou_macro", "f1_macro", "accuracy", "boundary_f1", "ece"),
    report=REPORT,
)
