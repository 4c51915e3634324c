"""`HuggingFaceModel` on a module in the place of transformers, which the tests do not ask for; the networks with
queries on transformers itself, where it is installed."""

import json
import math
import re
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_attack.models import ClassMap, HuggingFaceModel, ModelError, freeze, huggingface
from lightning_attack.models.hub import MissingFileError
from lightning_attack.models.huggingface import IMAGENET, log_scores


class Output(dict):
    """As transformers returns it: a dictionary whose entries are attributes too."""

    __getattr__ = dict.__getitem__


class Tiny(nn.Module):
    """Logits at a quarter of the size, as SegFormer's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(num_labels=7, id2label={number: f"class {number}" for number in range(7)})
        self.first = nn.Conv2d(3, 7, 4, stride=4)

    def forward(self, pixel_values):
        return Output(logits=self.first(pixel_values))


@pytest.fixture
def transformers(monkeypatch):
    """The module; `asked` is what it was asked for, `report` what it found missing."""
    module = ModuleType("transformers")
    module.asked, module.network = [], Tiny().eval()
    module.report = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}

    class Config:
        @staticmethod
        def from_pretrained(path, *, trust_remote_code):
            assert not trust_remote_code
            return SimpleNamespace(model_type="segformer")

    class Auto:
        @staticmethod
        def from_pretrained(path, *, use_safetensors, trust_remote_code, output_loading_info):
            module.asked.append((path, use_safetensors, trust_remote_code))
            if "nowhere" in path:
                raise OSError(f"{path} is not a local folder and is not a valid model identifier")
            return module.network, module.report

    module.AutoConfig, module.AutoModelForSemanticSegmentation = Config, Auto
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
    assert model.classes == tuple(f"class {number}" for number in range(7))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.5]))
    small = transformers.network((images - mean) / std).logits
    expected = nn.functional.interpolate(small, size=(64, 32), mode="bilinear", align_corners=False)
    assert torch.equal(model(images), expected)
    assert model(photo(1, 3, 33, 57)).shape == (1, 7, 33, 57)
    assert transformers.asked == [(path, True, False)]  # safetensors, and no code of the repository


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(transformers, tmp_path, kind):
    transformers.network.to(kind)
    model = HuggingFaceModel(folder(tmp_path), mean=IMAGENET[0], std=IMAGENET[1])
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model(photo(1, 3, 32, 32)).dtype == torch.float32


def test_one_label_is_a_binary_network(transformers, tmp_path):
    transformers.network.config.num_labels = 1
    transformers.network.first = nn.Conv2d(3, 1, 4, stride=4)
    model = HuggingFaceModel(folder(tmp_path), mean=IMAGENET[0], std=IMAGENET[1], num_classes=2)
    assert (model.num_classes, model(photo(1, 3, 32, 32)).shape[1]) == (2, 2)
    assert model.classes == ("", "class 0")
    assert ClassMap(model, [[1], [0]]).classes == ("class 0", "")


def test_weights_that_are_a_pointer(transformers, tmp_path):
    path = folder(tmp_path)
    (tmp_path / "segformer-b0" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model\.safetensors' is a Git LFS pointer"):
        HuggingFaceModel(path)


def test_without_a_preprocessor(transformers, tmp_path):
    with pytest.warns(UserWarning, match=r"has no preprocessor_config.json: ImageNet's .*Give mean and std") as caught:
        model = HuggingFaceModel(folder(tmp_path) + "/", name="mine", num_classes=7)
    assert [warning.filename for warning in caught] == [__file__]
    torch.testing.assert_close(model.mean.flatten(), torch.tensor(IMAGENET[0]))
    torch.testing.assert_close(model.std.flatten(), torch.tensor(IMAGENET[1]))
    assert model.name == "mine"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = HuggingFaceModel(folder(tmp_path), mean=IMAGENET[0], std=IMAGENET[1])
    assert silent.name == "segformer-b0"
    given = HuggingFaceModel(folder(tmp_path, do_normalize=False), mean=[0.1] * 3, std=[0.2] * 3)
    assert given.mean.flatten().tolist() == pytest.approx([0.1] * 3)


def test_preprocessor_without_the_numbers(transformers, tmp_path):
    with pytest.warns(UserWarning, match=r"preprocessor_config.json of '.*' has no image_mean and no image_std: Imag"):
        model = HuggingFaceModel(folder(tmp_path, do_resize=True))
    torch.testing.assert_close(model.mean.flatten(), torch.tensor(IMAGENET[0]))
    with pytest.warns(UserWarning, match=r"has no image_std: ImageNet's"):
        HuggingFaceModel(folder(tmp_path, image_mean=[0.5] * 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HuggingFaceModel(folder(tmp_path, do_normalize=False))


def test_a_hub_that_does_not_answer_is_no_absent_preprocessor(transformers, monkeypatch):
    failures = {"a/away": ModelError("the hub cannot be reached"), "a/without": MissingFileError("has no file")}

    def hub_file(path, file):
        raise failures[path]

    monkeypatch.setattr(huggingface, "hub_file", hub_file)
    with pytest.raises(ModelError, match=r"_config.json of 'a/away' is not to be had: .*reached; give mean and std"):
        HuggingFaceModel("a/away")
    assert HuggingFaceModel("a/away", mean=[0.5] * 3, std=[0.5] * 3).name == "away"
    with pytest.warns(UserWarning, match="'a/without' has no preprocessor_config.json"):
        HuggingFaceModel("a/without")


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
    HuggingFaceModel(folder(tmp_path), mean=[0.5] * 3, std=[0.5] * 3)
    transformers.report["mismatched_keys"] = [("head.weight", (3,), (4,))]
    with pytest.raises(ModelError, match="lacks 1 tensors"):
        HuggingFaceModel(folder(tmp_path))


def test_another_number_of_classes(transformers, tmp_path):
    with pytest.raises(ModelError, match=r"has 7 classes, but num_classes is 21; .*ClassMap"):
        HuggingFaceModel(folder(tmp_path), num_classes=21)


QUERIES = ("mask2former", "maskformer")


def made(kind):
    """A network whose queries differ, and which is sure of what it says, as trained ones are."""
    library = pytest.importorskip("transformers", reason="transformers is optional")
    backbone = library.SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 6}
    torch.manual_seed(0)
    if kind == "mask2former":
        widths = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "dim_feedforward"), 32)
        config = library.Mask2FormerConfig(
            backbone_config=backbone, encoder_feedforward_dim=32, num_attention_heads=2, num_labels=4, **widths, **sizes
        )
        network = library.Mask2FormerForUniversalSegmentation(config)
    else:
        widths = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        config = library.MaskFormerConfig(
            backbone_config=backbone,
            decoder_config=library.DetrConfig(**widths, **heads, **sizes),
            fpn_feature_size=32,
            mask_feature_size=32,
            num_labels=4,
        )
        network = library.MaskFormerForInstanceSegmentation(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".queries_" in name:
                parameter.copy_(30 * torch.randn(parameter.shape))
            elif name == "class_predictor.weight" or re.search(r"mask_embedder.*weight", name):
                parameter.mul_(30 if "class" in name else 4)
    return network.eval()


@pytest.fixture(params=QUERIES)
def queries(request, tmp_path, monkeypatch):
    """A folder that `save_pretrained` wrote, and the network."""
    network = made(request.param)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a download"))
    path = tmp_path / f"{request.param}-tiny"
    network.save_pretrained(path)
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}')
    return path, network


def summed(output):
    """Scores (B, C, h, w) of the queries, one after the other, in double precision."""
    classes, masks = output.class_queries_logits.double(), output.masks_queries_logits.double()
    scores = 0
    for query in range(classes.shape[1]):
        exponentials = classes[:, query].exp()
        probabilities = exponentials / exponentials.sum(1, keepdim=True)
        scores = scores + probabilities[:, :-1, None, None] / (1 + (-masks[:, query, None]).exp())
    return scores


def test_semantic_map_of_queries(queries):
    path, network = queries
    model, images = freeze(HuggingFaceModel(str(path))), photo(2, 3, 64, 96)
    assert (model.name, model.num_classes) == (path.name, 4)
    with torch.no_grad():
        output = network((images - 0.5) / 0.25)
    scores, logits = summed(output), model.network((images - 0.5) / 0.25)
    assert logits.shape == (2, 4, 16, 24)
    torch.testing.assert_close(logits, scores.log().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.softmax(1), (scores / scores.sum(1, keepdim=True)).float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits.argmax(1), scores.argmax(1))
    assert len(scores.argmax(1).unique()) > 1
    # The processor of MaskFormer: that of Mask2Former resizes to 384 x 384 first, and is the same apart from this.
    from transformers import MaskFormerImageProcessor

    theirs = MaskFormerImageProcessor().post_process_semantic_segmentation(output)
    assert torch.equal(logits.argmax(1), torch.stack(theirs))
    resized = nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
    assert torch.equal(model(images), resized)
    assert model(photo(1, 3, 33, 57)).shape == (1, 4, 33, 57)


def test_gradient_through_queries(queries):
    path, network = queries
    model, images = freeze(HuggingFaceModel(str(path))), photo(1, 3, 64, 64)
    weights = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    gradients = []
    for logits in (model.network, lambda x: summed(network(x)).log()):
        x = ((images - 0.5) / 0.25).requires_grad_()
        gradients += torch.autograd.grad((logits(x) * weights).sum(), x)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * gradients[1].abs().max().item())


def test_layers_of_a_network_with_queries_have_names(queries):
    names = dict(HuggingFaceModel(str(queries[0])).named_modules())
    assert isinstance(names["network.network.class_predictor"], nn.Linear)


def test_asked_for_the_predictions_of_earlier_layers(queries):
    path, _ = queries
    images = photo(1, 3, 64, 64)
    expected = freeze(HuggingFaceModel(str(path)))(images)
    for auxiliary in (True, False):
        config = json.loads((path / "config.json").read_text()) | {"use_auxiliary_loss": auxiliary}
        (path / "config.json").write_text(json.dumps(config))
        assert torch.equal(freeze(HuggingFaceModel(str(path)))(images), expected)


def test_queries_without_a_head_are_refused(queries):
    path, network = queries
    network.model.save_pretrained(path)
    with pytest.raises(ModelError, match=r"lacks \d+ tensors of the network \(the first is class_predictor.bias\)"):
        HuggingFaceModel(str(path))


def test_tensors_that_queries_need(queries):
    path, _ = queries
    file = path / "model.safetensors"
    tensors = load_file(file)
    del tensors["criterion.empty_weight"]  # the loss's
    save_file(tensors, file, {"format": "pt"})
    HuggingFaceModel(str(path))
    del tensors["class_predictor.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors of the network \(the first is class_predictor.weight\)"):
        HuggingFaceModel(str(path))


def test_number_of_classes_of_queries(queries):
    with pytest.raises(ModelError, match=r"has 4 classes, but num_classes is 5; .*ClassMap"):
        HuggingFaceModel(str(queries[0]), num_classes=5)


def test_pickled_weights_of_queries_are_not_read(queries):
    path, network = queries
    (path / "model.safetensors").unlink()
    torch.save(network.state_dict(), path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot load '.*'.*; expected .*model.safetensors"):
        HuggingFaceModel(str(path))


def test_a_network_that_takes_a_task_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is optional")
    (tmp_path / "config.json").write_text('{"model_type": "oneformer"}')
    with pytest.raises(ModelError, match=r"cannot load '.*' as a semantic segmentation network .*OneFormerConfig"):
        HuggingFaceModel(str(tmp_path))


def by_hand(classes, masks):
    """log_scores of one image of one pixel, in Python: the logarithm of a sum with its largest term taken out."""
    terms = []
    for row, mask in zip(classes, masks, strict=True):
        top = max(row)
        log_sum = top + math.log(sum(math.exp(value - top) for value in row))
        log_mask = -math.log1p(math.exp(-mask)) if mask > 0 else mask - math.log1p(math.exp(mask))
        terms.append([value - log_sum + log_mask for value in row[:-1]])
    columns = list(zip(*terms, strict=True))
    return [max(column) + math.log(sum(math.exp(term - max(column)) for term in column)) for column in columns]


@pytest.mark.parametrize(
    ("classes", "masks"),
    [
        ([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]], [0.3, -2.0]),
        ([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]], [-900.0, -901.0]),  # no mask has the pixel
        ([[1.0, 2.0, 900.0], [0.5, -1.0, 901.0]], [3.0, 5.0]),  # no query is an object
        ([[800.0, 0.0, 0.0], [0.0, 800.0, 0.0]], [50.0, -700.0]),  # the second class is in another place
        (
            [[800.0, 0.0, 0.0], [0.0, 10.0, 0.0]],
            [50.0, -80.0],
        ),  # above zero in float32, with an inverse that is too large
    ],
)
def test_scores_that_underflow(classes, masks):
    a, b = torch.tensor([classes], requires_grad=True), torch.tensor([masks])[..., None, None].requires_grad_()
    logits = log_scores(a, b)
    torch.testing.assert_close(logits.flatten(), torch.tensor(by_hand(classes, masks)))
    for label in (0, 1):
        of_masks = torch.autograd.grad(logits[0, label].sum(), b, retain_graph=True)[0].flatten()
        assert of_masks.isfinite().all()
        for query in range(2):
            up, down = ([m + sign * 1e-4 * (q == query) for q, m in enumerate(masks)] for sign in (1, -1))
            slope = (by_hand(classes, up)[label] - by_hand(classes, down)[label]) / 2e-4
            assert of_masks[query].item() == pytest.approx(slope, abs=1e-4)
    (1e4 * logits).sum().backward()
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0


def test_both_ways_to_sum_are_the_same(monkeypatch):
    random = torch.Generator().manual_seed(0)
    classes, masks = (5 * torch.randn(*shape, generator=random) for shape in ((2, 6, 5), (2, 6, 3, 4)))
    results = []
    for least in (huggingface._LEAST_SUM, math.inf):
        monkeypatch.setattr(huggingface, "_LEAST_SUM", least)
        a, b = classes.clone().requires_grad_(), masks.clone().requires_grad_()
        logits = log_scores(a, b)
        gradients = torch.autograd.grad(logits.square().sum(), (a, b), create_graph=True)
        second = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), (a, b))
        results.append((logits, *gradients, *second))
    for product, exact in zip(*results, strict=True):
        torch.testing.assert_close(product, exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_scores(dtype):
    random = torch.Generator().manual_seed(0)
    classes, masks = (5 * torch.randn(*shape, generator=random) for shape in ((1, 6, 5), (1, 6, 3, 4)))
    classes, masks = classes.to(dtype), masks.to(dtype)
    expected = summed(SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)).log()
    with torch.autocast("cpu", torch.bfloat16):
        logits = log_scores(classes, masks)
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
