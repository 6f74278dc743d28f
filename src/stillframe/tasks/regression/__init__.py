"""Image regression: a number, or several, an image."""

from stillframe.tasks.base import Metric, ReportText, Task

METRICS = (
    Metric(
        "mae",
        "Mean absolute error",
        "how far the value is from the truth, on average; lower is better",
        maximize=False,
        percent=False,
        monitored=True,
    ),
    Metric(
        "rmse",
        "Root mean squared error",
        "the same, but large errors weigh more; lower is better",
        maximize=False,
        percent=False,
        monitored=True,
    ),
    Metric("mse", "Mean squared error", "its square; lower is better", maximize=False, percent=False, monitored=True),
    Metric(
        "r2",
        "R²",
        "share of the variance that is explained: 1 is perfect, 0 is the mean, below 0 is worse than it",
        percent=False,
        monitored=True,
    ),
    Metric("mae", "MAE", "mean absolute error of one value", maximize=False, percent=False, per_class=True),
    Metric("rmse", "RMSE", "root mean squared error of one value", maximize=False, percent=False, per_class=True),
    Metric("r2", "R²", "share of one value's variance that is explained", percent=False, per_class=True),
)

REPORT = ReportText(
    answers="a value for each of: {classes}",
    headline="this model's mean absolute error is {value}",
    brief="mean absolute error {value}",
    baseline="always answering {answer} would have {value}",
    gallery=(
        "The {count} test {samples} with the largest errors; of several values each error counts as a share of its "
        "value's standard deviation."
    ),
    tables=("by_value.csv",),
    plots=("Predicted against true value, test split", "Error against true value, test split"),
    caption="says <b>{predicted}</b><br>is <b>{actual}</b>",
)

TASK = Task(
    "regression",
    __name__,
    METRICS,
    lead="mae",
    highlights=("mae", "rmse", "r2"),
    report=REPORT,
)
