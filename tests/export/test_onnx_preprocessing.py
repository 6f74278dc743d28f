"""The graph's resize against `data.decode.prepare`, which is OpenCV's: what the net was trained on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest

from stillframe.export.onnx_preprocessing import preprocessing
from stillframe.ingest.decode import prepare

SIZE = 48
SHRUNK = [(300, 200), (96, 96), (144, 96), (48, 300), (97, 131), (640, 481), (48, 48), (1200, 1600), (50, 400)]
ENLARGED = [(20, 24), (8, 8), (47, 47), (31, 90), (90, 31), (1, 1), (1, 5)]


@cache
def session(resize: str, channels: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = preprocessing(SIZE, resize, channels)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def both(shape: tuple[int, int], depth: int, resize: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """What the graph makes of two noisy images (the hardest ones to resize), and what preprocessing does."""
    image_NHWC = np.random.default_rng(sum(shape)).integers(0, 256, (2, *shape, depth), dtype=np.uint8)
    (made_NCHW,) = session(resize, channels).run(None, {"image": image_NHWC})
    right = np.stack([prepare(image, SIZE, resize, channels) for image in image_NHWC])
    return made_NCHW.transpose(0, 2, 3, 1), right


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [1, 3])
def test_enlarging_is_bit_equal(resize: str, channels: int, depth: int) -> None:
    for shape in ENLARGED:
        made, right = both(shape, depth, resize, channels)
        if resize != "pad" or max(shape) <= SIZE:
            np.testing.assert_array_equal(made, right, err_msg=str(shape))


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [1, 3])
def test_shrinking_differs_by_one_level_where_a_mean_lies_between_two(resize: str, channels: int, depth: int) -> None:
    for shape in SHRUNK:
        made, right = both(shape, depth, resize, channels)
        far = np.abs(made - right.astype(np.float32))
        assert far.max() <= 1, shape
        assert (far > 0).mean() <= 5e-4, shape


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_whole_factors_are_bit_equal(resize: str) -> None:
    """Sums of whole numbers: no order of them is another sum. Halves: up when both sides are halved, else to even."""
    for shape in [(96, 96), (192, 192), (480, 480), (48, 48)]:
        made, right = both(shape, 3, resize, 3)
        np.testing.assert_array_equal(made, right, err_msg=str(shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_clips_go_through_it_frame_by_frame(channels: int) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (3, 5, 60, 40, 3), dtype=np.uint8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = preprocessing(SIZE, "pad", channels, frames=5).SerializeToString()
    (made,) = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(
        None, {"image": clips}
    )
    assert made.shape == (3, 5, channels, SIZE, SIZE)
    (frames,) = session("pad", channels).run(None, {"image": clips.reshape(15, 60, 40, 3)})
    np.testing.assert_array_equal(made.reshape(frames.shape), frames)


def test_an_image_of_another_number_of_channels_is_refused() -> None:
    for channels in (1, 3):
        with pytest.raises(Exception, match="(?i)dim|shape|invalid|broadcast"):
            session("squash", channels).run(None, {"image": np.zeros((1, 50, 50, 4), dtype=np.uint8)})
