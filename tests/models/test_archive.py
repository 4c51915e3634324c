"""`.pt2` files from others: loaded if they hold a graph and tensors, refused before anything in them runs."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_attack.models import ExportedModel, ModelError, SegmentationModel, export_model


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (Path(self.trace),)


def pickled(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    class Net(nn.Conv2d):
        """With a constant, which is stored apart from the weights."""

        def forward(self, x):
            return super().forward(x) + torch.arange(4.0).view(1, 4, 1, 1)

    torch.manual_seed(0)
    model = SegmentationModel(Net(3, 4, 1), name="net")
    path = tmp_path_factory.mktemp("sound") / "model.pt2"
    export_model(model, str(path))
    return model, path


def changed(path, folder, entries):
    """A copy of an archive with other or more entries."""
    with zipfile.ZipFile(path) as archive:
        content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    to = folder / "model.pt2"
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in (content | entries).items():
            archive.writestr(f"model/{name}", data)
    return str(to)


def test_a_network_of_tensors_is_loaded(sound, tmp_path):
    model, path = sound
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(ExportedModel(changed(path, tmp_path, {}))(images), model(images))


def test_what_would_run_is_refused(sound, tmp_path):
    path = changed(sound[1], tmp_path, {"data/sample_inputs/model.pt": pickled((Evil(tmp_path / "trace"),))})
    with pytest.raises(ModelError, match=r"holds example inputs that are no tensors.*is refused"):
        ExportedModel(path)
    assert not (tmp_path / "trace").exists()
    with contextlib.suppress(Exception):  # whatever it finds wrong, it comes too late
        torch.export.load(path)
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "name", ["data/aotinductor/model/kernel.so", "data/constants/opaque_obj_0", "data/constants/custom_obj_0",
             "data/weights/model.pt", "models/other.json", "serialized_exported_program.json", "data/weights/../x"],
)  # fmt: skip
def test_other_entries_are_refused(sound, tmp_path, name):
    with pytest.raises(ModelError, match=f"holds '{name}': more than a graph and plain tensors"):
        ExportedModel(changed(sound[1], tmp_path, {name: b"x"}))


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_tensors_are_refused(sound, tmp_path, kind):
    name = f"data/{kind}/model_{kind}_config.json"
    with zipfile.ZipFile(sound[1]) as archive:
        table = json.loads(archive.read(next(one for one in archive.namelist() if one.endswith(name))))
    first = next(iter(table["config"].values()))
    first["use_pickle"] = True
    evil = {name: json.dumps(table), f"data/{kind}/{first['path_name']}": pickled(Evil(tmp_path / "trace"))}
    with pytest.raises(ModelError, match=f"holds '{name}'"):
        ExportedModel(changed(sound[1], tmp_path, evil))
    assert not (tmp_path / "trace").exists()


def test_no_archive_of_torch(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("mimetype", "application/zip")
    with pytest.raises(ModelError, match=r"not a file of torch\.export\.save"):
        ExportedModel(str(tmp_path / "model.pt2"))
