"""`RobustSegmenter`: the published file's tensor names and shapes, its logits against PyTorch's own transformer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.models import ModelError, RobustSegmenter, freeze

TINY = {"width": 128, "size": 48, "num_classes": 5}


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def expected(width, patches, classes):
    """Names and shapes of the tensors of a published file, written down from its keys and not from our modules."""
    shapes = {"encoder.cls_token": (1, 1, width), "encoder.pos_embed": (1, 1 + patches, width)}
    shapes |= layer("encoder.patch_embed.proj", width, 3, 16, 16)
    for name in [f"encoder.blocks.{number}" for number in range(12)] + ["decoder.blocks.0", "decoder.blocks.1"]:
        shapes |= layer(f"{name}.norm1", width) | layer(f"{name}.norm2", width)
        shapes |= layer(f"{name}.attn.qkv", 3 * width, width) | layer(f"{name}.attn.proj", width, width)
        shapes |= layer(f"{name}.mlp.fc1", 4 * width, width) | layer(f"{name}.mlp.fc2", width, 4 * width)
    shapes |= layer("encoder.norm", width) | layer("encoder.head", 1000, width)
    shapes |= {"decoder.cls_emb": (1, classes, width)} | layer("decoder.proj_dec", width, width)
    shapes |= {f"decoder.proj_{part}": (width, width) for part in ("patch", "classes")}
    return shapes | layer("decoder.decoder_norm", width) | layer("decoder.mask_norm", classes)


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        state = RobustSegmenter(mean=(0,) * 3, std=(1,) * 3).network.state_dict()
    shapes = expected(384, 32 * 32, 151)
    assert {name: shape for name, shape in shapes.items() if not name.startswith("encoder.head")} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }


@pytest.fixture(scope="module")
def published():
    """A stand-in for a published file: its names, smaller shapes, random values."""
    draws = torch.Generator().manual_seed(0)
    shapes = expected(128, 9, 5)
    return {name: 0.2 * torch.randn(shape, generator=draws) + 1.0 * ("norm" in name) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def path(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "Segmenter_ViT-S.pth"
    torch.save({f"module.{name}": values for name, values in published.items()}, path)
    return str(path)


def transformer(state, prefix, heads):
    """PyTorch's own layer with the weights below `prefix`."""
    width = len(state[f"{prefix}.norm1.weight"])
    block = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    theirs = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1."}
    theirs |= {"linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
    parts = [(own + part, f"{prefix}.{name}{part}") for own, name in theirs.items() for part in ("weight", "bias")]
    block.load_state_dict({own: state[name] for own, name in parts})
    return block


@torch.no_grad()
def reference(state, images, trained=3, heads=2):
    """Logits by the papers' formulas."""
    height, width = images.shape[-2:]
    padded = torch.zeros(len(images), 3, -(-height // 16) * 16, -(-width // 16) * 16)
    padded[..., :height, :width] = images
    rows, columns = padded.shape[-2] // 16, padded.shape[-1] // 16
    patches = F.unfold(padded, 16, stride=16).mT @ state["encoder.patch_embed.proj.weight"].flatten(1).T
    first, grid = state["encoder.pos_embed"].split([1, trained**2], 1)
    grid = grid.reshape(1, trained, trained, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (rows, columns), mode="bilinear").permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
    x = patches + state["encoder.patch_embed.proj.bias"] + grid
    x = torch.cat([(state["encoder.cls_token"] + first).repeat(len(x), 1, 1), x], 1)
    for number in range(12):
        x = transformer(state, f"encoder.blocks.{number}", heads)(x)

    def norm(values, name):
        return F.layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.linear(norm(x, "encoder.norm")[:, 1:], state["decoder.proj_dec.weight"], state["decoder.proj_dec.bias"])
    x = torch.cat([x, state["decoder.cls_emb"].repeat(len(x), 1, 1)], 1)
    for number in range(2):
        x = transformer(state, f"decoder.blocks.{number}", heads)(x)
    x = norm(x, "decoder.decoder_norm")
    z = (x[:, : rows * columns] @ state["decoder.proj_patch"])[:, :, None]
    c = (x[:, rows * columns :] @ state["decoder.proj_classes"])[:, None]
    masks = norm(torch.cosine_similarity(z, c, dim=-1), "decoder.mask_norm")
    masks = masks.reshape(len(x), rows, columns, -1).permute(0, 3, 1, 2)
    return F.interpolate(masks, padded.shape[-2:], mode="bilinear")[..., :height, :width]


@pytest.mark.parametrize("shape", [(48, 48), (32, 80), (16, 144), (33, 57)], ids=str)
def test_logits_are_those_of_the_formulas(published, path, shape):
    """At the size of training, at another with the resized positions (one of as many patches), and padded."""
    model = freeze(RobustSegmenter(path, **TINY))
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    logits = model(images)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, reference(published, images), rtol=1e-4, atol=1e-4)
    assert model.name == "segmenter_vit_small"


def test_files_that_do_not_fit(path):
    for settings, says in (
        ({"num_classes": 7}, r"decoder.cls_emb with \(1, 5, 128\) in the file and \(1, 7, 128\)"),
        ({"size": 64}, r"encoder.pos_embed with \(1, 10, 128\) in the file and \(1, 17, 128\)"),
        ({"weights": "nowhere.pth"}, "no file 'nowhere.pth'"),
        ({"num_classes": 0}, "num_classes=0 must be 1 or more"),
        ({"size": 50}, "size=50 a multiple of 16"),
        ({"width": 100}, "width=100 a multiple of 64"),
    ):
        with pytest.raises(ModelError, match=says):
            RobustSegmenter(**{"weights": path} | TINY | settings)


def test_a_file_of_another_network(published, tmp_path):
    stem = {name.replace("proj.weight", "proj.stem.0.weight"): values for name, values in published.items()}
    torch.save(stem, tmp_path / "stem.pth")
    with pytest.raises(ModelError, match=r"another network: .*missing .*foreign tensors"):
        RobustSegmenter(str(tmp_path / "stem.pth"), **TINY)
