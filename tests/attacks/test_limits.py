"""Where a technique's setting makes it do nothing, the attack is the one without it, bit for bit."""

import pytest
import torch

from lightning_attack.attacks import (
    CrossEntropy,
    IterativeAttack,
    Linf,
    MaskedCrossEntropy,
    PreGradient,
    RandomCrop,
    SegPGD,
    Staged,
    Switch,
    admix,
    bim,
    block_shuffle,
    di_fgsm,
    dynamic_scaling,
    local_regions,
    masked_pgd,
    mi_fgsm,
    ni_fgsm,
    pgd,
    rp_pgd,
    segpgd,
    si_ni_fgsm,
    soft_transfer,
    ssa,
    tass,
    ti_fgsm,
    transegpgd,
    transegpgd_best,
    transegpgd_di,
    transegpgd_mi,
    transegpgd_mi_di_ti,
    transegpgd_ni,
    transegpgd_si,
    transegpgd_strong,
    transegpgd_ti,
    transegpgd_vmi,
    transfer_best,
    tsallis_pgd,
    vmi_fgsm,
    vni_fgsm,
)
from tests.attacks.toys import PIXELS, curved, half_right, scene, share_of_differences

SHORT = {"eps": PIXELS, "step_size": 2 / 255, "steps": 6}
SHORT_L2 = {"eps": 1.0, "norm": "l2", "steps": 6}


def one_step_of(objective):
    return IterativeAttack(objective, Linf(PIXELS), steps=1, step_size=0.01, random_start=True)


