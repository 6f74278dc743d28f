"""Losses, counts and answers of masks, each against an independent computation."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from masked import CLASSES
from stillframe.config import DistillConfig, build
from stillframe.config.hydra_compose import compose
from stillframe.models import build as nets
from stillframe.tasks import find_task
from stillframe.tasks.class_scores import confusion_scores
from stillframe.tasks.segmentation import IGNORE, METRICS, learning, losses
from stillframe.types import Batch, DatasetCard, Prediction

PIXELS = {"train": {"ground": 800, "square": 150, "disc": 50}}
CARD = DatasetCard(
    "made", CLASSES, {"train": dict.fromkeys(CLASSES, 9)}, 3, 32, 32, [0.5] * 3, [0.2] * 3, [], "", pixels=PIXELS
)


def optim(**changes):
    values = compose(["optim=adamw"], __import__("pathlib").Path(__file__).parents[3] / "conf")["optim"]
    return build("optim", {**values, "label_smoothing": 0.0, **changes})


def batch(seed=0, count=4, size=32, weights=None):
    torch.manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    mask = torch.randint(0, 3, (count, size, size), dtype=torch.uint8)
    mask[:, :3] = IGNORE
    weight = torch.ones(count) if weights is None else torch.tensor(weights)
    target = {"label": torch.zeros(count, dtype=torch.int64), "mask": mask}
    return Batch({"image": image}, target, weight, torch.arange(count))


def logits(seed=1, count=4, size=32):
    torch.manual_seed(seed)
    return torch.randn(count, 3, size, size, requires_grad=True)


def probabilities(given, made):
    """(P, K) and (P,) of the pixels that count, as numpy."""
    mask = made.target["mask"].numpy()
    share = torch.softmax(given.detach(), 1).permute(0, 2, 3, 1).numpy()
    return share[mask != IGNORE].astype(np.float64), mask[mask != IGNORE].astype(int)


def test_cross_entropy_and_focal():
    given, made = logits(), batch()
    share, truth = probabilities(given, made)
    right = share[np.arange(len(truth)), truth]
    weight = 1000 / (3 * np.array([800, 150, 50]))
    for changes, expected in [
        ({}, -np.log(right)),
        ({"class_weights": "balanced"}, -np.log(right) * weight[truth]),
        ({"loss": "focal", "focal_gamma": 1.5}, -np.log(right) * (1 - right) ** 1.5),
        ({"loss": "focal", "class_weights": "balanced"}, -np.log(right) * (1 - right) ** 2 * weight[truth]),
        ({"label_smoothing": 0.1}, -0.9 * np.log(right) - 0.1 * np.log(share).mean(1)),
    ]:
        found = learning.make_loss(optim(**changes), CARD)(given, made)
        assert found.item() == pytest.approx(expected.mean(), rel=1e-4), changes


def test_dice():
    given, made = logits(), batch()
    share, truth = probabilities(given, made)
    dice = [2 * share[truth == k, k].sum() / (share[:, k].sum() + (truth == k).sum()) for k in range(3)]
    assert learning.make_loss(optim(loss="dice"), CARD)(given, made).item() == pytest.approx(
        1 - np.mean(dice), rel=1e-4
    )


def test_lovasz_of_certain_answers_is_the_jaccard_loss():
    made, said = batch(), batch(5).target["mask"].long().clamp(max=2)
    certain = functional.one_hot(said, 3).permute(0, 3, 1, 2).float() * 200
    mask = made.target["mask"].numpy()
    truth, answer = mask[mask != IGNORE], said.numpy()[mask != IGNORE]
    iou = [((truth == k) & (answer == k)).sum() / ((truth == k) | (answer == k)).sum() for k in range(3)]
    found = learning.make_loss(optim(loss="lovasz"), CARD)(certain, made)
    assert found.item() == pytest.approx(1 - np.mean(iou), rel=1e-4)


@pytest.mark.parametrize("name", losses.MAKERS)
def test_ignored_pixels_and_samples_of_no_weight_teach_nothing(name):
    given, made = logits(), batch(weights=[1.0, 0.0, 1.0, 1.0])
    loss = learning.make_loss(optim(loss=name), CARD)(given, made)
    loss.backward()
    assert torch.isfinite(loss) and given.grad.abs().sum() > 0
    assert given.grad[:, :, :3].abs().max() == 0 and given.grad[1].abs().max() == 0
    nothing = batch()
    nothing.target["mask"].fill_(IGNORE)
    assert learning.make_loss(optim(loss=name), CARD)(given, nothing).item() == 0.0


def test_sums_of_losses():
    given, made = logits(), batch()
    single = [
        learning.make_loss(optim(loss=name), CARD)(given, made).item() for name in ("cross_entropy", "dice", "lovasz")
    ]
    whole = learning.make_loss(optim(loss="cross_entropy+dice+lovasz"), CARD)(given, made)
    assert whole.item() == pytest.approx(sum(single), rel=1e-5)
    with pytest.raises(ValueError, match=r"optim\.loss = 'dice' is for masks"):
        from stillframe.tasks.classification import learning as classification

        classification.make_loss(optim(loss="dice"), CARD)
    with pytest.raises(ValueError, match="mixup"):
        learning.make_loss(optim(mixup=0.2), CARD)


def test_the_tally_counts_as_one_would_by_hand_in_any_order_and_on_parts():
    truth, said = [], []
    whole, parts = learning.make_accumulator(CARD), [learning.make_accumulator(CARD), learning.make_accumulator(CARD)]
    for seed in range(4):
        made, given = batch(seed), logits(seed + 9)
        prediction = Prediction({"logits": given}, made.index_B)
        for one in (whole, parts[seed % 2]):
            one.update(prediction, made, torch.tensor(0.5 + seed))
        mask = made.target["mask"].numpy()
        truth.append(mask[mask != IGNORE])
        said.append(given.detach().argmax(1).numpy()[mask != IGNORE])
    truth, said = np.concatenate(truth), np.concatenate(said)
    matrix = np.array([[((truth == a) & (said == b)).sum() for b in range(3)] for a in range(3)])
    scores = whole.scores(whole.counts())
    assert scores["loss"] == pytest.approx(2.0) and scores["accuracy"] == pytest.approx((truth == said).mean())
    assert {key: value for key, value in scores.items() if key != "loss"} == confusion_scores(matrix, CLASSES, METRICS)
    assert parts[0].scores(parts[0].counts() + parts[1].counts()) == scores
    again = learning.make_accumulator(CARD)
    again.restore(parts[0].counts())
    assert torch.equal(again.counts(), parts[0].counts())
    for name in ("iou_macro", "f1/disc", "recall_macro", "loss"):
        find_task("segmentation").metric(name, CARD.classes, monitored=True)
    with pytest.raises(ValueError, match="iou_macro"):
        find_task("segmentation").metric("iou_macr", CARD.classes, monitored=True)


def test_cutmix_takes_boxes_of_image_and_mask_together():
    made = batch(count=6)
    torch.manual_seed(3)
    mixed = learning.mix(optim(cutmix=1.0), CARD, made)
    taken = (mixed.image != made.image).any(1)
    assert 0.01 < taken.float().mean() < 0.9
    before = made.target["mask"].roll(1, 0)
    assert (
        torch.equal(mixed.target["mask"], torch.where(taken, before, made.target["mask"]).to(torch.uint8))
        or (mixed.target["mask"][~taken] == made.target["mask"][~taken]).float().mean() > 0.999
    )  # a pixel of both images may be of one colour
    assert learning.mix(optim(), CARD, made) is made


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    spec = nets.NetworkSpec("unet", 3, 3, 32, [0.5] * 3, [0.2] * 3, 0.0, 0.0, "test_resnet")
    return nets.rebuild(spec).eval()


@pytest.mark.parametrize("tta", ["none", "mirror", "d4"])
def test_views_are_turned_back(net, tta):
    made = batch(size=32)
    said = learning.predict(net, made, tta).outputs["logits"]
    assert said.shape == (4, 3, 32, 32)
    if tta != "none":  # an answer over all symmetries turns with its picture
        turned = learning.predict(
            net, Batch({"image": made.image.flip(3)}, made.target, made.weight_B, made.index_B), tta
        )
        torch.testing.assert_close(turned.outputs["logits"].flip(3), said, rtol=1e-3, atol=1e-4)


def test_a_teacher_of_masks(net):
    made, given = batch(), logits()
    plain = learning.make_loss(optim(), CARD)
    both = learning.distill_loss(plain, net, DistillConfig("t", 2.0, 0.25))(given, made)
    said = torch.log_softmax(given / 2, 1)
    with torch.no_grad():
        wanted = torch.log_softmax(net(made.image) / 2, 1)
    apart = (wanted.exp() * (wanted - said)).sum(1)[made.target["mask"] != IGNORE].mean()
    assert both.item() == pytest.approx((0.75 * plain(given, made) + 0.25 * 4 * apart).item(), rel=1e-4)


def test_weights_of_classes_are_those_of_their_pixels():
    weight = learning.class_weight_K(optim(class_weights="balanced"), CARD)
    assert (weight * torch.tensor([800.0, 150.0, 50.0])).tolist() == pytest.approx([1000 / 3] * 3)
