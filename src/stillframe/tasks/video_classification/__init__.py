"""Video classification: one label a clip. What differs from images is the network; losses and scores are theirs."""

from dataclasses import replace

from stillframe.tasks import classification

TASK = replace(classification.TASK, name="video_classification", module=__name__)
