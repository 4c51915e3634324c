"""`HuggingFaceModel` on a module in the place of transformers, which the tests do not ask for."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_attack.models import HuggingFaceModel, ModelError, freeze
from lightning_attack.models.huggingface import IMAGENET


class Output(dict):
    """As transformers returns it: a dictionary whose entries are attributes too."""

    __getattr__ = dict.__getitem__


class Tiny(nn.Module):
    """Logits at a quarter of the size, as SegFormer's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(num_labels=7)
        self.first = nn.Conv2d(3, 7, 4, stride=4)

    def forward(self, pixel_values):
        return Output(logits=self.first(pixel_values))


@pytest.fixture
def transformers(monkeypatch):
    """The module; `asked` is what it was asked for, `report` what it found missing."""
    module = ModuleType("transformers")
    module.asked, module.network = [], Tiny().eval()
    module.report = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}

    class Auto:
        @staticmethod
        def from_pretrained(path, *, use_safetensors, trust_remote_code, output_loading_info):
            module.asked.append((path, use_safetensors, trust_remote_code))
            if "nowhere" in path:
                raise OSError(f"{path} is not a local folder and is not a valid model identifier")
            return module.network, module.report

    module.AutoModelForSemanticSegmentation = Auto
    monkeypatch.setitem(sys.modules, "transformers", module)
    return module


def folder(tmp_path, **preprocessor):
    path = tmp_path / "segformer-b0"
    path.mkdir(exist_ok=True)
    if preprocessor:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(path)


def photo(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_network_from_a_folder(transformers, tmp_path):
    path = folder(tmp_path, do_normalize=True, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.25, 0.5])
    model, images = freeze(HuggingFaceModel(path)), photo(2, 3, 64, 32)
    assert (model.name, model.num_classes) == ("segformer-b0", 7)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.5]))
    small = transformers.network((images - mean) / std).logits
    expected = nn.functional.interpolate(small, size=(64, 32), mode="bilinear", align_corners=False)
    assert torch.equal(model(images), expected)
    assert model(photo(1, 3, 33, 57)).shape == (1, 7, 33, 57)
    assert transformers.asked == [(path, True, False)]  # safetensors, and no code of the repository


def test_without_a_preprocessor(transformers, tmp_path):
    model = HuggingFaceModel(folder(tmp_path) + "/", name="mine", num_classes=7)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor(IMAGENET[0]))
    torch.testing.assert_close(model.std.flatten(), torch.tensor(IMAGENET[1]))
    assert model.name == "mine"
    given = HuggingFaceModel(folder(tmp_path, do_normalize=False), mean=[0.1] * 3, std=[0.2] * 3)
    assert given.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert HuggingFaceModel(folder(tmp_path)).name == "segformer-b0"


@pytest.mark.parametrize(
    ("preprocessor", "mean", "std"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, 0.5, 0.25),
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 2 / 255}, 0.25, 0.125),
        ({"image_mean": [51] * 3, "image_std": [127.5] * 3, "do_rescale": False}, 0.2, 0.5),
        ({"do_normalize": False, "image_mean": [0.5] * 3}, 0.0, 1.0),
    ],
)
def test_what_a_preprocessor_says(transformers, tmp_path, preprocessor, mean, std):
    model = HuggingFaceModel(folder(tmp_path, **preprocessor))
    assert model.mean.flatten().tolist() == pytest.approx([mean] * 3)
    assert model.std.flatten().tolist() == pytest.approx([std] * 3)


def test_damaged_preprocessor(transformers, tmp_path):
    for text in ("{", "[]", '{"image_mean": 3}', '{"rescale_factor": 0}'):
        path = folder(tmp_path, a=1)
        (tmp_path / "segformer-b0" / "preprocessor_config.json").write_text(text)
        with pytest.raises(ModelError, match=f"preprocessor_config.json of '{re.escape(path)}' is damaged"):
            HuggingFaceModel(path)
    with pytest.raises(ModelError, match="give three numbers"):
        HuggingFaceModel(folder(tmp_path, image_mean=[0.5], image_std=[0.5]))
    with pytest.raises(ModelError, match="blue before red"):
        HuggingFaceModel(folder(tmp_path, do_flip_channel_order=True))


def test_transformers_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="pip install transformers"):
        HuggingFaceModel("anything")


def test_no_such_network(transformers):
    with pytest.raises(ModelError, match=r"cannot load 'a/nowhere' .*OSError: .*; expected .*model.safetensors"):
        HuggingFaceModel("a/nowhere")


def test_an_encoder_without_a_head_is_refused(transformers, tmp_path):
    transformers.report["missing_keys"] = {"decode_head.classifier.weight", "bn.num_batches_tracked"}
    with pytest.raises(ModelError, match=r"lacks 1 tensors .*decode_head.classifier.weight.*segmentation head"):
        HuggingFaceModel(folder(tmp_path))
    transformers.report["missing_keys"] = {"bn.num_batches_tracked"}
    HuggingFaceModel(folder(tmp_path))
    transformers.report["mismatched_keys"] = [("head.weight", (3,), (4,))]
    with pytest.raises(ModelError, match="lacks 1 tensors"):
        HuggingFaceModel(folder(tmp_path))


def test_another_number_of_classes(transformers, tmp_path):
    with pytest.raises(ModelError, match=r"has 7 classes, but num_classes is 21; .*ClassMap"):
        HuggingFaceModel(folder(tmp_path), num_classes=21)
