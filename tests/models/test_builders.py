"""Networks from smp, from files of this program, from torch.export and from torchvision, with no download."""

import json
import re

import pytest
import torch
import torchvision
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_attack.attacks import fgsm, pgd
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.metrics import SegmentationScores
from lightning_attack.models import (
    ExportedModel,
    ModelError,
    SegmentationModel,
    SMPModel,
    TorchVisionModel,
    TrainedModel,
    freeze,
)
from lightning_attack.models.weights import EMBEDDED
from lightning_attack.predict.module import AttackModule
from lightning_attack.training import WeightsExport
from lightning_attack.training.task import SegmentationTask

LRASPP = "lraspp_mobilenet_v3_large"


def photo(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a test wanted to download")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "nope"}, "arch='nope'.*unetplusplus.*segformer"),
        ({"encoder_name": "resnet1"}, "encoder_name='resnet1'.*'resnet18'"),
        ({"encoder_name": "tu-nope"}, r"encoder_name='tu-nope'.*Unknown model \(nope\)"),
        ({"options": {"decoder_width": 3}}, "options={'decoder_width': 3}.*unexpected.*decoder_width"),
        ({"options": {"decoder_channels": [4]}}, "decoder_channels"),
        ({"encoder_name": "resnet18", "encoder_weights": "nope"}, "`nope`.*'imagenet'"),
        ({"weights": "nowhere.pt"}, "no file 'nowhere.pt'"),
        ({"std": (1, 1, 0)}, "std above 0"),
    ],
)
def test_smp_mistakes_are_named(arguments, message):
    with pytest.raises(ModelError, match=message):
        SMPModel(**{"arch": "unet", "encoder_name": "tu-test_resnet", "num_classes": 3} | arguments)


def test_smp_takes_options_stride_and_weights(tmp_path):
    options = {"decoder_channels": [16, 8, 8, 4, 4]}
    torch.manual_seed(0)
    first = SMPModel("unet", "tu-test_resnet", 3, options=options, stride=64)
    assert first.network.segmentation_head[0].in_channels == 4
    assert (first.name, first.stride) == ("unet_test_resnet", 64)
    torch.save({"state_dict": first.network.state_dict()}, tmp_path / "w.pt")
    second = SMPModel("unet", "tu-test_resnet", 3, weights=str(tmp_path / "w.pt"), options=options, stride=64)
    images = photo(1, 3, 33, 57)
    assert torch.equal(freeze(second)(images), freeze(first)(images))
    with pytest.raises(ModelError, match=r"segmentation_head.0.weight with \(3, 4, .*and \(5, 4,"):
        SMPModel("unet", "tu-test_resnet", 5, weights=str(tmp_path / "w.pt"), options=options)


def trained(tmp_path, half=True, callbacks=(), steps=1, network=None):
    """A network trained for some steps in folder `run`, and the file that `WeightsExport` made."""
    torch.manual_seed(0)
    options = {"decoder_channels": [16, 8, 8, 8, 8]}
    if network is None:
        network = SMPModel("unet", "tu-test_resnet", 8, mean=(0.5,) * 3, std=(0.3,) * 3, options=options, name="mine")
    scenes = SyntheticScenes(4, size=32)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path / "run",
        callbacks=[WeightsExport(half), *callbacks],
    )
    data = SegmentationDataModule(train=scenes, val=scenes, batch_size=4)
    trainer.fit(SegmentationTask(network, lr=0.01), data)
    return freeze(network), tmp_path / "run" / "weights.safetensors"


def test_trained_network_round_trip(tmp_path):
    network, file = trained(tmp_path)
    again = freeze(TrainedModel(str(file)))
    assert [p.name for p in file.parent.iterdir()] == [file.name]  # no unfinished file is left
    assert all(t.dtype == torch.float16 for t in load_file(file).values() if t.is_floating_point())
    images = photo(2, 3, 40, 50)
    torch.testing.assert_close(again(images), network(images), rtol=1e-2, atol=1e-2)
    assert (again.name, again.num_classes, again.stride) == ("mine", 8, 32)
    assert torch.equal(again.mean, network.mean)
    assert torch.equal(again.std, network.std)
    untrained = SMPModel(**again.recipe)
    assert not torch.allclose(freeze(untrained)(images), network(images), rtol=1e-2, atol=1e-2)


