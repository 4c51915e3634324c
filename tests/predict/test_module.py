"""`AttackModule` in a real `Trainer.predict`: gradients, frozen networks, who is who, what is counted."""

import copy
import random
import re

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, Subset

from lightning_attack.attacks import (
    InputDiversity,
    NoAttack,
    SkipGradients,
    SourceTransform,
    fgsm,
    pgd,
    soft_transfer,
    transegpgd,
    transegpgd_mi,
)
from lightning_attack.attacks.base import Attack
from lightning_attack.callbacks import TransferMetrics
from lightning_attack.data import Scene, SegmentationDataModule, SegmentationDataset, SyntheticScenes
from lightning_attack.data.scenes import SceneTensors, collate
from lightning_attack.data.transforms import Fit
from lightning_attack.models import Ensemble, ExportedModel, ModelError, SegmentationModel
from lightning_attack.predict.module import AttackModule


class Net(nn.Module):
    """A tiny network that counts its calls; dropout and batch statistics tell train mode from eval mode."""

    def __init__(self, seed=0, classes=8):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(6, classes, 1)
        )
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layers(4 * x - 2)


def model(seed=0, name="net", **arguments):
    return SegmentationModel(Net(seed, **arguments), name=name)


def scenes(count=3, **arguments):
    return SegmentationDataModule(SyntheticScenes(count, size=32), **arguments)


def run(module, data, **arguments):
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    if isinstance(data, DataLoader):
        return trainer.predict(module, data)
    return trainer.predict(module, datamodule=data)


def joined(outputs, key):
    return torch.cat([getattr(output, key) for output in outputs])


class Copying(SegmentationDataModule):
    """Copies each batch, as the move to a GPU does; a copy made in inference mode has no gradients for ever."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def test_inference_mode_makes_no_difference():
    results = []
    for arguments in ({}, {"inference_mode": True}, {"inference_mode": False}):
        for kind in (SegmentationDataModule, Copying):
            data = kind(SyntheticScenes(3, size=32), batch_size=2)
            results.append(run(AttackModule(model(), pgd(steps=3)), data, **arguments))
    first = joined(results[0], "adversarial")
    clean = torch.cat([batch["image"] for batch in scenes().predict_dataloader()])
    assert (first - clean).abs().max() > 7 / 255  # there were gradients
    assert not first.is_inference()
    for result in results[1:]:
        assert torch.equal(joined(result, "adversarial"), first)


def test_networks_are_frozen_in_eval_mode():
    source, target = model(0, "a").train(), model(1, "b").train()
    before = copy.deepcopy(source.state_dict())
    module = AttackModule(source, pgd(steps=2), {"b": target})
    for _ in range(2):  # before and after the run; train() of Lightning or of anyone changes nothing
        module.train()
        assert not any(part.training for root in (module, source, target) for part in root.modules())
        assert not any(weight.requires_grad for weight in module.parameters())
        run(module, scenes())
    assert all(weight.grad is None for weight in module.parameters())
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_output():
    data = scenes(batch_size=2)
    module = AttackModule(model(0, "a"), transegpgd(steps=4), {"b": model(1)})
    outputs = run(module, data)
    batches = list(data.predict_dataloader())
    assert module.target_names == ["a", "b"]
    assert module.white_box == {"a": True, "b": False}
    for output, batch in zip(outputs, batches, strict=True):
        adversarial, images = output.adversarial, batch["image"]
        levels = adversarial * 255
        assert torch.equal(adversarial, levels.round() / 255)
        assert ((levels - images * 255).round().abs() <= 8).all()
        assert torch.equal(output.labels, batch["mask"])
        for name, network in (("a", module.source), ("b", module.scored[1])):
            with torch.no_grad():
                assert torch.equal(output.preds[name]["clean"], network(images).argmax(1))
                assert torch.equal(output.preds[name]["adversarial"], network(adversarial).argmax(1))
        assert len(output.figures) == 4
        for figures in output.figures:
            assert {name: len(values) for name, values in figures.items()}.items() >= {
                ("loss", len(images)),
                ("p_t", len(images)),
                ("stage_two", len(images)),
            }
        assert output.seconds > 0


@pytest.mark.parametrize(
    ("attack", "forward", "backward"),
    [
        (transegpgd(steps=20), 21, 20),  # one more for the clean prediction
        (pgd(steps=5), 5, 5),
        (NoAttack(), 0, 0),
        (pgd(steps=2, input_transforms=[InputDiversity()]), 2, 2),
    ],
)
def test_passes_are_counted_per_image(attack, forward, backward):
    for output in run(AttackModule(model(), attack), scenes(3, batch_size=2)):  # a full batch and a half one
        assert output.passes == {"forward": forward, "backward": backward}


def test_source_among_the_targets_is_scored_once_as_white_box():
    source, other = model(0, "a"), model(1)
    twin = copy.deepcopy(source).train()
    module = AttackModule(source, fgsm(), {"other": other, "twin": twin})
    outputs = run(module, scenes(2, batch_size=2))
    assert module.white_box == {"other": False, "twin": True}  # no row of its own for the source
    assert twin.network.calls == 1 + 1  # the probe, and because it is alike, a larger one
    # Probes with one image, with two and a larger one, pre-flight with a gradient and again without; clean, one step,
    # adversarial.
    assert source.network.calls == 3 + 2 + 1 + 1 + 1
    assert set(outputs[0].preds) == {"other", "twin"}


class Smaller(nn.Module):
    """A network that is shown its images at 64 x 64, the size of the probe image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        small = nn.functional.interpolate(images, size=(64, 64), mode="bilinear")
        return nn.functional.interpolate(self.network(small), size=images.shape[-2:], mode="bilinear")


