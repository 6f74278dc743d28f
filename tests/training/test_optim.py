"""Optimizers and schedules by name."""

import pytest
import torch

from stillframe.config import ModelConfig, ScheduleConfig, build
from stillframe.config.hydra_compose import compose
from stillframe.models.build import create
from stillframe.training.optim import make_optimizer, make_schedule


@pytest.fixture(scope="module")
def base():
    return compose(["experiment=digits_smoke"])["optim"]


def net(name="plain_cnn"):
    model = ModelConfig(name, None, None, None, 0.0, 0.0, [], None, "auto")
    return create(model, outputs=3, channels=3, image_size=32, mean=[0.5] * 3, std=[0.2] * 3)


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adam", "lamb"])
def test_biases_and_norms_are_not_decayed(base, name):
    optimizer = make_optimizer(net(), build("optim", {**base, "name": name, "weight_decay": 0.1}))
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    made = {decay_of[id(p)] for group in optimizer.param_groups for p in group["params"] if p.ndim <= 1}
    assert made == {0.0} and 0.1 in set(decay_of.values())


def test_lower_layers_learn_slower(base):
    optimizer = make_optimizer(net("resnet18"), build("optim", {**base, "layer_decay": 0.5, "lr": 0.1}))
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) == pytest.approx(0.1) and min(rates) < 0.02 and len(rates) > 3


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("name", ["constant", "one_cycle", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_schedules_rise_and_fall(name, steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make_schedule(optimizer, ScheduleConfig(name, warmup, 0.0 if name != "constant" else 1.0), steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert all(0 <= rate <= 1.0 + 1e-9 for rate in rates)
    if steps >= 10:
        assert max(rates) == pytest.approx(1.0, abs=0.02)
        assert (rates[-1] == 1.0) == (name == "constant")
        if warmup:
            assert rates[0] < 0.5
