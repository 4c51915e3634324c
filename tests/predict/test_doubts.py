"""Networks and clean results that look wrong are named; good and weak ones are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torchvision.transforms import Normalize

from lightning_attack.attacks import NoAttack
from lightning_attack.callbacks import TransferMetrics
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.data.base import Scene, SegmentationDataset
from lightning_attack.models import (
    ClassMap,
    Ensemble,
    ModelError,
    SegmentationModel,
    SMPModel,
    TorchVisionModel,
    TrainedModel,
)
from lightning_attack.models.class_names import check_class_order
from lightning_attack.predict import AttackModule
from lightning_attack.predict.doubt import PlausibilityError
from lightning_attack.predict.network_doubts import doubts_about_network
from lightning_attack.predict.positions import Positions
from lightning_attack.predict.prediction_doubts import doubts_about_classes

NAMES = SyntheticScenes.classes


def good():
    return TrainedModel("embedded:scenes_fpn")


def scenes(count=6):
    return SyntheticScenes(count=count, size=64)


def attacked(source, dataset, folder, targets=None, strict=False):
    """The doubts of a run, as `transfer.json` has them, and the rows of the table."""
    metrics = TransferMetrics(str(folder), table=False, strict=strict)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[metrics], enable_progress_bar=False,
                      enable_checkpointing=False, enable_model_summary=False, inference_mode=False)  # fmt: skip
    module = AttackModule(source, NoAttack(), targets)
    trainer.predict(module, datamodule=SegmentationDataModule(dataset, batch_size=2), return_predictions=False)
    return [(doubt["network"], doubt["kind"]) for doubt in metrics.summary["warnings"]], metrics.rows


class Changed(nn.Module):
    """A good network, and something before and after it."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.network, self.before, self.after = good(), before or nn.Identity(), after or nn.Identity()

    def forward(self, images):
        return self.after(self.network(self.before(images)))


class Renumbered(SegmentationDataset):
    """Scenes whose classes stand in another order."""

    def __init__(self, order, classes, count=6):
        self.scenes, self.classes = scenes(count), classes
        self.table = np.full(256, 255, np.uint8)
        self.table[order] = np.arange(len(order))

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        scene = self.scenes[index]
        return Scene(scene.image, self.table[scene.mask], scene.name)


@pytest.fixture(autouse=True)
def few_warnings(recwarn):
    """What is warned about is looked up in the summary."""
    return recwarn


def test_good_networks_and_their_combinations_are_not_doubted(tmp_path):
    binary = ClassMap(good(), [[0], [*range(1, 8)]])
    assert attacked(good(), scenes(), tmp_path, {"both": Ensemble([good(), good()])})[0] == []
    two = Renumbered(list(range(8)), ("background", "thing"))
    two.table[1:8] = 1
    assert attacked(binary, two, tmp_path)[0] == []


def test_photos_of_one_class_say_nothing(tmp_path):
    background = Renumbered(list(range(8)), NAMES)
    background.table[1:] = 255
    assert attacked(SegmentationModel(Changed(lambda images: images / 255)), background, tmp_path)[0] == []


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (lambda images: images / 255, None, "near_chance"),
        (lambda images: images.flip(-1, -2) * 0 + 0.5, None, "near_chance"),
        (None, lambda logits: logits.roll(1, 1), "class_order"),
        (None, lambda logits: logits[:, [0, 2, 1, *range(3, 8)]], "class_order"),
    ],
)
def test_clean_predictions_that_mean_nothing(before, after, kind, tmp_path, few_warnings):
    module = Changed(before, after)
    found, _ = attacked(SegmentationModel(module, name="net"), scenes(), tmp_path, {"other": good()})
    assert found == [("net", kind)]
    assert any("after the first 4 images" in str(one.message) for one in few_warnings)
    with pytest.raises(PlausibilityError, match=r"(?s)after the first 4 images.*because of --strict"):
        attacked(SegmentationModel(module, name="net"), scenes(), tmp_path / "strict", strict=True)


def test_a_class_that_no_network_predicts(tmp_path):
    blind = ClassMap(good(), [[0], [1], [2], [3], [], [5], [6], [7]])
    assert attacked(blind, scenes(), tmp_path)[0] == [("", "never_predicted")]
    assert attacked(blind, scenes(), tmp_path, {"other": good()})[0] == []
    labels, predicted = np.array([900, 100]), np.array([1000, 0])
    assert doubts_about_classes(labels, np.array([1, 1]), predicted, ["a", "b"]) == []  # one image is not enough
    assert "'b' (10.0 %" in doubts_about_classes(2 * labels, np.array([2, 2]), 2 * predicted, ["a", "b"])[0].message


def test_names_that_occur_in_two_processes(tmp_path, monkeypatch):
    """Each process refuses names that occur twice among its own images; here none of them does."""
    monkeypatch.setattr(Positions, "check_unique", lambda self, batch: None)

    class Repeated(SyntheticScenes):
        def __getitem__(self, index):
            return replace(super().__getitem__(index), name=f"photo{index % 4}")

    metrics = TransferMetrics(str(tmp_path), table=False)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[metrics], enable_progress_bar=False,
                      enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    data = SegmentationDataModule(Repeated(count=6, size=64), batch_size=2, check="none")
    with pytest.warns(UserWarning, match=r"images 0 and 4 are both named 'photo0' \(and 1 more share names\)"):
        trainer.predict(AttackModule(good(), NoAttack()), datamodule=data, return_predictions=False)
    assert [one["kind"] for one in metrics.summary["warnings"]] == ["names"]


