"""The objectives against loops written from the formulas a second time: one image at a time, pixels picked by masks."""

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks import (
    FoolAllPixels,
    IterativeAttack,
    Linf,
    LocalRegions,
    RandomCrop,
    SegPGD,
    Staged,
    Switch,
    TransferablePixels,
    bim,
    cospgd,
    pgd,
    segpgd,
    transegpgd,
)
from lightning_attack.attacks.objectives.base import Moment, Prediction
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import CLASSES, PIXELS, curved, half_right, scene, share_of_differences

STEP, STEPS = 0.01, 8
SEEDS = [11, 12, 13]
COMMON = {"eps": PIXELS, "step_size": STEP, "steps": STEPS}


def setting(dtype=torch.float64):
    """Three images with ignored pixels: three labels, soon fooled; labels half right; no label right from the start."""
    model = curved(dtype)
    images, labels = scene(3, 24, 20, dtype=dtype)
    labels = half_right(model, images, labels)
    with torch.no_grad():
        logits = model(images)
    best, second = logits[0].topk(2, dim=0)[0].flatten(1)
    unsure = (best - second).argsort()[20:23]
    labels[0] = 255
    labels[0].view(-1)[unsure] = logits[0].argmax(0).view(-1)[unsure]
    labels[2] = torch.where(labels[2] == 255, 255, logits[2].argmin(0))
    return model, images, labels


def run_loop(model, images, labels, loss_of, seeds=SEEDS):
    """Steps of each image alone; `loss_of(t, z, y, z0, memory)` sees (N, C) logits, (N,) labels of labelled pixels."""
    finals = []
    for image, label, seed in zip(images, labels, seeds, strict=True):
        noise = Draws([seed]).uniform("start", image.shape, -PIXELS, PIXELS)[0].to(image.dtype)
        x, known, memory = torch.clip(image + noise, 0, 1), label < 255, {}
        clean = model(image[None])[0, :, known].T.detach()
        for t in range(STEPS):
            x = x.detach().requires_grad_()
            logits = model(x[None])[0]
            loss_of(t, logits[:, known].T, label[known], clean, memory).backward()
            x = x.detach() + STEP * torch.sign(x.grad)
            x = torch.clip(image + torch.clip(x - image, -PIXELS, PIXELS), 0, 1)
        finals.append(x)
    return torch.stack(finals)


def plain_loss(t, z, y, clean, memory):
    return F.cross_entropy(z, y, reduction="sum")


def segpgd_loss(t, z, y, clean, memory):
    share = t / STEPS / 2
    right = z.argmax(1) == y
    return (1 - share) * plain_loss(t, z[right], y[right], 0, 0) + share * plain_loss(t, z[~right], y[~right], 0, 0)


def cospgd_loss(t, z, y, clean, memory):
    agreement = F.cosine_similarity(z.softmax(1), F.one_hot(y, CLASSES).to(z), dim=1).detach()
    return sum(weight * F.cross_entropy(pixel, label) for weight, pixel, label in zip(agreement, z, y, strict=True))


def transegpgd_loss(gamma=0.1, beta=0.1, kl="adversarial||clean", threshold="mean", records=None):
    def loss(t, z, y, clean, memory):
        right = z.argmax(1) == y
        memory["two"] = memory.get("two", False) or 2 * t >= STEPS or not right.any()
        now, before = z.detach().softmax(1), clean.softmax(1)
        p, q = (now, before) if kl == "adversarial||clean" else (before, now)
        divergence = (p * (p / q).log()).sum(1).tolist()
        if threshold == "mean":
            limit = math.fsum(divergence) / len(divergence)
        else:
            limit = sorted(divergence)[int((len(divergence) - 1) * (0.5 if threshold == "median" else threshold))]
        high = torch.tensor([k > limit for k in divergence])
        chosen, low_weight = (high, beta) if memory["two"] else (right, gamma)
        total = (1 - low_weight) * F.cross_entropy(z[chosen], y[chosen], reduction="sum")
        total = total + low_weight * F.cross_entropy(z[~chosen], y[~chosen], reduction="sum")
        if records is not None:
            records.append(
                {
                    "p_t": right.double().mean().item(),
                    "p_h": high.double().mean().item(),
                    "stage_two": float(memory["two"]),
                    "loss": total.item() / len(y),
                }
            )
        return total

    return loss


