"""Losses, mixing, counting and the scale of outputs of regression; its scores against scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

from stillframe.config import DistillConfig, build
from stillframe.config.hydra_compose import compose
from stillframe.evaluation.bootstrap import scores_of
from stillframe.models.build import NetworkSpec, rebuild
from stillframe.tasks import find_task
from stillframe.tasks.regression import evaluation, learning
from stillframe.types import Batch, DatasetCard, Prediction

FACTS = {"names": ["age", "weight"], "units": ["years", "kg"], "angles": [], "mean": [40.0, 70.0], "std": [10.0, 5.0]}
CARD = DatasetCard("made", [], {}, 1, 16, 16, [0.5], [0.2], [], "", target=FACTS)
TASK = find_task("regression")


@pytest.fixture(scope="module")
def values():
    return compose(["optim=regression", "model=plain_cnn"])


def optim(values, **changes):
    return build("optim", {**values["optim"], **changes})


def batch(size=8):
    random = torch.Generator().manual_seed(1)
    return Batch(
        inputs={"image": torch.randint(0, 256, (size, 1, 16, 16), generator=random, dtype=torch.uint8)},
        target={"value": torch.randn(size, 2, generator=random) * torch.tensor([10.0, 5.0]) + 50},
        weight_B=torch.ones(size),
        index_B=torch.arange(size),
    )


def loss_of(values, output, name, one=None):
    return float(learning.make_loss(optim(values, loss=name), CARD)(output, one or batch()))


def test_losses_are_of_standardised_numbers(values):
    output, target = batch().target["value"] + torch.tensor([5.0, -20.0]), batch().target["value"]
    assert loss_of(values, output, "mse") == pytest.approx((0.5**2 + 4**2) / 2)
    assert loss_of(values, output, "l1") == pytest.approx((0.5 + 4) / 2)
    assert loss_of(values, output, "huber") == pytest.approx((0.5**2 / 2 + 3.5) / 2)
    expected = [sk.mean_pinball_loss(target[:, d] / s, output[:, d] / s, alpha=0.9) for d, s in ((0, 10), (1, 5))]
    assert loss_of(values, output, "quantile_0.9") == pytest.approx(np.mean(expected), rel=1e-5)


def test_weights_of_samples_count(values):
    one = batch()
    one.weight_B[1:] = 0
    output = one.target["value"] + torch.arange(8.0)[:, None] + 5
    assert loss_of(values, output, "l1", one) == pytest.approx((0.5 + 1) / 2)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("loss", "msa", "optim.loss = 'msa': did you mean 'mse'"),
        ("loss", "cross_entropy", "optim.loss = 'cross_entropy'"),
        ("loss", "quantile_1.5", "optim.loss = 'quantile_1.5'"),
        ("loss", "quantile_x", "optim.loss = 'quantile_x'"),
        ("cutmix", 1.0, "use optim.mixup"),
        ("class_weights", "balanced", "numbers have no classes"),
    ],
)
def test_what_does_not_apply_is_refused(values, key, value, says):
    with pytest.raises(ValueError, match=says):
        learning.make_loss(optim(values, **{key: value}), CARD)


def test_mixup_mixes_images_and_numbers_alike(values):
    torch.manual_seed(3)
    before, after = batch(), learning.mix(optim(values, mixup=1.0), CARD, batch())
    image, number = before.image.float(), before.target["value"]
    share = ((after.target["value"] - number.roll(1, 0)) / (number - number.roll(1, 0)))[0, 0]
    assert 0 < share < 1
    assert torch.allclose(after.image, share * image + (1 - share) * image.roll(1, 0), atol=1e-2)
    assert torch.allclose(after.target["value"], share * number + (1 - share) * number.roll(1, 0), atol=1e-3)
    assert learning.mix(optim(values), CARD, before) is before


def test_outputs_are_in_their_own_units_and_survive_a_rebuild(values):
    torch.manual_seed(0)
    net = learning.build_network(build("model", values["model"]), CARD).eval()
    again = rebuild(NetworkSpec(**net.spec.json())).eval()
    again.load_state_dict(net.state_dict())
    image = batch().image
    raw = net.backbone(net.normalise(image))
    assert torch.allclose(net(image), raw * torch.tensor([10.0, 5.0]) + torch.tensor([40.0, 70.0]), atol=1e-4)
    assert torch.equal(net(image), again(image))
    plain = NetworkSpec("plain_cnn", 2, 1, 8, [0.5], [0.2], 0.0, 0.0)
    assert "output_mean" not in plain.json() and NetworkSpec(**plain.json()) == plain


def test_a_teacher_is_a_second_target(values):
    torch.manual_seed(0)
    teacher = learning.build_network(build("model", values["model"]), CARD)
    mse, one = learning.make_loss(optim(values), CARD), batch()
    both = learning.distill_loss(mse, teacher, DistillConfig("x", 1.0, 0.25))
    of_teacher = teacher(one.image)
    assert both(of_teacher, one).item() == pytest.approx(0.75 * mse(of_teacher, one).item(), rel=1e-5)


def test_data_without_numbers_is_refused(values):
    labels = DatasetCard("cats", ["a", "b"], {}, 1, 16, 16, [0.5], [0.2], [], "")
    with pytest.raises(ValueError, match="cats has no numbers: prepare it with task=regression"):
        learning.build_network(build("model", values["model"]), labels)


def predictions(count=200, far=0.0, seed=0):
    random = np.random.default_rng(seed)
    target = random.normal(size=(count, 2)) * [1.0, 30.0] + [far, 5.0]
    predicted = target + random.normal(size=target.shape) * [0.3, 20.0] + [0.1, 0.0]
    return pd.DataFrame({"value": list(target), "predicted": list(predicted)})


@pytest.mark.parametrize("far", [0.0, 1.6e9])
def test_scores_are_scikit_learn_s(far):
    table = predictions(far=far)
    target, predicted = (np.stack(table[name].to_list()) for name in ("value", "predicted"))
    got = scores_of(TASK, table, FACTS["names"])
    expected = {
        "mae": sk.mean_absolute_error(target, predicted),
        "mse": sk.mean_squared_error(target, predicted),
        "rmse": sk.root_mean_squared_error(target, predicted),
        "r2": sk.r2_score(target, predicted),
        "mae/age": sk.mean_absolute_error(target[:, 0], predicted[:, 0]),
        "rmse/weight": sk.root_mean_squared_error(target[:, 1], predicted[:, 1]),
        "r2/age": sk.r2_score(target[:, 0], predicted[:, 0]),
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_the_accumulator_of_an_epoch_has_the_same_scores():
    table, card = predictions(), CARD
    target, predicted = (torch.tensor(np.stack(table[name].to_list())).float() for name in ("value", "predicted"))
    parts = []
    for rows in (slice(0, 130), slice(130, 200)):
        accumulator = learning.make_accumulator(card)
        count = len(target[rows])
        one = Batch({"image": torch.zeros(count, 1)}, {"value": target[rows]}, torch.ones(count), torch.arange(count))
        accumulator.update(Prediction({"predicted": predicted[rows]}, one.index_B), one, torch.tensor(2.0))
        parts.append(accumulator.counts())
    resumed = learning.make_accumulator(card)
    resumed.restore(parts[0])
    got, expected = resumed.scores(sum(parts)), scores_of(TASK, table, [])
    assert got["loss"] == pytest.approx(2.0)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_r2_of_numbers_that_do_not_vary_is_left_out_and_said():
    table = predictions().assign(value=[np.array([3.0, 4.0])] * 200)
    assert "r2" not in scores_of(TASK, table, FACTS["names"])
    assert evaluation.notes(table, FACTS["names"], {}) == ["R² is left out: age, weight does not vary in this split."]
    with pytest.raises(ValueError, match="did training diverge"):
        scores_of(TASK, table.assign(predicted=[np.array([np.nan, 1.0])] * 200), FACTS["names"])


def test_the_largest_error_comes_first_in_the_gallery():
    table = predictions().assign(index=np.arange(200), id=[f"{i:03d}" for i in range(200)])
    table.at[7, "predicted"] = np.array([table["value"][7][0] + 100, 0.0])
    worst = evaluation.errors(table, FACTS["names"], 3)
    assert worst["id"][0] == "007" and worst["actual"][0] == evaluation.text(table["value"][7])
    assert len(worst) == 3 and (np.diff(worst["score"]) >= 0).all()
