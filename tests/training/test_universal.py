"""One perturbation for all photos: against a plain loop, with batches that are put together, and from a checkpoint."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Sampler

from lightning_attack.attacks import FIA, Admix, DiversifiedFeatures, RandomFlip, SegPGD, Universal
from lightning_attack.attacks.errors import AttackError
from lightning_attack.cli.main import main
from lightning_attack.models import SegmentationModel
from lightning_attack.training import UniversalTask
from tests.attacks.toys import CLASSES, PIXELS, curved, scene
from tests.processes import clean_processes

STEP = 1 / 255


def photos(count=8, height=12, width=10):
    images, labels = scene(count, height, width, dtype=torch.float32)
    return [{"image": images[i], "mask": labels[i], "index": torch.tensor(i)} for i in range(count)]


def learn(folder, batch_size=2, epochs=2, ckpt=None, data=None, network=None, trainer=(), sampler=None, **settings):
    """The task after training on unshuffled photos, and its checkpoint."""
    source = SegmentationModel(network or curved(torch.float32), num_classes=CLASSES, name="toy")
    task = UniversalTask(source, file=str(folder / "learned.pt"), size=(5, 4), **settings)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **dict(trainer),
    )
    trainer.fit(task, DataLoader(data or photos(), batch_size, sampler=sampler), ckpt_path=ckpt)
    return task, trainer.checkpoint_callback.best_model_path


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    return *learn(folder), folder


def tiled(delta):
    return delta[:, torch.arange(12) % 5][:, :, torch.arange(10) % 4]


def resized(delta):
    return F.interpolate(delta[None], (12, 10), mode="bilinear")[0]


def by_hand(batch_size, epochs, spread=tiled, decay=0.9):
    model, delta, momentum = curved(torch.float32), torch.zeros(3, 5, 4), 0
    for _ in range(epochs):
        for start in range(0, 8, batch_size):
            part = photos()[start : start + batch_size]
            delta.requires_grad_()
            losses = []
            for photo in part:
                shown = (photo["image"] + spread(delta)).clamp(0, 1)
                losses.append(F.cross_entropy(model(shown[None]), photo["mask"][None], ignore_index=255))
            gradient = torch.autograd.grad(sum(losses) / len(part), delta)[0]
            momentum = gradient / gradient.abs().mean() + decay * momentum
            delta = (delta.detach() + STEP * momentum.sign()).clamp(-PIXELS, PIXELS)
    return delta


def test_it_is_that_of_a_plain_loop(learned):
    task, _, folder = learned
    expected = by_hand(2, 2)
    assert torch.allclose(task.delta, expected, rtol=0, atol=1e-7)
    assert expected.abs().max() > 3 * STEP
    found = Universal.load(folder / "learned.pt")
    assert torch.equal(found.delta, task.delta)
    assert (found.eps, found.spread) == (PIXELS, "tile")
    assert {key: found.about[key] for key in ("source", "steps", "epochs", "momentum")} == {
        "source": "toy", "steps": 8, "epochs": 2, "momentum": 0.9,
    }  # fmt: skip
    assert found.about["objective"] == {"class": "CrossEntropy", "temperature": 1.0}


def test_batches_may_be_put_together(learned, tmp_path):
    found, _ = learn(tmp_path, batch_size=1, trainer={"accumulate_grad_batches": 2})
    assert torch.allclose(found.delta, learned[0].delta, rtol=0, atol=1e-7)


class EverySecond(Sampler):
    """The first photo, the third, ... for the first process, and the others for the second one, in order."""

    def __iter__(self):
        return iter(range(torch.distributed.get_rank(), 8, 2))

    def __len__(self):
        return 4


def in_two_processes(folder):
    torch.set_num_threads(1)
    trainer = {"devices": 2, "strategy": "ddp_fork", "use_distributed_sampler": False}  # which shuffles
    learn(folder, batch_size=1, trainer=trainer, sampler=EverySecond())


def test_two_processes_learn_what_one_does(learned, tmp_path):
    """One photo at a time in each; together these are the batches of two."""
    process = clean_processes().Process(target=in_two_processes, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert torch.allclose(Universal.load(tmp_path / "learned.pt").delta, learned[0].delta, rtol=0, atol=1e-7)


def test_it_goes_on_from_a_checkpoint_which_has_no_network(learned, tmp_path):
    first, checkpoint = learn(tmp_path, epochs=1)
    assert list(torch.load(checkpoint, weights_only=False)["state_dict"]) == ["delta"]
    assert not torch.equal(first.delta, learned[0].delta)
    assert torch.equal(learn(tmp_path, epochs=2, ckpt=checkpoint)[0].delta, learned[0].delta)


@pytest.mark.parametrize("version", ["this", "earlier"])
def test_a_checkpoint_of_other_settings_is_refused(version, learned, tmp_path):
    """Lightning takes eps, step and momentum from the checkpoint; the file would say what was given."""
    content = torch.load(learned[1], weights_only=True)
    if version == "earlier":
        del content["universal"]
    torch.save(content, tmp_path / "begun.ckpt")
    changed = {"eps": "4/255", "step_size": "2/255", "momentum": 0.5, "seed": 1}
    with pytest.raises(AttackError) as error:
        learn(tmp_path, epochs=3, ckpt=tmp_path / "begun.ckpt", **changed)
    first, *rest = str(error.value).splitlines()
    assert "give these again, or begin anew without ckpt_path" in first
    assert [line.strip() for line in rest] == [
        "eps: 8/255 in the checkpoint, 4/255 now",
        "step_size: 1/255 in the checkpoint, 2/255 now",
        "momentum: 0.9 in the checkpoint, 0.5 now",
        *(["seed: 0 in the checkpoint, 1 now"] if version == "this" else []),
    ]
    assert not (tmp_path / "learned.pt").exists()


def test_a_checkpoint_of_another_network_of_the_same_name_is_refused(learned, tmp_path):
    network = curved(torch.float32)
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    with pytest.raises(
        AttackError, match=r"with other settings[^\n]*\n  network: v3:\w+ in the checkpoint, v3:\w+ now$"
    ):
        learn(tmp_path, epochs=3, ckpt=learned[1], network=network)


@pytest.mark.parametrize("lacks", ["state_dict", "optimizer_states"])
def test_a_checkpoint_of_something_else(lacks, learned, tmp_path):
    torch.save(torch.load(learned[1], weights_only=True) | {lacks: {}}, tmp_path / "other.ckpt")
    with pytest.raises(AttackError, match=r"no checkpoint of a universal perturbation|has no state of an optimizer"):
        learn(tmp_path, ckpt=tmp_path / "other.ckpt")


def test_the_command_refuses_it_before_it_writes(learned, tmp_path, capsys):
    config = {
        "trainer": {
            "accelerator": "cpu",
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path)}},
        }
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    words = ["universal", "-c", str(tmp_path / "small.yaml"), f"--model.file={tmp_path / 'learned.pt'}"]
    assert main([*words, "--model.size=[5,6]", f"--ckpt_path={learned[1]}"]) == 2
    said = capsys.readouterr().err
    assert "size: [5, 4] in the checkpoint, [5, 6] now" in said
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["small.yaml"]
    (tmp_path / "learned.pt").mkdir()
    assert main(words) == 2
    assert "learned.pt' is a folder; a file is expected" in capsys.readouterr().err
    (tmp_path / "learned.pt").rmdir()
    (tmp_path / "learned.pt").write_text("an earlier one")
    assert main(words) == 2
    assert "learned.pt' exists, and would be replaced" in capsys.readouterr().err
    assert (tmp_path / "learned.pt").read_text() == "an earlier one"
    small = ["--trainer.max_epochs=1", "--data.train.count=2", "--data.train.size=32", "--data.batch_size=2"]
    assert main([*words, *small, "--overwrite"]) == 0
    assert Universal.load(tmp_path / "learned.pt").about["epochs"] == 1


def test_it_may_be_resized_and_have_no_momentum(tmp_path):
    task, _ = learn(tmp_path, epochs=1, spread="resize", momentum=0.0)
    assert torch.allclose(task.delta, by_hand(2, 1, resized, decay=0), rtol=0, atol=1e-7)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What one epoch gives without any part."""
    return learn(tmp_path_factory.mktemp("plain"), epochs=1)[0].delta


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": SegPGD(), "input_transforms": [RandomFlip(0.5)]},
        {"objective": FIA(["network.1"], samples=2)},
        {"source_transforms": [DiversifiedFeatures()], "seed": 3},
    ],
    ids=["views", "features", "source"],
)
def test_parts(settings, tmp_path, plain):
    task, _ = learn(tmp_path, epochs=1, **settings)
    assert 0 < task.delta.abs().max() <= PIXELS
    assert not torch.equal(task.delta, plain)
    assert all(not weight.requires_grad and weight.grad is None for weight in task.source.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": -1}, "momentum=-1: must be a number, 0 or more"),
        ({"size": 0}, "size=0: must be 1 or more"),
        ({"spread": "mirror"}, "spread='mirror': must be one of tile, resize"),
        ({"step_size": 0}, "step_size=0: must be a number above 0"),
        ({"objective": FIA(), "input_transforms": [RandomFlip()]}, "FIA uses features of a layer; leave out"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        UniversalTask(curved(torch.float32), **settings)


def test_a_batch_of_one_cannot_be_mixed(tmp_path):
    with pytest.raises(ValueError, match="Admix mixes the images of a batch; it needs 2 or more, not 1"):
        learn(tmp_path, batch_size=1, epochs=1, input_transforms=[Admix()])


def test_a_gradient_that_is_no_number_names_step_and_photo(tmp_path):
    data = photos()
    data[5]["image"] = torch.full((3, 12, 10), torch.nan)
    with pytest.raises(AttackError, match=r"step 3: the gradient of 'toy' is not finite for at position 5\n"):
        learn(tmp_path, epochs=1, data=data)
    assert not (tmp_path / "learned.pt").exists()


def test_figures_are_means_over_the_images_of_all_processes_that_have_one():
    task = UniversalTask(SegmentationModel(curved(torch.float32), num_classes=CLASSES))
    other = torch.tensor([6.0, 2.0])  # sum and number in another process
    task._trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda own, reduce_op: own + other))
    assert task._mean(torch.tensor([torch.nan, 9.0])) == 5
    assert task._mean(torch.tensor([torch.nan])) == 3