def test_a_target_that_is_like_the_source_at_the_size_of_the_probe_only_has_its_own_figures():
    source = model(0, "a")
    module = AttackModule(source, fgsm(), {"small": Smaller(source), "twin": copy.deepcopy(source)})
    assert module.white_box == {"small": False, "twin": True}
    ensemble = AttackModule(Ensemble([source, model(1)]), fgsm(), {"small": Smaller(source), "member": model(1)})
    assert ensemble.white_box == {"ensemble": True, "small": False, "member": True}


def test_without_targets_the_source_is_scored():
    module = AttackModule(model(0, "a"), fgsm())
    assert module.white_box == {"a": True}
    assert set(run(module, scenes(1))[0].preds) == {"a"}


def test_one_name_for_two_networks():
    with pytest.raises(ModelError, match="both named 'a' but differ; rename one"):
        AttackModule(model(0, "a"), fgsm(), {"a": model(1)})
    assert AttackModule(model(0, "a"), fgsm(), {"a": model(0)}).white_box == {"a": True}
    for names in ({1: model(1), "1": model(2)}, {"": model(1)}):
        with pytest.raises(ModelError, match="each needs a name of its own"):
            AttackModule(model(0, "a"), fgsm(), names)


def test_one_name_for_two_networks_beside_a_twin():
    with pytest.raises(ModelError, match="named 'a'"):
        AttackModule(model(0, "a"), fgsm(), {"twin": model(0), "a": model(1)})


def test_network_of_nan_is_named():
    broken = model(0, "broken")
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(ModelError, match="network 'broken' returns NaN"):
        AttackModule(broken, fgsm())


def test_numbers_of_classes_must_agree():
    with pytest.raises(ModelError, match="target 'b' has 5 classes, source 'a' has 8"):
        AttackModule(model(0, "a"), fgsm(), {"b": model(1, classes=5)})
    module = AttackModule(model(0, "a", classes=5), fgsm())
    with pytest.raises(ModelError, match=r"source 'a' has 5 classes, but the data has 8 \(background, disk"):
        run(module, scenes(1))


def test_no_class_has_the_number_of_ignored_pixels():
    with pytest.raises(ModelError, match=r"source 'a' has 256 classes; 255 marks ignored pixels, .* \(0\.\.254\)"):
        AttackModule(model(0, "a", classes=256), fgsm())
    assert AttackModule(model(0, "a", classes=255), fgsm()).num_classes == 255


class Picky(nn.Module):
    def forward(self, x):
        if x.shape[-1] % 48:
            raise RuntimeError("48 only")
        return x


