"""What every attack promises, whatever its parts."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_attack.attacks import (
    L2,
    PRESETS,
    Linf,
    NoAttack,
    alma_prox,
    apgd,
    bim,
    block_shuffle,
    bsr,
    dag,
    dem,
    fgsm,
    mumodig,
    pgd,
    pi_fgsm,
    sea,
    sia,
    transegpgd,
    transegpgd_best,
    transegpgd_mi_di_ti,
    transfer_best,
)
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.loops.apgd import APGD
from lightning_attack.attacks.loops.minimal_norm import MinimalNorm
from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.objectives.base import SegPGD
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.wrappers.worst_case import WorstCase
from lightning_attack.models import Ensemble
from tests.attacks.toys import BALL, CLASSES, FEW, PIXELS, STEP, curved, half_right, rich, scene
from tests.attacks.toys import pgd as iterative

few_examples = settings(max_examples=3, deadline=None, derandomize=True, database=None)
many_examples = settings(few_examples, max_examples=60)
levels = st.integers(0, 255)


# Attacks that draw nothing. `fia` does, but to no effect on networks of two convolutions, where its layer is the last.
WITHOUT_CHANCE = {
    "adaea", "ai_fgtm", "alma_prox", "anda", "bfa", "bim", "bpa", "cwa", "dag", "dta", "emi_fgsm", "fgnm", "fgs2m",
    "fgsm", "fia", "gi_fgsm", "iaa", "ie_fgsm", "linbp", "mask_block", "mi_fgsm", "mig", "ni_fgsm", "no_attack",
    "pi_fgsm", "pna", "pre_gradient_fgsm", "sgm", "si_ni_fgsm", "source_rotation", "svre", "tgr", "ti_fgsm",
}  # fmt: skip
WITHOUT_BALL = (alma_prox, dag)
LINF_ONLY = (*WITHOUT_BALL, pi_fgsm)


def make(preset, norm, **settings):
    """The preset with few steps that are long enough to reach the border of the ball."""
    if preset in WITHOUT_BALL:
        return preset(steps=8, step_size=0.02, **settings)
    size = 0.02 if norm == "linf" else 1.0
    # Attacks that find their own step sizes begin with long ones.
    own_steps = {} if preset in (apgd, sea, fgsm) else {"step_size": size}
    steps = {} if preset is fgsm else {"steps": 3}
    few = FEW.get(preset.__name__, {})
    return preset(norm=norm, eps=PIXELS if norm == "linf" else 1.0, **steps, **own_steps, **few, **settings)


def suited(attack, model):
    """The model; for an attack on ensembles one of two members, for source transforms one that they can change."""
    return Ensemble([model, nn.Sequential(model, nn.Tanh())]) if attack.needs_members else rich(attack, model)


CASES = [
    pytest.param(make(preset, norm), id=f"{preset.__name__}-{norm}")
    for norm in ("linf", "l2")
    for preset in PRESETS
    if norm == "linf" or preset not in LINF_ONLY
]
OWN = [
    pytest.param(APGD(SegPGD(), BALL, 6, False, (1.0,), (1.0,)), id="apgd-plain"),
    pytest.param(WorstCase([iterative(3), iterative(2, SegPGD(), random_start=True)]), id="worst"),
    pytest.param(PatchWise(SegPGD(), BALL, 3, STEP, input_transforms=[InputDiversity()]), id="pi-di"),
]
"""Loops in ways in which no preset uses them."""
ATTACKS = [*CASES, *OWN, pytest.param(NoAttack(), id="no_attack")]
LINF = [case for case in ATTACKS if not case.id.endswith("-l2")]
RANDOM = [case for case in LINF if case.values[0].name not in WITHOUT_CHANCE and case not in OWN]

every_attack = pytest.mark.parametrize("attack", ATTACKS)
every_attack_once = pytest.mark.parametrize("attack", LINF)
"""For what no norm has a say in."""


def radius(attack):
    if isinstance(attack, MinimalNorm):
        return 1.0
    return 0.0 if isinstance(attack, NoAttack) else attack.norm.eps


def size(attack, change):
    """The length of each image's change, measured without the package."""
    is_l2 = getattr(getattr(attack, "norm", None), "name", "linf") == "l2"
    return change.flatten(1).double().pow(2).sum(1).sqrt() if is_l2 else change.flatten(1).abs().amax(1)


