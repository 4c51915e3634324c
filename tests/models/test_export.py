"""`export_model` and `export_checkpoint`: the file gives the network's logits to the last bit, mistakes are named."""

import copy
import json
import re

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from safetensors import safe_open
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.models import (
    ClassMap,
    Ensemble,
    ExportedModel,
    ModelError,
    SegmentationModel,
    SemSegModel,
    SMPModel,
    TrainedModel,
    export_checkpoint,
    export_model,
    freeze,
    semseg,
)
from lightning_attack.models.checkpoint import load_checkpoint
from lightning_attack.training.task import SegmentationTask
from tests.fake_cuda import on_cuda

SIZES = ((2, 72, 104), (1, 33, 57), (4, 64, 64), (1, 96, 31), (1, 128, 160), (3, 5, 7))
NAMES = ("sky", "road", "tree", "car")


def photo(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def fpn(seed=0, classes=4, arch="fpn", **options):
    torch.manual_seed(seed)
    model = SMPModel(arch, "tu-test_resnet", classes, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    return model


def difference(first, second, sizes=SIZES):
    images = [photo(batch, 3, *size) for batch, *size in sizes]
    return max(float((first(x) - second(x)).abs().max()) for x in images)


class Halving(nn.Module):
    """Logits at half of the size, with a dropout that an export in training mode would keep."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        return {"out": self.layers(x)}


def one_block_semseg(monkeypatch):
    monkeypatch.setattr(semseg, "_BLOCKS", {"resnet50": (1, 1, 1, 1)})
    return SemSegModel("pspnet", width=2, num_classes=4)


MODELS = {
    "half": lambda _: SegmentationModel(Halving(), name="half"),
    "semseg": one_block_semseg,
    "ensemble": lambda _: Ensemble([SegmentationModel(Halving(), stride=8), Halving()], by="softmax"),
    "class_map": lambda _: ClassMap(SegmentationModel(Halving(), stride=16), [[0, 2], [1]], num_classes=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_program_round_trip_is_exact_on_any_size(tmp_path, name, monkeypatch):
    model = MODELS[name](monkeypatch).train()
    about = export_model(model, str(tmp_path / "model.pt2"))
    assert model.training  # the given network stays as it was
    again = freeze(ExportedModel(str(tmp_path / "model.pt2")))
    assert difference(again, freeze(model)) == 0.0
    assert (about["size"], about["batch"], about["difference"], about["stride"]) == ("any", "any", 0.0, model.stride)
    assert (again.name, again.num_classes, again.classes) == (model.name, model.num_classes, None)
    assert again.metadata == about
    assert on_cuda(again, photo(1, 3, 33, 57)).device.type == "cuda"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]  # no unfinished file is left


def test_a_size_of_which_torch_proves_nothing(tmp_path, monkeypatch):
    """As with a ResNet on 72 x 104 images, of which it solves no inequality."""
    trace = torch.export.export

    def stumbling(network, images, dynamic_shapes):
        if images[0].shape[2:] == (72, 104) and 2 in dynamic_shapes[0]:
            raise NotImplementedError("an inequality cannot be solved")
        return trace(network, images, dynamic_shapes=dynamic_shapes)

    monkeypatch.setattr(torch.export, "export", stumbling)
    about = export_model(SegmentationModel(Halving(), name="half"), str(tmp_path / "model.pt2"))
    assert about["size"] == "any"
    assert [2, 72, 104] in about["compared"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network of smp with stride 32, its file read again, and what was said about it."""
    path = str(tmp_path_factory.mktemp("exported") / "model.pt2")
    model = fpn(name="mine")
    about = export_model(model, path, classes=NAMES)
    return freeze(model), freeze(ExportedModel(path)), about, path


def test_network_of_smp_round_trip_is_exact_on_any_size(exported):
    model, again, about, _ = exported
    assert difference(again, model) == 0.0
    assert (about["size"], about["batch"], about["difference"], about["stride"]) == ("any", "any", 0.0, 32)


def test_padding_as_in_tensorflow(tmp_path):
    """It is in the program as numbers: formulas of the size, one inside the other, take minutes in a whole encoder."""
    torch.manual_seed(0)
    layers = [
        Conv2dSame(3, 4, 3, 2),
        Conv2dSame(4, 4, 5, 2, groups=2, bias=False),
        Conv2dSame(4, 4, 3, 1, dilation=2),
        Conv2dSame(4, 3, (3, 2)),
    ]
    model = SegmentationModel(nn.Sequential(*layers), 3, stride=4)
    about = export_model(model, str(tmp_path / "model.pt2"))
    again = ExportedModel(str(tmp_path / "model.pt2"))
    assert (about["size"], about["difference"], difference(freeze(again), freeze(model))) == ("any", 0.0, 0.0)
    assert isinstance(model.network[0], Conv2dSame), "the given network stays as it was"
    pads = [node.args[1] for node in again.network.graph.nodes if node.target is torch.ops.aten.pad.default]
    assert pads[-4:] == [[0, 1, 0, 1], [1, 2, 1, 2], [2, 2, 2, 2], [0, 1, 1, 1]]


def test_gradients_and_double_precision_survive(exported):
    gradients = []
    for one in (copy.deepcopy(part).double() for part in exported[:2]):
        images = photo(1, 3, 33, 57).double().requires_grad_()
        gradients.append(torch.autograd.grad(one(images).square().sum(), images)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


def test_program_needs_no_code_of_this_project(exported):
    model, _, _, path = exported
    program = torch.export.load(path).module()
    images = photo(1, 3, 50, 70)
    assert torch.equal(program(images), model(images))


def test_what_a_program_says(exported):
    _, again, about, _ = exported
    assert about["mean"] == [0.5, 0.4, 0.3]
    assert about["std"] == [0.2, 0.3, 0.4]
    assert about["normalised"] == "inside"
    assert [2, 72, 104] in about["compared"]
    assert (again.classes, again.name, again.num_classes) == (NAMES, "mine", 4)


class Fixed(nn.Module):
    """Takes one height and width, or one batch too."""

    def __init__(self, size, batch=None):
        super().__init__()
        torch.manual_seed(0)
        self.size, self.batch, self.layer = size, batch, nn.Conv2d(3, 4, 1)
        self.places = nn.Parameter(torch.rand(1, 4, *size))

    def forward(self, x):
        if self.batch is not None and len(x) != self.batch:
            raise ValueError("wrong batch")
        return self.layer(x) + self.places


@pytest.mark.parametrize("batch", [None, 2])
def test_network_of_one_size(tmp_path, batch):
    model = SegmentationModel(Fixed((24, 32), batch), name="fixed")
    path = str(tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=r"'fixed' fails on a 72x104 image .*; give the size that it takes"):
        export_model(model, path)
    with pytest.warns(UserWarning, match=r"'fixed' takes images of 24 x 32 only, because .*--size=\[24,32\]"):
        about = export_model(model, path, size=(24, 32))
    assert (about["size"], about["batch"]) == ([24, 32], "any" if batch is None else 2)
    again = freeze(ExportedModel(path))
    assert difference(again, freeze(model), [(batch or 3, 24, 32)]) == 0.0
    with pytest.raises(ModelError, match=r"exported for images of size \[24, 32\], not \[24, 40\]; set data.size"):
        again(photo(2, 3, 24, 40))
    if batch:  # other batches are shown to it in parts of two, the last one filled up
        images = photo(3, 3, 24, 32)
        with pytest.warns(UserWarning, match="'fixed' takes 2 images at a time: other batches are run in such parts"):
            logits = again(images)
        pairs = [images[:2], images[[2, 2]]]
        assert torch.equal(logits, torch.cat([model(pair) for pair in pairs])[:3])


def test_network_that_torch_cannot_export(tmp_path):
    class Python(nn.Module):
        def forward(self, x):
            return x * float(x.sum().item() > json.loads("0"))

    with pytest.raises(ModelError, match=r"network 'python' cannot be exported \(\w+: "):
        export_model(SegmentationModel(Python()), str(tmp_path / "model.pt2"))
    assert not list(tmp_path.iterdir())


def test_weights_round_trip_is_exact(tmp_path):
    model, path = (
        fpn(stride=64, name="mine", options={"decoder_pyramid_channels": 16}),
        tmp_path / "weights.safetensors",
    )
    about = export_model(model, str(path), classes=NAMES)
    again = freeze(TrainedModel(str(path)))
    assert difference(again, freeze(model)) == 0.0
    assert (again.name, again.stride, about["stride"], about["classes"]) == ("mine", 64, 64, list(NAMES))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(NAMES)
    with pytest.raises(ModelError, match=r"'half' \(SegmentationModel\) is not one of smp.*export it to model.pt2"):
        export_model(SegmentationModel(Halving(), name="half"), str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("name", ["model.pt2", "weights.safetensors"])
def test_target_is_checked(tmp_path, name):
    model = fpn(name="net") if name == "weights.safetensors" else SegmentationModel(Halving(), 4, name="net")
    path = str(tmp_path / name)
    with pytest.raises(ModelError, match="3 class names for network 'net' with 4 classes"):
        export_model(model, path, classes=NAMES[:3])
    with pytest.raises(ModelError, match=f"classes names '{NAMES[0]}' twice"):
        export_model(model, path, classes=[NAMES[0], *NAMES[:3]])
    (tmp_path / name).write_text("something dear")
    with pytest.raises(ModelError, match=re.escape(f"'{path}' exists; choose another name or delete it")):
        export_model(model, path)
    assert (tmp_path / name).read_text() == "something dear"
    export_model(model, path, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"something dear"


@pytest.mark.parametrize("name", ["model.onnx", "model", "model.pt"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ModelError, match=r"ends in '.*'; choose model.pt2 .* or weights.safetensors"):
        export_model(fpn(), str(tmp_path / name))
    with pytest.raises(ModelError, match="ends in"):  # before the checkpoint is read
        export_checkpoint("nowhere.ckpt", str(tmp_path / name))


def network_settings(**changes):
    arguments = {
        "arch": "pspnet",
        "encoder_name": "tu-test_resnet",
        "num_classes": 8,
        "mean": [0.5] * 3,
        "std": [0.3] * 3,
    }
    return {"class_path": "lightning_attack.models.SMPModel", "init_args": arguments | changes}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run folder as `fit` leaves it: config.yaml, and a checkpoint in a folder of its own; and the network."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = SMPModel(**network_settings()["init_args"])
    task = SegmentationTask(network, lr=0.01, class_weights=[1.0] * 8)
    scenes = SyntheticScenes(4, size=32)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, SegmentationDataModule(train=scenes, val=scenes, batch_size=4))
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    # What another machine had at training time must not be needed again.
    network_ = network_settings(weights="gone.pt", encoder_weights="pypi:gone")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"network": network_, "lr": 0.01}}))
    return folder, freeze(network)


def test_checkpoint_round_trip_is_exact(tmp_path, fitted):
    folder, network = fitted
    weights, program = str(tmp_path / "new" / "weights.safetensors"), str(tmp_path / "model.pt2")
    about = export_checkpoint(str(folder / "checkpoints" / "last.ckpt"), weights, classes=list("abcdefgh"))
    assert difference(freeze(TrainedModel(weights)), network) == 0.0
    assert (about["num_classes"], about["classes"]) == (8, list("abcdefgh"))
    export_checkpoint(weights, program)  # and on to a program
    assert difference(freeze(ExportedModel(program)), network) == 0.0


def test_a_checkpoint_may_know_its_network_and_classes(tmp_path, fitted):
    folder, network = fitted
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(content | {"recipe": network.recipe, "classes": tuple("abcdefgh")}, tmp_path / "own.ckpt")
    model, classes = load_checkpoint(str(tmp_path / "own.ckpt"))
    assert difference(freeze(model), network) == 0.0
    assert classes == tuple("abcdefgh")
    torch.save(content | {"recipe": {"arch": "pspnet", "colour": "red"}}, tmp_path / "own.ckpt")
    with pytest.raises(ModelError, match="another version of this program"):
        load_checkpoint(str(tmp_path / "own.ckpt"))


def test_checkpoint_away_from_its_run(tmp_path, fitted):
    folder, network = fitted
    (tmp_path / "deep").mkdir()
    moved = tmp_path / "deep" / "moved.ckpt"
    moved.write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    model, classes = load_checkpoint(str(moved))
    assert difference(freeze(model), network) == 0.0
    # One of an older version, or of a network that is not of smp, does not know.
    content = torch.load(moved, weights_only=True)
    del content["recipe"], content["classes"]
    torch.save(content, moved)
    with pytest.raises(ModelError, match=r"does not say which network .* no config.yaml .*weights.safetensors"):
        load_checkpoint(str(moved))
    model, classes = load_checkpoint(str(moved), config=str(folder / "config.yaml"))
    assert difference(freeze(model), network) == 0.0
    assert classes is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is no configuration with model.network"),
        ({"data": 1}, "is no configuration with model.network"),
        ({"model": {"network": network_settings(num_classes=5)}}, "another shape"),
        ({"model": {"network": network_settings(arch="unet")}}, "checkpoint of another network"),
        ({"model": {"network": network_settings(colour="red")}}, "model.network of '.*' cannot be built"),
        ({"model": {"network": "nowhere.Network"}}, "model.network of '.*' cannot be built"),
        ({"model": {"network": {"init_args": {}}}}, "is no configuration with model.network"),
    ],
)
def test_configuration_that_does_not_fit(tmp_path, fitted, config, message):
    (tmp_path / "c.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    with pytest.raises(ModelError, match=message):
        load_checkpoint(str(fitted[0] / "checkpoints" / "last.ckpt"), config=str(tmp_path / "c.yaml"))


def test_checkpoint_of_something_else(tmp_path):
    torch.save({"state_dict": nn.Conv2d(3, 3, 1).state_dict()}, tmp_path / "other.ckpt")
    (tmp_path / "garbage.ckpt").write_bytes(b"garbage")
    to = str(tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=r"other.ckpt' is no checkpoint of fit: none .* network.network"):
        export_checkpoint(str(tmp_path / "other.ckpt"), to)
    with pytest.raises(ModelError, match=r"garbage.ckpt' is no"):
        export_checkpoint(str(tmp_path / "garbage.ckpt"), to)
    with pytest.raises(ModelError, match=r"no file 'nowhere.ckpt'"):
        export_checkpoint("nowhere.ckpt", to)
