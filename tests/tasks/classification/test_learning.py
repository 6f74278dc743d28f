"""The loss, the mixing, the counting and the views of image classification."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from stillframe.config import build
from stillframe.config.hydra_compose import compose
from stillframe.models.tta import tta_views as views
from stillframe.tasks import find_task
from stillframe.tasks.classification.learning import class_weight_K, make_loss, mix
from stillframe.types import Batch, DatasetCard, Prediction

CARD = DatasetCard("made", ["a", "b", "c"], {"train": {"a": 60, "b": 30, "c": 10}}, 1, 8, 8, [0.5], [0.2], [], "")


@pytest.fixture(scope="module")
def base():
    return compose(["experiment=digits_smoke"])["optim"] | {"label_smoothing": 0.0}


def optim(base, **changes):
    return build("optim", {**base, **changes})


def batch(size=12):
    random = torch.Generator().manual_seed(1)
    return Batch(
        inputs={"image": torch.randint(0, 256, (size, 1, 8, 8), generator=random, dtype=torch.uint8)},
        target={"label": torch.arange(size) % 3},
        weight_B=torch.ones(size),
        index_B=torch.arange(size),
    )


@pytest.fixture
def logits():
    return torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torch_s(base, logits, smoothing):
    ours = make_loss(optim(base, label_smoothing=smoothing), CARD)(logits, batch())
    assert ours == pytest.approx(
        float(functional.cross_entropy(logits, batch().target["label"], label_smoothing=smoothing))
    )


def test_focal_loss_without_focus_is_cross_entropy_and_falls_with_it(base, logits):
    plain = make_loss(optim(base), CARD)(logits, batch())
    assert make_loss(optim(base, loss="focal", focal_gamma=0.0), CARD)(logits, batch()) == pytest.approx(float(plain))
    chosen = logits.softmax(1)[range(12), batch().target["label"]]
    expected = ((1 - chosen) ** 2 * -chosen.log()).mean()
    assert make_loss(optim(base, loss="focal", focal_gamma=2.0), CARD)(logits, batch()) == pytest.approx(
        float(expected)
    )


def test_class_weights_are_scikit_learn_s(base):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weight_K(optim(base, class_weights="balanced"), CARD), expected, rtol=1e-6)
    assert class_weight_K(optim(base), CARD) is None


def test_a_sample_without_weight_does_not_count(base, logits):
    one = batch()
    weight_B = torch.ones(12)
    weight_B[3:] = 0
    light = Batch(one.inputs, one.target, weight_B, one.index_B)
    expected = functional.cross_entropy(logits[:3], one.target["label"][:3])
    assert make_loss(optim(base), CARD)(logits, light) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_keeps_distributions_and_is_drawn_from_torch(base, kind):
    torch.manual_seed(5)
    one = mix(optim(base, **{kind: 1.0}), CARD, batch())
    torch.manual_seed(5)
    two = mix(optim(base, **{kind: 1.0}), CARD, batch())
    assert torch.equal(one.image, two.image)
    torch.testing.assert_close(one.target["label_distribution"].sum(1), torch.ones(12))
    assert one.image.shape == (12, 1, 8, 8) and not torch.equal(one.image, batch().image.float())
    assert mix(optim(base), CARD, batch()).target.get("label_distribution") is None


def test_the_tally_counts_what_scikit_learn_counts(base):
    tally = find_task("classification").learning.make_accumulator(CARD)
    truth, answers = [], []
    for start in range(3):
        logits_BK = torch.randn(12, 3, generator=torch.Generator().manual_seed(start))
        tally.update(Prediction({"logits": logits_BK}, torch.arange(12)), batch(), torch.tensor(float(start)))
        truth += batch().target["label"].tolist()
        answers += logits_BK.argmax(1).tolist()
    scores = tally.scores(tally.counts())
    assert scores["loss"] == pytest.approx(1.0)
    assert scores["f1_macro"] == pytest.approx(f1_score(truth, answers, average="macro"), abs=1e-9)
    doubled = tally.scores(tally.counts() * 2)
    assert doubled == pytest.approx(scores), "the sum over ranks is all that is needed"
    tally.reset()
    assert float(tally.counts().sum()) == 0


def test_views_are_the_symmetries():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    assert len(views(image, "none")) == 1 and len(views(image, "mirror")) == 2
    eight = views(image, "d4")
    assert len({tuple(view.flatten().tolist()) for view in eight}) == 8


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'classification'"):
        find_task("clasification")
