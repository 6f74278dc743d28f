"""Image classification: one label an image."""

from stillframe.tasks.base import Metric, ReportText, Task

METRICS = (
    Metric("accuracy", "Accuracy", "share of images predicted correctly", monitored=True),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "mean of the classes' recall: a rare class counts as much as a frequent one",
        monitored=True,
    ),
    Metric("f1_macro", "Macro F1", "harmonic mean of precision and recall, mean over the classes", monitored=True),
    Metric("f1_weighted", "Weighted F1", "the same, classes weighted by their images", monitored=True),
    Metric(
        "precision_macro",
        "Macro precision",
        "of the images predicted as X, the share that is X; mean over the classes",
        monitored=True,
    ),
    Metric(
        "recall_macro",
        "Macro recall",
        "of the images of X, the share predicted as X; mean over the classes",
        monitored=True,
    ),
    Metric(
        "auroc",
        "AUROC",
        "chance that an image of a class is ranked above one of another; 0.5 is random",
        percent=False,
        additive=False,
    ),
    Metric("log_loss", "Log loss", "penalises confident errors; lower is better", maximize=False, percent=False),
    Metric(
        "brier", "Brier score", "squared error of the probabilities; lower is better", maximize=False, percent=False
    ),
    Metric(
        "ece",
        "Calibration error (ECE)",
        "gap between confidence and accuracy; lower is better",
        maximize=False,
        percent=False,
    ),
    Metric(
        "ece_uncalibrated",
        "ECE before calibration",
        "the same without temperature scaling",
        maximize=False,
        percent=False,
    ),
    Metric(
        "log_loss_uncalibrated",
        "Log loss before calibration",
        "the same without temperature scaling",
        maximize=False,
        percent=False,
    ),
    Metric(
        "precision", "precision", "of the images predicted as X, the share that is X", per_class=True, monitored=True
    ),
    Metric("recall", "recall", "of the images of X, the share predicted as X", per_class=True, monitored=True),
    Metric("f1", "F1", "harmonic mean of precision and recall", per_class=True, monitored=True),
)

REPORT = ReportText(
    answers="one of {count} classes: {classes}",
    headline="this model is right in {value} of cases",
    brief="{value} right",
    baseline="always predicting “{answer}” would be right in {value}",
    correct="accuracy",
    fewer_errors="It makes {share} fewer errors than that.",
    bars=("precision", "recall", "f1"),
    weakest="recall",
    weakest_class="The class with the lowest recall is “{answer}”: {value} of its {count}.",
    confusion="confusion.csv",
    confusion_title="Test {samples} by actual and predicted class",
    calibration=("ece", "ece_uncalibrated"),
    tables=("per_class.csv", "roc.csv", "pr.csv", "reliability.csv", "explain/explain.csv"),
    slices="Intervals by Wilson's method.",
    gallery_title="Errors, the most confident first",
    gallery=(
        "{count} of the wrongly predicted {samples}. “Label to be checked” marks those where the model is as confident "
        "of another class as it usually is of that class's own {samples}: the label may be wrong."
    ),
    caption="says <b>{predicted}</b>, {confidence:%} sure<br>labelled <b>{actual}</b>",
    caption_correct="<b>{predicted}</b>, rightly, {confidence:%} sure",
    flag=("suspected_label_error", "label to be checked"),
    curves={"answer": "predicted", "label": "actual"},
)

TASK = Task(
    "classification",
    __name__,
    METRICS,
    lead="accuracy",
    highlights=("accuracy", "f1_macro", "auroc", "ece"),
    report=REPORT,
)
