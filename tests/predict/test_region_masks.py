"""Regions: nothing changes outside of them, whatever the attack; scores inside and outside."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_attack.attacks import (
    alma_prox,
    apgd,
    bim,
    dag,
    emi_fgsm,
    ni_fgsm,
    pgd,
    pgn,
    pi_fgsm,
    pre_gradient_fgsm,
    sea,
    svre,
    tass,
    transegpgd_mi_di_ti,
    vmi_fgsm,
)
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks.transfer_metrics import COLUMNS
from lightning_attack.data import DataError, ImageFolder, SegmentationDataModule
from lightning_attack.models import Ensemble, TrainedModel
from tests.attacks.toys import curved, half_right, scene
from tests.callbacks.test_transfer_metrics import miou_by_hand
from tests.cli.test_main import folder_arguments, photos, rows, the_run

L2 = {"norm": "l2", "eps": 1.0, "steps": 3, "step_size": 0.6}
ATTACKS = [
    bim(steps=3),
    pgd(**L2),
    transegpgd_mi_di_ti(steps=4),
    vmi_fgsm(steps=2, samples=3),
    pi_fgsm(steps=4),
    apgd(steps=8),
    sea(steps=9),
    tass(steps=4, step_size=0.01),
    pre_gradient_fgsm(steps=4, step_size=0.01),
    emi_fgsm(steps=3, samples=3, step_size=0.01),
    pgn(steps=3, samples=2),
    svre(steps=2, inner_steps=3, random_start=True),
    dag(steps=8, step_size=0.02),
    alma_prox(steps=8, step_size=0.02),
]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def setting(attack):
    model = Ensemble([curved(seed=0), curved(seed=1)]) if attack.name == "svre" else curved()
    images, labels = scene(4, 17, 22)
    return model, images, half_right(model, images, labels)


@every_attack
def test_nothing_changes_outside(attack):
    model, images, labels = setting(attack)
    # Scattered pixels, a block with ignored pixels in it, one pixel, none.
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    region[1:] = False
    region[1, 3:12, 5:20] = True
    labels[1, 4:8] = 255
    region[2, 16, 21] = True
    adversarial = attack(model, images, labels, [1, 2, 3, 4], region=region)
    change = adversarial - images
    inside = region[:, None].expand_as(images)
    assert torch.equal(adversarial[~inside], images[~inside])
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    moved = (change.flatten(1).abs().amax(1) > 0).tolist()
    # One pixel need not help, and an attack that looks for the smallest change may then leave it as it was.
    assert moved == [True, True, moved[2] or hasattr(attack, "norm"), False]
    if hasattr(attack, "norm"):
        size = change.flatten(1).norm(dim=1) if attack.norm.name == "l2" else change.flatten(1).abs().amax(1)
        assert size.max() <= attack.norm.eps + 1e-9
        assert size[:2].min() > 0.5 * attack.norm.eps, "the budget is there for the region alone"
        assert (change != 0)[:2][inside[:2]].double().mean() > 0.9
    # Ignored pixels inside of the region may change: they help others.
    assert change[1][:, 4:8].abs().max() > 0


@every_attack
def test_a_region_of_all_pixels_is_no_region(attack):
    model, images, labels = setting(attack)
    region = torch.ones_like(labels, dtype=torch.bool)
    figures = [], []
    results = [
        attack(model, images, labels, [1, 2, 3, 4], region=given, log=lambda _, values, kept=kept: kept.append(values))
        for given, kept in zip((region, None), figures, strict=True)
    ]
    assert torch.equal(*results)
    for ours, theirs in zip(*figures, strict=True):
        assert all(torch.equal(ours[name].nan_to_num(-1), theirs[name].nan_to_num(-1)) for name in theirs)


@pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS if not getattr(attack, "input_transforms", None)],
    ids=lambda a: a.name,
)
def test_the_model_is_not_shown_what_may_not_be(attack):
    """Without views all that the model sees is the photo with another region, wherever the attack looks."""
    model, images, labels = setting(attack)
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    outside, shown = ~region[:, None].expand_as(images), []
    hook = model.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[0].detach()))
    attack(model, images, labels, [1, 2, 3, 4], region=region)
    hook.remove()
    assert len(shown) > 1
    assert any(not torch.equal(seen, images) for seen in shown)
    assert all(torch.equal(seen[outside], images[outside]) for seen in shown)


def test_looking_ahead_does_not_depend_on_the_size_of_the_region():
    """The mean size of the gradient is the whole image's, so a small region does not make the look ahead a long one."""
    model, images, labels = setting(bim())
    farthest = []
    for share in (1.0, 0.05):
        region, shown = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < share, []
        hook = model.register_forward_pre_hook(lambda _, given, shown=shown: shown.append(given[0].detach()))
        ni_fgsm(steps=4)(model, images, labels, region=region)
        hook.remove()
        farthest.append(max(float((seen - images).abs().max()) for seen in shown))
    assert farthest[1] <= 1.2 * farthest[0]