@pytest.mark.parametrize(
    ("limit", "plain", "beyond"),
    [
        (si_ni_fgsm(**SHORT, copies=1), ni_fgsm(**SHORT), si_ni_fgsm(**SHORT, copies=2)),
        (vmi_fgsm(**SHORT, samples=0), mi_fgsm(**SHORT), vmi_fgsm(**SHORT, samples=2)),
        (vni_fgsm(**SHORT, samples=0), ni_fgsm(**SHORT), vni_fgsm(**SHORT, samples=2)),
        (ti_fgsm(**SHORT, decay=1.0, kernel_size=1), mi_fgsm(**SHORT), ti_fgsm(**SHORT, decay=1.0, kernel_size=3)),
        (di_fgsm(**SHORT, decay=1.0, prob=0.0), mi_fgsm(**SHORT), di_fgsm(**SHORT, decay=1.0, prob=1.0)),
        (admix(**SHORT, strength=0.0, scales=1), mi_fgsm(**SHORT), admix(**SHORT, copies=2, scales=1)),
        (block_shuffle(**SHORT, blocks=1), mi_fgsm(**SHORT), block_shuffle(**SHORT, blocks=2)),
        (local_regions(**SHORT, keep=1.0), mi_fgsm(**SHORT), local_regions(**SHORT)),
        (tsallis_pgd(**SHORT, q_start=1.0, q_end=1.0), pgd(**SHORT), tsallis_pgd(**SHORT)),
        (dynamic_scaling(**SHORT, low=1.0, high=1.0), pgd(**SHORT), dynamic_scaling(**SHORT)),
        (tass(**SHORT, prob=0.0, kernel_size=1), ni_fgsm(**SHORT), tass(**SHORT)),
        (
            soft_transfer(**SHORT, temperature=1.0, prob=0.0, kernel_size=1),
            mi_fgsm(**SHORT, random_start=True),
            soft_transfer(**SHORT, prob=0.0, kernel_size=1),
        ),
        (mi_fgsm(**SHORT, decay=0.0), bim(**SHORT), mi_fgsm(**SHORT)),
        (transegpgd(**SHORT, gamma=0.5, beta=0.5), pgd(**SHORT), transegpgd(**SHORT)),
        (transegpgd(**SHORT_L2, gamma=0.5, beta=0.5), pgd(**SHORT_L2), transegpgd(**SHORT_L2)),
        (transegpgd_mi(**SHORT, decay=0.0), transegpgd(**SHORT), transegpgd_mi(**SHORT)),
        (transegpgd_di(**SHORT, prob=0.0), transegpgd(**SHORT), transegpgd_di(**SHORT)),
        (transegpgd_ti(**SHORT, kernel_size=1), transegpgd(**SHORT), transegpgd_ti(**SHORT)),
        (transegpgd_si(**SHORT, copies=1), transegpgd_mi(**SHORT), transegpgd_si(**SHORT)),
        (transegpgd_vmi(**SHORT, samples=0), transegpgd_mi(**SHORT), transegpgd_vmi(**SHORT, samples=2)),
        (
            transegpgd_ni(**SHORT, gamma=0.5, beta=0.5),
            ni_fgsm(**SHORT, random_start=True),
            transegpgd_ni(**SHORT),
        ),
        (
            transegpgd_strong(**SHORT, prob=0.0),
            transegpgd_mi_di_ti(**SHORT, prob=0.0),
            transegpgd_strong(**SHORT),
        ),
        (
            transegpgd_best(**SHORT, gamma=0.5, beta=0.5, pull=0.5),
            transfer_best(**SHORT),
            transegpgd_best(**SHORT),
        ),
        (
            transfer_best(
                **SHORT,
                temperature=1.0,
                power=0.0,
                pull=0.0,
                grey=0.0,
                contrast=0.0,
                brightness=0.0,
                degrees=0.0,
                translate=0.0,
                scale=0.0,
                slant=0.0,
                kernel_size=1,
                skip_gamma=1.0,
                feature_mix=0.0,
                smooth_slopes=0.0,
            ),
            mi_fgsm(**SHORT),
            transfer_best(**SHORT, power=0.0, kernel_size=1),
        ),
        (transegpgd(**SHORT, gamma=0.0, switch=Switch(None, None, False)), masked_pgd(**SHORT), segpgd(**SHORT)),
        # Half on T, half on F, and nothing is lost yet.
        (
            rp_pgd(**SHORT | {"steps": 1}, prototypes=0.0, random_start=False),
            bim(**SHORT | {"steps": 1}),
            rp_pgd(**SHORT, prototypes=0.0, random_start=False),
        ),
        (one_step_of(SegPGD()), one_step_of(MaskedCrossEntropy()), one_step_of(CrossEntropy())),
        (pgd(**SHORT, input_transforms=[RandomCrop(1.0)]), pgd(**SHORT), pgd(**SHORT, input_transforms=[RandomCrop()])),
        (
            pgd(**SHORT, gradient_transforms=[PreGradient(decay=0.0)]),
            pgd(**SHORT),
            pgd(**SHORT, gradient_transforms=[PreGradient()]),
        ),
        (
            IterativeAttack(Staged([MaskedCrossEntropy()], []), Linf(PIXELS), 6, 2 / 255, random_start=True),
            masked_pgd(**SHORT),
            pgd(**SHORT),
        ),
    ],
    ids=lambda attack: attack.name,
)
def test_a_setting_that_does_nothing(limit, plain, beyond):
    model = curved()
    images, labels = scene(3, 32, 24)
    labels = half_right(model, images, labels)
    result = limit(model, images, labels, [1, 2, 3])
    assert torch.equal(result, plain(model, images, labels, [1, 2, 3]))
    assert share_of_differences(result, beyond(model, images, labels, [1, 2, 3])) > 0.01


def test_a_spectrum_that_is_not_shaken():
    """Through the transform and back: equal but for rounding, which signs hide."""
    model = curved()
    images, labels = scene(2, 32, 24)
    labels = half_right(model, images, labels)
    still = ssa(**SHORT, copies=1, rho=0.0)
    still.input_transforms[0].transform.sigma = 0.0
    result, plain = still(model, images, labels), mi_fgsm(**SHORT)(model, images, labels)
    assert (result - plain).abs().max() < 1e-12
    assert share_of_differences(result, ssa(**SHORT, copies=1)(model, images, labels)) > 0.01
