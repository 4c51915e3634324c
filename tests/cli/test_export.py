"""`python main.py export` as a user meets it."""

import json

import pytest

from lightning_attack.cli import CONFIGS, main

WEIGHTS = str(CONFIGS.parent / "lightning_attack" / "weights" / "scenes_fpn.safetensors")


def test_an_exported_network_scores_as_the_one_it_came_from(predict, tmp_path, capsys):
    file = tmp_path / "model.pt2"
    assert main(["export", f"--ckpt={WEIGHTS}", f"--to={file}"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["num_classes"] == 8
    assert about["difference"] == 0
    sources = (
        {"class_path": "TrainedModel", "init_args": {"file": WEIGHTS}},
        {"class_path": "ExportedModel", "init_args": {"path": str(file), "name": "fpn_mobilenetv2_050"}},
    )
    for number, source in enumerate(sources):
        more = ("--model.targets=null", "--data.limit=2", "--model.attack.steps=3", f"--run_name={number}")
        assert predict({"model": {"source": source}}, *more) == 0
    tables = [(tmp_path / "results" / str(number) / "transfer.csv").read_text() for number in (0, 1)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([f"--ckpt={WEIGHTS}", "--to=model.onnx"], "choose model.pt2"),
        ([f"--ckpt={WEIGHTS}", f"--to={WEIGHTS}"], "exists; choose another name"),
        (["--ckpt=nowhere.ckpt", "--to=model.pt2"], "no file 'nowhere.ckpt'"),
        ([f"--ckpt={WEIGHTS}"], "this command needs: --to"),
        ([f"--ckpt={WEIGHTS}", "--to=model.pt2", "--siz=3"], "there is no option 'siz'\ndid you mean size?"),
    ],
)
def test_mistakes(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    answer = capsys.readouterr().err.strip()
    assert says in answer
    assert len(answer.splitlines()) <= 2
    assert not list(tmp_path.iterdir()), "something was written"
