"""Source transforms on the networks of libraries: all architectures of smp, one of torchvision, one of transformers."""

import warnings

import pytest
import torch

from lightning_attack.attacks import (
    CleanFeatureMixup,
    DiversifiedFeatures,
    Draws,
    FeatureNoise,
    FixedAttention,
    LinearBackward,
    PerturbationDecay,
    SkipGradients,
    SoftplusResiduals,
    TokenGradients,
    changeable_nodes,
    pgd,
    transfer_best,
)
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.models import HuggingFaceModel, SMPModel, TorchVisionModel, freeze
from tests.attacks.toys import half_right, scene

ENCODERS = dict.fromkeys(
    ["unet", "unetplusplus", "manet", "linknet", "pspnet", "upernet", "deeplabv3", "segformer", "pan"], "resnet18"
) | {"fpn": "mobilenet_v2", "deeplabv3plus": "mobilenet_v2", "dpt": "tu-vit_tiny_patch16_224"}
"""By architecture of smp; all have residual connections, and features a quarter as large as the image."""


ANY = [
    LinearBackward(start=0.0), SoftplusResiduals(), FeatureNoise(), DiversifiedFeatures(start=0.0),
    PerturbationDecay(at=0.0),
]  # fmt: skip
"""Source transforms that `transfer_best` does not have, of networks with or without attention."""
OF_ATTENTION = [FixedAttention(), TokenGradients()]


def check(model, side=64, others=ANY):
    """`transfer_best` leaves none of its source transforms out, and each changes it; others change the gradient.

    Scores see none of them.
    """
    model = freeze(model)
    images, labels = scene(1, side, side, dtype=torch.float32)
    labels = half_right(model, images, labels)
    with torch.no_grad():
        logits = model(images)
    plain = {"steps": 2, "skip_gamma": 1.0, "feature_mix": 0.0, "smooth_slopes": 0.0}
    mixup = CleanFeatureMixup(prob=1.0, mix=0.4)  # in every layer: of a small network the usual share may be none
    attacks = [
        transfer_best(**plain),
        transfer_best(**plain | {"skip_gamma": 0.5}),
        transfer_best(**plain | {"smooth_slopes": 0.5}),
        transfer_best(**plain, source_transforms=[mixup]),
        transfer_best(steps=2),
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the source is attacked")
        found = [attack(model, images, labels, [1]) for attack in attacks]
    assert not torch.equal(found[1], found[0])  # few residual connections of a small network may change little
    assert all((one != found[0]).float().mean() > 0.01 for one in found[2:])
    assert all(0 < (one - images).abs().max() <= 8 / 255 + 1e-6 for one in found)
    own = gradient(model, images)
    for transform in others:
        source = TransformedSource(model, [transform])
        changed = gradient(lambda views, source=source: source(views, Draws([1]), 1, images.flip(-1)), images)
        assert changed.isfinite().all()
        # Far more than rounding; random weights give late layers and attention little to say.
        assert (changed - own).norm() > 1e-5 * own.norm(), type(transform).__name__
    with torch.no_grad():
        assert torch.equal(model(images), logits)


def gradient(source, images):
    """Of a fixed combination of the logits."""
    images = images.clone().requires_grad_()
    logits = source(images)
    (found,) = torch.autograd.grad((logits * torch.linspace(-1, 2, logits.numel()).view_as(logits)).sum(), images)
    return found


@pytest.mark.parametrize("arch", ENCODERS)
def test_architectures_of_smp(arch):
    torch.manual_seed(0)
    options = {"dynamic_img_size": True} if arch == "dpt" else {}
    others = ANY + OF_ATTENTION * (arch == "dpt")  # torch's fused attention
    check(SMPModel(arch, ENCODERS[arch], 5, options=options), 128 if arch == "pan" else 64, others)


def test_torchvision():
    torch.manual_seed(0)
    check(TorchVisionModel("lraspp_mobilenet_v3_large", num_classes=5))


def segformer(folder):
    library = pytest.importorskip("transformers", reason="transformers is optional")
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    config = library.SegformerConfig(num_labels=5, decoder_hidden_size=16, **sizes)
    library.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return HuggingFaceModel(str(folder), mean=[0.5] * 3, std=[0.5] * 3)


def test_transformers(tmp_path):
    check(segformer(tmp_path), others=ANY + OF_ATTENTION)


@pytest.mark.parametrize("make", [
    segformer,
    lambda _: SMPModel("segformer", "mit_b0", 5),
    lambda _: SMPModel("unet", "tu-swin_tiny_patch4_window7_224", 5, options={"img_size": 64}),
], ids=["transformers", "mit", "swin"])  # fmt: skip
def test_tokens_of_one_image_as_of_several(make, tmp_path):
    """Layers have the same names and depths, and an image the same numbers, alone as in a batch."""
    torch.manual_seed(0)
    model = freeze(make(tmp_path))
    images = torch.rand(3, 3, 64, 64)
    transforms = [CleanFeatureMixup(prob=0.5), DiversifiedFeatures(start=0.3), SkipGradients(start=0.3)]
    for transform in transforms:
        names = [changeable_nodes(model, transform, size=(64, 64), batch=batch) for batch in (1, 2, 3)]
        assert names[0] == names[1] == names[2]
    labels = torch.randint(5, (3, 64, 64))
    attack = pgd(steps=1, random_start=False, source_transforms=transforms)
    together = attack(model, images, labels, [4, 5, 6])
    alone = torch.cat([attack(model, images[i : i + 1], labels[i : i + 1], [4 + i]) for i in range(3)])
    # Signs of gradients that are rounding alone may differ.
    assert (together != alone).float().mean() < 0.002
