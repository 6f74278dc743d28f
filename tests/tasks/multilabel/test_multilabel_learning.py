"""The loss, the mixing, the counting and the exported head of multi-label classification."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from stillframe.config import DistillConfig, build
from stillframe.config.hydra_compose import compose
from stillframe.model_metadata import ModelMetadata
from stillframe.tasks import find_task
from stillframe.tasks.classification.learning import MIXED
from stillframe.types import Batch, DatasetCard, Prediction

LEARNING = find_task("multilabel").learning
CARD = DatasetCard(
    "made",
    ["a", "b", "c"],
    {"train": {"a": 5, "b": 50, "c": 20}},
    1,
    8,
    8,
    [0.5],
    [0.2],
    [],
    "",
    target={"train_samples": 100},
)


@pytest.fixture(scope="module")
def base():
    return compose(["experiment=digits_smoke"])["optim"] | {"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0}


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(1)
    return Batch(
        inputs={"image": torch.randint(0, 256, (12, 1, 8, 8), generator=random, dtype=torch.uint8)},
        target={"labels": torch.rand((12, 3), generator=random) < 0.4},
        weight_B=torch.ones(12),
        index_B=torch.arange(12),
    )


@pytest.fixture
def logits():
    return torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


def loss(base, **changes):
    return LEARNING.make_loss(build("optim", {**base, **changes}), CARD)


@pytest.mark.parametrize("name", ["bce", "cross_entropy"])
def test_cross_entropy_is_torch_s(base, logits, batch, name):
    labels = batch.target["labels"].float()
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    assert float(loss(base, loss=name)(logits, batch)) == pytest.approx(float(expected))
    smoothed = functional.binary_cross_entropy_with_logits(logits, labels * 0.9 + 0.05)
    assert float(loss(base, loss=name, label_smoothing=0.1)(logits, batch)) == pytest.approx(float(smoothed))


def test_balanced_weights_are_torch_s_pos_weight(base, logits, batch):
    weight = torch.tensor([95 / 5, 50 / 50, 80 / 20])
    expected = functional.binary_cross_entropy_with_logits(logits, batch.target["labels"].float(), pos_weight=weight)
    assert float(loss(base, class_weights="balanced")(logits, batch)) == pytest.approx(float(expected))


def test_focal_loss_is_torchvision_s(base, logits, batch):
    expected = sigmoid_focal_loss(logits, batch.target["labels"].float(), alpha=-1, gamma=2.0, reduction="mean")
    assert float(loss(base, loss="focal", focal_gamma=2.0)(logits, batch)) == pytest.approx(float(expected))


def test_samples_count_by_their_weights(base, logits, batch):
    weighted = replace(batch, weight_B=torch.tensor([1.0] + [0.0] * 11))
    expected = functional.binary_cross_entropy_with_logits(logits[:1], batch.target["labels"][:1].float())
    assert float(loss(base)(logits, weighted)) == pytest.approx(float(expected))


def test_a_loss_of_another_task_is_refused(base):
    with pytest.raises(ValueError, match=r"optim.loss = 'dice': .*labels: bce, cross_entropy, focal"):
        loss(base, loss="dice")


@pytest.mark.parametrize(("kind", "share_of_image"), [("mixup", False), ("cutmix", True)])
def test_label_vectors_are_mixed_as_the_images(base, batch, kind, share_of_image):
    torch.manual_seed(3)
    plain = replace(batch, inputs={"image": torch.arange(12.0).view(-1, 1, 1, 1).expand(12, 1, 8, 8).contiguous()})
    mixed = LEARNING.mix(build("optim", {**base, kind: 1.0}), CARD, plain)
    labels = batch.target["labels"].float()
    # images are constants, so that an image's mean tells the share of its own
    share = float((mixed.image[5].mean() - 4) / (5 - 4))
    assert 0 < share < 1
    torch.testing.assert_close(mixed.target[MIXED], share * labels + (1 - share) * labels.roll(1, 0), atol=1e-5, rtol=0)
    assert mixed.target["labels"] is batch.target["labels"], "scores are of the true labels"
    assert LEARNING.mix(build("optim", base), CARD, batch) is batch


def test_distillation_is_the_divergence_of_bernoulli_distributions(base, logits, batch):
    class Teacher(torch.nn.Module):
        def forward(self, image):
            return 2.0 * logits.roll(1, 0)

    distill = DistillConfig("", temperature=3.0, weight=0.25)
    hard = loss(base)
    both = LEARNING.distill_loss(hard, Teacher(), distill)(logits, batch)
    p, q = ((2 * logits.roll(1, 0)) / 3).sigmoid(), (logits / 3).sigmoid()
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(both) == pytest.approx(float(0.75 * hard(logits, batch) + 0.25 * 9 * kl), rel=1e-5)


def test_counts_of_two_halves_are_those_of_the_whole(logits, batch):
    whole, first, second = (LEARNING.make_accumulator(CARD) for _ in range(3))
    whole.update(Prediction({"logits": logits}, batch.index_B), batch, torch.tensor(2.0))
    for part, rows in ((first, slice(0, 5)), (second, slice(5, 12))):
        half = replace(batch, target={"labels": batch.target["labels"][rows]}, index_B=batch.index_B[rows])
        part.update(Prediction({"logits": logits[rows]}, half.index_B), half, torch.tensor(2.0))
    assert whole.scores(first.counts() + second.counts()) == whole.scores(whole.counts())
    scores, labels = whole.scores(whole.counts()), batch.target["labels"].numpy()
    assert scores["loss"] == 2.0
    assert scores["subset_accuracy"] == ((logits.numpy() >= 0) == labels).all(1).mean()
    assert LEARNING.make_accumulator(CARD).scores(LEARNING.make_accumulator(CARD).counts())["loss"] == 0.0


def test_the_exported_head_has_temperature_and_thresholds_inside(logits):
    fields = {"task": "multilabel", "classes": CARD.classes, "size": 8, "channels": 1, "resize": "pad", "min_px": 1}
    fields |= {"max_megapixels": 1.0, "tta": "none", "temperature": 2.0, "threshold": None, "net": "", "variant": ""}
    fields |= {"data": "", "data_hash": "", "run_id": None, "git_commit": None, "thresholds": [0.2, 0.5, 0.6]}
    arrays = LEARNING.export_head(logits, ModelMetadata(**fields))
    assert arrays["decision"].dtype == torch.uint8
    torch.testing.assert_close(arrays["probability"], (logits / 2).sigmoid())
    expected = (logits / 2).sigmoid().numpy() >= np.array([0.2, 0.5, 0.6], dtype=np.float32)
    assert (arrays["decision"].numpy() == expected).all()