@every_attack
@few_examples
@given(
    shape=st.sampled_from([(1, 1, 1), (2, 33, 21), (3, 8, 17), (1, 61, 37)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_result(attack, shape, dtype, seed):
    shape = (max(2, shape[0]) if attack.mixes else shape[0], *shape[1:])
    model = suited(attack, curved(dtype))
    images, labels = scene(*shape, dtype=dtype, seed=seed)
    # Black and white pixels: there the border of [0, 1] is nearer than that of the ball.
    images[:, :, 0], images[:, :, -1] = 0, 1
    labels = half_right(model, images, labels)
    before = images.clone(), labels.clone()
    seeds = list(range(seed, seed + shape[0]))
    adversarial = attack(model, images.requires_grad_(), labels, seeds)
    assert images.grad is None
    images = images.detach()
    assert adversarial.shape == images.shape
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert size(attack, adversarial - images).max() <= radius(attack) + 1e-6
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert adversarial.data_ptr() != images.data_ptr()
    with torch.no_grad():
        again = attack(model, images, labels, seeds)
        assert not torch.is_grad_enabled()
    assert torch.equal(adversarial, again)


@every_attack
def test_attack_moves_every_image_and_logs_each_step(attack):
    model, seen = suited(attack, curved()), []
    images, labels = scene(3, 12, 10)
    labels = half_right(model, images, labels)
    adversarial = attack(model, images, labels, [1, 2, 3], log=lambda step, figures: seen.append((step, figures)))
    assert [step for step, _ in seen] == list(range(getattr(attack, "steps", 0)))
    for _, figures in seen:
        assert {"loss", "p_t"} <= set(figures)
        assert all(values.shape == (3,) and not values.requires_grad for values in figures.values())
    least = 0.001 if isinstance(attack, MinimalNorm) else 0.5 * radius(attack)
    moved = size(attack, adversarial - images) > least
    assert moved.tolist() == [not isinstance(attack, NoAttack)] * 3


@pytest.fixture
def drawn(monkeypatch):
    """What random numbers are drawn for."""
    purposes, stream = set(), Draws._stream

    def recorded(self, row, seed, purpose):
        purposes.add(purpose)
        return stream(self, row, seed, purpose)

    monkeypatch.setattr(Draws, "_stream", recorded)
    return purposes


@pytest.mark.parametrize("attack", RANDOM)
def test_other_seed_other_result(attack):
    model = suited(attack, curved())
    images, labels = scene(3, 24, 20)  # three, so that there are two to be mixed with
    labels = half_right(model, images, labels)
    first = attack(model, images, labels, [1, 2, 9])
    second = attack(model, images, labels, [1, 3, 9])
    assert attack.mixes or torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1]), (
        f"another seed gives the same images: if {attack.name} draws nothing, name it in WITHOUT_CHANCE of this file"
    )


@pytest.mark.parametrize("attack", [case for case in LINF if case not in (*RANDOM, *OWN)])
def test_without_randomness_seeds_do_not_matter(attack, drawn):
    model = suited(attack, curved())
    images, labels = scene(2, 12, 10)
    assert torch.equal(attack(model, images, labels, [1, 2]), attack(model, images, labels, [3, 4]))
    assert not drawn or attack.name == "fia"


def test_without_seeds_the_global_generator_decides():
    model = curved()
    images, labels = scene(2, 12, 10)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(pgd(steps=1)(model, images, labels))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_random_start_fills_the_ball():
    # Without a gradient the result is the start.
    images, labels = torch.full((64, 3, 8, 8), 0.5, dtype=torch.float64), torch.zeros(64, 8, 8, dtype=torch.int64)
    seeds = list(range(64))

    def flat(x):
        return torch.cat([x[:, :1], 1 - x[:, :1]], 1) * 0

    change = pgd(steps=1)(flat, images, labels, seeds) - images
    assert change.abs().max() <= PIXELS + 1e-9
    assert change.abs().max() > 0.99 * PIXELS
    assert abs(float(change.mean())) < 0.03 * PIXELS
    assert float(change.std()) == pytest.approx(PIXELS / 3**0.5, rel=0.03)
    length = (pgd(eps=1.0, norm="l2", steps=1)(flat, images, labels, seeds) - images).flatten(1).norm(dim=1)
    assert length.max() <= 1 + 1e-9
    # Uniform in a ball of 192 dimensions: the mean length is 192/193.
    assert float(length.mean()) == pytest.approx(192 / 193, abs=0.005)
    assert length.std() > 0


@every_attack
def test_batch_equals_images_one_by_one(attack):
    model = suited(attack, curved())
    images, labels = scene(4, 33, 21)
    labels = half_right(model, images, labels)
    labels[3] = 255
    together = attack(model, images, labels, [5, 6, 7, 8])
    for i in range(0 if attack.mixes else 4):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], [5 + i])[0]
        if "L2" in str(attack.settings()):
            # The last bit of a convolution may depend on where in memory an image starts; signs do not show it.
            assert torch.allclose(together[i], alone, rtol=0, atol=1e-14)
        else:
            assert torch.equal(together[i], alone)
    assert torch.equal(together[3], images[3]), "an image without labels comes back as it was"


