"""Parts that cannot work together are refused before a run; those that can give what the same parts give in Python."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_attack.attacks import (
    FSPGD,
    IterativeAttack,
    Linf,
    ScaleCopies,
    Staged,
    Switch,
    TransferablePixels,
    image_seeds,
)
from lightning_attack.cli import CONFIGS
from lightning_attack.data import SegmentationDataModule, SyntheticScenes
from lightning_attack.models import TrainedModel
from tests.cli.test_main import rows, the_run


def part(kind, **init_args):
    return {"class_path": kind, "init_args": init_args}


def attack(name):
    return f"--model.attack={CONFIGS / 'attacks' / name}.yaml"


def add(kind, name):
    return f"--model.attack.{kind}_transforms+={name}"


def loop(objective, **more):
    """An attack spelt out in YAML."""
    init_args = {"objective": objective, "norm": part("Linf", eps="8/255"), "steps": 4, "step_size": "2/255", **more}
    return {"model": {"attack": part("IterativeAttack", **init_args)}}


def network(name):
    return part("TrainedModel", file=f"embedded:scenes_{name}")


def ensemble(*members, **more):
    return {"model": {"source": part("Ensemble", members=[network(name) for name in members], **more)}}


CE = part("CrossEntropy")
SMALL = part("SMPModel", arch="fpn", encoder_name="tu-test_resnet", num_classes=3)


def mistake(*arguments, says):
    return pytest.param(arguments, says, id=says[:50])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        # Features.
        mistake(attack("fspgd"), "--model.attack.layers=[network.encoder]", says="returned a list, no tensor in the"),
        mistake(
            attack("sea"), "--model.attack.class_pixels=[1,2]", "--model.attack.steps=3",
            says="class_pixels has 2 numbers, the model 8",
        ),
        mistake(
            attack("fspgd"), "--model.attack.layers=[network.encoder.model.s33]",
            says="no layer 'network.encoder.model.s33'; the nearest are network.encoder.model.s2, network.enc",
        ),
        mistake(
            attack("fspgd"), "--model.attack.layers=[network.encoder.layr3]",
            says="no layer 'network.encoder.layr3'; the nearest are network.encoder",
        ),
        mistake(
            ensemble("fpn", "segformer", by="loss"), attack("rp_pgd"),
            "--model.attack.layers=[network.encoder.model.s3]",
            says="no layer 'network.encoder.model.s3'",  # it is one of neither member
        ),
        mistake(loop(part("FSPGD", layers=["nowhere"])), says="no layer 'nowhere'; the nearest are"),
        mistake(
            loop(part("Staged", stages=[CE, part("RPPGD", layers=["nowhere"])], switches=[part("Switch")])),
            says="the source has no layer 'nowhere'",
        ),
        mistake(
            attack("fspgd"), add("input", "InputDiversity"),
            says="InputDiversity moves pixels, and FSPGD compares features at their places",
        ),
        mistake(
            loop(part("RPPGD"), input_transforms=[part("ScaleCopies"), part("BlockShuffle")]),
            says="BlockShuffle moves pixels, and RPPGD compares features",
        ),
        # Order of gradient transforms.
        mistake(
            attack("vmi_fgsm"), add("gradient", "Momentum"),
            says="VarianceTuning cannot come after Momentum: it would advance the momentum more than once a step. Put",
        ),
        mistake(
            attack("bim"), add("gradient", "Momentum"), add("gradient", "VarianceTuning"),
            says="cannot come after Momentum",
        ),
        mistake(attack("ni_fgsm"), add("gradient", "Momentum"), says="Momentum and Nesterov both accumulate"),
        mistake(
            loop(CE, gradient_transforms=list(map(part, ("PreGradient", "TranslationInvariance", "EnhancedSampling")))),
            says="EnhancedSampling cannot come after PreGradient",
        ),
        # Batches of one.
        mistake(attack("admix"), "--data.dataset.init_args.count=1", says="the attack mixes photos, but the run has 1"),
        mistake(
            loop(CE, input_transforms=[part("StraightThrough", transform=part("Admix"))]), "--data.limit=1",
            says="the attack mixes photos, but the run has 1; give it 2 or more",
        ),
        # Ensembles.
        mistake(attack("svre"), says="svre needs an ensemble as source (with members, weights and by); Tr"),
        mistake(ensemble(), says="an ensemble needs members"),
        mistake(ensemble("fpn", "segformer", weights=[1]), says="weights=[1.0] for 2 members"),
        mistake(ensemble("fpn", "segformer", weights=[1, 0]), says="give one number above 0 for each"),
        mistake(ensemble("fpn", by="mean"), says="mean"),
        mistake(
            {"model": {"source": part("Ensemble", members=[network("fpn"), SMALL])}},
            says="the members of an ensemble have [3, 8] classes; all must have the same",
        ),
        mistake({"model": {"source": part("Ensemble", members=[part("TraindModel")])}}, says="mean TrainedModel"),
        # The rest.
        mistake("--model.target_labels=8", says="target_labels=8: the networks have the classes 0..7"),
        mistake(attack("pi_fgsm"), "--model.attack.norm=l2", "--model.attack.eps=1", says="the patch-wise attack is"),
        mistake(
            loop(part("Staged", stages=[CE, part("SegPGD")], switches=[])),
            says="2 stages and 0 switches; give one switch between each two stages",
        ),
        mistake({"model": {"attack": part("WorstCase", attacks=[part("DAG")])}}, says="dag has no norm to stay in"),
        mistake(
            {"model": {"attack": part("WorstCase", attacks=[part("lightning_attack.attacks.pgd", eps=eps)
                                                            for eps in ("4/255", "8/255")])}},
            says="pgd has the budget linf 0.0156863, pgd linf 0.0313725",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_written(arguments, says, predict, tmp_path, capsys):
    assert predict(*arguments) == 2
    _, error, answer = capsys.readouterr().err.strip().rpartition("error: ")
    assert error
    assert says in answer
    assert len(answer.splitlines()) <= 2
    assert not (tmp_path / "results").exists(), "something was written"


def report(tmp_path):
    return json.loads((the_run(tmp_path / "results") / "transfer.json").read_text(), parse_constant=pytest.fail)


def test_stage_two_of_transegpgd_after_fspgd_spelt_out(predict, tmp_path):
    layer = "network.encoder.model.s3"
    objective = part(
        "Staged",
        stages=[part("FSPGD", layers=[layer], cosine=0.4), part("TransferablePixels", beta=0.2, threshold=0.7)],
        switches=[part("Switch", at=0.5, all_fooled=False)],
    )
    config = loop(objective, random_start=True, input_transforms=[part("ScaleCopies", copies=2)], name="mine")
    assert predict(config, "--data.limit=3", "--data.batch_size=3", "--model.targets=null") == 0
    told = report(tmp_path)
    assert told["attack"] == "mine"
    assert told["passes_per_image"] == {"forward": 1 + 4 * 2, "backward": 4 * 2}  # one for the clean prediction
    assert told["curves"]["stage_two"] == [0, 0, 3, 3]
    assert told["curves"]["p_h"][:2] == [None, None]
    assert told["curves"]["p_h"][2:] == pytest.approx([0.3, 0.3], abs=0.01)

    staged = Staged([FSPGD([layer], 0.4), TransferablePixels(0.2, threshold=0.7)], [Switch(at=0.5, all_fooled=False)])
    same = IterativeAttack(staged, Linf("8/255"), 4, "2/255", True, [ScaleCopies(2)], name="mine")
    assert told["settings"]["attack"] == same.settings()
    batch = next(iter(SegmentationDataModule(SyntheticScenes(16), batch_size=3).predict_dataloader()))
    network = TrainedModel("embedded:scenes_deeplabv3plus")
    adversarial = same(network, batch["image"], batch["mask"], image_seeds(0, batch["index"]))
    levels = (same.quantize(batch["image"], adversarial) * 255).round()
    for name, expected in zip(batch["name"], levels, strict=True):
        saved = np.array(Image.open(the_run(tmp_path / "results") / "images" / f"{name}.png"))
        assert np.array_equal(saved, expected.permute(1, 2, 0).to(torch.uint8).numpy())


def distinct(step):
    """How many of two members with weights 3 and 1 SVRE asks in three inner steps; the order is drawn by seed 0."""
    return len(set(random.Random(f"0/{step}").choices(range(2), weights=[0.75, 0.25], k=3)))


@pytest.mark.parametrize(
    ("by", "name", "more", "gradients"),
    [
        ("logits", "bim", (), 3 * 2),
        ("loss", "bim", (), 3 * 2),
        # Each step: the ensemble, three members, and each of these at the outer point.
        ("logits", "svre", ("--model.attack.inner_steps=3",), sum(2 + 3 + distinct(step) for step in range(3))),
        ("loss", "svre", ("--model.attack.inner_steps=3",), sum(2 + 3 + distinct(step) for step in range(3))),
    ],
)
def test_an_ensemble(by, name, more, gradients, predict, tmp_path):
    config = ensemble("fpn", "segformer", weights=[3, 1], by=by, name="both")
    config["model"]["targets"] = {
        "first": network("fpn"),
        "other": network("deeplabv3plus"),
        "last": network("segformer"),
    }
    quick = ("--model.attack.steps=3", "--data.limit=2", "--data.batch_size=2")
    assert predict(config, attack(name), *quick, *more) == 0
    told = report(tmp_path)
    assert told["source"] == "both"
    assert told["passes_per_image"] == {"forward": gradients, "backward": gradients}
    table = rows(the_run(tmp_path / "results"))
    boxes = {row["target"]: row["white_box"] for row in table}
    assert boxes == {"both": "True", "first": "True", "other": "False", "last": "True"}
    drops = {row["target"]: float(row["drop"]) for row in table}
    assert min(drops["both"], drops["first"]) > 0.05


def test_clean_predictions_of_members_are_counted(predict, tmp_path):
    config = ensemble("fpn", "segformer", by="loss")
    assert predict(config, "--model.attack.steps=2", "--data.limit=1", "--model.targets=null") == 0
    assert report(tmp_path)["passes_per_image"] == {"forward": 2 * (1 + 2), "backward": 2 * 2}