def test_full_precision_round_trip_is_exact(tmp_path):
    network, file = trained(tmp_path, half=False)
    images = photo(2, 3, 40, 50)
    assert torch.equal(freeze(TrainedModel(str(file)))(images), network(images))


def test_best_checkpoint_is_exported(tmp_path):
    class Worse(ModelCheckpoint):
        """The second epoch is worse than the first, whatever it is."""

        def on_validation_end(self, trainer, pl_module):
            trainer.callback_metrics["val/miou"] = torch.tensor(-float(trainer.current_epoch))
            super().on_validation_end(trainer, pl_module)

    checkpoint = Worse(tmp_path / "kept", monitor="val/miou", mode="max", save_weights_only=True)
    last, file = trained(tmp_path, half=False, callbacks=[checkpoint], steps=2)
    best = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    weights, name = load_file(file), "segmentation_head.0.weight"
    assert torch.equal(weights[name], best["network.network." + name])
    assert not torch.equal(weights[name], last.network.state_dict()[name])


def test_tensors_that_half_precision_cannot_hold_stay(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
    network[1].bias.data.fill_(1e6)
    network.register_buffer("count", torch.tensor(7))
    _, file = trained(tmp_path, network=SegmentationModel(network, num_classes=8))
    stored = load_file(file)
    assert stored["0.weight"].dtype == torch.float16
    assert torch.equal(stored["1.bias"], network[1].bias)
    assert stored["count"].item() == 7
    with pytest.raises(ModelError, match="does not say which network"):  # it is none that this program can build
        TrainedModel(str(file))


def test_file_without_recipe(tmp_path):
    network = SMPModel("fpn", "tu-test_resnet", 3).network
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    for name in ("bare.safetensors", "garbage.safetensors", "weights.pt"):
        with pytest.raises(ModelError, match=re.escape(name) + ".*does not say which network.*SMPModel"):
            TrainedModel(str(tmp_path / name))
    with pytest.raises(ModelError, match="no file"):
        TrainedModel(str(tmp_path / "nowhere.safetensors"))


@pytest.mark.parametrize("recipe", [[1, 2], {"arch": "unet", "colour": "red"}])
def test_file_with_a_recipe_of_something_else(tmp_path, recipe):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors", metadata={"recipe": json.dumps(recipe)})
    with pytest.raises(ModelError, match=r"w\.safetensors' was written by another version of this program \("):
        TrainedModel(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("file", sorted(EMBEDDED.glob("*.safetensors")), ids=lambda file: file.stem)
def test_embedded_networks_are_whole(file):
    model, scores = freeze(TrainedModel(f"embedded:{file.stem}")), SegmentationScores(8)
    for batch in SegmentationDataModule(SyntheticScenes(8, seed=123), batch_size=8).predict_dataloader():
        scores.update(model(batch["image"]).argmax(1), batch["mask"])
    assert scores.compute()["miou"] > 0.5  # trained, and the recipe's normalisation is that of the training


def test_the_robust_twin_withstands():
    """It keeps four fifths of its mIoU under transfer, and more than its twin of it under PGD on itself."""
    assert (EMBEDDED / "scenes_fpn_robust.safetensors").stat().st_size < 2e6
    names = {"scenes_deeplabv3plus": "source", "scenes_fpn": "plain", "scenes_fpn_robust": "robust"}
    networks = {own: TrainedModel(f"embedded:{name}") for name, own in names.items()}
    (batch,) = SegmentationDataModule(SyntheticScenes(6, size=96, seed=11), batch_size=6).predict_dataloader()
    miou = {}
    for source, attack in (("source", fgsm()), ("plain", pgd(steps=4)), ("robust", pgd(steps=4))):
        target = "robust" if source == "source" else source
        output = AttackModule(networks[source], attack, {target: networks[target]}).predict_step(batch, 0)
        for condition, preds in output.preds[target].items():
            scores = SegmentationScores(8)
            scores.update(preds, output.labels)
            miou[source, condition] = float(scores.compute()["miou"])
    assert miou["source", "adversarial"] > 0.8 * miou["source", "clean"]
    assert miou["robust", "adversarial"] > miou["plain", "adversarial"] + 0.05


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 5, 1)
        self.norm, self.drop = nn.BatchNorm2d(6), nn.Dropout2d()

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    network = Small().eval()
    network.norm.running_mean.fill_(0.1)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.rand(2, 3, 16, 24),), dynamic_shapes=(dynamic,))
    path = tmp_path_factory.mktemp("exported") / "small.pt2"
    torch.export.save(program, path)
    return str(path), network


