"""`SMPHub`: folders of smp, a repository of a hub that is a server in this process, and what is wrong with either."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import torch

from lightning_attack.models import ModelError, SMPHub, SMPModel, freeze
from lightning_attack.models.hub import MissingFileError, hub_file


def photo(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(**options):
    torch.manual_seed(0)
    arguments = {"encoder_weights": None, "classes": 5, "decoder_pyramid_channels": 16} | options
    network = smp.FPN("tu-test_resnet", **arguments).eval()
    network.encoder.model.bn1.running_mean.fill_(0.1)
    return network


@pytest.fixture
def folder(tmp_path):
    network = made()
    network.save_pretrained(tmp_path / "fpn")
    return tmp_path / "fpn", network


def change(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def normalised(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def test_folder(folder):
    path, network = folder
    model, images = freeze(SMPHub(str(path))), photo(2, 3, 64, 96)
    assert torch.equal(model(images), network(normalised(images)))
    assert (model.name, model.num_classes, model.stride) == ("fpn_test_resnet", 5, 32)
    assert model(photo(1, 3, 33, 57)).shape == (1, 5, 33, 57)
    again = freeze(SMPModel(**model.recipe, weights=str(path / "model.safetensors")))
    assert torch.equal(again(images), model(images))


def test_normalisation_and_name_are_settings(folder):
    path, network = folder
    model, images = freeze(SMPHub(str(path), mean=(0.5,) * 3, std=(0.25,) * 3, name="mine")), photo(1, 3, 64, 64)
    assert torch.equal(model(images), network((images - 0.5) / 0.25))
    assert model.name == "mine"


def test_weights_of_the_encoder_before_training_are_not_fetched(folder, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a download"))
    path, network = folder
    change(path, encoder_weights="imagenet", activation="softmax2d")
    images = photo(1, 3, 64, 64)
    assert torch.equal(freeze(SMPHub(str(path)))(images), network(normalised(images)))  # logits, no probabilities


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_missing_file(folder, file):
    path, _ = folder
    (path / file).unlink()
    (path / "pytorch_model.bin").write_bytes(b"pickle")  # is not even looked at
    with pytest.raises(ModelError, match=re.escape(f"folder '{path}' has no {file}")):
        SMPHub(str(path))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"_model_class": "Segformer2"},
            "no network of smp: _model_class is Segformer2; expected one of DPT, DeepLabV3",
        ),
        ({"in_channels": 4}, "has in_channels=4 and aux_params=None; expected 3 colours"),
        ({"aux_params": {"classes": 3}}, "expected 3 colours and no classification head"),
        ({"classes": 6}, "another shape"),
        ({"encoder_name": "tu-nope"}, "encoder_name='tu-nope'"),
        ({"decoder_pyramid_channels": 8}, "another shape"),
        ({"colour": "red"}, "'colour': 'red'"),
    ],
)
def test_config_that_does_not_fit(folder, entries, message):
    path, _ = folder
    change(path, **entries)
    with pytest.raises(ModelError, match=message):
        SMPHub(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[]", "_model_class is None"), ('{"model_type": "segformer"}', "for HuggingFaceModel")],
)
def test_config_of_something_else(folder, text, message):
    path, _ = folder
    (path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"config.json of '{path}'.*{message}"):
        SMPHub(str(path))


def test_damaged_weights(folder):
    path, _ = folder
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a readable weights file"):
        SMPHub(str(path))


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A server in the hub's place; it has repository `someone/fpn` and counts what it sent."""
    sent = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            file = folder[0] / name
            if repo != "someone/fpn":
                return self.answer(404, {"X-Error-Code": "RepoNotFound"})
            if revision not in ("main", "v1"):
                return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            if not file.is_file():
                return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "a" * 40})
            sent.append((self.command, revision, name))
            headers = {"ETag": f'"{name}"', "X-Repo-Commit": "a" * 40}
            return self.answer(200, headers, file.read_bytes())

        def answer(self, code, headers, content=b""):
            self.send_response(code)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}", raising=False
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield sent
    server.shutdown()
    server.server_close()


def test_repository(hub, folder):
    images = photo(1, 3, 64, 64)
    model = freeze(SMPHub("someone/fpn", revision="v1"))
    assert torch.equal(model(images), folder[1](normalised(images)))
    asked = [(revision, name) for command, revision, name in hub if command == "GET"]
    assert asked == [("v1", "config.json"), ("v1", "model.safetensors")]
    SMPHub("someone/fpn", revision="v1")
    assert len([1 for command, *_ in hub if command == "GET"]) == 2  # downloaded once


def test_repository_mistakes(hub, folder):
    with pytest.raises(ModelError, match="no folder 'someone/else', and no such repository on the hub"):
        SMPHub("someone/else")
    with pytest.raises(ModelError, match="no folder 'someone/fpn', and no such repository"):
        SMPHub("someone/fpn", revision="v2")
    with pytest.raises(ModelError, match="no folder 'no/such/folder', and no such repository"):
        SMPHub("no/such/folder")
    (folder[0] / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"repository 'someone/fpn' has no model.safetensors"):
        SMPHub("someone/fpn")


def test_hub_out_of_reach(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no folder 'someone/fpn', and the hub cannot be reached"):
        SMPHub("someone/fpn")


def test_only_a_file_that_is_known_to_be_absent_is_missing(hub, folder, monkeypatch):
    with pytest.raises(MissingFileError):
        hub_file(str(folder[0]), "absent.json")
    with pytest.raises(MissingFileError, match=r"repository 'someone/fpn' has no absent.json"):
        hub_file("someone/fpn", "absent.json")
    for repository, revision in (("someone/else", None), ("someone/fpn", "v2"), ("no/such/folder", None)):
        with pytest.raises(ModelError) as caught:
            hub_file(repository, "absent.json", revision)
        assert not isinstance(caught.value, MissingFileError)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingFileError, match=r"repository 'someone/fpn' has no absent.json"):
        hub_file("someone/fpn", "absent.json")  # the cache remembers
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        hub_file("someone/fpn", "never_asked_for.json")
    assert not isinstance(caught.value, MissingFileError)


def test_connection_that_breaks(monkeypatch):
    def breaks(*_, **__):
        raise huggingface_hub.errors.HTTPError("Server disconnected")

    monkeypatch.setattr("lightning_attack.models.hub.hf_hub_download", breaks)
    with pytest.raises(ModelError, match=r"the hub cannot be reached .*\(Server disconnected\)") as caught:
        hub_file("someone/fpn", "config.json")
    assert not isinstance(caught.value, MissingFileError)
