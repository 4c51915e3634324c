"""What is refused, and that the message says what was given and what is allowed."""

import re

import pytest
import torch
from torch import nn

from lightning_attack.attacks import (
    L2,
    PRESETS,
    AttackError,
    BlockShuffle,
    ConstrainedWarp,
    CrossEntropy,
    DynamicScaling,
    FoolAllPixels,
    GradientTransform,
    InputDiversity,
    IterativeAttack,
    Linf,
    LocalRegions,
    MaskedBlocks,
    Momentum,
    Nesterov,
    Objective,
    RandomAffine,
    RandomChain,
    RandomCrop,
    RandomFlip,
    Staged,
    Switch,
    TransferablePixels,
    TranslationInvariance,
    alma_prox,
    apgd,
    bim,
    cwa,
    dag,
    mi_fgsm,
    pgd,
    sea,
    svre,
    transegpgd,
)
from lightning_attack.common.pixels import parse_pixels
from tests.attacks.toys import curved, half_right, scene

NAN = float("nan")


def error(*parts):
    """All parts, in this order."""
    return ".*".join(re.escape(part) for part in parts)


@pytest.mark.parametrize(
    "value", [0, 0.0, -1, -0.1, "-8/255", "0/255", "abc", "", "8/0", "8/x", "8/255/2", NAN, "nan", "inf", float("inf")]
)
@pytest.mark.parametrize("name", ["eps", "step_size"])
def test_sizes_in_pixels(name, value):
    with pytest.raises(ValueError, match=error(f"{name}={value!r}", "must be a number above 0, such as 0.03 or 8/255")):
        pgd(**{name: value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        (" 8 / 255 ", 8 / 255),
        ("0.03", 0.03),
        ("1e-2", 0.01),
        (0.5, 0.5),
        (1, 1.0),
        ("2.5/255", 2.5 / 255),
    ],
)
def test_sizes_that_are_understood(text, value):
    assert parse_pixels(text) == value


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("steps", [0, -3])
def test_steps(preset, steps):
    with pytest.raises(ValueError, match=error(f"steps={steps}", "1 or more")):
        preset(steps=steps)


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset not in (alma_prox, dag)])
def test_norm(preset):
    with pytest.raises(ValueError, match=error("norm='l1'", "linf, l2")):
        preset(norm="l1")


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (FoolAllPixels, "gamma"),
        (TransferablePixels, "beta"),
        (Switch, "at"),
        (lambda value: transegpgd(gamma=value), "gamma"),
        (lambda value: transegpgd(beta=value), "beta"),
    ],
    ids=["stage one", "stage two", "switch", "preset gamma", "preset beta"],
)
def test_shares(make, name, value):
    with pytest.raises(ValueError, match=error(f"{name}={value}", "between 0 and 1")):
        make(value)


@pytest.mark.parametrize("threshold", ["max", "0.9", 0, 1, 0.0, 1.0, -0.5, NAN, None])
def test_threshold(threshold):
    with pytest.raises(
        ValueError, match=error(f"threshold={threshold!r}", "mean, median or a quantile between 0 and 1")
    ):
        TransferablePixels(threshold=threshold)


def test_kl():
    with pytest.raises(ValueError, match=error("kl='clean'", "adversarial||clean, clean||adversarial")):
        TransferablePixels(kl="clean")


@pytest.mark.parametrize("fooled", [0, -0.1, 1.1, NAN])
def test_switch(fooled):
    with pytest.raises(ValueError, match=error(f"fooled={fooled}", "above 0 and at most 1 (or null)")):
        Switch(fooled=fooled)


@pytest.mark.parametrize(("stages", "switches"), [(0, 0), (1, 1), (2, 0), (2, 2)])
def test_stages_and_switches(stages, switches):
    with pytest.raises(
        ValueError, match=error(f"{stages} stages and {switches} switches", "one switch between each two")
    ):
        Staged([CrossEntropy()] * stages, [Switch()] * switches)


def test_stages_of_a_stage():
    inner = Staged([FoolAllPixels(), TransferablePixels()], [Switch(at=0.3)])
    with pytest.raises(ValueError, match=error("a stage of Staged is a Staged itself", "give all stages to one")):
        Staged([inner, CrossEntropy()], [Switch(at=0.8)])