def test_probabilities_are_found_in_members_too():
    source = Ensemble([good(), SegmentationModel(Changed(after=nn.Softmax(1)))])
    (doubt,) = AttackModule(source, NoAttack()).doubts
    assert (doubt.network, doubt.kind) == ("ensemble", "probabilities")
    assert "the outputs of 'ensemble[1]' lie in [0, 1] and sum to 1" in doubt.message


@pytest.mark.parametrize("mean", [(123.675, 116.28, 103.53), (0.5, 0.5, 0.5)])
def test_normalisation_for_other_pixels(mean):
    std = (58.395, 57.12, 57.375) if mean[0] > 1 else (0.229 / 255, 0.224 / 255, 0.225 / 255)
    inside = ClassMap(SegmentationModel(nn.Conv2d(3, 2, 1), 2, mean, std, name="odd"), [[0], [1]])
    assert [doubt.kind for doubt in doubts_about_network("net", inside)] == ["normalisation"]
    usual = SegmentationModel(nn.Conv2d(3, 2, 1), 2, (127 / 255,) * 3, (128 / 255,) * 3)
    raw = SegmentationModel(nn.Conv2d(3, 2, 1), 2, std=(1 / 255,) * 3)
    assert doubts_about_network("net", usual) == doubts_about_network("net", raw) == []


def test_weights_that_were_never_loaded():
    random, torchvision = SMPModel("fpn", "tu-test_resnet", 8), TorchVisionModel("lraspp_mobilenet_v3_large")
    for network in (random, torchvision, Ensemble([good(), random]), ClassMap(random, [[0], [1]])):
        assert [doubt.kind for doubt in doubts_about_network("net", network)] == ["random_weights"]
    random.network.load_state_dict(SMPModel("fpn", "tu-test_resnet", 8).network.state_dict())
    assert doubts_about_network("net", random) == doubts_about_network("net", good()) == []
    trained = SMPModel("fpn", "tu-test_resnet", 8)
    trained(torch.rand(2, 3, 32, 32)).sum().backward()
    torch.optim.SGD(trained.parameters(), 0.1).step()
    assert doubts_about_network("net", trained) == []


def test_labels_of_the_source_are_said(tmp_path):
    class Unlabelled(SegmentationDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Scene(scenes()[index].image, None, str(index))

    doubts, rows = attacked(good(), Unlabelled(), tmp_path)
    assert doubts == []
    assert {row["labels"] for row in rows} == {"clean prediction of the source"}
    with pytest.raises(PlausibilityError, match="the clean prediction of the source stands for the labels"):
        attacked(good(), Unlabelled(), tmp_path, strict=True)


def test_classes_in_another_order_are_an_error_whose_remedy_scores_the_same(tmp_path):
    network = good()
    network.classes = NAMES
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    data = Renumbered(order, tuple(NAMES[place].upper() for place in order))
    with pytest.raises(ModelError, match="in another order") as error:
        attacked(network, data, tmp_path)
    groups = eval(str(error.value).split("groups: ")[1].split("}")[0])
    _, right = attacked(network, Renumbered(list(range(8)), NAMES), tmp_path)
    _, mapped = attacked(ClassMap(network, groups), data, tmp_path)
    assert mapped[0]["clean_miou"] == pytest.approx(right[0]["clean_miou"], abs=1e-12)


@pytest.mark.parametrize(
    ("known", "raises"),
    [
        (("Background", "AIRPLANE", "dining table", "tv"), False),
        (("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"), False),
        (("background", "aeroplane", "diningtable", ""), False),
        (("aeroplane", "background", "diningtable", "tvmonitor"), True),
        (("background", "tv", "airplane", "table"), True),
        (("background", "cat", "dog", "aeroplane"), True),
        (("cat", "dog", "aeroplane", "bird"), False),  # one name in common is a coincidence
        (None, False),
        (8, False),
    ],
)
def test_spelling_is_no_other_order(known, raises):
    model = Ensemble([good(), SegmentationModel(nn.Conv2d(3, 4, 1), 4)])
    model.members[1].classes = known
    data = ["background", "aeroplane", "dining-table", "tv/monitor"]
    if not raises:
        return check_class_order("net", model, data)
    with pytest.raises(ModelError, match=r"'net\[1\]'"):
        check_class_order("net", model, data)


def test_normalised_twice():
    """Mean and std outside, and a network that normalises itself: as a module, as buffers, as another wrapper."""

    class Buffers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("pixel_mean", torch.full((3, 1, 1), 0.45))
            self.register_buffer("pixel_std", torch.full((3, 1, 1), 0.22))

    for inside in (nn.Sequential(Normalize([0.5] * 3, [0.25] * 3)), Buffers(), good()):
        twice = SegmentationModel(inside, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        (doubt,) = doubts_about_network("net", twice)
        assert doubt.kind == "normalisation"
        assert "'net' seems to normalise images twice" in doubt.message
        assert not doubts_about_network("net", SegmentationModel(inside))


class Turned(SegmentationDataset):
    """Scenes whose masks lie otherwise than their photos."""

    classes = NAMES

    def __init__(self, turn):
        self.turn, self.scenes = turn, scenes()

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        scene = self.scenes[index]
        return Scene(scene.image, np.ascontiguousarray(self.turn(scene.mask)), scene.name)


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (np.transpose, "rows and columns exchanged"),
        (lambda mask: mask[:, ::-1], "mirrored left to right"),
        (lambda mask: np.rot90(mask, 3), "turned by 90 degrees"),
    ],
)
def test_masks_that_lie_otherwise(tmp_path, turn, says):
    with pytest.warns(UserWarning, match=f"masks and photos seem to lie differently: 'fpn.* if masks are .*{says}"):
        found, _ = attacked(good(), Turned(turn), tmp_path)
    assert "orientation" in [kind for _, kind in found]
