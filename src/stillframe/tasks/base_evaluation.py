"""What a task's `evaluation.py` gives: a split's predictions, and the statistics that the engine turns into scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stillframe.config import ValidateConfig
    from stillframe.store.split import Split
    from stillframe.types import DatasetCard

Array = NDArray[Any]
Choices = dict[str, Any]  # choices.json: what is tuned on the validation split and frozen
Statistics = dict[str, Any]  # name -> array or scipy.sparse matrix (N, ...): sums over samples give scores
Scorer = Callable[[Array], dict[str, Array]]  # weights (R, N) of samples -> scores (R,) by name


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

    def stand_in_names(self, tables: Sequence[pd.DataFrame]) -> Sequence[str]:
        """Placeholders for `names`, as many as the predictions have, where the card is not available."""

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
