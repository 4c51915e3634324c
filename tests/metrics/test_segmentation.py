"""Scores against counts done by hand in numpy and against torchmetrics."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_attack.metrics import SegmentationScores, confusion_matrices, perturbation_size


def by_hand(preds, target, classes):
    """The scores from sets of pixels, one class after the other; no confusion matrix."""
    valid = target != 255
    iou, union = [], []
    for c in range(classes):
        says, is_ = (preds == c) & valid, (target == c) & valid
        either = (says | is_).sum()
        share = (says & is_).sum() / either if either else math.nan
        iou.append(share if is_.any() else math.nan)
        union += [share] if either else []
    labelled = [share for share in iou if not math.isnan(share)]
    return {
        "miou": np.mean(labelled) if labelled else math.nan,
        "miou_union": np.mean(union) if union else math.nan,
        "accuracy": (preds == target)[valid].mean() if valid.any() else math.nan,
        "iou": np.array(iou),
    }


@st.composite
def label_maps(draw):
    """Predictions and labels that lack some classes, with many, few or only ignored pixels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes, shape = draw(st.integers(1, 9)), (draw(st.integers(1, 4)), 5, draw(st.integers(1, 7)))
    target = rng.choice(rng.permutation(classes)[: draw(st.integers(1, classes))], shape)
    preds = rng.choice(rng.permutation(classes)[: draw(st.integers(1, classes))], shape)
    target = np.where(rng.uniform(size=shape) < draw(st.sampled_from([0, 0.3, 1])), 255, target)
    return torch.from_numpy(preds), torch.from_numpy(target), classes


@given(label_maps())
@settings(max_examples=60, deadline=None)
def test_scores_equal_counts_by_hand_and_torchmetrics(maps):
    preds, target, classes = maps
    scores = SegmentationScores(classes)
    scores.update(preds, target)
    result = scores.compute()
    for name, value in by_hand(preds.numpy(), target.numpy(), classes).items():
        np.testing.assert_allclose(result[name].numpy(), value, rtol=1e-12, err_msg=name)
    if (
        classes > 1 and (target != 255).any()
    ):  # torchmetrics takes no single class, and says 0 where there are no labels
        theirs = MulticlassJaccardIndex(classes, ignore_index=255, average="macro")(preds, target)
        assert result["miou_union"].item() == pytest.approx(theirs.item(), rel=1e-5)


def test_batches_and_order_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    preds = torch.randint(5, (12, 9, 7), generator=generator)
    target = torch.where(torch.rand(12, 9, 7, generator=generator) < 0.2, 255, (preds * 3 + 1) % 5)
    results = []
    for batch, seed in ((12, 0), (1, 1), (5, 2)):
        order = random.Random(seed).sample(range(12), 12)
        scores = SegmentationScores(5)
        for start in range(0, 12, batch):
            scores.update(preds[order[start : start + batch]], target[order[start : start + batch]])
        results.append(scores.compute())
    for result in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(result[name].nan_to_num(-1), value.nan_to_num(-1)), name


def test_without_labels_scores_are_nan():
    scores = SegmentationScores(3)
    scores.update(torch.tensor([[0, 2]]), torch.tensor([[255, 255]]))
    assert all(value.isnan().all() for value in scores.compute().values())


@pytest.mark.parametrize(("preds", "target"), [([3], [0]), ([-1], [0]), ([0], [4]), ([0], [-1]), ([3], [255])])
def test_out_of_range_is_refused(preds, target):
    with pytest.raises(ValueError, match=r"labels are .*predictions .*allowed are 0\.\.2 \(and 255 for labels\)"):
        SegmentationScores(3).update(torch.tensor(preds), torch.tensor(target))


def test_first_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match="allowed"):
        SegmentationScores(3).update(torch.tensor([0]), torch.tensor([3]))