@pytest.mark.parametrize("threshold", ["mean", "median", 0.25])
def test_image_without_labels_has_no_figures(threshold):
    images, labels = scene(2, 8, 8)
    labels[1] = 255
    seen = []
    attack = transegpgd(steps=4, threshold=threshold)
    adversarial = attack(curved(), images, labels, [1, 2], log=lambda step, figures: seen.append(figures))
    assert torch.equal(adversarial[1], images[1])
    assert not torch.equal(adversarial[0], images[0])
    assert len(seen) == 4
    for figures in seen:
        # A share of nothing: NaN, for this image only.
        assert all(figures[name].isnan().tolist() == [False, True] for name in ("loss", "p_t", "p_h"))
        assert not figures["stage_two"][1]


# What moves blocks or mirrors shows labelled pixels at the places where this test's model answers otherwise. Of these,
# `ops` is in none of the tests below: it samples logits anew across the seams of its blocks.
MOVES_BLOCKS = {"block_shuffle", "bsr", "mumodig", "ops", "sia"}


@pytest.mark.parametrize("attack", [case for case in LINF if case.values[0].name not in MOVES_BLOCKS])
def test_ignored_pixels_have_no_say(attack):
    model = curved()
    images, labels = scene(2, 16, 40)
    labels = half_right(model, images, labels)
    labels[:, :, 20:] = 255

    class Meddled(nn.Module):
        """Another answer where no label is, even where a view shows the image elsewhere."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            logits = self.model(x)
            other = logits.flip(1) * 3 + x.mean() * torch.arange(CLASSES).view(-1, 1, 1) * 100
            return torch.where(torch.arange(logits.shape[-1]) >= 32 * logits.shape[-1] // 40, other, logits)

    meddled, model = suited(attack, Meddled()), suited(attack, model)
    plain = attack(model, images, labels, [1, 2])
    assert torch.equal(attack(meddled, images, labels, [1, 2]), plain)
    if attack.targetable and not isinstance(attack, NoAttack):
        labels[:, :, 38] = 0
        assert not torch.equal(attack(meddled, images, labels, [1, 2]), attack(model, images, labels, [1, 2]))


def test_ignored_pixels_have_no_say_where_blocks_are_shuffled():
    """As above, with a model that knows the ignored pixels by their darkness, wherever they are shown."""
    model = curved()
    images, labels = scene(2, 24, 24)
    images = images / 4 + 0.7
    images[:, :, 8:, 12:] = 0
    labels[:, 8:, 12:] = 255

    def meddled(x):
        logits = model(x)
        return torch.where(x.amax(1, keepdim=True) < 0.3, logits.flip(1) * 3 + 100 * x.mean(), logits)

    attack = block_shuffle(steps=3, copies=2)
    plain = attack(model, images, labels, [1, 2])
    assert torch.equal(attack(meddled, images, labels, [1, 2]), plain)
    labels[:, 20, 20] = 0
    assert not torch.equal(attack(meddled, images, labels, [1, 2]), attack(model, images, labels, [1, 2]))


@pytest.mark.parametrize(
    "attack", [bsr(steps=3), sia(steps=3, noise=0), mumodig(steps=3, copies=2)], ids=lambda attack: attack.name
)
def test_ignored_pixels_have_no_say_where_blocks_are_turned_or_darkened(attack):
    """As above; ignored pixels are black and stay so, which a turn and a factor do not change."""
    model = curved()
    images, labels = scene(2, 24, 24)
    images = images / 4 + 0.7
    images[:, :, 8:, 12:] = 0
    labels[:, 5:, 9:] = 255  # a turned strip mixes logits of neighbours
    region = (images > 0).all(1)

    def meddled(x):
        logits = model(x)
        return torch.where(x.amax(1, keepdim=True) == 0, logits.flip(1) * 3 + 100 * x.mean(), logits)

    plain = attack(model, images, labels, [1, 2], region=region)
    assert torch.equal(attack(meddled, images, labels, [1, 2], region=region), plain)
    labels[:, 8, 12] = 0  # next to pixels that may change
    assert not torch.equal(attack(meddled, images, labels, [1, 2], region=region), plain)


class Mixed(nn.Module):
    """A network in which every kind of state can be seen."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, CLASSES, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.training or self.norm.training or self.drop.training:
            raise AssertionError("attacked in train mode")
        if any(weight.requires_grad for weight in self.parameters()):
            raise AssertionError("weights ask for gradients")
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def mixed_model():
    model = Mixed().train()
    model.last.eval()
    model.first.weight.requires_grad_(False)
    model.norm.running_mean.fill_(0.1)
    model.last.weight.grad = torch.full_like(model.last.weight, 3.0)
    model.first.register_forward_hook(lambda *arguments: None)
    return model


