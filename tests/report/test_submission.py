"""What a benchmark's result says of runs of several radii and seeds."""

import json
from statistics import fmean

import pytest

from lightning_attack.report import read_run
from lightning_attack.report.leaderboard import leaderboard, leaderboard_page
from lightning_attack.report.submission import Benchmark, read_submissions, submission
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.summary import PREDICTED
from tests.runs.made import make_run, matrices


def test_radii_stand_apart_and_seeds_are_averaged(tmp_path):
    folders, mious = [], {}
    for eps in (4 / 255, 8 / 255):
        for seed in (0, 1):
            counts = matrices(24, seed=seed, lost=20 * eps)
            counts[:, :, 0] = matrices(24)[:, :, 0]
            folders.append(make_run(tmp_path / f"{eps}_{seed}", counts=counts, eps=eps, seed=seed))
            rows = {row["target"]: row for row in read_run(folders[-1]).summary["targets"]}
            mious.setdefault(eps, []).append(rows["net_b"]["adversarial_miou"])
    found = submission(Benchmark("mine-1", {}, frozenset({"net_c"})), folders)["attacks"]
    assert [attack["name"] for attack in found] == ["pgd eps=4/255", "pgd eps=8/255"]
    for attack, (eps, own) in zip(found, mious.items(), strict=True):
        assert attack["settings"]["norm"]["eps"] == eps
        assert [score["target"] for score in attack["scores"]] == ["net_a", "net_b", "net_c"]
        assert attack["means"]["plain"] == attack["scores"][1]["miou"] == pytest.approx(fmean(own))
        assert len({*own}) == 2


def test_sources_that_predict_their_labels_themselves_do_not_compare(tmp_path):
    folders = [make_run(tmp_path / source, source=source, labels=PREDICTED) for source in ("net_a", "net_b")]
    with pytest.raises(RunsError, match=r"'mine-1' have no masks, .*\n.*masks, or the benchmark one source"):
        submission(Benchmark("mine-1", {}, frozenset()), folders)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: result.update(attacks={"pgd": 1}), "'attacks' of it is {'pgd': 1}"),
        (lambda result: result.update(versions=[]), r"'versions' of it is \[\]"),
        (lambda result: result["attacks"].append("pgd"), "an attack in it is no mapping"),
        (lambda result: result["attacks"][0].pop("means"), "an attack in it has no 'means'"),
        (lambda result: result["attacks"][0]["means"].update(plain="low"), "'plain' of the means of an .* is 'low'"),
        (
            lambda result: result["attacks"][0]["scores"][0].update(kind="robust"),
            "a score in it has the kind 'robust'; known: plain, def",
        ),
        (lambda result: result["attacks"][0]["scores"][0].update(miou=None), "'miou' of a score in it is None"),
    ],
)
def test_files_that_are_no_whole_result(tmp_path, change, says):
    benchmark = Benchmark("mine-1", {}, frozenset())
    result = submission(benchmark, [make_run(tmp_path / "run")], draws=100)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result))
    found = read_submissions([file])
    assert "| pgd |" in leaderboard(found)
    assert "pgd" in leaderboard_page(found)
    change(result)
    file.write_text(json.dumps(result))
    with pytest.raises(RunsError, match=f"result.json' is no result of the command benchmark .{says}"):
        read_submissions([file])
