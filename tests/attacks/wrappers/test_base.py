"""What all attacks that run others have in common."""

import pytest
import torch

from lightning_attack.attacks import FSPGD, Admix, IterativeAttack, Linf, PerWindow, UntilFooled, WorstCase, transegpgd
from lightning_attack.common.windows import Windows
from tests.attacks.toys import BALL, curved, pgd, scene


def needs(attack):
    return attack.targetable, attack.mixes, attack.clean_passes, attack.watchable


def test_a_wrapper_needs_what_any_of_its_attacks_needs():
    mixing = IterativeAttack(pgd().objective, BALL, input_transforms=[Admix()])
    features = IterativeAttack(FSPGD(["0"]), BALL)
    assert needs(WorstCase([pgd()])) == (True, False, 0, False)
    assert needs(WorstCase([pgd(), mixing])) == (True, True, 0, False)
    assert needs(WorstCase([features, transegpgd()])) == (False, False, 1, False)
    assert needs(UntilFooled(transegpgd())) == (True, False, 1, False)
    # The clean logits of a photo are not those of its windows, which are predicted on their own.
    assert needs(PerWindow(transegpgd(), Windows(4))) == (True, False, 0, False)


WRAPS = {
    "worst case": lambda attack: WorstCase([attack, attack]),
    "until fooled": UntilFooled,
    "per window": lambda attack: PerWindow(attack, Windows(4)),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_wrapper_checks_the_model_and_rounds_as_its_attacks_do(wrap):
    images, labels = scene(1, 8, 8)
    with pytest.raises(ValueError, match="has no layer 'nowhere'"):
        wrap(IterativeAttack(FSPGD(["nowhere"]), BALL))(curved(), images, labels)
    norm, far = Linf("2/255"), images + 9 / 255
    assert torch.equal(wrap(pgd(norm=norm)).quantize(images, far), norm.quantize(images, far))


def test_options_of_a_call_are_given_by_name():
    images, labels = scene(1, 8, 8)
    with pytest.raises(TypeError, match="positional arguments"):
        pgd()(curved(), images, labels, [1], lambda step, figures: None)