def state(model):
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in model.named_modules()},
        "requires_grad": {name: weight.requires_grad for name, weight in model.named_parameters()},
        "grad": {name: None if w.grad is None else w.grad.tolist() for name, w in model.named_parameters()},
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
    }


@every_attack_once
def test_model_comes_back_as_it_was(attack):
    model = mixed_model()
    before = state(model)
    images, labels = scene(2, 8, 8, dtype=torch.float32)
    attack(suited(attack, model), images, labels)
    assert state(model) == before
    assert (model.calls > 0) == (not isinstance(attack, NoAttack))


def test_model_comes_back_after_an_error():
    model = mixed_model()
    before = state(model)
    images, labels = scene(2, 8, 8, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="stop"):
        pgd()(model, images, labels, log=stop)
    assert model.calls > 0
    assert state(model) == before


def stop(step, figures):
    raise RuntimeError("stop")


@every_attack_once
def test_inference_mode_is_refused(attack):
    model = suited(attack, curved())
    images, labels = scene(1, 8, 8)
    with torch.inference_mode():
        made_inside = images.clone()
        with pytest.raises(RuntimeError, match=r"inference_mode\(\) forbids; use torch.no_grad\(\)"):
            attack(model, images, labels)
    with pytest.raises(RuntimeError, match="inference"):
        attack(model, made_inside, labels)