@pytest.mark.parametrize(
    ("scale", "prob"), [(0, 0.5), (1, 0.5), (1.1, 0.5), (-0.1, 0.5), (NAN, 0.5), (0.9, -0.1), (0.9, 1.1), (0.9, NAN)]
)
def test_input_diversity(scale, prob):
    match = error(f"scale={scale} must be between 0 and 1 (excluded)", f"prob={prob} between 0 and 1")
    with pytest.raises(ValueError, match=match):
        InputDiversity(scale, prob)


@pytest.mark.parametrize(("size", "nsig"), [(4, 3.0), (0, 3.0), (-1, 3.0), (5, 0.0), (5, -1.0), (5, NAN)])
def test_kernel(size, nsig):
    with pytest.raises(ValueError, match=error(f"kernel_size={size} must be odd and above 0", f"nsig={nsig} above 0")):
        TranslationInvariance(size, nsig)


@pytest.mark.parametrize("kind", [Momentum, Nesterov])
@pytest.mark.parametrize("decay", [-0.1, NAN])
def test_decay(kind, decay):
    with pytest.raises(ValueError, match=error(f"decay={decay}", "0 or more")):
        kind(decay)


OWN_LOOPS = (alma_prox, apgd, cwa, dag, sea, svre)


class Sampler(GradientTransform):
    samples = True

    def __call__(self, gradient, budget):
        return lambda x: gradient(x) + gradient(-x)


def test_two_accumulators():
    with pytest.raises(ValueError, match=r"Nesterov and Momentum both accumulate .* use one of them"):
        mi_fgsm(gradient_transforms=[Nesterov()])


def test_sampler_after_accumulator():
    with pytest.raises(ValueError, match=r"Sampler cannot come after Momentum: .* Put Momentum last"):
        bim(gradient_transforms=[Momentum(), TranslationInvariance(3), Sampler()])
    assert len(bim(gradient_transforms=[Sampler(), TranslationInvariance(3), Momentum()]).gradient_transforms) == 3


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset not in OWN_LOOPS])
def test_presets_take_a_further_sampler(preset):
    assert type(preset(gradient_transforms=[Sampler()]).gradient_transforms[0]) is Sampler


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x: x * 255, error("images range over [", "expected [0, 1]", "Divide 8-bit images by 255")),
        (lambda x: x - 0.5, error("images range over [-", "expected [0, 1]")),
        (lambda x: x - x.min() - 1e-5, error("images range over [-1e-05", "expected [0, 1]")),
        (lambda x: x / x.max() + 1e-5, error("images range over [", "expected [0, 1]")),
        (lambda x: x.index_fill(3, torch.tensor([2]), NAN), error("images range over [nan, nan]", "expected [0, 1]")),
        (lambda x: x[0], error("images are (3, 8, 6) torch.float64", "expected (B, 3, H, W), floating, in [0, 1]")),
        (lambda x: x[:, :1], error("images are (2, 1, 8, 6) torch.float64", "expected (B, 3, H, W)")),
        (lambda x: (x * 255).byte(), error("images are (2, 3, 8, 6) torch.uint8", "floating")),
    ],
    ids=["8 bit", "negative", "just below", "just above", "nan", "no batch", "one colour", "bytes"],
)
def test_images(spoil, match):
    images, labels = scene(2, 8, 6)
    with pytest.raises(ValueError, match=match):
        bim()(curved(), spoil(images), labels)


