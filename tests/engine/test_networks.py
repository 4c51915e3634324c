"""Whole networks: those of the package, smp's architectures at an odd size, torchvision's, exported ones."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.export import Dim

from lightning_attack.data import SyntheticScenes
from lightning_attack.engine import prepare
from lightning_attack.engine.trace import trace_forward
from lightning_attack.models import ExportedModel, SegmentationModel, TrainedModel, freeze
from tests.engine.compare import apart, both, check, exact, noise
from tests.precisions import needs_bfloat16

ZOO = Path(__file__).parents[2].parent / "shared" / "zoo"
EMBEDDED = ["scenes_deeplabv3plus", "scenes_fpn", "scenes_segformer"]
ENCODERS = dict.fromkeys(
    ["unet", "unetplusplus", "manet", "linknet", "pspnet", "upernet", "deeplabv3", "segformer"], "resnet18"
) | {"fpn": "mobilenet_v2", "deeplabv3plus": "mobilenet_v2", "pan": "resnet18", "dpt": "tu-vit_tiny_patch16_224"}

pytestmark = pytest.mark.usefixtures("silent")


@pytest.fixture(scope="module")
def scenes():
    dataset = SyntheticScenes(count=4, size=128, seed=0)
    images = torch.stack([torch.from_numpy(dataset[index].image).permute(2, 0, 1) / 255 for index in range(4)])
    return images, torch.stack([torch.from_numpy(dataset[index].mask).long() for index in range(4)])


def attacked(name, scenes):
    """An embedded network, images, its logits, and the gradient of the cross-entropy there (an attack's)."""
    network, (images, labels) = freeze(TrainedModel(f"embedded:{name}")), scenes
    logits, _ = both(network, images)
    known = labels != 255
    onehot = F.one_hot(labels.where(known, 0), logits.shape[1]).permute(0, 3, 1, 2)
    return network, images, logits, (logits.softmax(1) - onehot) * known[:, None]


@pytest.mark.parametrize("name", EMBEDDED)
def test_trained_networks(name, scenes):
    network, images, eager, weights = attacked(name, scenes)
    expected, gradient = exact(network, images, weights)
    found, found_gradient = both(prepare(network), images, weights)
    assert apart(found, expected) < 1e-5
    assert apart(found_gradient, gradient) < 1e-3
    # The network itself is what it was.
    assert torch.equal(both(network, images)[0], eager)


@needs_bfloat16
@pytest.mark.parametrize("name", EMBEDDED)
def test_trained_networks_in_bfloat16(name, scenes):
    network, images, eager, weights = attacked(name, scenes)
    _, gradient = exact(network, images, weights)
    narrow = prepare(network, precision="bf16")
    with torch.no_grad():
        classes = narrow(images).max(1)[1]
    assert (classes == eager.max(1)[1]).float().mean() >= 0.98
    _, narrow_gradient = both(narrow, images, weights)
    assert torch.cosine_similarity(narrow_gradient.flatten().double(), gradient.flatten(), dim=0) > 0.9


@pytest.mark.parametrize("arch", ENCODERS)
def test_architectures_at_an_odd_size(arch):
    torch.manual_seed(0)
    settings = {"dynamic_img_size": True} if arch == "dpt" else {}
    network = smp.create_model(arch, encoder_name=ENCODERS[arch], encoder_weights=None, classes=5, **settings)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 160, 160) if arch == "pan" else torch.randn(4, 3, 64, 96))
    size = (129, 130) if arch == "pan" else (65, 90)
    model = freeze(SegmentationModel(network, 5, stride=32))
    # Without training, many values lie so near to the kinks of ReLU that rounding moves some across.
    check(model, noise(1, 3, *size), 1e-5, 1e-2)


@pytest.mark.parametrize("build", [torchvision.models.segmentation.lraspp_mobilenet_v3_large,
                                   torchvision.models.segmentation.deeplabv3_mobilenet_v3_large])  # fmt: skip
def test_torchvision(build):
    torch.manual_seed(0)
    model = freeze(SegmentationModel(build(weights=None, weights_backbone=None, num_classes=5), 5))
    check(model, noise(1, 3, 65, 90), 1e-5, 1e-3)


@pytest.mark.skipif(not ZOO.is_dir(), reason="no exported networks in ../shared")
@pytest.mark.parametrize("path", sorted(ZOO.glob("*_257.pt2")), ids=lambda path: path.stem)
def test_exported_networks(path):
    model, double = (freeze(ExportedModel(str(path))) for _ in range(2))
    images = noise(1, 3, 129, 130)
    _, eager_gradient = both(model, images)
    found, found_gradient = both(prepare(model), images)
    expected, gradient = both(double.double(), images.double())
    assert apart(found, expected) < 1e-5
    # On noise, rounding moves some values across the kinks of ReLU6, in float32 whoever computes it.
    assert apart(found_gradient, gradient) <= max(1e-3, 2 * apart(eager_gradient, gradient))


class Constants(nn.Module):
    """Normalises by constants that it makes anew in each pass, which `torch.export` writes as `detach_` of them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        mean = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
        return self.layer((x - mean) / torch.tensor(0.25))


@pytest.mark.parametrize("exported", [False, True])
def test_constants_that_a_pass_makes(exported, tmp_path):
    network = freeze(SegmentationModel(Constants(), 5))
    if exported:
        program = torch.export.export(Constants(), (torch.rand(2, 3, 24, 24),), dynamic_shapes=({0: Dim.DYNAMIC},))
        torch.export.save(program, tmp_path / "constants.pt2")
        network = freeze(ExportedModel(str(tmp_path / "constants.pt2")))
    check(network, images := noise(1, 3, 24, 24), 1e-5, 1e-5)
    assert apart(trace_forward(network, images.shape)(images), network(images)) < 1e-6
