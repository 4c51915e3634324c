"""Whole runs that score adversarial images of somebody else."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_attack.attacks import Given, Linf, NoAttack, check_given, pgd
from lightning_attack.attacks.errors import AttackError
from lightning_attack.cli.main import main
from lightning_attack.common.windows import Windows
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.predict.module import AttackModule
from tests.runs.kept import packed

NO_ATTACK = "--model.attack=configs/attacks/no_attack.yaml"
LIMIT = "--data.limit=3"


def rows(folder):
    return list(csv.DictReader((folder / "transfer.csv").open()))


def images(folder):
    return {path.name: np.array(Image.open(path)) for path in sorted((folder / "images").iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["main.py"])
        words = ["predict", f"--results={results}", LIMIT, "--model.attack=fgsm", "--run_name=made"]
        assert main(words) == 0
    return results / "made"


@pytest.fixture
def attacked(made, tmp_path):
    """A run whose images are scored again."""
    return shutil.copytree(made, tmp_path / "results" / "made")


def test_images_of_a_run_score_what_the_run_said(attacked, predict, tmp_path):
    scored = tmp_path / "results" / "scored"
    words = (LIMIT, NO_ATTACK, "--model.attack.name=theirs", "--run_name=scored",
             f"--data.adversarial_root={attacked / 'images'}", "--data.adversarial_eps=8/255")  # fmt: skip
    assert predict(*words) == 0
    for before, now in zip(rows(attacked), rows(scored), strict=True):
        assert (before.pop("attack"), now.pop("attack")) == ("fgsm", "theirs")
        assert now == before
    for name, image in images(attacked).items():
        assert np.array_equal(images(scored)[name], image)
    report = json.loads((scored / "transfer.json").read_text())
    assert report["perturbation"]["linf"] == 8
    assert report["passes_per_image"] == {"forward": 0, "backward": 0}
    assert len(list((scored / "panels").iterdir())) == 3

    # Beside the run that made them they are of one table, and nothing sets them apart.
    assert main(["report", str(tmp_path / "results"), f"--output={tmp_path / 'report'}", "--baseline=fgsm"]) == 0
    differences = list(csv.DictReader((tmp_path / "report" / "differences.csv").open()))
    assert {(row["label"], row["against"], row["budget"]) for row in differences} == {("theirs", "fgsm", "L-inf 8/255")}
    assert {float(row["difference"]) for row in differences} == {0}

    # The same command goes on, and notices that an image was exchanged.
    clean = SyntheticScenes(16)[1]
    Image.fromarray(clean.image).save(attacked / "images" / f"{clean.name}.png")
    before = packed(scored)
    with pytest.warns(UserWarning, match=f"'{clean.name}' has changed since"):
        assert predict(*words) == 0
    again = packed(scored)
    assert [before[index] == again[index] for index in sorted(before)] == [True, False, True]
    assert np.array_equal(images(scored)[f"{clean.name}.png"], clean.image)


def test_floating_images_are_rounded_inside_the_budget(predict, tmp_path):
    """7.65 levels away, which rounds to 8 and must become 7; without a budget it may be 8."""
    scenes = [SyntheticScenes(16)[index].image for index in range(3)]
    clean = np.stack(scenes).transpose(0, 3, 1, 2) / np.float32(255)
    away = np.where(clean < 0.5, clean + np.float32(0.03), clean - np.float32(0.03))
    torch.save({"adv_inputs": torch.from_numpy(away)}, tmp_path / "adv.pt")
    given = (LIMIT, NO_ATTACK, f"--data.adversarial_root={tmp_path / 'adv.pt'}", "--model.targets=null")
    for name, more, largest in (
        ("inside", ["--data.adversarial_eps=0.03"], 7),
        ("nearest", [], 8),
        ("floats", ["--data.adversarial_eps=0.03", "--model.quantize=false"], 7.65),
    ):
        assert predict(*given, *more, f"--run_name={name}") == 0
        report = json.loads((tmp_path / "results" / name / "transfer.json").read_text())
        assert report["perturbation"]["linf"] == pytest.approx(largest, abs=1e-3)


def test_mistakes(attacked, predict, capsys):
    given = f"--data.adversarial_root={attacked / 'images'}"
    (first, *_) = images(attacked)
    for words, says in (
        ((given,), "'transegpgd' would make others; give --model.attack=configs/attacks/no_attack.yaml"),
        ((NO_ATTACK, given, "--data.adversarial_eps=4/255"), "3 of 3 adversarial images exceed data.adversarial_eps"),
        ((NO_ATTACK, "--data.adversarial_eps=0.1"), "give adversarial_root"),
    ):
        assert predict(LIMIT, "--model.targets=null", *words) == 2
        answer = capsys.readouterr().err.strip()
        assert says in answer
        assert len(answer.splitlines()) <= 2
    (attacked / "images" / first).write_text("no image")
    assert predict(LIMIT, NO_ATTACK, given, "--model.targets=null", "--run_name=b") == 2
    assert f"{first}' cannot be read" in capsys.readouterr().err
    assert not (attacked.parent / "b").exists()


def test_images_that_cannot_be_scored_are_left_out_on_wish(attacked, predict, tmp_path):
    missing, beyond, _ = images(attacked)
    (attacked / "images" / missing).unlink()
    far = images(attacked)[beyond]
    far[0, 0, 0] ^= 128
    Image.fromarray(far).save(attacked / "images" / beyond)
    words = (LIMIT, NO_ATTACK, f"--data.adversarial_root={attacked / 'images'}", "--data.adversarial_eps=8/255",
             "--on_error=skip", "--run_name=rest")  # fmt: skip
    assert predict(*words) == 3
    report = json.loads((tmp_path / "results" / "rest" / "transfer.json").read_text())
    assert report["images"] == 1
    reasons = [one["error"] for one in report["skipped"]]
    assert "has no adversarial image" in reasons[0]
    assert "more than the budget of 8/255: at row 0, column 0, red" in reasons[1]


class Tiny(torch.nn.Module):
    """A network that can be attacked, and scored."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.layer(x)


