"""Windows: the grid, a network on windows, an attack of each window, and the papers' protocols."""

import json

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from lightning_attack.attacks import CosPGD, Linf, NoAttack, PerWindow, alma_prox, fspgd, pgd, transegpgd
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.cli import CONFIGS, main
from lightning_attack.common.windows import Windows
from lightning_attack.models import Ensemble, SegmentationModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.training.task import SegmentationTask
from tests.attacks.toys import CLASSES, curved, scene
from tests.data.trees import LAYOUTS

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.25, 0.5)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.floats(0.05, 1.0))
def test_the_grid_covers_every_pixel_with_whole_windows(height, width, size, stride):
    covered = torch.zeros(height, width, dtype=torch.bool)
    grid = Windows(size, stride).grid(height, width)
    assert len(grid) == len(set(grid))
    for top, left in grid:
        assert top >= 0
        assert left >= 0
        assert top + size <= height or height < size
        assert left + size <= width or width < size
        covered[top : top + size, left : left + size] = True
    assert covered.all()


@pytest.mark.parametrize(
    ("windows", "size", "tops", "lefts"),
    [
        (Windows(473), (384, 512), [0], [0, 39]),  # a VOC photo with a long side of 512
        (Windows(449), (512, 1024), [0, 63], [0, 300, 575]),  # Cityscapes at half resolution
        (Windows(713), (1024, 2048), [0, 311], [0, 476, 952, 1335]),  # and at full
        (Windows((4, 6), 1.0), (8, 12), [0, 4], [0, 6]),
    ],
)  # fmt: skip
def test_the_papers_grids(windows, size, tops, lefts):
    assert windows.grid(*size) == [(top, left) for top in tops for left in lefts]


@pytest.mark.parametrize(("size", "stride"), [(0, 0.5), ((4, 0), 0.5), (4, 0.0), (4, 1.5), (4, float("nan"))])
def test_bad_windows(size, stride):
    with pytest.raises(ValueError, match=r"size=.* must be 1 or more, stride=.* in \(0, 1\]"):
        Windows(size, stride)
    with pytest.raises(ValueError, match="attack='crop' of windows must be one of image, window"):
        Windows(8, attack="crop")


def model(windows, seed=0):
    """A network that sees the border of its input, because its convolutions pad with zeros."""
    wrapped = SegmentationModel(curved(seed=seed), mean=MEAN, std=STD).double()
    wrapped.windows = windows
    return wrapped.eval()


def test_probabilities_are_averaged_where_windows_overlap():
    images, _ = scene(2, 9, 13)
    images.requires_grad_()
    logits = model(Windows(6, 0.5))(images)
    whole = model(None)
    total, count = torch.zeros(2, CLASSES, 9, 13, dtype=torch.float64), torch.zeros(9, 13, dtype=torch.float64)
    for top in (0, 3):
        for left in (0, 3, 6, 7):
            total[..., top : top + 6, left : left + 6] += whole(images[..., top : top + 6, left : left + 6]).softmax(1)
            count[top : top + 6, left : left + 6] += 1
    expected = total / count
    assert torch.allclose(logits.exp(), expected, atol=1e-12)
    weights = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images, retain_graph=True)
    (reference,) = torch.autograd.grad((expected.log() * weights).sum(), images)
    assert torch.allclose(gradient, reference, atol=1e-9)


def test_one_window_keeps_its_logits_and_training_sees_the_whole_photo():
    images, _ = scene(2, 9, 13)
    assert torch.equal(model(Windows((9, 13)))(images), model(None)(images))
    training = model(Windows(4)).train()
    assert torch.equal(training(images), model(None)(images))


def test_a_smaller_photo_is_padded_with_the_mean_colour():
    images, _ = scene(1, 5, 13)
    padded = torch.tensor(MEAN, dtype=torch.float64).view(1, 3, 1, 1).repeat(1, 1, 8, 13)
    padded[..., :5, :] = images
    windows = Windows(8)
    logits = model(windows)(images)
    assert logits.shape == (1, CLASSES, 5, 13)
    # The mean colour goes through float32.
    assert torch.allclose(logits, model(windows)(padded)[..., :5, :], atol=1e-5)


