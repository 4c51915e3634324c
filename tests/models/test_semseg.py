"""`SemSegModel`: the published files' tensor names and shapes, the geometry of 8k + 1 pixels, files that do not fit."""

import re

import pytest
import torch
from torch import nn

from lightning_attack.models import ModelError, SemSegModel, freeze

TINY = {"width": 4, "num_classes": 5}


def photo(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def norm(name, channels):
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def expected(arch, blocks, classes=21, head="cls", aux="aux"):
    """Names and shapes of the tensors of a published file, written down from its keys and not from our modules."""
    shapes = {}
    for number, (inputs, outputs) in zip((0, 3, 6), ((3, 64), (64, 64), (64, 128)), strict=True):
        shapes |= {f"layer0.{number}.weight": (outputs, inputs, 3, 3)} | norm(f"layer0.{number + 1}", outputs)
    inputs = 128
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), 1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, inputs, 1, 1)} | norm(f"{name}.bn1", width)
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3)} | norm(f"{name}.bn2", width)
            shapes |= {f"{name}.conv3.weight": (4 * width, width, 1, 1)} | norm(f"{name}.bn3", 4 * width)
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    if arch == "pspnet":
        for number in range(4):
            shapes |= {f"ppm.features.{number}.1.weight": (512, 2048, 1, 1)} | norm(f"ppm.features.{number}.2", 512)
        heads = {head: (512, 4096, 3), aux: (256, 1024, 3)}
    else:
        shapes |= {"aspp.convs.0.0.weight": (256, 2048, 1, 1)} | norm("aspp.convs.0.1", 256)
        for number in (1, 2, 3):
            shapes |= {f"aspp.convs.{number}.0.weight": (256, 2048, 3, 3)} | norm(f"aspp.convs.{number}.1", 256)
        shapes |= {"aspp.convs.4.1.weight": (256, 2048, 1, 1)} | norm("aspp.convs.4.2", 256)
        heads = {head: (256, 1280, 1), aux: (256, 1024, 1)}
    for name, (hidden, inputs, kernel) in heads.items():
        shapes |= {f"{name}.0.weight": (hidden, inputs, kernel, kernel)} | norm(f"{name}.1", hidden)
        shapes |= {f"{name}.4.weight": (classes, hidden, 1, 1), f"{name}.4.bias": (classes,)}
    return shapes


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
@pytest.mark.parametrize(("backbone", "blocks"), [("resnet50", (3, 4, 6, 3)), ("resnet101", (3, 4, 23, 3))])
def test_names_and_shapes_are_those_of_the_published_files(arch, backbone, blocks):
    with torch.device("meta"):
        state = SemSegModel(arch, backbone, aux=True, mean=(0,) * 3, std=(1,) * 3).network.state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert found == expected(arch, blocks)


