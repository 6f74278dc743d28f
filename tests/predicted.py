"""Made predictions of classes, and their scores by the engine."""

import numpy as np
import pandas as pd

from stillframe.evaluation import comparison
from stillframe.evaluation.bootstrap import intervals, make_scorer, scores_of
from stillframe.tasks import find_task

TASK = find_task("classification")


def frame(label, probabilities, predicted=None):
    """The columns of predictions.parquet that scores need; without decisions the most probable class."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    decided = probabilities.argmax(1) if predicted is None else predicted
    return pd.DataFrame({"label": np.asarray(label), "predicted": decided, "probabilities": list(probabilities)})


def classification_scores(label, probabilities, classes, bins, predicted=None):
    """All scores, and the notes about them."""
    predictions = frame(label, probabilities, predicted)
    scores = scores_of(TASK, predictions, classes, {"bins": bins})
    return scores, TASK.evaluation.notes(predictions, classes, scores)


def bootstrap_intervals(label, probabilities, classes, bins, *, resamples, seed):
    """Their 95 % intervals."""
    scorer = make_scorer(TASK, frame(label, probabilities), classes, {"bins": bins}, ranked=True)
    return intervals(scorer, len(label), resamples=resamples, seed=seed)


def decisions(label, predicted, classes):
    """A scorer of decisions alone."""
    table = pd.DataFrame({"label": label, "predicted": predicted})
    return make_scorer(TASK, table, [str(k) for k in range(classes)])


def image_spread(label, predicted, classes, metric, *, resamples, seed):
    """A score with its interval over the images."""
    scorer = decisions(label, predicted, classes)
    return comparison.sample_spread(scorer, len(label), metric, resamples=resamples, seed=seed)


def paired_images(label, first, second, classes, metric, *, resamples, seed):
    """The difference of two models on the same images."""
    scorers = (decisions(label, predicted, classes) for predicted in (first, second))
    return comparison.paired_difference(*scorers, len(label), metric, resamples=resamples, seed=seed)