def test_what_no_window_believes_in_still_has_a_gradient():
    """A probability of exp(-200) is 0 in float32; the pixel would be lost to every attack."""

    class Sure(nn.Module):
        def forward(self, x):
            return torch.cat([200 * x[:, :1], torch.zeros_like(x[:, :1])], 1)

    wrapped = SegmentationModel(Sure()).eval()
    wrapped.windows = Windows(2)
    images = torch.ones(1, 3, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(wrapped(images)[:, 1].sum(), images)
    assert torch.equal(gradient[:, 0], torch.full((1, 2, 3), -200.0))


BUDGET = {"eps": "8/255", "steps": 3}


def test_an_image_that_is_one_window_is_attacked_as_a_whole():
    images, labels = scene(2, 8, 9)
    attack = transegpgd(**BUDGET)
    whole = attack(model(None), images, labels, [3, 4])
    assert torch.equal(PerWindow(attack, Windows((8, 9)))(model(Windows((8, 9))), images, labels, [3, 4]), whole)
    larger = model(Windows(10))
    assert torch.equal(PerWindow(attack, Windows(10))(larger, images, labels, [3, 4]),
                       attack(larger, images, labels, [3, 4]))  # fmt: skip


def test_each_window_is_attacked_alone_and_a_pixel_comes_from_where_it_lies_deepest():
    images, labels = scene(2, 6, 10)
    windows = Windows(6, 2 / 3)
    seen = {}

    class Spy(IterativeAttack):
        def solve(self, problem):
            seen[tuple(problem.draws.seeds)] = super().solve(problem)
            return seen[tuple(problem.draws.seeds)]

    attack = Spy(CosPGD(), Linf(BUDGET["eps"]), 3, 0.01, random_start=True)
    result = PerWindow(attack, windows)(model(windows), images, labels, [3, 4])
    assert windows.grid(6, 10) == [(0, 0), (0, 4)]
    (first, left), (second, right) = seen.items()
    assert first == (3, 4)
    assert not set(first) & set(second)
    # Columns 4 and 5 lie in both: at 1 and 0 pixels from the end of the first, at 0 and 1 from that of the second; in
    # the outer rows they are equally deep, and the first window wins.
    assert torch.equal(result[..., :5], left[..., :5])
    assert torch.equal(result[..., 6:], right[..., 2:])
    assert torch.equal(result[..., 1:-1, 5], right[..., 1:-1, 1])
    assert torch.equal(result[..., [0, -1], 5], left[..., [0, -1], 5])
    assert float((result - images).abs().max()) <= 8 / 255 + 1e-12
    assert float((left[..., 4:] - right[..., :2]).abs().max()) > 1e-3, "the windows do differ where they overlap"


def test_windows_do_not_depend_on_the_batch():
    images, labels = scene(3, 7, 11)
    windows = Windows(5, 0.7)
    attack = PerWindow(pgd(**BUDGET), windows)
    together = attack(model(windows), images, labels, [1, 2, 3])
    alone = attack(model(windows), images[1:2], labels[1:2], [2])
    assert torch.allclose(together[1:2], alone, atol=1e-9)


def test_figures_are_the_mean_over_the_windows_that_have_labels():
    images, labels = scene(1, 4, 8, ignored=0.0)
    labels[..., 4:] = 255
    windows, curves = Windows(4, 1.0), {}
    for name, attack, shown in (("all", PerWindow(pgd(**BUDGET), windows), images),
                                ("left", pgd(**BUDGET), images[..., :4])):  # fmt: skip
        rows = curves[name] = []
        attack(
            model(None),
            shown,
            labels[..., : shown.shape[-1]],
            [5],
            log=lambda step, values, rows=rows: rows.append(values),
        )
    assert len(curves["all"]) == len(curves["left"]) == 3
    for both, left in zip(curves["all"], curves["left"], strict=True):
        assert both.keys() == left.keys()
        for key in left:
            assert torch.allclose(both[key].double(), left[key].double(), atol=1e-6), key


@pytest.mark.parametrize("attack", [pgd(eps=0.5, norm="l2"), alma_prox()], ids=lambda attack: attack.name)
def test_only_budgets_that_hold_for_a_photo_if_for_its_windows(attack):
    with pytest.raises(ValueError, match=r"cannot attack each window: it has no L-inf budget.*windows.attack=image"):
        PerWindow(attack, Windows(4))
    PerWindow(NoAttack(), Windows(4))


def test_targeted_and_inside_a_region():
    images, labels = scene(2, 6, 12, ignored=0.0)
    region = torch.zeros(labels.shape, dtype=torch.bool)
    region[:, 1:4, 2:9] = True
    windows = Windows(6, 0.5)
    network = model(windows)
    wanted = torch.full_like(labels, 2)
    attack = PerWindow(pgd(eps=0.3, steps=10, step_size=0.06), windows)
    result = attack(network, images, wanted, [1, 2], targeted=True, region=region)
    outside = ~region[:, None].expand_as(images)
    assert torch.equal(result[outside], images[outside])
    believed = [network(shown).softmax(1)[:, 2][region].mean() for shown in (images, result)]
    assert believed[1] > believed[0] + 0.1


def float32(seed=0):
    return SegmentationModel(curved(torch.float32, seed), num_classes=CLASSES)


def test_the_module_runs_every_network_on_windows():
    module = AttackModule(Ensemble([float32(1), float32(2)], by="loss"), NoAttack(), {"other": float32(3)},
                          windows=Windows(20, 0.5))  # fmt: skip
    images = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    source, other = module.scored
    assert all(member.windows == Windows(20, 0.5) for member in (*source.members, other))
    assert not torch.equal(other(images), float32(3)(images))


def test_the_module_attacks_each_window():
    windows = Windows(20, 0.5, attack="window")
    images, labels = scene(1, 24, 40, dtype=torch.float32)
    batch = {"image": images, "mask": labels, "index": torch.tensor([7])}
    module = AttackModule(float32(), pgd(**BUDGET), windows=windows, quantize=False)
    outputs = module.predict_step(batch, 0)
    assert module.attack.name == "pgd"
    assert outputs.passes["backward"] == 3 * len(windows.grid(24, 40))
    assert len(outputs.figures) == 3
    whole = AttackModule(float32(), pgd(**BUDGET), windows=Windows(20, 0.5), quantize=False).predict_step(batch, 0)
    assert whole.passes["backward"] == 3
    assert not torch.equal(outputs.adversarial, whole.adversarial)


def test_features_need_one_pass():
    images, labels = scene(1, 24, 40, dtype=torch.float32)
    network = float32()
    network.windows = Windows(20, 0.5)
    attack = fspgd(**BUDGET, layers=["network.1"])
    with pytest.raises(ValueError, match=r"ran 6 times in one pass .* attack each window on its own"):
        attack(network, images, labels)
    assert not torch.equal(PerWindow(attack, network.windows)(network, images, labels), images)


def test_validation_slides_and_training_does_not():
    task = SegmentationTask(float32(), windows=Windows(8))
    images = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        whole = float32()(images)
        assert torch.equal(task.train()(images), whole)
        assert not torch.allclose(task.eval()(images).softmax(1), whole.softmax(1), atol=1e-3)


@pytest.mark.parametrize(("protocol", "kind", "classes"), [("voc", "voc", 21), ("cityscapes", "cityscapes", 19)])
def test_the_papers_protocols_run(protocol, kind, classes, monkeypatch, tmp_path):
    """`configs/data/*_paper.yaml` on a tree of photos made here, with a small network and smaller windows."""
    file = CONFIGS / "data" / f"{protocol}_paper.yaml"
    place = yaml.safe_load(file.read_text())["data"]["dataset"]["init_args"]["root"]
    LAYOUTS[kind].make(tmp_path / place)
    small = {"class_path": "SMPModel", "init_args": {"arch": "fpn", "encoder_name": "tu-test_resnet",
             "encoder_weights": None, "num_classes": classes}}  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["main.py"])
    for command, network in (("predict", {"source": small, "targets": {}}), ("validate", {"network": small})):
        config = tmp_path / f"{command}.yaml"
        config.write_text(yaml.safe_dump({"trainer": {"accelerator": "cpu", "logger": False}, "model": network}))
        more = ["--results=results", "--run_name=run", "--model.attack.steps=1"] if command == "predict" else []
        size = [64, 96] if kind == "cityscapes" else 96
        files = [f"-c={config}", f"-c={file}", "--model.windows.size=64", f"--data.size={size}"]
        assert main([command, *files, *more]) == 0
    report = json.loads(next(tmp_path.rglob("transfer.json")).read_text())
    assert report["settings"]["attack"]["class"] == "PerWindow"
    # 4x6 photos at a long side of 96, or at 64x96: a window of 64 at columns 0 and 32, and of each one step.
    assert report["passes_per_image"]["backward"] == 2
    with Image.open(next(tmp_path.rglob("images/**/*.png"))) as image:
        assert image.size == (96, 64)
