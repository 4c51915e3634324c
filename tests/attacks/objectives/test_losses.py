"""The losses: values and gradients from formulas written a second time, what targets mean, extreme logits."""

import math

import numpy as np
import pytest
import torch

from lightning_attack.attacks import CosPGD, CrossEntropy, IterativeAttack, Linf, SegPGD, Staged, Switch
from lightning_attack.attacks.objectives.base import Moment, Prediction
from lightning_attack.attacks.objectives.features import RPPGD
from lightning_attack.attacks.objectives.losses import JensenShannon, LabelLogit, LogitsRatio, MaskedSpherical, Tsallis
from lightning_attack.attacks.objectives.masked import (
    BalancedCrossEntropy,
    BalancedMaskedCrossEntropy,
    EroSeg,
    MaskedCrossEntropy,
)
from lightning_attack.attacks.objectives.transegpgd import TransferablePixels
from tests.attacks.toys import CLASSES, PIXELS, curved, half_right, scene, share_of_differences

STEP, STEPS = 3, 8
CLASS_PIXELS = [5e9, 1e7, 3e8, 1.0, 2e6]
EVERY = [
    MaskedCrossEntropy(),
    MaskedCrossEntropy(temperature=3.0),
    BalancedCrossEntropy(power=0.3, temperature=2.0),
    BalancedCrossEntropy(power=0.3, temperature=2.0, pull=0.4),
    BalancedMaskedCrossEntropy(),
    BalancedMaskedCrossEntropy(CLASS_PIXELS),
    JensenShannon(),
    LabelLogit(),
    MaskedSpherical(),
    Tsallis(),
    LogitsRatio(),
    LogitsRatio(masked=True),
    EroSeg(),
    EroSeg(background_class=None),
    RPPGD(prototypes=0),
]


def name(objective):
    settings = [str(value) for value in vars(objective).values() if isinstance(value, bool | float | list)]
    return " ".join([type(objective).__name__, *settings])


