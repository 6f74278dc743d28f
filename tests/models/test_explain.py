import numpy as np
import pytest
import torch
from torch import nn

from stillframe.drawing.heatmap import overlay_heatmap
from stillframe.models.explain import explain, last_feature_map


class Bright(nn.Module):
    """Class 1 is a bright spot, class 0 a dark one: what decides is known."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(1, 2, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(4)
        with torch.no_grad():
            self.look.weight.copy_(torch.stack([-torch.ones(1, 3, 3), torch.ones(1, 3, 3)]) / 9 / 255)
            self.look.bias.copy_(torch.tensor([0.5, -0.5]))

    def forward(self, image):
        return self.pool(self.act(self.look(image.float()))).mean((2, 3))


def test_the_heat_lies_where_the_answer_is():
    image = torch.full((2, 1, 32, 32), 128, dtype=torch.uint8)
    image[:, :, 4:12, 20:28] = 255
    image[:, :, 20:28, 4:12] = 0
    net = Bright().train()
    heat, method = explain(net, image, torch.tensor([1, 0]))
    assert method == "Grad-CAM"
    assert heat.shape == (2, 32, 32)
    assert heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() == pytest.approx(1.0)
    assert heat[0, 4:12, 20:28].mean() > 10 * heat[0, 20:28, 4:12].mean()
    assert heat[1, 20:28, 4:12].mean() > 10 * heat[1, 4:12, 20:28].mean()
    assert net.training


def test_frozen_nets_and_the_formula_of_the_paper():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
    net = nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).requires_grad_(False)
    image = torch.randint(0, 255, (3, 3, 16, 16)).float()
    classes = torch.tensor([0, 3, 2])
    got, _ = explain(net, image, classes)
    features = trunk(image)
    weights = net[3].weight[classes]  # the gradient of a pooled linear net, but for a factor
    wanted = torch.relu((weights[:, :, None, None] * features).sum(1, keepdim=True))
    wanted = nn.functional.interpolate(wanted, (16, 16), mode="bilinear")[:, 0]
    wanted = wanted / wanted.amax((1, 2), keepdim=True)
    assert got == pytest.approx(wanted.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("resnet18", {}, "layer4"),
        ("tf_efficientnet_lite0", {}, "bn2"),
        ("mobilenetv3_small_100", {}, "blocks"),
        ("vit_tiny_patch16_224", {"img_size": 128}, None),
        ("mixer_s32_224", {"img_size": 128}, None),
    ],
)
def test_the_map_is_found_in_nets_of_timm(name, options, part):
    import timm

    net = timm.create_model(name, num_classes=3, **options).eval()
    image = torch.randint(0, 255, (2, 3, 128, 128)).float()
    layer = last_feature_map(net, image)
    assert layer is (None if part is None else net.get_submodule(part))
    heat, method = explain(net, image, torch.tensor([0, 2]))
    assert method == ("input gradient" if part is None else "Grad-CAM")
    assert heat.shape == (2, 128, 128)
    assert np.isfinite(heat).all()


def test_a_map_of_one_cell_is_passed_over():
    import timm

    net = timm.create_model("resnet18", num_classes=3).eval()
    assert last_feature_map(net, torch.rand(1, 3, 32, 32)) is net.layer2  # 4 x 4; layer3 2 x 2, layer4 1 x 1
    assert last_feature_map(net, torch.rand(1, 3, 64, 64)) is net.layer3  # layer4 has 2 x 2 cells, layer3 4 x 4
    assert last_feature_map(net, torch.rand(1, 3, 8, 8)) is not net.layer4


def test_a_class_that_nothing_speaks_for_is_cold():
    heat, _ = explain(Bright(), torch.zeros(1, 1, 16, 16, dtype=torch.uint8), torch.tensor([1]))
    assert heat.shape == (1, 16, 16)
    assert heat.max() == 0.0


def test_more_pictures_than_a_batch_and_none(monkeypatch):
    image = torch.randint(0, 255, (5, 1, 16, 16), dtype=torch.uint8)
    whole, _ = explain(Bright(), image, torch.tensor([0, 1, 0, 1, 1]))
    monkeypatch.setattr("stillframe.models.explain.BATCH", 2)
    parts, _ = explain(Bright(), image, torch.tensor([0, 1, 0, 1, 1]))
    assert parts == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_overlay_shows_the_picture_beside_its_heat(channels):
    image = np.random.default_rng(0).integers(0, 256, (10, 12, channels), dtype=np.uint8)
    heat = np.zeros((10, 12), dtype=np.float32)
    heat[2, 3] = 1.0
    got = overlay_heatmap(image, heat)
    assert got.shape == (10, 24, 3)
    assert got.dtype == np.uint8
    assert (got[:, :12] == image).all()
    right = got[:, 12:].astype(int)
    cold = heat == 0
    assert (right[cold].max(1) == right[cold].min(1)).all()  # gray
    assert right[2, 3].max() - right[2, 3].min() > 30  # coloured
