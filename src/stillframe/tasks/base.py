"""The contract between a task and the engine: a `Task` names its metrics and the modules that hold its parts.

A task is a folder `tasks/<name>/`. Its `__init__.py` holds `TASK` and imports nothing heavy; each part is a module of
the folder that is imported when it is first used, so that a stage loads (and depends on) only the parts it needs:

    target.py      how targets are found in a source, checked, stored and stratified (`ingest.target.Target`)
    learning.py    network, loss, training step, prediction, test-time views (the only part with torch)
    evaluation.py  per-sample statistics, scores, what is tuned on validation, the gallery
    demo_data.py   optional: data sets that can be made for the task
    output.py      from the arrays of an exported file to an answer: its row, its schema, how it is drawn
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from stillframe.tasks.base_output import Output

if TYPE_CHECKING:
    from torch import Tensor

    from stillframe.config import DistillConfig, ModelConfig, OptimConfig
    from stillframe.ingest.demo_sources import DemoData
    from stillframe.ingest.target import Target
    from stillframe.model_metadata import ModelMetadata
    from stillframe.models.build import Network
    from stillframe.tasks.base_evaluation import Evaluation
    from stillframe.types import Batch, DatasetCard, Prediction

    Loss = Callable[[Tensor, Batch], Tensor]  # (raw outputs, batch) -> mean loss, a scalar

PARTS = ("target", "learning", "evaluation", "output")


@dataclass(frozen=True)
class Metric:
    """A score of a task; tables, plots, gate rules, early stopping and MLflow take all they say of it from here.

    Attributes:
        name: in metrics.json, and after the split in MLflow and in `trainer.monitor`, e.g. "f1_macro".
        title: in tables and figures, e.g. "Macro F1".
        meaning: one line for a reader of the report.
        maximize: whether a larger value is better.
        percent: whether it is a share of 0..1 that is shown as a percentage.
        per_class: one value for each class, named `<name>/<class>`.
        monitored: computed after each epoch of training, so that it can stop the training or choose the best epoch.
        additive: computed from sums of per-sample statistics; False for rank and set metrics such as AUROC, which are
            resampled over samples.
    """

    name: str
    title: str
    meaning: str
    maximize: bool = True
    percent: bool = True
    per_class: bool = False
    monitored: bool = False
    additive: bool = True

    @property
    def noun(self) -> str:
        """The title inside a sentence: "macro F1" of "Macro F1", while "AUROC" and "IoU" stay."""
        first, space, rest = self.title.partition(" ")
        return (first.lower() if first[1:].islower() else first) + space + rest


LOSS = Metric("loss", "Loss", "what training minimises", maximize=False, percent=False, monitored=True)


@dataclass(frozen=True)
class ReportText:
    """What the report and the model card say of a task's predictions; the defaults are for a task without classes.

    Sentences are templates of `str.format`. All of them may use {sample} and {samples}: "image", "images" or, of video,
    "clip", "clips". Sentences about a score also have {metric}, {value} and, where there is one, {answer}: the constant
    prediction of the baseline.

    Attributes:
        answers: what a prediction is, for the model card; has {count} and {classes}, and the dataset's {card}.
        unit: what is counted as right or wrong where that is not the sample, e.g. "pixels".
        several_classes: a sample may show more than one class, so that counts by class have no sum.
        headline: the result, after "On 334 test images".
        brief: the result in two or three words.
        baseline: the score of the trivial prediction, after the headline.
        correct: name of the metric that is the share of predictions that are right; "" where there is none.
        fewer_errors: how many fewer errors there are than with the trivial prediction; has {share}.
        bars: names of the metrics of each class, in figure and table.
        weakest: name of the metric by which a class is called weak.
        weakest_class: the sentence about it; has {answer}, {value} and {count}.
        confusion: file of the confusion matrix; a column named like `unit` holds counts, without it a row counts once.
        confusion_title: of the figure.
        calibration: names of the calibration error after and before calibration.
        tables: further files of artifacts/evaluate that belong to this task's report.
        plots: files of artifacts/evaluate/plots/curves, without their ending, that are drawn as they are: lines from
            columns x, y and series.
        slices: how the intervals of slices were made.
        gallery_title: heading of the gallery.
        gallery: paragraph above it; has {count}.
        caption: HTML below an image, with the columns of gallery.csv; {x:%} shows a share as a percentage.
        caption_correct: the same below a right prediction (of explain.csv).
        flag: (column, text) of a mark on some images.
        curves: column with the legend of each line over the views of a video, by the line's name.
        legend: the colours of the classes stand above the gallery.
        wide: the images of the gallery are several panels side by side.
    """

    answers: str = "numbers"
    unit: str = ""
    several_classes: bool = False
    headline: str = "this model's {metric} is {value}"
    brief: str = "{metric} {value}"
    baseline: str = "the trivial prediction has {value}"
    correct: str = ""
    fewer_errors: str = ""
    bars: tuple[str, ...] = ()
    weakest: str = ""
    weakest_class: str = ""
    confusion: str = ""
    confusion_title: str = ""
    calibration: tuple[str, str] | None = None
    tables: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    slices: str = "Intervals by bootstrap over the {samples} of the slice."
    gallery_title: str = "The worst {samples} first"
    gallery: str = "The {count} test {samples} with the worst predictions."
    caption: str = ""
    caption_correct: str = ""
    flag: tuple[str, str] = ("", "")
    curves: Mapping[str, str] = field(default_factory=dict)
    legend: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        name: of the folder, and `task` in params.yaml.
        module: dotted name of the folder.
        metrics: all scores, in the order in which tables show them; `LOSS` is there without being named.
        lead: name of the metric of the headline, by which the baseline and slices are judged.
        highlights: names of the metrics at the top of the report, on the terminal and in the curves by epoch.
        report: what the report says of predictions.
    """

    name: str
    module: str
    metrics: tuple[Metric, ...]
    lead: str
    highlights: tuple[str, ...]
    report: ReportText

    @property
    def target(self) -> Target:
        """The part that finds, checks and stores targets."""
        return cast("Target", self._part("target").TARGET)

    @property
    def demo_data(self) -> dict[str, DemoData]:
        """Data sets that can be made for the task (`data.fetch.kind: made`); {} of a task without demo_data.py."""
        if find_spec(f"{self.module}.demo_data") is None:
            return {}
        return cast("dict[str, DemoData]", self._part("demo_data").DEMO_DATA)

    @property
    def learning(self) -> Learning:
        """The part with torch: network, loss, steps."""
        return cast(Learning, self._part("learning"))

    @property
    def evaluation(self) -> Evaluation:
        """The part that tunes and scores predictions; no torch."""
        return cast("Evaluation", self._part("evaluation"))

    @property
    def output(self) -> Output:
        """The part that turns arrays of a model into predictions for people and machines; no torch."""
        return cast(Output, self._part("output"))

    def _part(self, name: str) -> Any:
        return import_module(f"{self.module}.{name}")

    def metric(self, name: str, classes: Sequence[str] = (), *, key: str = "metric", monitored: bool = False) -> Metric:
        """The metric of that name, which may be one of a class (`recall/cat`).

        Args:
            name: without the split.
            classes: names of the data's classes.
            key: the parameter that names the metric, for the message.
            monitored: only those that are computed after each epoch.

        Raises:
            ValueError: the task has no such metric; names the nearest ones, and lists those that it has.
        """
        named = self.named_metrics(classes, monitored=monitored)
        if name not in named:
            from stillframe.config import nearest

            raise ValueError(
                f"{key} = {name!r} is not a metric: {nearest(name, named)} ({self.metric_list(monitored)})"
            )
        return named[name]

    @property
    def epoch_metrics(self) -> list[Metric]:
        """The metrics of the curves by epoch: those of the headline that are computed after each epoch."""
        return [metric for name in self.highlights if (metric := self.metric(name)).monitored]

    @property
    def train_metric(self) -> str:
        """Name of the metric that is computed of the train split, too: the share that is right, else the lead."""
        return self.report.correct or self.lead

    def metric_list(self, monitored: bool = False) -> str:
        """All names of metrics, for a message."""
        usable = [metric for metric in (LOSS, *self.metrics) if metric.monitored or not monitored]
        names = ", ".join(f"{metric.name}/<class>" if metric.per_class else metric.name for metric in usable)
        return f"{self.name} has {names}"

    def class_metrics(self) -> dict[str, Metric]:
        """The metrics of each class by name, without the class."""
        return {metric.name: metric for metric in self.metrics if metric.per_class}

    def named_metrics(self, classes: Sequence[str] = (), *, monitored: bool = False) -> dict[str, Metric]:
        """All metrics by the names of metrics.json: those of each class follow the others."""
        usable = [metric for metric in (LOSS, *self.metrics) if metric.monitored or not monitored]
        named = {metric.name: metric for metric in usable if not metric.per_class}
        for metric in usable:
            if metric.per_class:
                full = [replace(metric, name=f"{metric.name}/{name}") for name in classes]
                named |= {of_class.name: of_class for of_class in full}
        return named