def test_exported_network_equals_the_eager_one(exported):
    path, network = exported
    model = freeze(ExportedModel(path, mean=(0.5,) * 3, std=(0.25,) * 3, stride=8))
    eager = SegmentationModel(network, mean=(0.5,) * 3, std=(0.25,) * 3, stride=8)
    for size in ((1, 3, 33, 57), (4, 3, 16, 16)):
        images = photo(*size).requires_grad_()
        gradients = [torch.autograd.grad(m(images).square().sum(), images)[0] for m in (model, eager)]
        torch.testing.assert_close(model(images), eager(images))
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().sum() > 0
    assert (model.name, model.num_classes) == ("small", 5)


def test_exported_network_has_no_modes(exported):
    model = ExportedModel(exported[0])
    images = photo(1, 3, 16, 16)
    before = model(images)
    for holder in (model, nn.Sequential(model)):  # Lightning calls them on what holds the network
        assert torch.equal(holder.train()(images), before)
        assert torch.equal(holder.eval()(images), before)


def test_exported_file_is_checked(tmp_path, exported):
    (tmp_path / "garbage.pt2").write_bytes(b"garbage")
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt2")
    for name in ("garbage.pt2", "weights.pt2"):
        with pytest.raises(ModelError, match=re.escape(name) + "' is not a file of torch.export.save"):
            ExportedModel(str(tmp_path / name))
    with pytest.raises(ModelError, match=r"no file 'nowhere.pt2'"):
        ExportedModel("nowhere.pt2")
    with pytest.raises(ModelError, match="'small' returned 5 classes, but num_classes is 4"):
        ExportedModel(exported[0], num_classes=4)(photo(1, 3, 16, 16))


def torchvision_state(classes, seed=1):
    torch.manual_seed(seed)
    network = torchvision.models.get_model(LRASPP, weights=None, weights_backbone=None, num_classes=classes)
    return network.eval(), network.state_dict()


def imagenet(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def test_torchvision_without_weights():
    model = freeze(TorchVisionModel(LRASPP, num_classes=4, name="light"))
    images = photo(1, 3, 33, 57)
    assert model(images).shape == (1, 4, 33, 57)
    assert model.name == "light"
    torch.testing.assert_close(model(images), model.network(imagenet(images))["out"])


def test_torchvision_with_its_own_weights(monkeypatch):
    network, state = torchvision_state(21)
    asked = []
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda url, *_, **__: asked.append(url) or dict(state)
    )
    model = freeze(TorchVisionModel(LRASPP, weights="COCO_WITH_VOC_LABELS_V1", num_classes=3))
    assert [LRASPP.removesuffix("_large") in url for url in asked] == [True]  # and no weights of the backbone
    images = photo(1, 3, 33, 57)
    torch.testing.assert_close(model(images), network(imagenet(images))["out"])
    assert model.num_classes == 21  # the weights know better
    assert TorchVisionModel(LRASPP, weights="DEFAULT").num_classes == 21


def test_torchvision_with_a_file(tmp_path):
    network, state = torchvision_state(4)
    torch.save({"model": state, "epoch": 1}, tmp_path / "w.pth")  # the form of torchvision's own training script
    model = freeze(TorchVisionModel(LRASPP, weights=str(tmp_path / "w.pth"), num_classes=4))
    images = photo(1, 3, 33, 57)
    torch.testing.assert_close(model(images), network(imagenet(images))["out"])
    with pytest.raises(ModelError, match=r"does not fit: .*another number of classes"):
        TorchVisionModel(LRASPP, weights=str(tmp_path / "w.pth"))


def test_torchvision_unknown_names():
    with pytest.raises(ModelError, match=f"no segmentation model 'resnet18'; it has .*{LRASPP}"):
        TorchVisionModel("resnet18")
    with pytest.raises(ModelError, match="weights='NOPE' is neither a file nor one of COCO_WITH_VOC_LABELS_V1"):
        TorchVisionModel(LRASPP, weights="NOPE")