@pytest.mark.parametrize(
    ("preset", "loss"),
    [(pgd, plain_loss), (segpgd, segpgd_loss), (cospgd, cospgd_loss)],
    ids=["pgd", "segpgd", "cospgd"],
)
def test_pixel_weights(preset, loss):
    model, images, labels = setting()
    ours = preset(**COMMON)(model, images, labels, seeds=SEEDS)
    assert torch.equal(ours, run_loop(model, images, labels, loss))
    other = bim if preset is pgd else pgd
    assert share_of_differences(ours, other(**COMMON)(model, images, labels, seeds=SEEDS)) > 0.01


def test_l2_steps():
    model, images, labels = setting()
    ours = bim(eps=0.5, norm="l2", step_size=0.2, steps=STEPS)(model, images, labels)
    for image, label, adversarial in zip(images, labels, ours, strict=True):
        x = image
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            F.cross_entropy(model(x[None]), label[None], ignore_index=255).backward()
            change = x.detach() + 0.2 * x.grad / x.grad.square().sum().sqrt() - image
            x = torch.clip(image + change * min(1.0, 0.5 / float(change.square().sum().sqrt())), 0, 1)
        assert torch.allclose(adversarial, x, rtol=0, atol=1e-12)
        assert float((adversarial - image).norm()) > 0.4, "the ball must be reached for the test to mean something"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gamma": 0.7, "beta": 0.3},
        {"kl": "clean||adversarial"},
        {"threshold": "median"},
        {"threshold": 0.9},
        {"kl": "clean||adversarial", "threshold": 0.25, "beta": 0.0},
    ],
    ids=str,
)
def test_transegpgd(settings):
    model, images, labels = setting()
    ours = transegpgd(**COMMON, **settings)(model, images, labels, seeds=SEEDS)
    assert torch.equal(ours, run_loop(model, images, labels, transegpgd_loss(**settings)))
    assert share_of_differences(ours, pgd(**COMMON)(model, images, labels, seeds=SEEDS)) > 0.01
    if settings:
        default = transegpgd(**COMMON)(model, images, labels, seeds=SEEDS)
        assert share_of_differences(ours, default) > 0.01, "the settings must make a difference here"


def test_log_of_every_step():
    model, images, labels = setting()
    steps, records = [], []
    transegpgd(**COMMON)(model, images, labels, SEEDS, log=lambda step, figures: steps.append((step, dict(figures))))
    run_loop(model, images, labels, transegpgd_loss(records=records))
    assert [step for step, _ in steps] == list(range(STEPS))
    for step, figures in steps:
        assert set(figures) == {"loss", "p_t", "p_h", "stage_two"}
        for image in range(3):
            expected = records[image * STEPS + step]
            assert {name: float(values[image]) for name, values in figures.items()} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_weights_are_as_precise_as_the_logits(dtype):
    prediction = Prediction(torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]], dtype=dtype), torch.tensor([[[0, 1]]]))
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(
        FoolAllPixels(0.1).weights(prediction, Moment(0, 1)), torch.tensor([[[0.9, 0.1]]], dtype=precise)
    )
    third = torch.tensor([[[1 - 1 / 6, 1 / 6]]], dtype=precise)
    assert torch.equal(SegPGD().weights(prediction, Moment(1, 3)), third)


def test_each_image_switches_by_itself():
    model, images, labels = setting()
    two = []
    transegpgd(**COMMON)(
        model, images, labels, SEEDS, log=lambda step, figures: two.append(figures["stage_two"].tolist())
    )
    first = [next(step for step in range(STEPS) if two[step][image]) for image in range(3)]
    assert first[2] == 0, "fooled from the start"
    assert 0 < first[0] < STEPS // 2, "fooled on the way"
    assert first[1] == STEPS // 2, "never fooled, so at half of the steps"
    assert all(two[step][image] for image in range(3) for step in range(first[image], STEPS))