def test_a_network_that_cannot_run_is_named():
    with pytest.raises(ModelError, match=r"network 'picky' fails on a 64x64 image .*48 only.*set model.probe_size"):
        AttackModule(Picky(), fgsm())
    AttackModule(SegmentationModel(Picky(), stride=48), fgsm())
    with pytest.raises(ModelError, match="network 'b' fails on a 64x64 image"):
        AttackModule(nn.Identity(), fgsm(), {"b": Picky()})
    with pytest.raises(ModelError, match="network 'flatten' returned"):
        AttackModule(nn.Flatten(), fgsm())


def test_a_raw_network_takes_the_images_as_they_are():
    raw = Net()
    module = AttackModule(raw, pgd(steps=2), {"other": Net(1)})
    output = run(module, scenes(1))[0]
    assert module.target_names == ["net", "other"]
    same = run(AttackModule(SegmentationModel(raw), pgd(steps=2)), scenes(1))[0]
    assert torch.equal(output.adversarial, same.adversarial)


def test_an_exported_network_is_attacked_like_the_eager_one(tmp_path):
    eager = Net().eval()
    dynamic = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    torch.export.save(
        torch.export.export(eager, (torch.rand(1, 3, 16, 24),), dynamic_shapes=dynamic), tmp_path / "a.pt2"
    )
    modules = [AttackModule(source, pgd(steps=2)) for source in (ExportedModel(str(tmp_path / "a.pt2")), eager)]
    exported, expected = (joined(run(module, scenes(2)), "adversarial") for module in modules)
    assert torch.equal(exported, expected)