def test_the_length_of_a_step_is_spent_inside():
    images, labels = scene(2, 16, 16)
    images, region = 0.3 + 0.4 * images, torch.zeros_like(labels, dtype=torch.bool)  # far from black and white
    region[0, 3:6] = region[1, 2, 2] = True
    change = bim(norm="l2", eps=1.0, steps=1, step_size=0.2)(curved(), images, labels, region=region) - images
    assert change.flatten(1).norm(dim=1).tolist() == pytest.approx([0.2, 0.2], abs=1e-12)


def test_an_attack_that_does_not_care_is_kept_inside():
    class Dark(Attack):
        def perturb(self, problem):
            return problem.images * 0

    images, labels = scene()
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    assert torch.equal(Dark("dark")(curved(), images, labels, region=region), images * ~region[:, None])


def test_a_region_reaches_pixels_outside_of_it():
    # A patch of the image, to change what is predicted beside it: within the reach of two 3 x 3 convolutions.
    model, (images, _) = curved(), scene(1, 16, 16)
    labels = model(images).argmax(1)
    region = torch.zeros_like(labels, dtype=torch.bool)
    region[:, 6:10, 6:10] = True
    said = model(bim(eps=0.3, steps=20)(model, images, labels, region=region)).argmax(1)
    rows_changed, columns_changed = (said != labels)[0].nonzero().unbind(1)
    assert ((said != labels) & ~region).any()
    assert min(rows_changed.min(), columns_changed.min()) >= 4
    assert max(rows_changed.max(), columns_changed.max()) <= 11


@pytest.mark.parametrize(
    "region", [torch.ones(2, 16, 15, dtype=torch.bool), torch.ones(2, 16, 16), torch.ones(2, 1, 16, 16).bool()], ids=str
)
def test_bad_regions_are_refused(region):
    images, labels = scene(2, 16, 16)
    with pytest.raises(ValueError, match=r"region is .*; expected \(2, 16, 16\) bool, true where images may change"):
        bim()(curved(), images, labels, region=region)


def test_masks_go_the_way_of_their_photo(tmp_path):
    """4 x 8 photos brought to 8 x 8: padded pixels are neither in the region nor wanted."""
    photos(tmp_path, 1, (4, 8))
    chess = np.indices((4, 8)).sum(0) % 2
    for kind in ("region", "wanted"):
        (tmp_path / kind).mkdir()
    Image.fromarray(np.where(chess, np.uint8(1), np.uint8(0))).save(tmp_path / "region" / "0.png")
    Image.fromarray(np.where(chess, np.uint8(7), np.uint8(255))).save(tmp_path / "wanted" / "0.png")

    def item(fit, size=8):
        folders = {"region_masks": str(tmp_path / "region"), "target_masks": str(tmp_path / "wanted")}
        dataset = ImageFolder(str(tmp_path / "photos"))
        data = SegmentationDataModule(dataset, size=size, fit=fit, **folders)
        batch = next(iter(data.predict_dataloader()))
        assert (batch["region"].dtype, batch["target_mask"].dtype) == (torch.bool, torch.int64)
        assert (
            batch["region"].shape == batch["target_mask"].shape == batch["image"].shape[:1] + batch["image"].shape[2:]
        )
        return batch["region"][0].numpy(), batch["target_mask"][0].numpy()

    expected = {
        "stretch": chess.repeat(2, 0),
        "pad": np.concatenate([chess, np.zeros((4, 8), int)]),
        "crop": chess.repeat(2, 0).repeat(2, 1)[:, 4:12],
    }
    for fit, mask in expected.items():
        region, wanted = item(fit)
        assert np.array_equal(region, mask == 1), fit
        assert np.array_equal(wanted, np.where(mask == 1, 7, 255)), fit
    assert np.array_equal(item("stretch", None)[0], chess == 1)


# The command line.


def regions(folder):
    """For each of three photos in `folder/photos` a mask of a rectangle, in all forms of greyscale, 1 or 255."""
    photos(folder)
    (folder / "regions").mkdir()
    masks = np.zeros((3, 40, 48), bool)
    masks[0, 5:30, 10:40] = masks[1, :, :7] = masks[2, 0, 0] = True
    for number, (mask, inside) in enumerate(zip(masks, (1, 255, True), strict=True)):
        Image.fromarray(np.where(mask, np.uint8(inside), np.uint8(0)) if number < 2 else mask).save(
            folder / "regions" / f"{number}.png"
        )
    return masks


QUICK = (
    "--model.attack.steps=3",
    "--model.targets={fpn: {class_path: TrainedModel, init_args: {file: embedded:scenes_fpn}}}",
)


