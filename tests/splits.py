"""Splits of made images in one colour each, for tests of what reads them."""

import numpy as np

from stillframe.store.split import SplitWriter
from tiny import LABEL


def write_split(folder, count, first=0, encoding="raw", side=6):
    with SplitWriter(folder, height=side, width=side, channels=3, encoding=encoding, targets=[LABEL]) as writer:
        for start in range(0, count, 7):  # several record batches
            writer.write([row(first + i, side, encoding) for i in range(start, min(start + 7, count))])


def row(number, side, encoding):
    image = np.full((side, side, 3), number, np.uint8)
    if encoding == "jpeg":
        import cv2

        data = cv2.imencode(".jpg", image)[1].tobytes()
    else:
        data = image.tobytes()
    return {
        "id": f"i{number}",
        "label": number % 2,
        "weight": 1.0,
        "group": "g",
        "source_id": f"i{number}",
        "source_width": 9,
        "source_height": 9,
        "source_mode": "RGB",
        "slices": "{}",
        "image": data,
    }
