"""Batches of a DataLoader of one's own: what is taken, what is made up, what is refused."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_attack.attacks import pgd
from lightning_attack.callbacks import ImageWriter, TransferMetrics
from lightning_attack.predict import AttackModule, BatchError
from lightning_attack.predict.batches import as_batch

CLASSES = 5
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = (torch.rand(7, 3, 16, 16, generator=GENERATOR) * 255).round() / 255
MASKS = torch.randint(CLASSES, (7, 16, 16), generator=GENERATOR)
MASKS[0, :4] = 255


def module(attack=None, **arguments):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, CLASSES, 1))
    return AttackModule(network, attack or pgd(steps=2), exact=True, **arguments)


def run(loader, *callbacks, own=None, precision="32-true"):
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[*callbacks], enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, precision=precision)  # fmt: skip
    return trainer.predict(own or module(), loader)


def by_index(outputs, key="adversarial"):
    """The rows of all outputs in the order of the data set."""
    rows = torch.cat([getattr(output, key) for output in outputs])
    return rows[torch.cat([output.index for output in outputs]).argsort()]


class Photos(Dataset):
    """Items as others write them."""

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return self.item(index)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(IMAGES, MASKS, strict=True))


class Batches:
    """Something that gives batches and is no DataLoader; or the batches of a DataLoader, by their positions."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


