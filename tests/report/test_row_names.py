"""What runs are called in tables and charts."""

from lightning_attack.report import collect
from lightning_attack.report.row_names import budget, line_names, row_names
from lightning_attack.runs import read_run
from tests.runs.made import edit, make_run


def test_labels_name_what_sets_runs_apart(tmp_path):
    runs = [
        read_run(make_run(tmp_path / "plain" / "one")),
        read_run(make_run(tmp_path / "plain" / "two")),
        read_run(make_run(tmp_path / "wide", eps=4 / 255)),
        read_run(make_run(tmp_path / "again", seed=3)),
        read_run(make_run(tmp_path / "other", "fgsm", eps=0.5)),
    ]
    assert row_names(runs) == [
        "pgd eps=8/255, seed=0 [plain/one]", "pgd eps=8/255, seed=0 [plain/two]", "pgd eps=4/255, seed=0",
        "pgd eps=8/255, seed=3", "fgsm",
    ]  # fmt: skip
    assert [budget(run) for run in runs[2:]] == ["L-inf 4/255", "L-inf 8/255", "L-inf 127.5/255"]


def test_labels_name_parts_and_not_their_numbers(tmp_path):
    kinds = (
        [],
        [{"class": "Momentum", "decay": 1.0}],
        [{"class": "Momentum", "decay": 1.0}, {"class": "TI", "size": 3}],
    )
    for number, parts in enumerate(kinds):
        make_run(tmp_path / str(number))
        edit(tmp_path / str(number), lambda report: report["settings"]["attack"].update(gradient_transforms=parts))  # noqa: B023
    edit(tmp_path / "0", lambda report: report["settings"]["attack"].pop("norm"))
    runs, _ = collect([tmp_path])
    assert row_names(runs) == ["pgd", "pgd Linf, Momentum", "pgd Linf, Momentum, TI"]
    assert budget(runs[0]) == "no radius"
    peer = {"class": "Peer", "name": "pgd", "attack": "torchattacks.PGD", "settings": {"eps": 8 / 255}}
    edit(tmp_path / "0", lambda report: report["settings"].update(attack=peer))
    assert budget(read_run(tmp_path / "0")) == "peer, eps 8/255"


def test_labels_name_numbers_of_parts_that_others_lack(tmp_path):
    for number, prob in enumerate((None, 0.3, 0.9)):
        parts = [] if prob is None else [{"class": "DiverseInputs", "prob": prob}]
        make_run(tmp_path / str(number))
        edit(tmp_path / str(number), lambda report: report["settings"]["attack"].update(input_transforms=parts))  # noqa: B023
    runs, _ = collect([tmp_path])
    names = ["pgd", "pgd DiverseInputs, prob=0.3", "pgd DiverseInputs, prob=0.9"]
    assert row_names(runs) == line_names(runs, ["eps"]) == names