def test_log_of_plain_cross_entropy():
    # Two pixels of logits (1, 0) and one ignored: losses log(1 + e^-1) and log(1 + e).
    logits = torch.tensor([[[[1.0, 1.0, 9.0]], [[0.0, 0.0, 0.0]]]])
    seen = {}
    images, labels = torch.full((1, 3, 1, 3), 0.5), torch.tensor([[[0, 1, 255]]])
    bim(steps=1)(lambda x: logits + 0 * x[:, :1], images, labels, log=lambda step, figures: seen.update(figures))
    assert seen["p_t"].tolist() == [0.5]
    assert seen["loss"].item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2)


@pytest.mark.parametrize(
    ("switch", "alone"),
    [(Switch(at=0), TransferablePixels(0.2)), (Switch(at=None, all_fooled=False), FoolAllPixels(0.3))],
    ids=["stage two", "stage one"],
)
def test_one_stage_alone(switch, alone):
    model, images, labels = setting()
    staged = transegpgd(**COMMON, gamma=0.3, beta=0.2, switch=switch)(model, images, labels, seeds=SEEDS)
    single = IterativeAttack(alone, Linf(PIXELS), STEPS, STEP, random_start=True)(model, images, labels, seeds=SEEDS)
    assert torch.equal(staged, single)
    both = transegpgd(**COMMON, gamma=0.3, beta=0.2)(model, images, labels, seeds=SEEDS)
    assert share_of_differences(staged, both) > 0.01


def test_stage_two_leaves_the_clean_image_where_no_pixel_is_above_the_others():
    model, images, labels = setting()
    switch = Switch(at=0)
    for beta in (0.0, 0.1):
        found = transegpgd(**COMMON | {"steps": 1}, random_start=False, beta=beta, switch=switch)(model, images, labels)
        assert torch.equal(found, bim(**COMMON | {"steps": 1})(model, images, labels))


def test_shares_of_the_steps_are_counted_exactly():
    """0.07 * 100 is a little more than 7 in floating point."""
    for hundredths in range(101):
        switch = Switch(at=hundredths / 100)
        assert [switch.reached(step, 100) for step in range(101)] == [step >= hundredths for step in range(101)]


def test_stage_one_is_segpgd_with_constant_weights():
    model, images, labels = setting()

    def constant(t, z, y, clean, memory):
        weights = torch.tensor([0.7 if pixel.argmax() == label else 0.3 for pixel, label in zip(z, y, strict=True)])
        return weights.to(z) @ F.cross_entropy(z, y, reduction="none")

    stage_one = transegpgd(**COMMON, gamma=0.3, switch=Switch(at=None, all_fooled=False))
    assert torch.equal(stage_one(model, images, labels, seeds=SEEDS), run_loop(model, images, labels, constant))


class CountedStageOne(FoolAllPixels):
    calls = 0

    def weights(self, prediction, moment):
        self.calls += 1
        return super().weights(prediction, moment)


@pytest.mark.parametrize(("all_fooled", "with_stage_two"), [(False, 4), (True, STEPS)])
def test_only_stages_that_an_image_may_be_in_are_computed(all_fooled, with_stage_two):
    model, images, labels = setting()
    stage_one, seen = CountedStageOne(), []
    objective = Staged([stage_one, TransferablePixels()], [Switch(at=0.5, all_fooled=all_fooled)])
    attack = IterativeAttack(objective, Linf(PIXELS), STEPS, STEP)
    attack(model, images, labels, SEEDS, log=lambda step, figures: seen.append("p_h" in figures))
    assert stage_one.calls == STEPS // 2
    assert sum(seen) == with_stage_two


def prediction_of(classes, labels):
    logits = F.one_hot(torch.tensor(classes), CLASSES).permute(0, 2, 1)[:, :, None].double() * 3
    return Prediction(logits, torch.tensor(labels)[:, None])


def test_switch_is_sticky_and_ignores_unlabelled_pixels():
    labels = [[0, 1, 255], [0, 1, 255]]
    fooled_then_right = [[[2, 2, 2], [0, 2, 2]], [[0, 1, 0], [0, 1, 0]], [[0, 1, 0], [2, 2, 2]]]
    objective = Staged([FoolAllPixels(), TransferablePixels()], [Switch(at=None)])
    moment = Moment(0, 3, clean=prediction_of([[0, 1, 0], [0, 1, 0]], labels))
    stages = []
    for step, classes in enumerate(fooled_then_right):
        moment.step, moment.first, moment.figures = step, True, {}
        objective(prediction_of(classes, labels), moment)
        stages.append(moment.figures["stage_two"].tolist())
    assert stages == [[True, False], [True, False], [True, True]]


