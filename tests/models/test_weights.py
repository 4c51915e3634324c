"""Weights files: every usual container and prefix is read, what does not fit is named, no code in a file runs."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from lightning_attack.models import (
    ExportedModel,
    ModelError,
    SegmentationModel,
    SMPModel,
    TorchScriptModel,
    TrainedModel,
    load_checkpoint,
)
from lightning_attack.models.file_kinds import foreign_kind
from lightning_attack.models.weights import EMBEDDED, load_weights, weights_path
from lightning_attack.training.task import SegmentationTask


def tiny(seed=0, classes=3, width=4):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))
    network[1].running_mean.normal_()
    return network


def assert_same(network, other):
    for name, tensor in other.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in tiny(1).state_dict().items()}


@pytest.mark.parametrize("container", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "network.", "model.network.", "_orig_mod.", "net.module."])
def test_containers_and_prefixes(tmp_path, container, prefix):
    state = prefixed(prefix)
    content = {container: state, "epoch": 3, "optimizer": {"lr": 0.1}} if container else state
    torch.save(content, tmp_path / "w.pt")
    network = tiny(0)
    load_weights(network, tmp_path / "w.pt")
    assert_same(network, tiny(1))


def test_other_parts_beside_the_network_are_left_out(tmp_path):
    state = prefixed("network.") | {"ema.0.weight": torch.zeros(1), "criterion.weight": torch.ones(3)}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    network = tiny(0)
    load_weights(network, tmp_path / "w.ckpt")
    assert_same(network, tiny(1))


class Noise(LightningDataModule):
    def train_dataloader(self):
        item = {"image": torch.rand(3, 8, 8), "mask": torch.zeros(8, 8, dtype=torch.int64)}
        return DataLoader([item] * 2, batch_size=2)


def test_lightning_checkpoint(tmp_path):
    task = SegmentationTask(SegmentationModel(tiny(1), num_classes=3, mean=(0.5,) * 3, std=(0.5,) * 3))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, Noise())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    network = tiny(0)
    load_weights(network, tmp_path / "last.ckpt")
    assert_same(network, task.network.network)
    assert not torch.equal(network[0].weight, tiny(1)[0].weight)  # one step has changed them
    wrapped = SegmentationModel(tiny(0), num_classes=3)  # the file fits the wrapper as well as the network
    load_weights(wrapped, tmp_path / "last.ckpt")
    assert_same(wrapped.network, task.network.network)


def test_half_precision_safetensors(tmp_path):
    half = {n: t.half() if t.is_floating_point() else t for n, t in tiny(1).state_dict().items()}
    save_file(half, tmp_path / "w.safetensors")
    network = tiny(0)
    load_weights(network, tmp_path / "w.safetensors")
    for name, tensor in tiny(1).state_dict().items():
        assert network.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(network.state_dict()[name], half[name].to(tensor.dtype))


def test_the_count_of_training_steps_may_be_missing(tmp_path):
    state = {n: t for n, t in prefixed("module.").items() if "num_batches_tracked" not in n}
    torch.save(state, tmp_path / "w.pth")
    network = tiny(0)
    load_weights(network, tmp_path / "w.pth")
    assert torch.equal(network[2].weight, tiny(1)[2].weight)


def refused(path, network=None):
    """The message of the refusal; the network must be as it was."""
    network, before = network or tiny(0), tiny(0)
    with pytest.raises(ModelError, match=re.escape(str(path))) as error:
        load_weights(network, path)
    if network[0].weight.shape == before[0].weight.shape:
        assert_same(network, before)
    return str(error.value)


def test_missing_and_foreign_tensors_are_named(tmp_path):
    state = tiny(1).state_dict()
    state["decoder.weight"] = state.pop("2.bias")
    torch.save(state, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "checkpoint of another network" in message
    assert "1 tensors missing (2.bias)" in message
    assert "1 foreign tensors (decoder.weight)" in message


def test_checkpoint_of_another_network(tmp_path):
    torch.save({"state_dict": nn.Sequential(*tiny(), nn.Conv2d(3, 3, 1)).state_dict()}, tmp_path / "longer.pt")
    torch.save(nn.LSTM(2, 2).state_dict(), tmp_path / "lstm.pt")
    message = refused(tmp_path / "longer.pt")
    assert (
        "another network: 2 foreign tensors (3.bias, 3.weight); the network is complete without them: save" in message
    )
    assert "if not name.startswith('3.')}" in message
    assert re.search(r"another network: 8 tensors missing \(.*, \.\.\.\); 4 foreign", refused(tmp_path / "lstm.pt"))


def test_another_number_of_classes(tmp_path):
    torch.save(tiny(1, classes=5).state_dict(), tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "2 tensors have another shape" in message
    assert "2.weight with (5, 4, 1, 1) in the file and (3, 4, 1, 1) in the network" in message


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path, zipped):
    mark = tmp_path / "exploded"
    torch.save(tiny(1).state_dict() | {"more": Bomb(mark)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert "pickled Python objects" in refused(tmp_path / "w.pt")
    assert not mark.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)  # the bomb does work
    assert mark.exists()


def test_whole_pickled_network_is_refused(tmp_path):
    torch.save(tiny(1), tmp_path / "network.pt")
    assert "torch.save(model.state_dict(), path)" in refused(tmp_path / "network.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_file(tmp_path, suffix, share):
    whole = tmp_path / f"whole{suffix}"
    save_file(tiny(1).state_dict(), whole) if suffix == ".safetensors" else torch.save(tiny(1).state_dict(), whole)
    content = whole.read_bytes()
    part = tmp_path / f"part{suffix}"
    part.write_bytes(content[: int(share * len(content))])
    refused(part)


@pytest.mark.parametrize(
    "content",
    [
        b"not a weights file",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        bytes(range(256)) * 4,
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_something_else(tmp_path, content, suffix):
    (tmp_path / f"w{suffix}").write_bytes(content)
    refused(tmp_path / f"w{suffix}")


def test_damaged_file(tmp_path):
    torch.save(tiny(1).state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pt").read_bytes()
    for position in range(0, 300, 7):
        (tmp_path / "w.pt").write_bytes(content[:position] + b"\xff\xff\xff" + content[position + 3 :])
        with pytest.raises(ModelError):
            load_weights(tiny(0, classes=7), tmp_path / "w.pt")


@pytest.mark.parametrize("content", [None, [torch.ones(1)], {"a": 1}, {"state_dict": {"a": "b"}}, torch.ones(2)])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert "holds no state dict" in refused(tmp_path / "w.pt")


def test_names_that_are_no_strings(tmp_path):
    torch.save({0: torch.ones(1)}, tmp_path / "w.pt")
    assert "holds no state dict" in refused(tmp_path / "w.pt")


def test_no_file(tmp_path):
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(ModelError, match=re.escape(f"no file '{path}'")):
            weights_path(str(path))


def test_unknown_embedded_weights():
    known = sorted(EMBEDDED.glob("*.safetensors"))
    with pytest.raises(ModelError, match=f"no weights 'embedded:nothing'; there are .*embedded:{known[-1].stem}"):
        weights_path("embedded:nothing")
    assert weights_path(f"embedded:{known[0].stem}") == known[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64, "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><head><title>Quota exceeded</title></head></html>", "an HTML page"),
        (b"\xef\xbb\xbf\n <HTML>", "an HTML page"),
        (b"", "an empty file"),
        (b"\x1f\x8b\x08\x00" + b"x" * 20, "a gzip archive"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x89PNG\r\n\x1a\n", r"a picture \(PNG\)"),
        (b'{"message": "Not Found"}', "JSON text, often the error of a download"),
        (b"Entry not found", "a text, 'Entry not found'; download the file again"),
        (b"\x08\x07\x12\x07pytorch\x1a\x05", "an ONNX model, which is not read here"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_files_that_are_something_else(tmp_path, content, says, suffix):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=f"'{re.escape(str(file))}' is {says}"):
        load_weights(tiny(0), file)


def test_an_archive_of_other_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("model/weights.bin", b"1")
    with pytest.raises(ModelError, match=r"a zip archive of other files \(model/weights.bin\); unpack it"):
        load_weights(tiny(0), tmp_path / "w.pth")


def test_weights_beside_their_moving_average(tmp_path):
    raw, average = tiny(1).state_dict(), tiny(2).state_dict()
    torch.save({"epoch": 1, "state_dict": raw, "state_dict_ema": average}, tmp_path / "w.pth")
    network = tiny(0)
    with pytest.warns(UserWarning, match="'state_dict'.*'state_dict_ema'.*weights_key=state_dict_ema"):
        load_weights(network, tmp_path / "w.pth")
    assert_same(network, tiny(1))
    load_weights(network, tmp_path / "w.pth", key="state_dict_ema")
    assert_same(network, tiny(2))
    with pytest.raises(
        ModelError, match=r"no weights_key 'ema'; it holds 'epoch' \(int\), 'state_dict' \(OrderedDict\)"
    ):
        load_weights(network, tmp_path / "w.pth", key="ema")
    torch.save({"model_ema": average}, tmp_path / "only.pth")
    load_weights(network, tmp_path / "only.pth")
    assert_same(network, tiny(2))


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_two_networks_side_by_side(tmp_path, suffix):
    student, teacher = tiny(1).state_dict(), tiny(2).state_dict()
    both = {f"{name}.{key}": tensor for name, state in (("model", student), ("teacher.net", teacher))
            for key, tensor in state.items()}  # fmt: skip
    path, network = tmp_path / f"w.{suffix}", tiny(0)
    save_file(both, path) if suffix == "safetensors" else torch.save({"state_dict": both}, path)
    says = f"'model' is taken; {len(teacher)} tensors of the file are left. weights_key=teacher.net takes"
    with pytest.warns(UserWarning, match=says):
        load_weights(network, path)
    assert_same(network, tiny(1))
    load_weights(network, path, key="teacher.net")
    assert_same(network, tiny(2))
    with pytest.raises(ModelError, match="no weights_key 'techer'"):
        load_weights(network, path, key="techer")


def test_what_is_in_the_way_is_named(tmp_path):
    torch.save({"weights_of_mine": tiny(1).state_dict(), "best": 0.5}, tmp_path / "keys.pth")
    with pytest.raises(ModelError, match=r"it holds 'weights_of_mine' \(OrderedDict\), 'best' \(float\)"):
        load_weights(tiny(0), tmp_path / "keys.pth")
    torch.save({"state_dict": tiny(1).state_dict(), "best": np.float64(0.7)}, tmp_path / "object.pth")
    with pytest.raises(ModelError, match=r"pickled Python objects \(numpy\.[\w.]*scalar\)"):
        load_weights(tiny(0), tmp_path / "object.pth")


@pytest.mark.parametrize("head", ["aux_classifier", "auxlayer", "auxiliary_head", "dsn_head", "classification_head"])
def test_an_auxiliary_head_is_left_out_with_a_word(tmp_path, head):
    torch.save(prefixed("module.") | {f"module.{head}.4.weight": torch.ones(1)}, tmp_path / "w.pt")
    network = tiny(0)
    with pytest.warns(UserWarning, match=rf"auxiliary head .* \(1 tensors under {head}\.\).*aux=true"):
        load_weights(network, tmp_path / "w.pt", aux="aux")
    assert_same(network, tiny(1))


def test_what_the_parts_of_a_network_tell(tmp_path):
    torch.save(prefixed("") | {"aux_classifier.weight": torch.ones(1), "x.y": torch.ones(1)}, tmp_path / "w.pt")
    assert "(1 tensors under aux_classifier.)" in refused(tmp_path / "w.pt")
    torch.save(prefixed("") | {f"head.{name}": torch.ones(1) for name in "abcd"}, tmp_path / "w.pt")
    assert "the file has 4 tensors under head." in refused(tmp_path / "w.pt")
    network = tiny(0)
    network.add_module("aux", nn.Conv2d(1, 1, 1))
    torch.save(prefixed(""), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="the file has no auxiliary head: aux_loss=false"):
        load_weights(network, tmp_path / "w.pt", aux="aux_loss")


KINDS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><title>Quota exceeded</title>", "an HTML page"),
    "empty": (b"", "an empty file"),
    "cut": (b"PK\x03\x04" + bytes(600), "a zip archive whose end is missing"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("suffix", "load"),
    [
        ("pt2", lambda path: ExportedModel(path)),
        ("pt", lambda path: TorchScriptModel(path)),
        ("pth", lambda path: SMPModel("fpn", "tu-test_resnet", 8, path)),
        ("safetensors", lambda path: TrainedModel(path)),
        ("ckpt", lambda path: load_checkpoint(path)),
    ],
)
def test_every_reader_says_what_a_file_is(suffix, load, kind, tmp_path):
    content, says = KINDS[kind]
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{re.escape(str(path))}' is .*{says}"):
        load(str(path))


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:FutureWarning")
def test_files_of_torch_are_told_apart(tmp_path):
    network = tiny().eval()
    torch.save(network.state_dict(), tmp_path / "weights")
    torch.jit.save(torch.jit.script(network), tmp_path / "script")
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 8, 8),)), tmp_path / "program.pt2")
    (tmp_path / "program.pt2").rename(tmp_path / "program")
    readers = {"weights": "SMPModel", "script": "TorchScriptModel", "program": "ExportedModel"}
    for wanted in readers:
        for found, reader in readers.items():
            said = foreign_kind(tmp_path / found, wanted)
            assert said is None if found == wanted else reader in said
    with pytest.raises(ModelError, match="it is a folder: name the file in it"):
        weights_path(str(tmp_path))


@pytest.mark.parametrize("key", [None, "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.network."])
def test_weights_of_a_network_of_one_s_own(key, prefix, tmp_path):
    trained, images = tiny(seed=1).eval(), torch.rand(1, 3, 8, 8)
    state = {prefix + name: values for name, values in trained.state_dict().items()}
    torch.save({key: state} if key else state, tmp_path / "mine.pt")
    model = SegmentationModel(tiny(), mean=(0.5,) * 3, weights=str(tmp_path / "mine.pt")).eval()
    assert torch.equal(model(images), trained(images - 0.5))


def test_weights_of_a_network_of_one_s_own_that_do_not_fit(tmp_path):
    torch.save({"ema": tiny(seed=1).state_dict(), "state_dict": tiny(classes=4).state_dict()}, tmp_path / "mine.pt")
    file = str(tmp_path / "mine.pt")
    with pytest.raises(ModelError, match=re.escape(file)):
        SegmentationModel(tiny(), weights=file)
    SegmentationModel(tiny(), weights=file, weights_key="ema")
    with pytest.raises(ModelError, match="weights_key='ema' chooses among the weights of a file: give weights too"):
        SegmentationModel(tiny(), weights_key="ema")


def test_weights_deeper_in_a_file(tmp_path):
    """The message names the keys under which there are weights, and each of them works as `weights_key`."""
    network, other = tiny(), tiny(seed=1)
    torch.save({"net": {"weights": network.state_dict()}, "teacher": other.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"weights_key takes one of its parts: net.weights, teacher$"):
        load_weights(tiny(), tmp_path / "w.pt")
    for key, saved in (("net.weights", network), ("teacher", other)):
        load_weights(loaded := tiny(seed=2), tmp_path / "w.pt", key=key)
        assert_same(loaded, saved)
    with pytest.raises(ModelError, match=r"has no weights_key 'bias'; it holds 'weights' \(OrderedDict\)"):
        load_weights(tiny(), tmp_path / "w.pt", key="net.bias")