@pytest.mark.parametrize("attack", LINF[:-1])  # without NoAttack, which asks for no gradient
def test_wrong_labels_are_named(attack):
    images, labels = scene(2, 8, 8)
    labels[0, 0, 0] = CLASSES
    with pytest.raises(ValueError, match=r"labels range over 0..5, but the model has the classes 0..4"):
        attack(suited(attack, curved()), images, labels, [1, 2])


@every_attack
def test_settings_are_plain(attack):
    plain = attack.settings()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["class"] == type(attack).__name__
    assert plain["name"] == attack.name


def test_settings_say_everything():
    plain = transegpgd_mi_di_ti(eps="4/255", kernel_size=7, gamma=0.7).settings()
    assert plain["norm"] == {"class": "Linf", "eps": 4 / 255}
    assert plain["objective"]["stages"][0] == {"class": "FoolAllPixels", "gamma": 0.7, "temperature": 1.0, "power": 0.0}
    assert plain["objective"]["switches"] == [{"class": "Switch", "at": 0.5, "fooled": None, "all_fooled": True}]
    assert plain["input_transforms"] == [{"class": "InputDiversity", "scale": 0.9, "prob": 0.7, "undo": True}]
    assert plain["gradient_transforms"] == [
        {"class": "TranslationInvariance", "kernel_size": 7, "nsig": 3.0},
        {"class": "Momentum", "decay": 1.0},
    ]


def test_names_of_presets_are_their_functions():
    assert [preset().name for preset in PRESETS] == [preset.__name__ for preset in PRESETS]
    assert {preset(name="mine").name for preset in PRESETS} == {"mine"}


def test_this_file_knows_which_presets_draw():
    assert {preset.__name__ for preset in PRESETS} | {"no_attack"} >= WITHOUT_CHANCE


LOOK_AHEAD = {"dta", "emi_fgsm", "ni_fgsm", "pre_gradient_fgsm", "si_ni_fgsm", "tass", "transegpgd_ni", "vni_fgsm"}
LONG_STEPS = {"transfer_best", "transegpgd_best"}


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset not in (fgsm, apgd, sea, *LINF_ONLY)])
def test_default_step(preset):
    usual = 0.02 if preset.__name__ in LONG_STEPS else 0.8 / 255 if preset.__name__ in LOOK_AHEAD else 0.01
    usual = 8 / 255 if preset is dem else usual
    assert preset(steps=10).step_size == pytest.approx(usual)
    assert preset(norm="l2", eps=2.0, steps=10).step_size == 0.5
    assert preset(norm="l2", eps=2.0, step_size=0.1).step_size == 0.1


def test_long_attacks_mix_more_and_smooth_less():
    attacks = {steps: transfer_best(steps=steps) for steps in (10, 20, 99, 100, 300)}
    assert {attack.objective.pull for attack in attacks.values()} == {0.5}
    probs = {steps: attack.source_transforms[1].prob for steps, attack in attacks.items()}
    assert probs == {10: 0.1, 20: 0.1, 99: 0.1, 100: 0.25, 300: 0.25}
    strengths = {steps: attack.source_transforms[2].strength for steps, attack in attacks.items()}
    assert strengths == {10: 0.5, 20: 0.5, 99: 0.5, 100: 0.25, 300: 0.25}
    assert transfer_best().settings() == transfer_best(pull=0.5, feature_prob=0.1, smooth_slopes=0.5).settings()
    given = transfer_best(steps=100, pull=0.3, feature_prob=0.2, smooth_slopes=0.7)
    assert given.objective.pull == 0.3
    assert (given.source_transforms[1].prob, given.source_transforms[2].strength) == (0.2, 0.7)