class Unlabelled(SegmentationDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        scene = SyntheticScenes(3, size=32)[index]
        return Scene(scene.image, None, scene.name)


def test_without_masks_the_clean_prediction_is_the_label():
    source = model(0, "a")
    module = AttackModule(source, pgd(steps=3), {"other": model(1), "twin": model(0)})
    for output in run(module, SegmentationDataModule(Unlabelled(), batch_size=2)):
        assert torch.equal(output.labels, output.preds["twin"]["clean"])
        assert not torch.equal(output.labels, output.preds["other"]["clean"])
        assert not torch.equal(output.preds["twin"]["adversarial"], output.labels)


def test_quantize_false_scores_the_floats():
    attack, data = pgd(steps=3, eps="8/255", step_size=0.0111), scenes(2, batch_size=2)
    module = AttackModule(model(), attack, quantize=False)
    output = run(module, data)[0]
    batch = next(iter(data.predict_dataloader()))
    levels = output.adversarial * 255
    assert (levels - levels.round()).abs().max() > 0.1
    assert (output.adversarial - batch["image"]).abs().max() <= 8 / 255 + 1e-6
    with torch.no_grad():
        assert torch.equal(output.preds["net"]["adversarial"], module.source(output.adversarial).argmax(1))


ATTACKS = [pgd(steps=3), transegpgd_mi(steps=4, random_start=True, input_transforms=[InputDiversity()])]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_batch_size_and_order_do_not_matter(attack):
    def attacked(order, batch_size):
        tensors = Subset(SceneTensors(SyntheticScenes(5, size=32), Fit(None)), order)
        loader = DataLoader(tensors, batch_size=batch_size, collate_fn=collate)
        module = AttackModule(model(), attack, {"b": model(1)})
        outputs = run(module, loader)
        rows = [order.index(index) for index in range(5)]
        preds = torch.cat([output.preds["b"]["adversarial"] for output in outputs])
        return joined(outputs, "adversarial")[rows], preds[rows]

    # oneDNN chooses its kernels by the size of the batch, which round differently.
    with torch.backends.mkldnn.flags(enabled=False):
        first = attacked([0, 1, 2, 3, 4], 1)
        for order, batch_size in (
            ([0, 1, 2, 3, 4], 2),
            ([0, 1, 2, 3, 4], 3),
            ([4, 2, 0, 1, 3], 3),
            ([3, 1, 4, 0, 2], 5),
        ):
            for values, expected in zip(attacked(order, batch_size), first, strict=True):
                assert torch.equal(values, expected)


def test_seed():
    def attacked(seed):
        return joined(run(AttackModule(model(), pgd(steps=1), seed=seed), scenes(2)), "adversarial")

    assert torch.equal(attacked(3), attacked(3))
    assert not torch.equal(attacked(3), attacked(4))
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(attacked(3), attacked(3))


def test_every_and_limit_do_not_change_an_image():
    module = AttackModule(model(), pgd(steps=2))
    with torch.backends.mkldnn.flags(enabled=False):
        whole = joined(run(module, scenes(5)), "adversarial")
        some = joined(run(module, scenes(5, every=2, limit=2, batch_size=2)), "adversarial")
    assert torch.equal(some, whole[[0, 2]])


def test_status_says_what_is_done():
    module, listener, said = AttackModule(model(0, "a"), pgd(steps=2), {"b": model(1)}), Callback(), []
    listener.on_attack_status = said.append
    run(module, scenes(1), callbacks=[listener])
    assert said == ["clean prediction", "pgd step 1", "pgd step 2", "scoring a", "scoring b"]


class Watch(Attack):
    """Sees what an attack sees."""

    def perturb(self, problem):
        self.grad, self.inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.weights = any(weight.requires_grad for weight in problem.model.parameters())
        self.training = any(part.training for part in problem.model.modules())
        return problem.images


def test_an_attack_finds_gradients_on_and_the_model_frozen():
    watch = Watch("watch")
    run(AttackModule(Net().train(), watch), scenes(1))
    assert (watch.grad, watch.inference, watch.weights, watch.training) == (True, False, False, False)


def test_only_predict():
    class Fits(AttackModule):
        def validation_step(self, batch, batch_idx):
            raise AssertionError

    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    loader = scenes(1).predict_dataloader()
    with pytest.raises(ModelError, match="for predict; train networks with SegmentationTask"):
        trainer.validate(Fits(Net(), fgsm()), loader)


def test_arguments_of_other_kinds_are_named():
    with pytest.raises(TypeError, match="attack is 'pgd'; expected an Attack, such as"):
        AttackModule(nn.Identity(), "pgd")
    with pytest.raises(TypeError, match="targets are a list; expected a dictionary from names to networks"):
        AttackModule(nn.Identity(), pgd(), [nn.Identity()])


class Shaken(SourceTransform):
    """Multiplies what convolutions compute by a number that `draw` gives, of one image or of whatever comes next."""

    def __init__(self, draw):
        self._draw = draw

    def rewrite(self, graph):
        for node in graph.find(self, "convolutions", graph.all(torch.ops.aten.convolution)):
            graph.follow_live(node, lambda run, key, value: value * self._draw(run, key, value), "shaken")


GLOBAL = {
    "torch": lambda run, key, value: torch.rand(()),
    "numpy": lambda run, key, value: float(np.random.rand()),
    "Python": lambda run, key, value: random.random(),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_numbers_of_a_global_generator_are_told_of(name, tmp_path):
    def notes(draw):
        attack = soft_transfer(steps=1, source_transforms=[Shaken(draw)])
        metrics = TransferMetrics(str(tmp_path), table=False)
        run(AttackModule(model(), attack), scenes(3), callbacks=[metrics])
        return metrics.summary.get("notes", [])

    (note,) = notes(GLOBAL[name])
    assert note.startswith("while soft_transfer ran, numbers were drawn from a global random generator")
    assert notes(lambda run, key, value: run.uniform(key, value, (1, 1, 1))) == []


def test_each_run_says_what_its_attack_leaves_out(tmp_path, recwarn):
    """Also those that share a source whose graph is known, as the cells of a study do."""
    source, said = model(), "the source is attacked as it is: .*residual connections"
    for number in range(2):
        recwarn.clear()
        attack = pgd(steps=1, source_transforms=[SkipGradients(required=False)])
        metrics = TransferMetrics(str(tmp_path / str(number)), table=False)
        run(AttackModule(source, attack), scenes(2), callbacks=[metrics])
        (note,) = metrics.summary["notes"]
        assert re.match(said, note)
        assert [str(one.message) for one in recwarn if re.match(said, str(one.message))] == [note]