def test_stage_is_decided_at_the_first_look_of_a_step():
    # Further views of the same step may look fooled; they belong to the same step.
    right, fooled = ([[0, 1, 0]], [[2, 2, 2]])
    objective = Staged([FoolAllPixels(), TransferablePixels()], [Switch(at=None)])
    moment = Moment(0, 2, clean=prediction_of(right, [[0, 1, 255]]))
    objective(prediction_of(right, [[0, 1, 255]]), moment)
    moment.first = False
    objective(prediction_of(fooled, [[0, 1, 255]]), moment)
    moment.step, moment.first, moment.figures = 1, True, {}
    objective(prediction_of(right, [[0, 1, 255]]), moment)
    assert moment.figures["stage_two"].tolist() == [False]


@pytest.mark.parametrize(
    ("switch", "step", "expected"),
    [
        (Switch(at=0.5), 4, [False, False, True]),  # only the fully fooled image
        (Switch(at=0.5), 5, [True, True, True]),
        (Switch(at=0.45), 4, [False, False, True]),
        (Switch(at=0.45), 5, [True, True, True]),
        (Switch(at=1.0, all_fooled=False), 9, [False, False, False]),
        (Switch(at=None, fooled=0.75), 0, [False, True, True]),
        (Switch(at=None, fooled=0.76), 0, [False, False, True]),
        (Switch(at=None, fooled=0.5, all_fooled=False), 0, [True, True, True]),
    ],
    ids=lambda value: str(vars(value)) if isinstance(value, Switch) else str(value),
)
def test_events_of_the_switch(switch, step, expected):
    # 2, 3 and 4 of 4 labelled pixels are misclassified.
    prediction = prediction_of([[0, 0, 1, 1, 0]] * 3, [[0, 0, 0, 0, 255], [0, 2, 2, 2, 255], [3, 3, 3, 3, 255]])
    assert switch(prediction, Moment(step, 10)).tolist() == expected


def test_pixels_that_a_view_left_out_do_not_switch_an_image():
    """All that is shown of an image is fooled, and of another nothing is shown."""
    labels = torch.tensor([[[1, 255, 255, 255]], [[255, 255, 255, 255]], [[1, 1, 1, 1]]])
    logits = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(3, 2, 1, 4)
    shown = Prediction(logits, labels, hidden=torch.tensor([3, 4, 0]))
    assert Switch(at=0.5)(shown, Moment(0, 10)).tolist() == [False, False, True]
    assert Switch(at=None, fooled=0.25)(shown, Moment(0, 10)).tolist() == [True, False, True]


@pytest.mark.parametrize("part", [RandomCrop(0.3), LocalRegions(keep=0.2)], ids=lambda part: type(part).__name__)
def test_partial_views_do_not_end_stage_one(part):
    model = curved()
    images, labels = scene(4, 24, 24)
    labels = half_right(model, images, labels)
    labels[:, 6:] = 255
    seen = []
    attack = transegpgd(**COMMON, switch=Switch(at=None), input_transforms=[part])
    attack(model, images, labels, [1, 2, 3, 4], log=lambda _, figures: seen.append(figures["stage_two"]))
    assert not torch.stack(seen)[0].any()
    assert not torch.stack(seen).any(), "many pixels are right to the end"


@pytest.mark.parametrize(("fooled", "count"), [(0.41, 100), (0.705, 200), (0.747, 1000)])
def test_share_of_the_switch_is_met_exactly(fooled, count):
    # (1 - fooled) * count is a whole number that floating point misses.
    wrong = round(fooled * count)
    switch = Switch(at=None, fooled=fooled)
    for misclassified, expected in ((wrong, True), (wrong - 1, False)):
        prediction = prediction_of([[1] * misclassified + [0] * (count - misclassified)], [[0] * count])
        assert switch(prediction, Moment(0, 10)).tolist() == [expected]
