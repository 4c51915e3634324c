"""`RobustUPerNet`: the published files' tensor names and shapes, its parts against timm, files that do not fit."""

import re

import pytest
import timm
import torch

from lightning_attack.models import ModelError, RobustUPerNet, freeze


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def unit(name, inputs, outputs, kernel):
    parts = ("weight", "bias", "running_mean", "running_var")
    norm = {f"{name}.batch_norm.{part}": (outputs,) for part in parts}
    return {f"{name}.conv.weight": (outputs, inputs, kernel, kernel)} | norm


def expected(blocks, classes):
    """Names and shapes of the tensors of a published file, written down from its keys and not from our modules."""
    widths = 96, 192, 384, 768
    shapes = {}
    for place, shape in ((0, (48, 3, 3, 3)), (1, (48,)), (3, (96, 48, 3, 3)), (4, (96,))):
        shapes |= layer(f"backbone.downsample_layers.0.stem.{place}", *shape)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        if stage:
            shapes |= layer(f"backbone.downsample_layers.{stage}.0", width // 2)
            shapes |= layer(f"backbone.downsample_layers.{stage}.1", width, width // 2, 2, 2)
        for block in range(count):
            name = f"backbone.stages.{stage}.{block}"
            shapes |= layer(f"{name}.dwconv", width, 1, 7, 7) | layer(f"{name}.norm", width)
            shapes |= layer(f"{name}.pwconv1", 4 * width, width) | layer(f"{name}.pwconv2", width, 4 * width)
            shapes |= {f"{name}.gamma": (width,)}
        shapes |= layer(f"backbone.norm{stage}", width)
    for number in range(4):
        shapes |= unit(f"decode_head.psp_modules.{number}.1", 768, 512, 1)
    for number, width in enumerate(widths[:3]):
        shapes |= unit(f"decode_head.lateral_convs.{number}", width, 512, 1)
        shapes |= unit(f"decode_head.fpn_convs.{number}", 512, 512, 3)
    shapes |= unit("decode_head.bottleneck", 768 + 4 * 512, 512, 3) | unit("decode_head.fpn_bottleneck", 2048, 512, 3)
    return shapes | layer("decode_head.classifier", classes, 512, 1, 1)


@pytest.mark.parametrize(("backbone", "blocks"), [("convnext_tiny", (3, 3, 9, 3)), ("convnext_small", (3, 3, 27, 3))])
def test_names_and_shapes_are_those_of_the_published_files(backbone, blocks):
    with torch.device("meta"):
        state = RobustUPerNet(backbone, num_classes=21, std=(1,) * 3).network.state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert found == expected(blocks, 21)


def test_files_with_their_auxiliary_head(tmp_path):
    torch.manual_seed(0)
    model = RobustUPerNet(width=6, num_classes=4)
    with torch.no_grad():
        for values in model.network.state_dict().values():
            if values.is_floating_point():
                values.uniform_(0.1, 0.5)
    state = {f"module.{name}": values for name, values in model.network.state_dict().items()}
    state |= {
        "module.auxiliary_head.convs.0.conv.weight": torch.ones(1),
        "module.auxiliary_head.classifier.bias": torch.ones(1),
    }
    torch.save(state, tmp_path / "best_model_ckpt.pth")
    again = RobustUPerNet(weights=str(tmp_path / "best_model_ckpt.pth"), width=6, num_classes=4)
    image = torch.rand(1, 3, 45, 64)
    assert torch.equal(freeze(again)(image), freeze(model)(image))
    with pytest.raises(
        ModelError, match=re.escape("decode_head.classifier.weight with (4, 32, 1, 1) in the file and (5,")
    ):
        RobustUPerNet(weights=str(tmp_path / "best_model_ckpt.pth"), width=6, num_classes=5)
    with pytest.raises(ModelError, match="checkpoint of another network"):
        RobustUPerNet("convnext_small", str(tmp_path / "best_model_ckpt.pth"), width=6, num_classes=4)


def test_the_backbone_is_timm_s():
    """ConvNeXt of timm with the same weights by its names gives the same features, but for the stem and last norms."""
    torch.manual_seed(0)
    own = freeze(RobustUPerNet(width=12)).network.backbone
    other = timm.create_model("convnext_tiny", features_only=True, dims=(12, 24, 48, 96), depths=(3, 3, 9, 3)).eval()
    with torch.no_grad():
        for values in own.state_dict().values():
            values.normal_(0, 0.3)
    names = {"dwconv": "conv_dw", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2"}
    state = {}
    for name, values in own.state_dict().items():
        if found := re.fullmatch(r"stages\.(\d)\.(\d+)\.(\w+)(.*)", name):
            stage, block, part, rest = found.groups()
            state[f"stages_{stage}.blocks.{block}.{names.get(part, part)}{rest}"] = values
        elif found := re.fullmatch(r"downsample_layers\.([123])\.(.*)", name):
            state[f"stages_{found[1]}.downsample.{found[2]}"] = values
    missing = other.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("stem") for name in missing.missing_keys)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = own.downsample_layers[0](x)
        for number in range(4):
            expected = getattr(other, f"stages_{number}")(before)
            before = own.stages[number](before if number == 0 else own.downsample_layers[number](before))
            assert torch.allclose(before, expected, rtol=1e-4, atol=1e-4)


def test_what_is_refused():
    for settings, says in (
        ({"backbone": "convnext_base"}, "'convnext_base' must be one of convnext_tiny, convnext_small"),
        ({"width": 8}, "width=8 a multiple of 6"),
        ({"num_classes": 0}, "num_classes=0 must be 1 or more"),
    ):
        with pytest.raises(ModelError, match=says):
            RobustUPerNet(**settings)
