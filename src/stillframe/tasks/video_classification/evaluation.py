"""Scores of clips are those of images; views of one video become one prediction (`tasks.vector_collector`)."""

from stillframe.tasks.classification.evaluation import *  # noqa: F403