def random_prediction(targeted=False, scale=2.0, dtype=torch.float64, classes=CLASSES, seed=0):
    """Three images, a fifth of the pixels ignored; the first lacks a class, the last has no label at all."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, classes, 6, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (3, 6, 7), generator=generator)
    labels = torch.where(torch.rand(labels.shape, generator=generator) < 0.4, logits.argmax(1), labels)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    labels[0][labels[0] == classes - 1], labels[2] = 255, 255
    return Prediction(logits.to(dtype).requires_grad_(), labels, targeted)


def moment_for(prediction, step=STEP):
    return Moment(step, STEPS, clean=prediction.detached())


def value_and_gradient(objective, prediction, step=STEP):
    loss = objective(prediction, moment_for(prediction, step))
    return loss.detach(), torch.autograd.grad(loss.sum(), prediction.logits)[0]


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def one_hot(y):
    return np.eye(CLASSES)[y]


def cross_entropy(z, y, temperature=1.0):
    p = softmax(z / temperature)
    return -np.log(p[y]), (p - one_hot(y)) / temperature


def weighted(weight_of, temperature=1.0):
    def pixel(z, y, wins, counts):
        loss, slope = cross_entropy(z, y, temperature)
        return weight_of(z, y, wins, counts) * loss, weight_of(z, y, wins, counts) * slope

    return pixel


def by_definition_jensen_shannon(z, y, wins, counts):
    p, e = softmax(z), one_hot(y)
    middle = (p + e) / 2
    loss = 0.5 * (p * np.log(p / middle)).sum() + 0.5 * np.log(1 / middle[y])
    # By the chain rule from dJS/dp_k = 1/2 log(p_k / m_k) and dp_k/dz_j = p_k ([k = j] - p_j).
    outer = 0.5 * np.log(p / middle)
    return loss, p * (outer - (p * outer).sum())


def by_definition_spherical(z, y, wins, counts):
    length = math.sqrt((z * z).sum())
    return (0.0, 0 * z) if wins else (-z[y] / length, -one_hot(y) / length + z[y] * z / length**3)


def by_definition_tsallis(z, y, wins, counts):
    q = -2 + 3 * STEP / (STEPS - 1)
    p = softmax(z)
    return (1 - p[y] ** (1 - q)) / (1 - q), p[y] ** (1 - q) * (p - one_hot(y))


def by_definition_ratio(masked):
    def pixel(z, y, wins, counts):
        if masked and wins:
            return 0.0, 0 * z
        order = np.argsort(-z)
        rival = next(k for k in order if k != y)
        margin, spread = z[y] - z[rival], z[order[0]] - z[order[2]]
        slope = -(one_hot(y) - one_hot(rival)) / spread
        return -margin / spread, slope + margin / spread**2 * (one_hot(order[0]) - one_hot(order[2]))

    return pixel


def by_definition_cosine(z, y, wins, counts, targeted=False):
    p = softmax(z)
    cosine = (p * one_hot(y)).sum() / (math.sqrt((p * p).sum()) * 1.0)
    return 1 - cosine if targeted else cosine


def own_balance(z, y, wins, counts):
    seen = counts[counts > 0]
    return 0 if wins else seen.mean() / counts[y]


def by_area(z, y, wins, counts):
    return counts[y] ** -0.3 * counts.sum() / (counts[counts > 0] ** 0.7).sum()


def pulled(z, y, wins, counts):
    """CE of the label less 0.4 CE of the largest other class, balanced, at temperature 2."""
    other = max((k for k in range(CLASSES) if k != y and counts[k]), key=lambda k: counts[k])
    (own_loss, own_slope), (loss, slope) = (cross_entropy(z, k, temperature=2.0) for k in (y, other))
    weight = by_area(z, y, wins, counts)
    return weight * (own_loss - 0.4 * loss), weight * (own_slope - 0.4 * slope)


def eroseg_weight(z, y, wins, counts):
    limit = 1 - 0.2 * math.exp(-0.8 * STEP)
    return 0 if wins or softmax(z).max() >= limit else (0.3 if y == 0 else 0.7)


LAMBDA = STEP / STEPS / 2
DEFINITIONS = [
    (CrossEntropy(temperature=2.0), weighted(lambda z, y, wins, counts: 1, temperature=2.0)),
    (SegPGD(), weighted(lambda z, y, wins, counts: LAMBDA if wins else 1 - LAMBDA)),
    (CosPGD(), weighted(by_definition_cosine)),
    (MaskedCrossEntropy(), weighted(lambda z, y, wins, counts: 0 if wins else 1)),
    (MaskedCrossEntropy(3.0), weighted(lambda z, y, wins, counts: 0 if wins else 1, temperature=3.0)),
    (BalancedCrossEntropy(power=0.3, temperature=2.0), weighted(by_area, temperature=2.0)),
    (BalancedCrossEntropy(power=0.3, temperature=2.0, pull=0.4), pulled),
    (BalancedMaskedCrossEntropy(), weighted(own_balance)),
    (
        BalancedMaskedCrossEntropy(CLASS_PIXELS),
        weighted(lambda z, y, wins, counts: 0 if wins else np.mean(CLASS_PIXELS) / CLASS_PIXELS[y]),
    ),
    (JensenShannon(), by_definition_jensen_shannon),
    (LabelLogit(), lambda z, y, wins, counts: (-z[y], -one_hot(y))),
    (MaskedSpherical(), by_definition_spherical),
    (Tsallis(), by_definition_tsallis),
    (LogitsRatio(), by_definition_ratio(masked=False)),
    (LogitsRatio(masked=True), by_definition_ratio(masked=True)),
    (EroSeg(), weighted(eroseg_weight)),
]


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(("objective", "pixel"), DEFINITIONS, ids=lambda part: name(part) if vars(part) else "")
def test_value_and_gradient(objective, pixel, targeted):
    prediction = random_prediction(targeted)
    if targeted and isinstance(objective, CosPGD):
        pixel = weighted(lambda *arguments: by_definition_cosine(*arguments, targeted=True))
    if targeted and pixel is pulled:
        pixel = weighted(by_area, temperature=2.0)  # wanted classes pull alone
    loss, gradient = value_and_gradient(objective, prediction)
    logits, labels = prediction.logits.detach().numpy(), prediction.labels.numpy()
    expected_loss, expected_gradient = np.zeros(labels.shape), np.zeros(logits.shape)
    for image, row, column in zip(*np.nonzero(labels != 255), strict=True):
        z, y = logits[image, :, row, column], labels[image, row, column]
        counts = np.array([(labels[image] == k).sum() for k in range(CLASSES)])
        wins = (z.argmax() == y) == targeted
        expected_loss[image, row, column], expected_gradient[image, :, row, column] = pixel(z, y, wins, counts)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-10)
    assert np.abs(expected_gradient).max() > 1e-3


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("objective", EVERY, ids=name)
def test_ignored_pixels_and_other_images(objective, targeted):
    prediction = random_prediction(targeted)
    loss, gradient = value_and_gradient(objective, prediction)
    ignored = prediction.labels == 255
    assert loss[ignored].abs().max() == 0
    assert gradient.movedim(1, -1)[ignored].abs().max() == 0
    one = Prediction(prediction.logits[1:2].detach().requires_grad_(), prediction.labels[1:2], targeted)
    alone, alone_gradient = value_and_gradient(objective, one)
    assert torch.equal(alone, loss[1:2])
    assert torch.equal(alone_gradient, gradient[1:2])


def test_an_image_of_one_class_has_no_other_to_be_pulled_to():
    found = []
    for pull in (0.7, 0.0):
        prediction = random_prediction()
        prediction.labels[prediction.labels != 255] = 2
        found.append(value_and_gradient(BalancedCrossEntropy(0.5, 3.0, pull), prediction))
    (loss, gradient), (plain_loss, plain_gradient) = found
    assert torch.equal(loss, plain_loss)
    assert torch.equal(gradient, plain_gradient)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("objective", EVERY, ids=name)
def test_extreme_logits(objective, targeted, dtype):
    extreme = random_prediction(targeted, scale=1e4, dtype=dtype)
    logits = extreme.logits.detach().clone()
    logits[0, :, 0], logits[0, :, 1], logits[1, 0] = 0, 1e4, -6e4
    for step in (0, STEPS - 1):
        prediction = Prediction(logits.clone().requires_grad_(), extreme.labels, targeted)
        loss, gradient = value_and_gradient(objective, prediction, step)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("q", [{"q_end": 1.0}, {"q_start": 1.0, "q_end": -1.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tsallis_of_1_is_the_cross_entropy(q, dtype):
    at = STEPS - 1 if q["q_end"] == 1 else 0
    for scale in (1.0, 1e4):
        ours = value_and_gradient(Tsallis(**q), random_prediction(scale=scale, dtype=dtype), at)
        plain = value_and_gradient(CrossEntropy(), random_prediction(scale=scale, dtype=dtype), at)
        assert torch.equal(ours[0], plain[0])
        assert torch.equal(ours[1], plain[1])
    other = value_and_gradient(Tsallis(**q), random_prediction(), STEP)
    assert not torch.allclose(other[0], value_and_gradient(CrossEntropy(), random_prediction(), STEP)[0])


def test_near_1_tsallis_is_near_the_cross_entropy():
    # Not a difference of two numbers near 1.
    near = value_and_gradient(Tsallis(1 - 1e-12, 1 - 1e-12), random_prediction())
    plain = value_and_gradient(CrossEntropy(), random_prediction())
    assert torch.allclose(near[0], plain[0], rtol=1e-9, atol=0)
    assert torch.allclose(near[1], plain[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("objective", [JensenShannon(), Tsallis(-2.0, 0.0)], ids=name)
def test_pixels_fooled_for_sure_pull_no_more(objective):
    margins = torch.tensor([0.0, 5.0, 10.0, 20.0, 400.0], dtype=torch.float64)
    logits = torch.stack([-margins, torch.zeros(5, dtype=torch.float64)])[None, :, None].requires_grad_()
    prediction = Prediction(logits, torch.zeros(1, 1, 5, dtype=torch.int64))
    loss, gradient = value_and_gradient(objective, prediction, step=STEPS - 1)
    sizes = gradient[0, 0, 0].abs()
    assert (sizes.diff() < 0).all()
    # p log(p) / 2 and p at p = e^-20, near enough; nothing at all at p = e^-400.
    assert 0 < sizes[3] < 3e-8
    assert sizes[4] < 1e-170
    assert loss[0, 0, 4] == pytest.approx(math.log(2) if isinstance(objective, JensenShannon) else 1)
    plain = value_and_gradient(CrossEntropy(), Prediction(logits, prediction.labels))[1]
    assert plain[0, 0, 0, 4] == -1


def test_two_by_two_pixels_by_hand():
    # Logits (1, 0) at all pixels; labels: class 0 twice, class 1, ignored. p = 1/(1+1/e) = 0.7311.
    logits = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 2, 2).clone().requires_grad_()
    labels = torch.tensor([[[0, 0], [1, 255]]])
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.exp(1))

    def losses(objective, targeted=False, step=0):
        return objective(Prediction(logits, labels, targeted), Moment(step, 2)).flatten().tolist()

    assert losses(MaskedCrossEntropy()) == pytest.approx([right, right, 0, 0])
    assert losses(MaskedCrossEntropy(), targeted=True) == pytest.approx([0, 0, wrong, 0])
    # Three labelled pixels, N = 2, 1, mean 3/2.
    assert losses(BalancedMaskedCrossEntropy()) == pytest.approx([0.75 * right, 0.75 * right, 0, 0])
    assert losses(BalancedMaskedCrossEntropy(), targeted=True) == pytest.approx([0, 0, 1.5 * wrong, 0])
    assert losses(BalancedMaskedCrossEntropy([1, 3])) == pytest.approx([2 * right, 2 * right, 0, 0])
    assert losses(MaskedSpherical()) == pytest.approx([-1, -1, 0, 0])
    assert losses(MaskedSpherical(), targeted=True) == pytest.approx([0, 0, 0, 0])
    assert losses(EroSeg()) == pytest.approx([0.3 * right, 0.3 * right, 0, 0])
    assert losses(EroSeg(), targeted=True) == pytest.approx([0, 0, 0.7 * wrong, 0])
    assert losses(EroSeg(background_class=None)) == pytest.approx([0.7 * right, 0.7 * right, 0, 0])
    # 73 % is not below 73 %, but below 1 - 0.27 e^-1 = 90 %.
    assert losses(EroSeg(tau=0.73, growth=1)) == [0, 0, 0, 0]
    assert losses(EroSeg(tau=0.73, growth=1), step=1) == pytest.approx([0.3 * right, 0.3 * right, 0, 0])


def test_ratio_ignores_shift_and_scale():
    prediction = random_prediction()
    moved = Prediction(7 * prediction.logits - 40, prediction.labels)
    moment = Moment(0, 1)
    assert torch.allclose(LogitsRatio()(prediction, moment), LogitsRatio()(moved, moment), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "objective",
    [MaskedCrossEntropy(), BalancedMaskedCrossEntropy(), JensenShannon(), LogitsRatio(masked=True)],
    ids=name,
)
def test_targeted_attacks_reach_the_wanted_class(objective):
    model = curved()
    images, labels = scene(2, 20, 20)
    attack = IterativeAttack(objective, Linf(4 * PIXELS), steps=15, step_size=PIXELS)

    def reached(images):
        return float((model(images).argmax(1) == labels)[labels != 255].double().mean())

    # One pixel in five is right from the start; an attack on the wrong pixels would lose or win those only.
    assert reached(attack(model, images, labels, targeted=True)) > reached(images) + 0.05
    assert reached(attack(model, images, labels)) < reached(images) - 0.1


def test_stages_with_other_losses():
    model = curved()
    images, labels = scene(2, 12, 12)
    labels = half_right(model, images, labels)

    def run(objective):
        return IterativeAttack(objective, Linf(PIXELS), steps=6, step_size=0.01)(model, images, labels)

    two = run(Staged([JensenShannon(), TransferablePixels()], [Switch(at=0.5)]))
    assert share_of_differences(two, run(JensenShannon())) > 0.01
    assert share_of_differences(two, run(TransferablePixels())) > 0.01
    all_of_them = Staged(
        [RPPGD(prototypes=0), BalancedMaskedCrossEntropy(), EroSeg()], [Switch(at=0.3), Switch(at=0.6)]
    )
    assert share_of_differences(run(all_of_them), images) > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedCrossEntropy(0), "temperature=0: must be above 0"),
        (lambda: BalancedMaskedCrossEntropy([3, 0]), r"class_pixels=\[3, 0\]: must be finite numbers above 0"),
        (lambda: BalancedMaskedCrossEntropy([math.nan]), r"class_pixels=\[nan\]: must be finite numbers above 0"),
        (lambda: BalancedMaskedCrossEntropy([]), r"class_pixels=\[\]: must be finite numbers above 0"),
        (lambda: BalancedMaskedCrossEntropy(temperature=-1), "temperature=-1: must be above 0"),
        (lambda: Tsallis(q_end=1.5), r"q_start=-2.0, q_end=1.5: must be at most 1"),
        (lambda: Tsallis(q_start=-math.inf), "q_start=-inf, q_end=1.0: must be at most 1, and finite"),
        (lambda: EroSeg(tau=0), "tau=0 must be above 0 and at most 1, growth=0.8 0 or more"),
        (lambda: EroSeg(tau=1.1), "tau=1.1 must be above 0"),
        (lambda: EroSeg(growth=-1), "growth=-1 0 or more"),
        (lambda: EroSeg(foreground=0, background=0), "foreground=0, background=0: must be 0 or more, and not both 0"),
        (lambda: EroSeg(background=math.nan), "background=nan: must be 0 or more"),
    ],
)
def test_construction_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_errors_at_first_use():
    two_classes = random_prediction(classes=2)
    with pytest.raises(ValueError, match=r"the model has 2 classes; LogitsRatio .* needs 3 or more"):
        LogitsRatio()(two_classes, Moment(0, 1))
    with pytest.raises(ValueError, match=r"class_pixels has 5 numbers, the model 2 classes; give one per class"):
        BalancedMaskedCrossEntropy(CLASS_PIXELS)(two_classes, Moment(0, 1))
