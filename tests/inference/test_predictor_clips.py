"""Clips through an exported file: any size, any number, several views of one video as one answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exported import predicted
from stillframe.drawing.frame_strip import GAP
from stillframe.drawing.heatmap import draw_heatmap
from stillframe.export.onnx_graph import net_graph, save, with_preprocessing
from stillframe.inference.heatmaps import explain_prediction
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import predict_images
from stillframe.inference.predictor import preprocess as shown
from stillframe.model_metadata import ModelMetadata
from stillframe.models.build import Network, NetworkSpec
from stillframe.models.explain import explain
from stillframe.tasks.classification.output import average_views

FRAMES, SIZE = 5, 24
FACTS = ModelMetadata(
    task="classification",
    classes=["left", "right", "still"],
    size=SIZE,
    channels=3,
    resize="pad",
    min_px=1,
    max_megapixels=1.0,
    tta="mirror",
    temperature=1.7,
    threshold=None,
    net="made",
    variant="fp32",
    data="made",
    data_hash="0" * 64,
    run_id=None,
    git_commit=None,
    frames=FRAMES,
    fps=10.0,
    sampling="uniform",
    views=2,
)


class FramesInTurn(Network):
    """Convolutions for each frame, a recurrent layer over the frames: the form of the trained ones."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__(nn.Identity(), NetworkSpec("made", 3, 3, SIZE, [0.5] * 3, [0.25] * 3, 0.0, 0.0))
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.turn, self.head = layer(24, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, image_BTCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        frames = (image_BTCHW.float() - 128) / 64
        each = self.trunk(frames.flatten(0, 1)).unflatten(0, (-1, FRAMES))
        logits: Tensor = self.head(self.turn(each)[0][:, -1])
        return logits


class Blocks(Network):
    """Convolutions over time too."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), NetworkSpec("made", 3, 3, SIZE, [0.5] * 3, [0.25] * 3, 0.0, 0.0))
        self.trunk = nn.Sequential(nn.Conv3d(3, 6, 3, (1, 2, 2), 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.head = nn.Linear(6, 3)

    def forward(self, image_BTCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.head(self.trunk((image_BTCHW.float() - 128).transpose(1, 2) / 64))
        return logits


def file_of(net: Network, folder: Path) -> OnnxModel:
    save(with_preprocessing(net_graph(net.eval(), FACTS), FACTS), folder / "clips.onnx")
    return OnnxModel(folder / "clips.onnx", threads=1)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def right(net: Network, clip: np.ndarray) -> np.ndarray:
    """The answer of the net itself about one clip, both views of its test-time augmentation."""
    image = torch.from_numpy(shown(clip, FACTS)).movedim(-1, -3)[None]
    with torch.no_grad():
        logits = (net(image) + net(image.flip(-1))) / 2
    return (logits / FACTS.temperature).softmax(1)[0].numpy()


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, OnnxModel]:
    torch.manual_seed(0)
    net = FramesInTurn(nn.GRU)
    return net, file_of(net, tmp_path_factory.mktemp("clips"))


def test_a_recurrent_net_answers_clips_of_any_size_as_the_net_itself(recurrent: tuple[Network, OnnxModel]) -> None:
    net, file = recurrent
    clips = [noise(FRAMES, 30, 24, 3), noise(FRAMES, 48, 96, 3, seed=1), noise(FRAMES, 30, 24, 3, seed=2)]
    said = predicted(file, clips)
    for at, clip in enumerate(clips):
        np.testing.assert_allclose(said.probability_NK[at], right(net, clip), atol=2e-4)
        np.testing.assert_allclose(said.probability_NK[at], predicted(file, [clip]).probability_NK[0], atol=1e-6)
    assert file.metadata == FACTS and file.session.get_inputs()[0].shape[1] == FRAMES


def test_convolutions_over_time_export_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Blocks()
    file, clips = file_of(made, tmp_path), noise(3, FRAMES, SIZE, SIZE, 3)
    for at, shares in enumerate(file.run(clips)["probabilities"]):
        np.testing.assert_allclose(shares, right(made, clips[at]), atol=1e-5)


def test_views_of_one_video_get_the_answer_of_their_mean_logits(recurrent: tuple[Network, OnnxModel]) -> None:
    net, file = recurrent
    views, alone = noise(4, FRAMES, SIZE, SIZE, 3), noise(FRAMES, SIZE, SIZE, 3, seed=1)
    said = predicted(file, [views, alone])
    images = torch.from_numpy(views).movedim(-1, -3)
    with torch.no_grad():
        logits = ((net(images) + net(images.flip(-1))) / 2).mean(0)
    np.testing.assert_allclose(said.probability_NK[0], (logits / FACTS.temperature).softmax(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(said.probability_NK[1], predicted(file, [alone]).probability_NK[0], atol=1e-6)
    np.testing.assert_array_equal(said.decision_N, said.probability_NK.argmax(1))


def test_a_threshold_decides_after_the_views_are_one() -> None:
    views = {"probabilities": np.array([[0.5, 0.5], [0.9, 0.1]], np.float32), "decisions": np.array([1, 0])}
    made = average_views(views, replace(FACTS, threshold=0.3))
    np.testing.assert_allclose(made["probabilities"], [0.75, 0.25], atol=1e-6)
    assert made["decisions"] == 0 and average_views(views, replace(FACTS, threshold=0.2))["decisions"] == 1


@pytest.mark.parametrize("shape", [(4, SIZE, SIZE, 3), (SIZE, SIZE, 3), (2, 4, SIZE, SIZE, 3), (FRAMES, SIZE, SIZE, 4)])
def test_what_is_no_clip_of_so_many_frames_is_refused(
    recurrent: tuple[Network, OnnxModel], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="a clip has the shape \\(5 frames, height, width, 1 or 3\\)"):
        predict_images(recurrent[1], [noise(*shape)])


def test_heat_maps_of_a_clip_have_its_frames(recurrent: tuple[Network, OnnxModel]) -> None:
    net, file = recurrent
    views = noise(3, FRAMES, 30, 24, 3)
    picture, heat, method = explain_prediction(file, views, 1)
    np.testing.assert_array_equal(picture, shown(views[1], FACTS))
    assert heat.shape == (FRAMES, SIZE, SIZE) and method == "occlusion"
    assert heat.min() >= 0 and heat.max() == 1 and len(np.unique(heat[0] - heat[-1])) > 1, "parts of the time differ"
    image = torch.from_numpy(picture).movedim(-1, -3)[None]
    (gradient,), method = explain(net, image, torch.tensor([1]))
    assert gradient.shape == heat.shape and gradient.max() == 1 and method == "input gradient"
    drawn = draw_heatmap(picture, heat)
    assert drawn.shape == (2 * SIZE, FRAMES * SIZE + (FRAMES - 1) * GAP, 3)


def test_a_file_from_before_there_were_clips_answers_images() -> None:
    old = {key: text for key, text in FACTS.to_text().items() if key.split(".")[1] not in ("frames", "fps", "sampling")}
    del old["stillframe.views"]
    found = ModelMetadata.read(old, "old.onnx")
    assert (found.frames, found.fps, found.sampling, found.views) == (1, None, None, 1)
    with pytest.raises(ValueError, match=r"says no stillframe\.size"):
        ModelMetadata.read({key: text for key, text in old.items() if key != "stillframe.size"}, "old.onnx")
