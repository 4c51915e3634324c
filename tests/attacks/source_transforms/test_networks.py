"""Source transforms on the networks of libraries: all architectures of smp, one of torchvision, one of transformers."""

import warnings

import pytest
import torch

from lightning_attack.attacks import CleanFeatureMixup, transfer_best
from lightning_attack.models import HuggingFaceModel, SMPModel, TorchVisionModel, freeze
from tests.attacks.toys import half_right, scene

ENCODERS = dict.fromkeys(
    ["unet", "unetplusplus", "manet", "linknet", "pspnet", "upernet", "deeplabv3", "segformer", "pan"], "resnet18"
) | {"fpn": "mobilenet_v2", "deeplabv3plus": "mobilenet_v2", "dpt": "tu-vit_tiny_patch16_224"}
"""By architecture of smp; all have residual connections, and features a quarter as large as the image."""


def check(model, side=64):
    """`transfer_best` leaves none of its two source transforms out, and each of them changes it; scores see neither."""
    model = freeze(model)
    images, labels = scene(1, side, side, dtype=torch.float32)
    labels = half_right(model, images, labels)
    with torch.no_grad():
        logits = model(images)
    plain = {"steps": 2, "skip_gamma": 1.0, "feature_mix": 0.0}
    mixup = CleanFeatureMixup(prob=1.0, mix=0.4)  # in every layer: of a small network the usual share may be none
    attacks = [transfer_best(**plain), transfer_best(steps=2), transfer_best(**plain, source_transforms=[mixup])]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the source is attacked")
        found = [attack(model, images, labels, [1]) for attack in attacks]
    assert all((one != found[0]).float().mean() > 0.01 for one in found[1:])
    assert all(0 < (one - images).abs().max() <= 8 / 255 + 1e-6 for one in found)
    with torch.no_grad():
        assert torch.equal(model(images), logits)


@pytest.mark.parametrize("arch", ENCODERS)
def test_architectures_of_smp(arch):
    torch.manual_seed(0)
    options = {"dynamic_img_size": True} if arch == "dpt" else {}
    check(SMPModel(arch, ENCODERS[arch], 5, options=options), 128 if arch == "pan" else 64)


def test_torchvision():
    torch.manual_seed(0)
    check(TorchVisionModel("lraspp_mobilenet_v3_large", num_classes=5))


def test_transformers(tmp_path):
    library = pytest.importorskip("transformers", reason="transformers is optional")
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    config = library.SegformerConfig(num_labels=5, decoder_hidden_size=16, **sizes)
    library.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    check(HuggingFaceModel(str(tmp_path), mean=[0.5] * 3, std=[0.5] * 3))
