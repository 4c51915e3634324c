"""The command `benchmark`: a fixed study with defended targets, its result, and several results side by side."""

import json
import re
import shutil

import pytest
import yaml

from lightning_attack.cli import CONFIGS, main, study
from lightning_attack.cli.benchmark import _benchmark, _check_same
from lightning_attack.cli.errors import UsageError
from lightning_attack.study.plan import StudyError, cells

THEIRS = """
import torch

def attack(model, images, labels):
    images = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(images), labels, ignore_index=255)
    (gradient,) = torch.autograd.grad(loss, images)
    return (images + 8 / 255 * gradient.sign()).clamp(0, 1).detach()
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The benchmark of the package with fewer networks and photos."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load((CONFIGS / "benchmarks" / "scenes-1.yaml").read_text())
    names = ("fpn", "segformer", "fpn_resized")
    content["networks"] = {name: content["networks"][name] for name in names}
    content |= {"sources": ["segformer"], "attacks": ["fgsm"], "trainer": {"accelerator": "cpu"}}
    content["data"]["dataset"]["init_args"] |= {"count": 3, "size": 64}
    (tmp_path / "small-1.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "quiet").mkdir()
    (tmp_path / "quiet" / "small-1.yaml").write_text(yaml.safe_dump(content | {"images": "none"}))
    (tmp_path / "their_attack.py").write_text(THEIRS)
    theirs = {"class_path": "FunctionAttack", "init_args": {"function": "their_attack.attack", "name": "theirs"}}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(theirs))
    return tmp_path


def test_an_attack_of_others_is_submitted_and_compared(small, capsys):
    assert main(["benchmark", "-c", "small-1.yaml", "--output=ours.json"]) == 0
    assert main(["benchmark", "-c", "quiet/small-1.yaml", "--attack", "theirs.yaml", "--results=theirs"]) == 0
    ours, theirs = (json.loads((small / name).read_text())
                    for name in ("ours.json", "theirs/small-1/benchmark.json"))  # fmt: skip
    assert ours["check"] == theirs["check"]
    assert ours["images"] == theirs["images"] == 3
    (fgsm,), (own,) = ours["attacks"], theirs["attacks"]
    assert (fgsm["name"], own["name"]) == ("fgsm", "theirs")
    before = (small / "ours.json").read_text()
    assert main(["benchmark", "-c", "small-1.yaml", "--attack", "pgd", "--output=ours.json"]) == 2
    assert "'ours.json' is the result of other attacks (fgsm)\ngive another file" in capsys.readouterr().err
    assert (small / "ours.json").read_text() == before
    assert main(["benchmark", "-c", "small-1.yaml", "--output=quiet"]) == 2
    assert "'quiet' is a folder; a file is expected" in capsys.readouterr().err
    assert main(["benchmark", "-c", "small-1.yaml", "-c", "quiet/small-1.yaml"]) == 2
    assert "a study has one file" in capsys.readouterr().err
    assert [(score["target"], score["kind"]) for score in fgsm["scores"]] == [
        ("segformer", "white box"), ("fpn", "plain"), ("fpn_resized", "defended")
    ]  # fmt: skip
    for mine, other in zip(fgsm["scores"], own["scores"], strict=True):
        assert mine["clean_miou"] == other["clean_miou"]
        assert mine["miou"] == pytest.approx(other["miou"], abs=0.01), "it is the same attack"
    assert fgsm["means"]["plain"] == fgsm["scores"][1]["miou"]
    assert main(["benchmark", "-c", "small-1.yaml", "--attack", "pgd", "theirs.yaml", "--name=dry", "--dry-run"]) == 0
    assert "theirs_segformer_eps8-255" in capsys.readouterr().out
    assert not (small / "results" / "dry").exists()
    compare = ["benchmark", "--compare", "ours.json", "theirs/small-1/benchmark.json", "--output=board.md"]
    assert main(compare) == 0
    board = (small / "board.md").read_text().splitlines()
    assert board[0] == "# small-1"
    assert len([line for line in board if line.startswith(("| fgsm", "| theirs"))]) == 2
    # The same as a page, which nothing from outside and no name gets into.
    ours["attacks"][0]["name"] = "<script>alert(1)</script>"
    (small / "odd.json").write_text(json.dumps(ours))
    assert main(["benchmark", "--compare", "odd.json", "theirs/small-1/benchmark.json", "--output=board.html"]) == 0
    page = (small / "board.html").read_text()
    assert "<script" not in page.lower()
    assert "src=" not in page.replace("img-src", "")
    assert re.search(r"<h1>small-1: leaderboard</h1>", page)
    assert len(re.findall(r'<tr><th scope="row">(theirs|&lt;script&gt;alert)', page)) == 4, "the ranking and one source"
    for score in (*fgsm["scores"], *own["scores"]):
        assert f">{100 * score['miou']:.2f}" in page
    # Images that another tool made, in a folder for each source.
    run = small / "results/small-1/fgsm_segformer_eps8-255"
    shutil.copytree(run / "images", small / "made" / "segformer")
    assert main(["benchmark", "-c", "small-1.yaml", "--attack", "made", "--results=made_results"]) == 0
    made = json.loads((small / "made_results/small-1/benchmark.json").read_text())
    assert made["check"] == ours["check"]
    found = [made["attacks"][0][key] for key in ("name", "scores", "backward_passes")]
    assert found == ["made", fgsm["scores"], None], "what they cost is not known"
    (small / "made" / "segformer").rename(small / "made" / "segfomer")
    assert main(["benchmark", "-c", "small-1.yaml", "--attack", "made"]) == 2
    assert "'made' has no folder 'segformer'" in capsys.readouterr().err
    # Another number of photos is another benchmark.
    theirs["check"] = "0"
    (small / "other.json").write_text(json.dumps(theirs))
    assert main(["benchmark", "--compare", "ours.json", "other.json"]) == 2
    assert "'ours' and 'other' do not compare" in capsys.readouterr().err
    (small / "none.json").write_text("{}")
    assert main(["benchmark", "--compare", "none.json"]) == 2
    assert "'none.json' is no result of the command benchmark" in capsys.readouterr().err
    assert main(["benchmark", "-c", "small-1.yaml", "--attack", "pdg"]) == 2
    assert "there is no attack 'pdg'" in capsys.readouterr().err


def test_a_result_of_fewer_photos_is_not_written(small, monkeypatch, capsys):
    monkeypatch.setattr(study, "run_study", lambda *_, **more: 3)
    assert main(["benchmark", "-c", "small-1.yaml", "--output=ours.json"]) == 3
    assert "'ours.json' is not written: photos were left out" in capsys.readouterr().err


def test_networks_that_count_as_defended():
    files = [CONFIGS / "benchmarks" / f"scenes-{number}.yaml" for number in (1, 2)]
    first, second = (_benchmark(study.read(file), file) for file in files)
    assert "defended" not in first.study, "results from before the key was there compare"
    assert second.study["defended"] == ["fpn_robust"]
    assert second.defended == {"fpn_robust", "fpn_jpeg", "fpn_median", "fpn_resized", "fpn_smoothed"}
    assert {name.rpartition("_")[2] for name in first.defended} == {"jpeg", "median", "resized"}
    plan = study.read(files[1])
    plan.defended = ["fpn_rubust"]
    with pytest.raises(StudyError, match="defended: there is no network 'fpn_rubust'"):
        cells(plan)


def test_results_in_another_precision_do_not_compare():
    file = CONFIGS / "benchmarks" / "scenes-1.yaml"
    plan = study.read(file)
    before = _benchmark(plan, file).study
    assert "trainer" not in before
    plan.trainer = {"accelerator": "cpu", "precision": "32-true"}
    assert _benchmark(plan, file).study == before, "results from before compare"
    for written in (32, "32", None):
        plan.trainer["precision"] = written
        assert _benchmark(plan, file).study == before
    for written in ("bf16-mixed", "bf16"):
        plan.trainer["precision"] = written
        assert _benchmark(plan, file).study == before | {"trainer": {"precision": "bf16-mixed"}}


def test_the_result_of_another_benchmark_is_not_replaced(tmp_path):
    output, runs = tmp_path / "a.json", [tmp_path / "fgsm_fpn"]
    output.write_text(json.dumps({"benchmark": "one", "check": "", "images": 1, "attacks": [], "runs": ["fgsm_fpn"]}))
    _check_same(output, "one", runs)
    with pytest.raises(UsageError, match=r"another benchmark \(one, now two\)\ngive another file"):
        _check_same(output, "two", runs)
