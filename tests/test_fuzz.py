"""Damaged files of every kind end in a result or in a clean error: no traceback, no hang, no stray file."""

import os
import random
import signal

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_attack.cli.main import main
from lightning_attack.models import SMPModel
from lightning_attack.models.weights import write_weights

MUTATIONS = int(os.environ.get("MUTATIONS", "3"))
"""Of each kind of file; more by hand: MUTATIONS=400 python -m pytest tests/test_fuzz.py."""
SECONDS = 60


@pytest.fixture
def files(tmp_path):
    """A run of one photo, with each kind of file that a run reads."""
    place = tmp_path / "place"
    for folder in ("photos", "png", "masks"):
        (place / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(place / "photos" / "a.jpg")
    Image.fromarray(pixels).save(place / "png" / "a.png")
    Image.fromarray(generator.integers(0, 3, (32, 32), np.uint8)).save(place / "masks" / "a.png")
    network = SMPModel("fpn", "tu-test_resnet", num_classes=3)
    write_weights(place / "net.safetensors", network.network.state_dict(), network.recipe)
    data = {"root": "photos", "masks": "masks", "classes": ["x", "y", "z"]}
    config = {
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        "model": {"source": {"class_path": "TrainedModel", "init_args": {"file": "net.safetensors"}}, "targets": None,
                  "attack": {"class_path": "lightning_attack.attacks.pgd", "init_args": {"steps": 1}}},
        "data": {"dataset": {"class_path": "ImageFolder", "init_args": data}, "batch_size": 1},
    }  # fmt: skip
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


@pytest.mark.parametrize("root", ["photos", "png"])
def test_whole_files_give_a_result(root, files, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setattr("sys.argv", ["main.py"])
    assert main(["predict", "-c", "config.yaml", f"--data.dataset.root={root}"]) == 0


def mutate(content, generator):
    """A few bytes changed, a piece cut out, doubled or blanked, or the end torn off."""
    content = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 8])):
        start = generator.randrange(len(content) + 1)
        end = min(len(content), start + generator.choice([1, 1, 4, 64]))
        piece = content[start:end]
        content[start:end] = generator.choice(
            [bytes(generator.randrange(256) for _ in piece), b"", piece * 2, bytes(len(piece)), piece[::-1]]
        )
    return bytes(content[: generator.randrange(len(content) + 1)] if generator.random() < 0.2 else content)


def too_long(*_):
    raise TimeoutError(f"no answer in {SECONDS} seconds")


@pytest.mark.parametrize("kind", ["photos/a.jpg", "png/a.png", "masks/a.png", "net.safetensors", "config.yaml"])
def test_damaged_files(kind, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    monkeypatch.setattr("sys.argv", ["main.py"])
    before = signal.signal(signal.SIGALRM, too_long)
    whole, generator = (files / kind).read_bytes(), random.Random(kind)
    more = ["--data.dataset.root=png"] if kind.startswith("png") else []
    present = {path for path in files.parent.rglob("*") if "results" not in path.parts}
    codes = []
    try:
        for number in range(MUTATIONS):
            (files / kind).write_bytes(mutate(whole, generator))
            signal.alarm(SECONDS)
            codes.append(main(["predict", "-c", "config.yaml", f"--run_name={number}", *more]))
            signal.alarm(0)
            said = capsys.readouterr()
            assert codes[-1] in (0, 2), number
            assert "Traceback" not in said.out + said.err, number
            assert (codes[-1] == 0) == ("error:" not in said.err), number
            now = {path for path in files.parent.rglob("*") if "results" not in path.parts}
            assert now == present, number
    except BaseException:
        print(f"{kind} {number}: {(files / kind).read_bytes()!r:.3000}")
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    print(f"{kind}: {codes.count(0)} of {len(codes)} gave a result")