@pytest.mark.parametrize(
    ("spoil", "given"),
    [
        (lambda y: y[:1], "(1, 8, 6) torch.int64"),
        (lambda y: y[:, :4], "(2, 4, 6) torch.int64"),
        (lambda y: y[:, None], "(2, 1, 8, 6) torch.int64"),
        (lambda y: y[:, 0, 0], "(2,) torch.int64"),
        (lambda y: y.mT, "(2, 6, 8) torch.int64"),
        (lambda y: y.int(), "(2, 8, 6) torch.int32"),
        (lambda y: y.float(), "(2, 8, 6) torch.float32"),
        (lambda y: y.byte(), "(2, 8, 6) torch.uint8"),
    ],
    ids=["batch", "height", "channel", "per image", "turned", "int32", "float", "bytes"],
)
def test_labels(spoil, given):
    images, labels = scene(2, 8, 6)
    with pytest.raises(ValueError, match=error(f"labels are {given}", "expected (2, 8, 6) int64", "255 = ignored")):
        bim()(curved(), images, spoil(labels))


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_number_of_seeds(seeds):
    images, labels = scene(2, 8, 6)
    with pytest.raises(ValueError, match=error(f"{len(seeds)} seeds for 2 images", "one per image")):
        bim()(curved(), images, labels, seeds)


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (lambda logits: logits[..., ::2, ::2], "(2, 5, 4, 3)"),
        (lambda logits: logits.mean((2, 3)), "(2, 5)"),
        (lambda logits: logits[:1], "(1, 5, 8, 6)"),
        (lambda logits: logits.mT, "(2, 5, 6, 8)"),
    ],
    ids=["stride", "per image", "batch", "turned"],
)
@pytest.mark.parametrize("attack", [bim(), transegpgd(), bim(norm=L2(1.0))], ids=lambda attack: attack.name)
def test_logits(attack, answer, shape):
    images, labels = scene(2, 8, 6)
    model = curved()
    match = error(f"the model returned {shape} for labels (2, 8, 6)", "(B, C, H, W) of the images' size")
    with pytest.raises(ValueError, match=match):
        attack(lambda x: answer(model(x)), images, labels)


@pytest.mark.parametrize(
    "transform",
    [
        InputDiversity(0.7, 1.0), DynamicScaling(0.5, 2.0), RandomCrop(), ConstrainedWarp(), ConstrainedWarp(rho=0),
        RandomAffine(), RandomFlip(), BlockShuffle(), MaskedBlocks(2), LocalRegions(),
        RandomChain([RandomFlip()], most=1),
    ],
    ids=lambda transform: type(transform).__name__,
)  # fmt: skip
def test_logits_of_views(transform):
    images, labels = scene(2, 16, 12)
    model = curved()
    shown, given = ("(2, 5, 8, 6)", "labels (2, 16, 12)")
    if isinstance(transform, DynamicScaling):
        shown, given = ("(2, 5, 16, 12)", "images (2, 32, 24)")  # the size of the labels, by chance
    match = error(f"the model returned {shown} for {given}", "of the images' size", "SegmentationModel")
    with pytest.raises(AttackError, match=match):
        bim(input_transforms=[transform])(lambda x: model(x)[..., ::2, ::2], images, labels)
    with pytest.raises(AttackError, match=error("the model returned dict", "the key 'out' or 'logits'")):
        bim(input_transforms=[transform])(lambda x: {"out": model(x)}, images, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attack", [apgd(steps=4, norm="linf"), dag(steps=3)], ids=lambda attack: attack.name)
def test_half_images_stay_half(attack, dtype):
    images, labels = scene(2, 8, 6, dtype=dtype)
    model = curved(dtype)
    found = attack(model, images, half_right(model, images, labels), [1, 2])
    assert found.dtype == dtype
    assert not torch.equal(found, images)


def test_stage_two_needs_the_clean_prediction():
    attack = IterativeAttack(Staged([TransferablePixels()], []), Linf())
    images, labels = scene(1, 8, 6)
    assert attack.objective.needs_clean
    attack(curved(), images, labels)
    attack.objective.stages[0].needs_clean = False
    with pytest.raises(ValueError, match=r"Moment\.clean is missing"):
        attack(curved(), images, labels)


class Averaged(Objective):
    def __call__(self, prediction, moment):
        return prediction.logits.mean()


class OfEachImage(Objective):
    """A loss for each image, (B,)."""

    def __call__(self, prediction, moment):
        return -prediction.of_label(prediction.logits).mean((1, 2))


def test_objectives_of_wrong_shape_and_without_gradient():
    model, (images, labels) = curved(torch.float32), scene(2, dtype=torch.float32)
    with pytest.raises(AttackError, match=r"objective Averaged returned \(\) for 2 images; expected a loss for each"):
        IterativeAttack(Averaged(), Linf("8/255"))(model, images, labels)

    def decided(images):
        return nn.functional.one_hot(model(images).argmax(1)).movedim(-1, 1).float()

    with pytest.raises(AttackError, match="loss of CrossEntropy does not depend on the image in a differentiable way"):
        IterativeAttack(CrossEntropy(), Linf("8/255"))(decided, images, labels)
    assert not torch.equal(IterativeAttack(OfEachImage(), Linf("8/255"))(model, images, labels), images)