def test_labels_may_be_uint8():
    scores = SegmentationScores(21)
    scores.update(torch.tensor([20, 19]), torch.tensor([20, 255], dtype=torch.uint8))
    assert scores.confusion.nonzero().tolist() == [[20, 20]]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"preds \(1, 4\) and target \(2, 2\)"):
        SegmentationScores(3).update(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64))


def test_counts_beyond_float32_are_exact():
    scores = SegmentationScores(2)
    scores.confusion += torch.tensor([[2**24, 0], [0, 0]])
    for _ in range(3):  # float32 would stay at 2**24
        scores.update(torch.tensor([1]), torch.tensor([0]))
        scores.update(torch.tensor([0]), torch.tensor([0]))
    assert scores.confusion.tolist() == [[2**24 + 3, 3], [0, 0]]
    assert scores.compute()["accuracy"].item() == (2**24 + 3) / (2**24 + 6)


def test_perturbation_size_closed_forms():
    clean = torch.full((3, 3, 4, 5), 0.5)
    adversarial = clean.clone()
    adversarial[0] += 8 / 255  # every value: l2 = 8/255 sqrt(60)
    adversarial[1, 2, 3, 4] -= 0.25  # one value: l2 = 0.25, MSE = 0.0625 / 60
    adversarial[2, :, 0] += 0.1  # a quarter of the values
    size = perturbation_size(adversarial, clean)
    assert size["linf"].tolist() == pytest.approx([8, 0.25 * 255, 0.1 * 255], rel=1e-6)
    assert size["linf"][0] == 8  # whole levels are whole
    assert size["l2"].tolist() == pytest.approx([8 / 255 * 60**0.5, 0.25, 0.1 * 15**0.5], rel=1e-6)
    mse = [(8 / 255) ** 2, 0.25**2 / 60, 0.1**2 / 4]
    assert size["psnr"].tolist() == pytest.approx([10 * math.log10(1 / m) for m in mse], rel=1e-6)
    for row in range(3):  # one by one, to the last bit
        alone = perturbation_size(adversarial[row : row + 1], clean[row : row + 1])
        assert {name: value.item() for name, value in alone.items()} == {name: size[name][row].item() for name in size}


def test_no_perturbation():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    size = {name: value.tolist() for name, value in perturbation_size(images, images).items()}
    assert size == {"linf": [0, 0], "l2": [0, 0], "psnr": [math.inf, math.inf]}


def test_matrices_of_images_add_up_to_that_of_all():
    generator = torch.Generator().manual_seed(0)
    preds = torch.randint(4, (3, 5, 6), generator=generator)
    target = torch.where(torch.rand(3, 5, 6, generator=generator) < 0.3, 255, preds.roll(1))
    each = confusion_matrices(preds, target, 4)
    for image in range(3):
        for label in range(4):
            for said in range(4):
                pixels = (target[image] == label) & (preds[image] == said)
                assert each[image, label, said] == pixels.sum()
    scores = SegmentationScores(4)
    scores.update(preds, target)
    assert torch.equal(scores.confusion, each.sum(0))
    whole, merged = scores.compute(), SegmentationScores.of(each.sum(0)).compute()
    assert all(torch.equal(whole[name].nan_to_num(-1), merged[name].nan_to_num(-1)) for name in whole)


def test_pixels_that_abstain_are_wrong_and_no_false_positives():
    scores = SegmentationScores(2, abstains=True)
    scores.update(torch.tensor([0, -1, 1, -1, -1]), torch.tensor([0, 0, 1, 1, 255]))
    for one in (scores, SegmentationScores.of(scores.confusion)):
        found = one.compute()
        assert found["iou"].tolist() == [0.5, 0.5]
        assert found["accuracy"] == 0.5
    with pytest.raises(ValueError, match=r"predictions -1\.\.0; allowed are 0\.\.1"):
        SegmentationScores(2).update(torch.tensor([0, -1]), torch.tensor([0, 0]))