def random_model(arch, seed=1, **options):
    torch.manual_seed(seed)
    model = SemSegModel(arch, **TINY | options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("aux", [False, True])
def test_file_with_and_without_its_auxiliary_head(tmp_path, arch, prefix, aux):
    model = random_model(arch, aux=aux)
    state = {prefix + name: tensor for name, tensor in model.network.state_dict().items()}
    torch.save({"epoch": 50, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "train_epoch_50.pth")
    again = SemSegModel(arch, weights=str(tmp_path / "train_epoch_50.pth"), **TINY)
    assert again.network.aux is None
    images = photo(1, 3, 33, 57)
    assert torch.equal(freeze(again)(images), freeze(model)(images))
    assert (again.name, again.num_classes) == (f"{arch}_resnet50", 5)


def test_auxiliary_head_for_training(tmp_path):
    model = random_model("pspnet", aux=True)
    torch.save(model.network.state_dict(), tmp_path / "w.pth")
    again = SemSegModel("pspnet", weights=str(tmp_path / "w.pth"), aux=True, **TINY)
    assert torch.equal(again.network.aux[4].weight, model.network.aux[4].weight)
    logits, auxiliary = again.train().outputs(photo(2, 3, 33, 57))
    assert logits.shape == auxiliary.shape == (2, 5, 33, 57)
    assert again.eval().outputs(photo(2, 3, 33, 57))[1] is None
    torch.save(random_model("pspnet").network.state_dict(), tmp_path / "none.pth")
    with pytest.raises(ModelError, match=r"tensors missing \(aux.0.weight"):
        SemSegModel("pspnet", weights=str(tmp_path / "none.pth"), aux=True, **TINY)


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_file_of_ddc_at(tmp_path, arch):
    model = random_model(arch, aux=True)
    state = {}
    for name, tensor in model.network.state_dict().items():
        renamed = name.replace("aux.", "aux_cls1.") if name.startswith("aux.") else name.replace("cls.", "cls1.")
        state[f"module.{renamed}"] = tensor
        if name.startswith("cls."):
            for other in ("cls2", "mask1"):
                state[f"module.{name.replace('cls', other)}"] = torch.zeros_like(tensor)
    torch.save({"state_dict": state}, tmp_path / "ddcat.pth")
    images = photo(1, 3, 25, 33)
    for aux in (False, True):
        again = SemSegModel(arch, weights=str(tmp_path / "ddcat.pth"), aux=aux, **TINY)
        assert torch.equal(freeze(again)(images), freeze(model)(images))
    assert torch.equal(again.network.aux[4].weight, model.network.aux[4].weight)


class Spy(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        self.seen = x
        return self.inner(x)


@pytest.mark.parametrize(("size", "padded"), [((33, 57), (33, 57)), ((32, 50), (33, 57)), ((34, 9), (41, 9))])
def test_images_are_padded_to_8k_plus_1_with_the_mean_colour(size, padded):
    model = freeze(random_model("pspnet"))
    spy = model.network.layer0 = Spy(model.network.layer0)
    features = model.network.layer4 = Spy(model.network.layer4)
    images = photo(1, 3, *size)
    logits = model(images)
    assert logits.shape == (1, 5, *size)
    assert spy.seen.shape[-2:] == padded
    assert spy.seen[..., size[0] :, :].abs().sum() + spy.seen[..., size[1] :].abs().sum() == 0
    assert features.seen.shape[-2:] == tuple((n - 1) // 8 + 1 for n in padded)  # stride 8
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    whole = mean.expand(1, 3, *padded).clone()
    whole[..., : size[0], : size[1]] = images
    torch.testing.assert_close(logits, model(whole)[..., : size[0], : size[1]], rtol=1e-4, atol=1e-5)


def test_features_and_logits_meet_at_the_corners():
    # Features of 8k + 1 pixels lie 8 pixels apart from corner to corner: logits there are those of the small map.
    model = freeze(random_model("deeplabv3"))
    head = model.network.cls = Spy(model.network.cls)
    logits = model(photo(1, 3, 33, 41))
    torch.testing.assert_close(logits[..., ::8, ::8], head.inner(head.seen))


@pytest.mark.parametrize(("stage", "dilation"), [("layer1", 1), ("layer2", 1), ("layer3", 2), ("layer4", 4)])
def test_dilation(stage, dilation):
    blocks = getattr(random_model("pspnet").network, stage)
    assert {block.conv2.dilation for block in blocks} == {(dilation, dilation)}
    assert blocks[0].conv2.stride == ((2, 2) if stage == "layer2" else (1, 1))


def test_gradient_reaches_the_image():
    images = photo(1, 3, 20, 20).requires_grad_()
    freeze(random_model("pspnet"))(images).square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_files_that_do_not_fit(tmp_path):
    path = str(tmp_path / "w.pth")
    torch.save(random_model("pspnet").network.state_dict(), path)
    with pytest.raises(ModelError, match=r"another network: .*missing \(aspp.*foreign tensors \(ppm"):
        SemSegModel("deeplabv3", weights=path, **TINY)
    with pytest.raises(ModelError, match=r"another network: .*missing \(layer3.10"):
        SemSegModel("pspnet", "resnet101", weights=path, **TINY)
    with pytest.raises(ModelError, match=r"cls.4.weight with \(5, .* in the file and \(21,"):
        SemSegModel("pspnet", weights=path, width=4)
    with pytest.raises(ModelError, match=r"no file 'nowhere.pth'"):
        SemSegModel(weights="nowhere.pth")
    torch.save(random_model("pspnet").network, path)
    with pytest.raises(ModelError, match=re.escape(path) + ".*pickled Python objects"):
        SemSegModel("pspnet", weights=path, **TINY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "psanet"}, "arch='psanet' must be one of pspnet, deeplabv3"),
        ({"backbone": "resnet18"}, "backbone='resnet18' one of resnet50, resnet101"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ModelError, match=message):
        SemSegModel(**arguments)