def test_the_strongest_attacks_change_less_of_resnets():
    for preset in (transfer_best, transegpgd_best):
        skip, _, smooth = preset().source_transforms
        assert (skip.gamma, skip.gamma_activated, smooth.behind_sums) == (0.5, 0.7, False)
        skip = preset(skip_gamma=0.6).source_transforms[0]
        assert (skip.gamma, skip.gamma_activated) == (0.6, None)


def test_default_of_a_single_step_is_the_radius():
    assert fgsm(eps="4/255").step_size == 4 / 255
    assert fgsm(norm="l2", eps=2.0).step_size == pgd(norm="l2", eps=2.0, steps=1).step_size == 2.0
    assert fgsm(eps="4/255", step_size=0.1).step_size == 0.1


def test_norm_objects_bring_their_radius_into_every_preset():
    for preset in (preset for preset in PRESETS if preset not in LINF_ONLY):
        by_object, by_name = preset(norm=L2(1.0)).settings(), preset(norm="l2", eps=1.0).settings()
        assert by_object == by_name, preset.__name__


# Saved images: the 8-bit grid.


def image_of(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(1, 3, 1, -1)


@many_examples
@given(
    clean=st.lists(levels, min_size=6, max_size=6),
    change=st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    eps=st.sampled_from(["1/255", "8/255", "255/255", 0.01, 0.03, 0.1, 0.0001]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_quantized_linf(clean, change, eps, dtype):
    ball = Linf(eps)
    images = image_of(*clean, dtype=dtype) / 255
    adversarial = (images + image_of(*change, dtype=dtype) * ball.eps).clamp(0, 1)
    saved = bim(norm=ball).quantize(images, adversarial)
    steps = (saved.double() * 255).round()
    assert torch.equal((steps / 255).to(dtype), saved)
    assert steps.min() >= 0
    assert steps.max() <= 255
    difference = (steps - image_of(*clean, dtype=torch.float64)).abs().max()
    assert difference <= ball.eps * 255 + 1e-9
    # Not further from the attacked image than the ball makes necessary: half a level, or its border below a level.
    assert (saved - adversarial).abs().max() * 255 <= max(0.5, ball.eps * 255 % 1) + 1e-3


@many_examples
@given(
    clean=st.lists(levels, min_size=6, max_size=6),
    change=st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    eps=st.sampled_from([0.001, 0.02, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_quantized_l2(clean, change, eps, dtype):
    ball = L2(eps)
    images = image_of(*clean, dtype=dtype) / 255
    adversarial = (images + ball.project(image_of(*change, dtype=dtype))).clamp(0, 1)
    saved = bim(norm=ball).quantize(images, adversarial)
    steps = (saved.double() * 255).round()
    assert torch.equal((steps / 255).to(dtype), saved)
    assert steps.min() >= 0
    assert steps.max() <= 255
    assert (steps / 255 - image_of(*clean, dtype=torch.float64) / 255).norm() <= eps + 1e-6
    assert (saved - adversarial).abs().max() * 255 <= 1 + 1e-3


@every_attack
def test_saved_images_are_on_the_grid_and_in_the_ball(attack):
    model = suited(attack, curved(torch.float32))
    images, labels = scene(2, 16, 12, dtype=torch.float32)
    images = (images * 255).round() / 255
    adversarial = attack(model, images, labels, [1, 2])
    saved = attack.quantize(images, adversarial)
    assert saved.dtype == torch.float32
    assert torch.equal((saved * 255).round() / 255, saved)
    assert torch.equal(attack.quantize(images, saved), saved)
    change = (saved.double() * 255).round() - (images.double() * 255).round()
    if getattr(getattr(attack, "norm", None), "name", "linf") == "l2":
        assert (change / 255).flatten(1).norm(dim=1).max() <= 1 + 1e-6
    elif isinstance(attack, MinimalNorm):
        assert 0 < change.abs().max() < 255
    else:
        assert change.abs().max() == radius(attack) * 255


def test_quantize_rounds_and_does_not_cut():
    # Truncation would give 100 (one level low) and 97 (one level outside the ball).
    images = image_of(100, 106, 0) / 255
    adversarial = image_of(100.9, 98.0, 0.4) / 255 - image_of(0, 1e-7, 0)
    assert (Linf("8/255").quantize(images, adversarial) * 255).round().flatten().tolist() == [101, 98, 0]


def test_quantize_without_a_ball_rounds():
    assert (NoAttack().quantize(None, image_of(100.4, 100.6, 255.2) / 255) * 255).round().flatten().tolist() == [
        100,
        101,
        255,
    ]


@pytest.mark.parametrize("quantize", [Linf(0.1).quantize, L2(0.1).quantize, NoAttack().quantize])
def test_a_saved_zero_has_no_sign(quantize):
    """Who reads the image has +0; defences that draw from the bits of an image would draw something else from -0."""
    assert not quantize(torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), -1e-4)).signbit().any()


@pytest.mark.parametrize("scale", [1e-38, 1e-24, 1e24, 1e38])
def test_l2_steps_have_their_length_whatever_that_of_the_gradient(scale):
    """Squares of such values are 0 or infinite in float32: networks that are very sure have such gradients."""
    gradient = torch.tensor([0.3, -0.4, 1.2]).view(1, 3, 1, 1)
    assert torch.allclose(L2(1.0).direction(gradient * scale), gradient / 1.3, rtol=1e-5, atol=0)


@pytest.mark.parametrize("toward", [0.0, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_quantize_keeps_the_border_despite_float_noise(toward, sign):
    values = torch.arange(9.0, 246.0)
    hair_off = torch.nextafter(values / 255, torch.tensor(toward))
    images = hair_off.view(1, 1, 1, -1).expand(1, 3, 1, -1)
    saved = Linf("8/255").quantize(images, images + sign * PIXELS)
    assert torch.equal((saved * 255).round()[0, 0, 0], values + 8 * sign)


def test_quantize_cuts_l2_changes_that_rounding_would_lengthen():
    images, eps = image_of(100, 100, 100) / 255, 0.7 * 3**0.5 / 255
    adversarial = image_of(100.7, 99.3, 100.7) / 255
    assert torch.equal(L2(eps).quantize(images, adversarial), images)
    assert (L2(2 * eps).quantize(images, adversarial) * 255).round().flatten().tolist() == [101, 99, 101]


def test_quantize_off_the_grid_stays_in_the_ball_or_next_to_the_image():
    images = image_of(10.4, 10.6, 10.5, dtype=torch.float64) / 255
    adversarial = images + image_of(1.5, -1.5, 0.0, dtype=torch.float64) / 255
    # 10.4 + 1.5 rounds to 12, which is 1.6 away; 10.6 - 1.5 rounds to 9, also 1.6 away.
    assert (Linf(1.5 / 255).quantize(images, adversarial) * 255).round().flatten().tolist()[:2] == [11, 10]
    # A ball of 0.3 levels around 10.4 has no level: the nearest one to the image.
    tiny = images + image_of(0.3, -0.3, 0.0, dtype=torch.float64) / 255
    assert (Linf(0.3 / 255).quantize(images, tiny) * 255).round().flatten().tolist()[:2] == [10, 11]


@every_attack
def test_images_a_hair_outside_the_range(attack):
    # What float32 arithmetic (resizing, say) leaves behind.
    images, labels = scene(2, 8, 8, dtype=torch.float64)
    images[:, :, 0], images[:, :, -1] = -1e-7, 1 + 1e-7
    adversarial = attack(suited(attack, curved()), images, labels, [1, 2])
    assert adversarial.min() >= -1e-7
    assert adversarial.max() <= 1 + 1e-7
    saved = attack.quantize(images, adversarial)
    assert saved.min() == 0
    assert saved.max() <= 1
    assert size(attack, adversarial - images).max() <= radius(attack) + 1e-6
