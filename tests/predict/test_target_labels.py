"""Targeted attacks: pixels are pulled to wanted classes; which, and how many got there."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import nn

from lightning_attack.attacks import PRESETS, CosPGD, FoolAllPixels, SegPGD, admix, bim, fspgd, pgd, segpgd
from lightning_attack.attacks.objectives.base import Moment, Prediction
from lightning_attack.attacks.random import Draws
from lightning_attack.callbacks.transfer_metrics import COLUMNS
from lightning_attack.data import ImageFolder, SegmentationDataModule, SyntheticScenes
from lightning_attack.models import Ensemble, TrainedModel
from lightning_attack.predict.module import AttackModule
from tests.attacks.toys import FEW, PIXELS, curved, half_right, rich, scene, share_of_differences
from tests.cli.test_main import photos, rows, the_run

WITHOUT_BALL_OR_LABELS = ("alma_prox", "dag", "fspgd")


@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_equals_torchattacks(random_start, monkeypatch):
    torchattacks = pytest.importorskip("torchattacks", reason="the independent implementation is optional")
    model, (images, wanted) = curved(), scene(2, 64, 64, ignored=0)
    wanted = half_right(model, images, wanted)  # half of the pixels are there already
    start = Draws([3, 4]).uniform("start", (3, 64, 64), -PIXELS, PIXELS).double()
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(start))
    peer = torchattacks.PGD(model, eps=PIXELS, alpha=2 / 255, steps=6, random_start=random_start)
    peer.set_mode_targeted_by_label(quiet=True)
    attack = pgd(eps=PIXELS, step_size=2 / 255, steps=6, random_start=random_start)
    ours = attack(model, images, wanted, [3, 4], targeted=True)
    assert torch.equal(ours, peer(images, wanted))
    assert share_of_differences(ours, attack(model, images, wanted, [3, 4])) > 0.5


@pytest.mark.parametrize(
    "preset",
    [preset for preset in PRESETS if preset.__name__ not in WITHOUT_BALL_OR_LABELS],
    ids=lambda preset: preset.__name__,
)
def test_more_pixels_take_the_wanted_class(preset):
    name, model = preset.__name__, curved()
    if preset().needs_members:
        model = Ensemble([curved(seed=0), curved(seed=1)])
    attack = preset(eps=PIXELS, **({} if name == "fgsm" else {"steps": 8}), **FEW.get(name, {}))
    model, (images, wanted) = rich(attack, model), scene(2, 24, 24)
    wanted = torch.where(wanted == 255, 255, torch.tensor([1, 3]).view(2, 1, 1))
    results = {targeted: attack(model, images, wanted, [1, 2], targeted=targeted) for targeted in (True, False)}

    def shares(x):
        right = (model(x).argmax(1) == wanted).flatten(1).double()
        return right.sum(1) / (wanted != 255).flatten(1).sum(1)

    assert (shares(results[True]) > shares(images)).all()
    assert (shares(results[False]) < shares(images)).all()


def test_an_attack_without_labels_cannot_be_targeted():
    images, wanted = scene()
    with pytest.raises(ValueError, match="fspgd cannot be targeted"):
        fspgd()(curved(), images, wanted, targeted=True)


def prediction(targeted):
    """Three classes; a pixel certain of its label, one that is not, one of equal logits, one ignored."""
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    return Prediction(logits.T.view(1, 3, 1, 4), torch.tensor([[[0, 2, 1, 255]]]), targeted)


def test_cospgd_weighs_by_the_distance_from_the_wanted_class():
    e = np.exp
    agreement = [e(3) / np.sqrt(e(6) + e(2) + 1), 1 / np.sqrt(1 + e(4) + 1), 1 / np.sqrt(3)]
    for targeted in (False, True):
        weights = CosPGD().weights(prediction(targeted), Moment(0, 1))[0, 0, :3]
        assert weights.tolist() == pytest.approx([1 - a if targeted else a for a in agreement], abs=1e-12)


@pytest.mark.parametrize("objective", [SegPGD(), FoolAllPixels(0.25)], ids=["segpgd", "transegpgd"])
def test_pixels_that_took_the_wanted_class_count_as_won(objective):
    moment = Moment(step=1, steps=2)  # lambda = 1/4 = gamma
    untargeted, targeted = (objective.weights(prediction(targeted), moment)[0, 0, :3] for targeted in (False, True))
    assert untargeted.tolist() == [0.75, 0.25, 0.25]  # of equal logits the first is predicted
    assert targeted.tolist() == [0.25, 0.75, 0.75]


def network(seed=0, classes=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, classes, 3, padding=1))


def run(module, data):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **options)
    return trainer.predict(module, datamodule=data)


SCENES = SyntheticScenes(3, size=32)


def write_masks(folder, make):
    folder.mkdir()
    for number, one in enumerate(SCENES):
        Image.fromarray(make(number, one.mask)).save(folder / f"{one.name}.png")
    return str(folder)


@pytest.mark.parametrize("members", [1, 2])
def test_the_least_likely_classes_cost_one_pass_that_is_counted(members):
    """The clean prediction, which is made for the scores anyway."""
    seen, networks = [], [network(seed) for seed in range(members)]
    source = Ensemble(networks) if members > 1 else networks[0]
    module = AttackModule(source, pgd(steps=2, random_start=False), target_labels="least_likely", engine="eager")
    networks[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    output = module.predict_step(torch.rand(2, 3, 16, 16), 0)
    assert seen == [2] * 4, "clean, two steps, adversarial"
    assert output.passes == {"forward": 3 * members, "backward": 2 * members}


@pytest.mark.parametrize("kind", [0, 7, "least_likely", "masks", None])
def test_wanted_classes(kind, tmp_path):
    def wishes(number, mask):
        """Class `number` on the upper half, where pixels without a label are wanted too, no wish below."""
        return np.where(np.arange(32)[:, None] < 16, np.uint8(number), np.uint8(255)) + np.zeros_like(mask)

    masks = write_masks(tmp_path / "wanted", wishes) if kind == "masks" else None
    data = SegmentationDataModule(SCENES, batch_size=2, target_masks=masks)
    source, attack = network(), bim(steps=2)
    module = AttackModule(source, attack, target_labels=kind, quantize=False)
    for output, batch in zip(run(module, data), data.predict_dataloader(), strict=True):
        images, labels = batch["image"], batch["mask"]
        assert torch.equal(output.labels, labels)  # what mIoU is counted against
        assert (labels == 255).any()
        if kind is None:
            assert output.target_labels is None
            continue
        if kind == "masks":
            half = (torch.arange(32) < 16)[None, :, None]
            expected = torch.where(half, batch["index"].view(-1, 1, 1), 255).expand_as(labels)
        else:
            with torch.no_grad():
                wanted = source(images).argmin(1) if kind == "least_likely" else torch.full_like(labels, kind)
            expected = torch.where(labels == 255, 255, wanted)
        assert torch.equal(output.target_labels, expected)
        adversarial = attack(source, images, expected, targeted=True)
        assert torch.equal(output.adversarial, adversarial)


def test_without_masks_wishes_are_for_all_pixels(tmp_path):
    photos(tmp_path, 1, (8, 8))
    data = SegmentationDataModule(ImageFolder(str(tmp_path / "photos")))
    (output,) = run(AttackModule(network(), bim(steps=1), target_labels=2), data)
    assert (output.target_labels == 2).all()


@pytest.mark.parametrize(
    ("target_labels", "message"),
    [
        (-1, r"target_labels=-1: the networks have the classes 0\.\.7; give one of them, least_likely or masks"),
        (8, r"target_labels=8: the networks have the classes 0\.\.7"),
        (255, "target_labels=255"),
        ("most_likely", "target_labels='most_likely': must be a class, least_likely or masks"),
        ("3", "target_labels='3': must be a class"),
        (True, "target_labels=True: must be a class"),
        (3.5, "target_labels=3.5: must be a class"),
    ],
)
def test_bad_wishes_are_refused_at_once(target_labels, message):
    with pytest.raises(ValueError, match=message):
        AttackModule(network(), bim(), target_labels=target_labels)


@pytest.mark.parametrize("target_labels", [0, "least_likely", "masks"])
def test_a_wish_that_the_attack_cannot_grant_is_refused_at_once(target_labels):
    with pytest.raises(ValueError, match="fspgd cannot be targeted: it looks at no labels"):
        AttackModule(network(), fspgd(), target_labels=target_labels)
    assert AttackModule(network(), segpgd(), target_labels=target_labels).target_labels == target_labels


def test_wishes_do_not_depend_on_the_batch():
    data = [SegmentationDataModule(SCENES, batch_size=size) for size in (1, 3)]
    with torch.backends.mkldnn.flags(enabled=False):
        one, three = (run(AttackModule(network(), bim(steps=2), target_labels="least_likely"), part) for part in data)
    for key in ("target_labels", "adversarial"):
        assert torch.equal(torch.cat([getattr(output, key) for output in one]), getattr(three[0], key))


# The command line.

SOURCE = "embedded:scenes_deeplabv3plus"
TARGETS = "{fpn: {class_path: TrainedModel, init_args: {file: 'embedded:scenes_fpn'}}}"


def share_predicted_as(name, images, wanted):
    """Share of the pixels with a wish that a network predicts so; photos (H, W, 3) uint8, wishes (H, W)."""
    hits = wishes = 0
    network = TrainedModel(name).eval()
    for image, classes in zip(images, wanted, strict=True):
        with torch.no_grad():
            said = network(torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None])[0].argmax(0).numpy()
        hits += (said == classes)[classes != 255].sum()
        wishes += (classes != 255).sum()
    return hits / wishes


def test_a_run_for_one_class(predict, tmp_path):
    code = predict(
        "--model.target_labels=3", "--data.limit=3", "--data.batch_size=2", "--model.attack.steps=4",
        f"--model.targets={TARGETS}",
    )  # fmt: skip
    assert code == 0
    folder = the_run(tmp_path / "results")
    table = rows(folder)
    assert tuple(table[0]) == (*COLUMNS, "clean_success", "success")
    scenes = [SyntheticScenes(16)[index] for index in range(3)]
    saved = [np.array(Image.open(folder / "images" / f"{one.name}.png")) for one in scenes]
    wanted = [np.where(one.mask == 255, 255, 3) for one in scenes]
    for row, name in zip(table, (SOURCE, "embedded:scenes_fpn"), strict=True):
        clean = [one.image for one in scenes]
        before, after = (share_predicted_as(name, images, wanted) for images in (clean, saved))
        assert float(row["clean_success"]) == pytest.approx(before, abs=1e-12)
        assert float(row["success"]) == pytest.approx(after, abs=1e-12)
    source = table[0]
    assert source["white_box"] == "True"
    assert float(source["success"]) > float(source["clean_success"]) + 0.05
    assert float(source["adversarial_miou"]) < float(source["clean_miou"])  # against the true labels


def folder_run(tmp_path, *more):
    """Arguments for the photos without labels in `tmp_path/photos`, and for what is wanted in `tmp_path/wanted`."""
    return [
        "--data.dataset=ImageFolder", f"--data.dataset.root={tmp_path / 'photos'}", "--data.batch_size=1",
        "--model.attack.steps=3", "--model.targets=null", *more,
    ]  # fmt: skip


def wishes_for_photos(folder, size=(40, 48), classes=(2, 5)):
    """Photos in `folder/photos`; in `folder/wanted` the left half shall be one class, the right another, no row 0."""
    photos(folder, 3, size)
    (folder / "wanted").mkdir()
    left, right = classes
    wanted = np.where(np.arange(size[1]) < size[1] // 2, np.uint8(left), np.uint8(right)) + np.zeros(size, np.uint8)
    wanted[0] = 255
    for number in range(3):
        Image.fromarray(wanted).save(folder / "wanted" / f"{number}.png")
    return wanted


def test_a_run_for_masks(predict, tmp_path):
    wanted = wishes_for_photos(tmp_path)
    wish = ("--model.target_labels=masks", f"--data.target_masks={tmp_path / 'wanted'}")
    assert predict(*folder_run(tmp_path, *wish)) == 0
    folder = the_run(tmp_path / "results")
    (row,) = rows(folder)
    clean, saved = (
        [np.array(Image.open(place / f"{number}.png")) for number in range(3)]
        for place in (tmp_path / "photos", folder / "images")
    )
    before, after = (share_predicted_as(SOURCE, images, [wanted] * 3) for images in (clean, saved))
    assert (float(row["clean_success"]), float(row["success"])) == pytest.approx((before, after), abs=1e-12)
    assert after > before + 0.1
    assert float(row["clean_miou"]) == 1  # against the source's clean prediction, not against the wishes


def _colours(folder):
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(folder / "wanted" / "1.png")


def _small(folder):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "wanted" / "1.png")


def _class_9(folder):
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(folder / "wanted" / "1.png")


MASKS = ("--model.target_labels=masks", "--data.target_masks={}/wanted")
LABELLED = ("--data.dataset.masks={}/masks", '--data.dataset.classes=["a","b","c","d","e","f","g","h"]')


@pytest.mark.parametrize(
    ("arguments", "damage", "says"),
    [
        (MASKS[:1], None, "model.target_labels=masks and data.target_masks=None do not fit"),
        (MASKS[1:], None, "give data.target_masks=FOLDER together with model.target_labels=masks"),
        (("--model.target_labels=2", MASKS[1]), None, "model.target_labels=2 and data.target_masks="),
        ((MASKS[0], "--data.target_masks=nowhere"), None, "data.target_masks: no folder 'nowhere'"),
        (MASKS, lambda folder: (folder / "wanted" / "2.png").unlink(), "wanted/2.png' cannot be read"),
        (MASKS, _small, "wanted/1' is 4x4, but its photo is 40x48"),
        (MASKS, _colours, "wanted/1.png' has mode RGB"),
        (MASKS, _class_9, "wanted/1.png' wants the class 9, but the networks have the classes 0..7"),
        ((*MASKS, *LABELLED), _class_9, "wanted/1' holds the class 9, but the classes are 0..7"),
        (("--model.target_labels=8",), None, "target_labels=8: the networks have the classes 0..7"),
        (("--model.target_labels=-1",), None, "target_labels=-1"),
        (("--model.target_labels=msaks",), None, "target_labels='msaks': must be a class, least_likely or masks"),
        ((*MASKS, "--model.attack=configs/attacks/fspgd.yaml"), None, "fspgd cannot be targeted"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_wishes_are_answered_before_anything_is_written(arguments, damage, says, predict, tmp_path, capsys):
    wishes_for_photos(tmp_path)
    if damage:
        damage(tmp_path)
    assert predict(*folder_run(tmp_path, *(text.replace("{}", str(tmp_path)) for text in arguments))) == 2
    answer = capsys.readouterr().err.strip()
    assert says in answer
    assert answer.startswith("error: ")
    assert len(answer.splitlines()) <= 2
    assert not (tmp_path / "results").exists(), "something was written"


def test_mixing_attacks_can_be_targeted():
    images, wanted = scene(2, 12, 12)
    attack = admix(steps=2, copies=1, scales=1)
    result = attack(curved(), images, wanted, [1, 2], targeted=True)
    assert not torch.equal(result, attack(curved(), images, wanted, [1, 2]))