with_index = Photos(lambda index: {"image": IMAGES[index], "mask": MASKS[index], "index": index})
LOADERS = {
    "dictionary": DataLoader(Photos(lambda index: {"image": IMAGES[index], "mask": MASKS[index]}), batch_size=3),
    "other integers": DataLoader(Photos(lambda index: {"image": IMAGES[index], "mask": MASKS[index].int()})),
    "tuple": DataLoader(TensorDataset(IMAGES, MASKS), batch_size=3),
    "more keys": DataLoader(Photos(lambda index: {"image": IMAGES[index], "mask": MASKS[index], "path": "a"}), 2),
    "shuffled": DataLoader(TensorDataset(IMAGES, MASKS), batch_size=2, shuffle=True),
    "workers": DataLoader(TensorDataset(IMAGES, MASKS), batch_size=2, num_workers=2),
    "sampler": DataLoader(TensorDataset(IMAGES, MASKS), batch_size=4, sampler=[6, 5, 0, 1, 2, 4, 3]),
    "varying sizes": DataLoader(TensorDataset(IMAGES, MASKS), batch_sampler=Batches([0], [1, 2, 3], [6], [4, 5])),
    "stream": DataLoader(Stream(), batch_size=3),
    "no loader": Batches((IMAGES[:1], MASKS[:1]), (IMAGES[1:5], MASKS[1:5]), (IMAGES[5:], MASKS[5:])),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_an_image_is_attacked_alike_however_it_comes(kind):
    """Random starts too: they are drawn from the image's position in the data set."""
    expected = by_index(run(DataLoader(with_index, batch_size=7)))
    outputs = run(LOADERS[kind])
    assert torch.equal(by_index(outputs), expected)
    assert torch.equal(by_index(outputs, "labels"), MASKS)
    names = [name for output in outputs for name in output.name]
    assert sorted(names) == [f"image_{index:06d}" for index in range(7)]


def test_images_alone():
    for loader in (DataLoader(IMAGES, batch_size=3), DataLoader(Photos(lambda index: {"image": IMAGES[index]}), 3)):
        outputs = run(loader)
        assert torch.equal(by_index(outputs, "image"), IMAGES)
        (output, *_) = outputs
        assert torch.equal(output.labels, output.preds[module().source_name]["clean"])


@pytest.mark.parametrize(("rank", "processes"), [(0, 2), (1, 2)])
def test_a_stream_in_several_processes(rank, processes):
    class Running:
        global_rank, world_size, predicting, predict_dataloaders = rank, processes, True, DataLoader(Stream())

    positions = module()._positions
    found = [positions.of_batch(Running, number, count) for number, count in enumerate((2, 1))]
    assert found == [[rank, rank + 2], [rank + 4]]


def test_a_whole_run(tmp_path):
    """Files and tables, as with a data module."""
    metrics = TransferMetrics(str(tmp_path), table=False)
    outputs = run(LOADERS["shuffled"], metrics, ImageWriter(str(tmp_path)))
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == [f"image_{n:06d}.png" for n in range(7)]
    (row,) = metrics.rows
    right = sum((out.preds[row["target"]]["adversarial"] == out.labels).sum().item() for out in outputs)
    assert row["adversarial_accuracy"] == right / (MASKS != 255).sum().item()


def test_images_that_come_twice_are_refused():
    in_batch = Batches(*({"image": IMAGES[first : first + 2], "index": torch.arange(2)} for first in (0, 2)))
    with pytest.raises(BatchError, match=r"two images of the run have the index 0; .* not in the batch"):
        run(in_batch)
    with pytest.raises(BatchError, match=r"two images of the run have the name 'a'; .* 'name' may hold folders"):
        run(Batches({"image": IMAGES[:2], "name": ["a", "a"]}))
    own = module()
    for _ in range(2):  # a second run begins anew
        run(LOADERS["tuple"], own=own)


def test_a_collate_that_drops_images_has_to_give_positions():
    def first(items):
        return torch.stack([image for image, _ in items[:1]])

    with pytest.raises(BatchError, match=r"a batch has 1 images, but 2 were drawn .* give 'index' too"):
        run(DataLoader(TensorDataset(IMAGES, MASKS), batch_size=2, collate_fn=first))


def test_without_a_trainer():
    own = module()
    first = own.predict_step((IMAGES[:2], MASKS[:2]), 0)
    second = own.predict_step({"image": IMAGES[2:], "mask": MASKS[2:]}, 1)
    assert [*first.index.tolist(), *second.index.tolist()] == [*range(7)]
    assert torch.equal(own.predict_step((IMAGES[:2], MASKS[:2]), 0).adversarial, first.adversarial)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"img": IMAGES}, r"has the keys 'img' and no 'image'; a batch is a dictionary with 'image' \(B, 3, H, W\)"),
        ({}, r"has the keys \(none\) and no 'image'"),
        ("photos", "a batch is a str; a batch is a dictionary"),
        ((IMAGES, MASKS, MASKS), r"a batch is a tuple of \(7, 3, 16, 16\) torch.float32, .* tuple \(images, masks\)"),
        ((IMAGES, ["a"] * 7), r"a batch is a tuple of \(7, 3, 16, 16\) torch.float32, list \['a'"),
        ((IMAGES, torch.zeros(7).long()), r"'mask' is \(7,\) torch.int64; expected \(7, 16, 16\), integers"),
        ((IMAGES, MASKS.float()), r"'mask' is \(7, 16, 16\) torch.float32; expected"),
        ((IMAGES, MASKS[:, None]), r"'mask' is \(7, 1, 16, 16\) torch.int64; expected \(7, 16, 16\)"),
        ((IMAGES, torch.where(MASKS == 255, 255, MASKS + 1)),
         r"'mask' holds the class 5, but the networks have the classes 0\.\.4; .* are 255"),
        ((IMAGES, torch.where(MASKS == 255, -1, MASKS)), r"'mask' holds the class -1"),
        ((IMAGES * 255).byte(), r"'image' is \(7, 3, 16, 16\) torch.uint8; .* Divide 8-bit images by 255"),
        (IMAGES[0], r"'image' is \(3, 16, 16\) torch.float32; expected \(B, 3, H, W\)"),
        ({"image": IMAGES, "index": torch.arange(3)}, r"'index' is \(3,\) torch.int64; expected \(7,\) integers"),
        ({"image": IMAGES, "name": "photo"}, r"'name' is str 'photo'; expected 7 strings"),
        ({"image": IMAGES, "adversarial_eps": torch.arange(1.0, 8.0)}, "one radius for all images"),
        (2 * IMAGES, r"images range over \[0, 2\]; expected \[0, 1\]"),
        ({"image": IMAGES, "adversarial": IMAGES}, r"'pgd' would make others; .* Given\(\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_batch_is_said(batch, says):
    with pytest.raises(ValueError, match=says):
        module().predict_step(batch, 0)


def test_masks_that_are_wanted_must_come():
    with pytest.raises(BatchError, match="the key 'target_mask' in each batch"):
        module(target_labels="masks").predict_step(IMAGES, 0)


def test_a_batch_that_is_complete_stays_as_it_is():
    batch = {"image": IMAGES, "mask": MASKS, "index": torch.arange(7), "name": list("abcdefg"), "digest": ["x"] * 7}
    found = as_batch(batch | {"size": 3}, CLASSES, None)
    assert found.keys() == batch.keys()
    assert all(found[key] is batch[key] for key in ("image", "mask", "index"))


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_images_take_the_type_of_the_networks(kind, precision):
    """float64 is what numpy makes of 8-bit images; half precision would round the steps of an attack."""
    wanted = torch.float64 if precision == "64-true" else torch.float32
    loader = DataLoader(TensorDataset(IMAGES.to(kind), MASKS), batch_size=7)
    output, *_ = run(loader, precision=precision)
    assert output.image.dtype == output.adversarial.dtype == wanted
    if kind == torch.float64 and precision == "32-true":
        assert torch.equal(output.adversarial, by_index(run(LOADERS["tuple"])))
    found = as_batch({key: IMAGES.to(kind) for key in ("image", "partners", "adversarial")}, CLASSES, range)
    assert {found[key].dtype for key in ("image", "partners", "adversarial")} == {torch.float32}


def test_a_callback_sees_the_loader_s_own_batch():
    seen = []
    callback = Callback()
    callback.on_predict_batch_end = lambda trainer, module, outputs, batch, *_: seen.append((outputs, batch))
    outputs = run(LOADERS["tuple"], callback)
    assert [len(images) for _, (images, _) in seen] == [len(output) for output in outputs] == [3, 3, 1]


@pytest.mark.parametrize("key", ["label", "labels", "masks", "target", "gt"])
def test_labels_under_another_key_are_not_passed_over(key):
    batch = {"image": torch.rand(2, 3, 4, 4), key: torch.zeros(2, 4, 4, dtype=torch.int64)}
    with pytest.raises(BatchError, match=f"no 'mask', but '{key}': labels are read from 'mask'"):
        as_batch(batch, 8, lambda count: range(count))
    assert "mask" not in as_batch({"image": batch["image"], key: torch.zeros(2)}, 8, lambda count: range(count))