def batch_of_theirs(**more):
    """Floating images 7.65 levels away, one of them without a label, and a region that does not matter."""
    images = (torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    away = torch.where(images < 0.5, images + 0.03, images - 0.03)
    mask = torch.zeros(3, 8, 8, dtype=torch.int64)
    mask[1] = 255
    return {"image": images, "mask": mask, "index": torch.arange(3), "adversarial": away} | more


@pytest.mark.parametrize("attack", [NoAttack("theirs"), Given("theirs")], ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("eps", [None, 0.03, torch.full((3,), 0.03), torch.tensor(8 / 255)], ids=str)
def test_given_images_are_scored_as_they_are(attack, eps):
    """What the module did before there was `Given`: it replaced the result of `NoAttack`, and rounded inside `Linf`."""
    batch = batch_of_theirs(region=torch.zeros(3, 8, 8, dtype=torch.bool))
    batch |= {} if eps is None else {"adversarial_eps": eps}
    away, clean = batch["adversarial"], batch["image"]
    expected = (
        (away * 255).round().clamp(0, 255) / 255
        if eps is None
        else Linf(
            float(torch.as_tensor(eps, dtype=torch.float64 if isinstance(eps, float) else None).flatten()[0])
        ).quantize(clean, away)
    )
    output = AttackModule(Tiny(), attack).predict_step(batch, 0)
    assert torch.equal(output.adversarial, expected)
    assert torch.equal(output.preds["tiny"]["adversarial"], Tiny()(expected).argmax(1))
    assert output.passes == {"forward": 0, "backward": 0}
    assert output.figures == []
    floats = AttackModule(Tiny(), attack, quantize=False, exact=True).predict_step(batch, 0)
    assert torch.equal(floats.adversarial, away)


def test_nan_in_a_given_image_leaves_that_image_out():
    batch = batch_of_theirs()
    batch["adversarial"][1, 0, 0, 0] = torch.nan
    output = AttackModule(Tiny(), Given(), on_error="skip").predict_step(batch, 0)
    assert output.index.tolist() == [0, 2]
    ((index, _, error),) = output.skipped
    assert (index, error) == (1, "the adversarial image holds NaN or infinite values")


def test_given_alone_in_python():
    batch = batch_of_theirs()
    clean, mask, theirs = batch["image"], batch["mask"], batch["adversarial"]
    attack = Given().with_images(theirs)
    assert torch.equal(attack(Tiny(), clean, mask), theirs)
    assert attack.settings() == Given().settings() == {"class": "Given", "name": "given"}
    for images, says in (
        (theirs[:2], r"adversarial images are \(2, 3, 8, 8\) torch.float32; expected \(3, 3, 8, 8\)"),
        ((theirs * 255).byte(), "torch.uint8; expected"),
        (theirs * 255, r"range over \[\d.*\]; expected \[0, 1\]: divide 8-bit images by 255"),
    ):
        with pytest.raises(AttackError, match=says):
            Given().with_images(images)(Tiny(), clean, mask)
    with pytest.raises(AttackError, match=r"made elsewhere, and there are none: give --data.adversarial_root=FOLDER"):
        Given()(Tiny(), clean, mask)


def test_attack_and_data_agree_on_who_makes_the_images():
    for attack, brought in ((pgd(), False), (NoAttack(), False), (NoAttack(), True), (Given(), True)):
        check_given(attack, brought)
    with pytest.raises(AttackError, match="the data brings adversarial images, and 'pgd' would make others"):
        check_given(pgd(), brought=True)
    with pytest.raises(AttackError, match="made elsewhere, and there are none"):
        check_given(Given(), brought=False)


@pytest.mark.parametrize("attack", ["window", "image"])
def test_windows_leave_given_images_alone(attack):
    batch, windows = batch_of_theirs(), Windows(6, 0.5, attack=attack)
    for kind in (Given(), NoAttack()):
        output = AttackModule(Tiny(), kind, windows=windows, quantize=False).predict_step(batch, 0)
        assert torch.equal(output.adversarial, batch["adversarial"])


def test_given_from_the_command_line(attacked, predict, tmp_path, capsys):
    words = (LIMIT, f"--data.adversarial_root={attacked / 'images'}", "--data.adversarial_eps=8/255")
    assert predict(*words, NO_ATTACK, "--run_name=before") == 0
    assert predict(*words, "--model.attack=Given", "--model.attack.name=no_attack", "--run_name=now") == 0
    results = tmp_path / "results"
    assert (results / "now" / "transfer.csv").read_bytes() == (results / "before" / "transfer.csv").read_bytes()
    assert images(results / "now").keys() == images(results / "before").keys()
    capsys.readouterr()
    assert predict(LIMIT, "--model.attack=Given", "--run_name=none") == 2
    assert "there are none: give --data.adversarial_root=FOLDER" in capsys.readouterr().err
    assert not (results / "none").exists()


def test_another_attack_refuses_images_that_were_attacked():
    module = AttackModule(torch.nn.Conv2d(3, 8, 1), pgd())
    batch = next(iter(SegmentationDataModule(SyntheticScenes(1, size=32)).predict_dataloader()))
    with pytest.raises(AttackError, match="the data brings adversarial images, and 'pgd' would make others"):
        module.predict_step(batch | {"adversarial": batch["image"]}, 0)