class MetricAccumulator(Protocol):
    """Counts over an epoch, on the device; sums of the ranks' counts give the scores of all samples."""

    def update(self, prediction: Prediction, batch: Batch, loss: Tensor) -> None:
        """Count one batch; no synchronisation with the host."""

    def counts(self) -> Tensor:
        """All counts as one float64 vector, to be summed over ranks."""

    def scores(self, counts: Tensor) -> dict[str, float]:
        """Metrics by name ("loss", "accuracy", "f1_macro", ...) from summed counts."""

    def reset(self) -> None:
        """Start the next epoch."""

    def restore(self, counts: Tensor) -> None:
        """Go on from the counts of a half-done epoch."""


class Learning(Protocol):
    """`learning.py`: network, loss, training step and prediction, in plain torch."""

    def build_network(self, model: ModelConfig, card: DatasetCard) -> Network:
        """A fresh network for the data of a card (ValueError: the model does not fit the data)."""

    def make_loss(self, optim: OptimConfig, card: DatasetCard) -> Loss:
        """The loss of `optim` for the data of a card."""

    def distill_loss(self, loss: Loss, teacher: Network, distill: DistillConfig) -> Loss:
        """That loss with a trained network's predictions beside the targets."""

    def mix(self, optim: OptimConfig, card: DatasetCard, batch: Batch) -> Batch:
        """Mixup and CutMix on a batch, or the batch unchanged."""

    def step(self, net: Network, batch: Batch, loss: Loss) -> tuple[Tensor, Prediction]:
        """One training or validation step: loss and prediction."""

    def predict(self, net: Network, batch: Batch, tta: str = "none") -> Prediction:
        """The same function wherever a trained network predicts; outputs are averaged over the views of `tta`."""

    def tta_views(self, image: Tensor, tta: str) -> list[Tensor]:
        """The test-time views of images, by the kind of test-time augmentation."""

    def undo_tta(self, outputs: Tensor, tta: str) -> Tensor:
        """The outputs (V, B, ...) of these views, transformed back so that they can be averaged."""

    def make_accumulator(self, card: DatasetCard) -> MetricAccumulator:
        """A fresh accumulator for the data of a card."""

    def export_head(self, outputs: Tensor, metadata: ModelMetadata) -> dict[str, Tensor]:
        """From the network's output, averaged over views, to the exported file's outputs by name.

        It applies the frozen choices. It is traced into the file, and runs where the trained network itself predicts.
        """