def test_a_run_with_regions(predict, tmp_path):
    masks = regions(tmp_path)
    arguments = (*folder_arguments(tmp_path), f"--data.region_masks={tmp_path / 'regions'}", *QUICK)
    assert predict(*arguments) == 0
    folder = the_run(tmp_path / "results")
    clean, saved, labels = (
        [np.array(Image.open(place / f"{number}.png")) for number in range(3)]
        for place in (tmp_path / "photos", folder / "images", tmp_path / "masks")
    )
    for before, after, mask in zip(clean, saved, masks, strict=True):
        assert np.array_equal(before[~mask], after[~mask])
        change = abs(before.astype(int) - after)[mask]
        assert 0 < change.max() <= 8
        assert (change > 0).mean() > 0.8
    parts = {"inside": masks, "outside": ~masks}
    columns = [f"{part}_{condition}_miou" for part in parts for condition in ("clean", "adversarial")]
    table = rows(folder)
    assert list(table[0]) == [*COLUMNS, *columns]
    report = json.loads((folder / "transfer.json").read_text())
    for number, name in enumerate(("embedded:scenes_deeplabv3plus", "embedded:scenes_fpn")):
        for part, shown in parts.items():
            seen = [np.where(mask, label, 255) for mask, label in zip(shown, labels, strict=True)]
            for condition, images in (("clean", clean), ("adversarial", saved)):
                miou, _, _ = miou_by_hand(TrainedModel(name).eval(), images, seen)
                column = f"{part}_{condition}_miou"
                assert float(table[number][column]) == pytest.approx(miou, abs=1e-12), column
                assert report["targets"][number][column] == pytest.approx(miou, abs=1e-12)
    source = {column: float(table[0][column]) for column in columns}
    assert source["inside_adversarial_miou"] < source["inside_clean_miou"]


def test_regions_that_are_empty(predict, tmp_path):
    regions(tmp_path)
    for number in range(3):
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(tmp_path / "regions" / f"{number}.png")
    arguments = (*folder_arguments(tmp_path), f"--data.region_masks={tmp_path / 'regions'}", *QUICK)
    assert predict(*arguments) == 0
    folder = the_run(tmp_path / "results")
    for row in rows(folder):
        assert (row["inside_clean_miou"], row["inside_adversarial_miou"]) == ("", "")
        assert row["outside_clean_miou"] == row["outside_adversarial_miou"] == row["clean_miou"]
    report = json.loads((folder / "transfer.json").read_text(), parse_constant=pytest.fail)
    assert report["perturbation"]["linf"] == 0


def test_regions_and_wishes_together(predict, tmp_path):
    masks = regions(tmp_path)
    arguments = (*folder_arguments(tmp_path), f"--data.region_masks={tmp_path / 'regions'}", *QUICK)
    assert predict(*arguments, "--model.target_labels=4", "--model.attack=configs/attacks/bim.yaml") == 0
    folder = the_run(tmp_path / "results")
    extra = list(rows(folder)[0])[len(COLUMNS) :]
    assert extra[:2] == ["clean_success", "success"]
    assert [name.split("_")[0] for name in extra[2:]] == ["inside", "inside", "outside", "outside"]
    for number, mask in enumerate(masks):
        before, after = (np.array(Image.open(place / f"{number}.png")) for place in
                         (tmp_path / "photos", folder / "images"))  # fmt: skip
        assert np.array_equal(before[~mask], after[~mask])


def _missing(folder):
    (folder / "regions" / "1.png").unlink()


def _small(folder):
    Image.fromarray(np.ones((40, 47), np.uint8)).save(folder / "regions" / "1.png")


def _colours(folder):
    Image.fromarray(np.ones((40, 48, 3), np.uint8)).save(folder / "regions" / "1.png")


def _cut(folder):
    mask = folder / "regions" / "1.png"
    mask.write_bytes(mask.read_bytes()[:30])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_missing, "regions/1.png' cannot be read"),
        (_small, "regions/1' is 40x47, but its photo is 40x48"),
        (_colours, "regions/1.png' has mode RGB"),
        (_cut, "regions/1.png' cannot be read"),
        (lambda folder: (folder / "regions").rename(folder / "elsewhere"), "data.region_masks: no folder"),
    ],
    ids=["missing", "small", "colours", "cut", "no folder"],
)
def test_bad_region_masks_are_found_before_anything_is_written(damage, says, predict, tmp_path, capsys):
    regions(tmp_path)
    damage(tmp_path)
    assert predict(*folder_arguments(tmp_path), f"--data.region_masks={tmp_path / 'regions'}", *QUICK) == 2
    answer = capsys.readouterr().err.strip()
    assert answer.startswith("error: ")
    assert says in answer
    assert len(answer.splitlines()) <= 2
    assert not (tmp_path / "results").exists(), "something was written"


def test_region_masks_are_not_read_from_outside_of_their_folder(tmp_path):
    regions(tmp_path)
    data = SegmentationDataModule(ImageFolder(str(tmp_path)), region_masks=str(tmp_path / "regions"))
    with pytest.raises(DataError, match=r"regions/masks/0\.png' cannot be read"):  # named by the photo's whole path
        data.check()
