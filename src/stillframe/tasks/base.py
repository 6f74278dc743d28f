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
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from stillframe.config import DistillConfig, ModelConfig, OptimConfig, ValidateConfig
    from stillframe.ingest.demo_sources import DemoData
    from stillframe.ingest.target import Target
    from stillframe.model_metadata import ModelMetadata
    from stillframe.models.build import Network
    from stillframe.store.split import Split
    from stillframe.types import Batch, DatasetCard, Prediction

    Array = NDArray[Any]
    Choices = dict[str, Any]  # choices.json: what is tuned on the validation split and frozen
    Statistics = dict[str, Any]  # name -> array or scipy.sparse matrix (N, ...): sums over samples give scores
    Scorer = Callable[[Array], dict[str, Array]]  # weights (R, N) of samples -> scores (R,) by name
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
        answer: "label" (one class a sample) or "mask" (one class a pixel).
        report: what the report says of predictions.
    """

    name: str
    module: str
    metrics: tuple[Metric, ...]
    lead: str
    highlights: tuple[str, ...]
    answer: str
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
        return cast(Evaluation, self._part("evaluation"))

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


class CollectorState(Protocol):
    """What one process keeps of the outputs that it predicts."""

    def add(self, outputs: dict[str, Array], target: dict[str, Array], index_B: Array) -> None:
        """Take a batch: raw outputs and targets by name, and the rows of the split that they belong to."""

    def result(self) -> Any:
        """What `Collector.merge` gets of this process; can be pickled."""


class Collector(Protocol):
    """Decides which rows a process predicts and what is kept of the outputs; can be pickled."""

    def batch_size(self, split: Split, configured: int) -> int:
        """Rows of a batch: the configured number, or fewer where the outputs are large."""

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """The rows that process `rank` of `world` predicts, in its order; every row belongs to one process."""

    def start(self, split: Split) -> CollectorState:
        """A fresh state for one process."""

    def merge(self, results: list[Any], split: Split) -> pd.DataFrame:
        """The results of all processes as one table in the split's order."""


class Evaluation(Protocol):
    """`evaluation.py`: what is kept and tuned of predictions, and their scores; numpy and pandas, no torch.

    A split's predictions are a table, predictions.parquet: one row a sample, with the columns index (row of the split),
    id, source_width, source_height, source_mode (of the file), slices (JSON object), and those of the task. `names` are
    the names of the classes (of a target without classes those of its components, or none).

    Attributes:
        SLICE_METRICS: metrics of each slice; the first has an interval. The export's table shows the first two.
        COMPARED: the task's columns that `statistics`, `sample_scores` and `disagreement` need to compare two models.
        TARGET: names of the statistics that depend on the target only: where they differ, the targets do.
        TUNED: numbers of choices.json that are recorded with the scores.
        SAMPLE_SCORE: title of `sample_scores`, e.g. "IoU"; None where a sample is either right (1) or wrong (0).
    """

    SLICE_METRICS: Sequence[str]
    COMPARED: Sequence[str]
    TARGET: Sequence[str]
    TUNED: Sequence[str]
    SAMPLE_SCORE: str | None

    def names(self, card: DatasetCard) -> Sequence[str]:
        """The names by which scores of single classes (or components of the target) are called."""

    def names_shown(self, tables: Sequence[pd.DataFrame]) -> Sequence[str]:
        """Stand-ins for `names`, as many as predictions show, where the card is not at hand."""

    def tune(
        self, predict: Callable[[Collector], pd.DataFrame], section: ValidateConfig, card: DatasetCard
    ) -> tuple[pd.DataFrame, Choices]:
        """Predict the validation split and tune what is frozen: predictions made with the choices, and these.

        Args:
            predict: predicts the split with a collector -> its table.
            section: `validate`.
            card: of the dataset.
        """

    def predict(
        self, predict: Callable[[Collector], pd.DataFrame], choices: Choices, card: DatasetCard, out: Path
    ) -> pd.DataFrame:
        """Predict the test split with frozen choices; what is no table (masks, images) is written into `out`."""

    def statistics(self, predictions: pd.DataFrame, names: Sequence[str], choices: Choices) -> Statistics:
        """Additive statistics of each sample, by name: (N, ...), scipy.sparse (N, S) where dense would be large.

        Those whose columns are missing are left out, so that a part of a table's columns gives a part of the scores.
        A sum over samples, each weighted by how often it is drawn, is what `scores` needs of a resample.

        Raises:
            ValueError: predictions that cannot be scored (NaN, say).
        """

    def scores(self, sums: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Scores by the names of metrics.json from sums (R, ...) of the statistics: (R,) each, NaN where undefined."""

    def rank_scores(self, predictions: pd.DataFrame, names: Sequence[str]) -> Scorer | None:
        """Scores that are no function of sums (AUROC, mAP): from weights (R, N) of the samples (R,) each; or None."""

    def point_scores(self, predictions: pd.DataFrame, names: Sequence[str], choices: Choices) -> dict[str, float]:
        """Scores without an interval: before calibration, or too expensive to resample."""

    def sample_scores(self, predictions: pd.DataFrame) -> Array:
        """One number a sample (N,), larger is better, by which two models are compared sample by sample."""

    def baseline(self, predictions: pd.DataFrame, card: DatasetCard) -> dict[str, float | str]:
        """Scores of the trivial prediction on the same samples; "class" names it."""

    def notes(self, predictions: pd.DataFrame, names: Sequence[str], scores: Mapping[str, float]) -> list[str]:
        """Sentences that a reader of the scores must know."""

    def tables(self, predictions: pd.DataFrame, names: Sequence[str], choices: Choices) -> dict[str, pd.DataFrame]:
        """The task's own tables of any split, by the names of their csv files."""

    def test_tables(
        self,
        predictions: pd.DataFrame,
        names: Sequence[str],
        scores: Mapping[str, float],
        intervals: Mapping[str, tuple[float, float]],
    ) -> dict[str, pd.DataFrame]:
        """The task's further tables of the test split."""

    def plots(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """What `dvc plots` draws of these tables, by title: x, y and series, or actual, predicted and count."""

    def errors(self, predictions: pd.DataFrame, names: Sequence[str], most: int) -> pd.DataFrame:
        """At most that many predictions that a person should look at, the worst first; has the columns index and id."""

    def gallery_image(self, split: Split, row: pd.Series[Any], out: Path) -> NDArray[np.uint8]:
        """How an error is drawn, RGB (H, W, 3): `row` of predictions, `out` as in `predict`."""

    def explained(self, predictions: pd.DataFrame, names: Sequence[str], most: int) -> pd.DataFrame | None:
        """Predictions to explain by a heat map; column `output` is the index of the network's output. None: no such.

        Columns: index, id, output, kind ("error", "right"), and those that explain.csv shows.
        """

    def confusion(self, predictions: pd.DataFrame, names: Sequence[str]) -> NDArray[np.int64] | None:
        """How often each class (row) is predicted as each (column): (K, K); None for targets without classes."""

    def disagreement(self, tables: Sequence[pd.DataFrame]) -> list[int]:
        """Rows on which models differ, the clearest differences first; the tables are of the same samples."""

    def compared(
        self, tables: Sequence[pd.DataFrame], row: int, names: Sequence[str]
    ) -> tuple[str, list[tuple[str, float, bool]]]:
        """A sample as several models predict it.

        Returns:
            Its target as text ("" where it is none); and of each model the prediction as text, a number that belongs to
            it (confidence, say), and whether it is right (or the best).
        """
