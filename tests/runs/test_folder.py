"""Which folders are runs, which of them go together, and what they are called."""

import json

import pytest

from lightning_attack.report import RunsError, collect, read_run
from lightning_attack.report.groups import together
from lightning_attack.report.intervals import miou_interval
from lightning_attack.report.page_table import HEADINGS, MISSING, table_rows
from lightning_attack.report.row_names import budget, row_names
from lightning_attack.runs.records import record_path
from tests.runs.made import NETWORKS, make_run, matrices


def edit(folder, change):
    report = json.loads((folder / "transfer.json").read_text())
    change(report)
    (folder / "transfer.json").write_text(json.dumps(report))


def test_runs_are_found_at_any_depth_and_once(tmp_path):
    for name in ("study/b", "study/deep/a", "other/c"):
        make_run(tmp_path / name)
    make_run(tmp_path / "study" / "b.old_0")
    (tmp_path / "study" / "b" / "images" / "copy").mkdir(parents=True)
    (tmp_path / "study" / "b" / "images" / "copy" / "transfer.json").write_text("not a run")
    runs, notes = collect([tmp_path / "study", tmp_path / "study" / "b", tmp_path / "other" / "c" / "transfer.json"])
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == ["other/c", "study/b", "study/deep/a"]
    assert len(notes) == 1
    assert "b.old_0" in notes[0]
    assert len(collect([tmp_path / "study" / "b.old_0"])[0]) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "transfer.json").write_text('{"attack": "pg'), r"transfer.json' is damaged"),
        (lambda folder: (folder / "transfer.json").write_text("[]"), r"transfer.json' is damaged"),
        (lambda folder: edit(folder, lambda report: report.pop("settings")), r"no settings: .* older ver.*\n.*--fresh"),
        (lambda folder: edit(folder, lambda report: report["targets"][1].pop("clean_iou")), r"no targets.clean_iou:"),
        (lambda folder: edit(folder, lambda report: report.update(targets=[])), r"damaged: its targets"),
        (lambda folder: edit(folder, lambda report: report["targets"].pop()), r"3 networks and 3 classes.* 2 and 3"),
        (lambda folder: edit(folder, lambda report: report.update(settings=[])), r"settings name no attack"),
        (lambda folder: (folder / "settings.json").write_text("[]"), r"settings.json' is damaged"),
        (lambda folder: record_path(folder, 3).unlink(), r"23 records.*24 images"),
        (lambda folder: record_path(folder, 3).write_bytes(b"torn"), r"00000003.record' is damaged.*\n.*repairs it"),
        (lambda folder: edit(folder, lambda report: report.update(partial=True, missing=8)), r"finished: .*8 images"),
        (lambda folder: (folder / "transfer.json").unlink(), r"not finished: .*bad' \(no transfer.json\)"),
    ],
)  # fmt: skip
def test_a_bad_run_among_good_ones_is_named(tmp_path, damage, says):
    make_run(tmp_path / "good")
    damage(make_run(tmp_path / "bad"))
    with pytest.raises(RunsError, match=says) as error:
        collect([tmp_path])
    assert "bad" in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_partial_runs_count_when_asked_for_and_say_so(tmp_path):
    make_run(tmp_path / "whole")
    make_run(tmp_path / "stopped", "fgsm", partial=True, missing=8)
    (make_run(tmp_path / "killed") / "transfer.json").unlink()
    runs, notes = collect([tmp_path], partial=True)
    assert row_names(runs) == ["fgsm (partial)", "pgd"]
    assert len(notes) == 1
    assert "killed" in notes[0]


def test_a_run_that_could_use_no_image_is_named_with_the_reason(tmp_path):
    skipped = [{"index": 0, "name": "photo 0", "error": "'a.png' cannot\nbe read"}]
    make_run(tmp_path / "bad", counts=matrices(0), names=[], skipped=skipped)
    said = "bad' left out 1 image that could not be used: photo 0; it has no other ('a.png' cannot be read)"
    with pytest.raises(RunsError) as error:
        collect([tmp_path])
    assert said in str(error.value)
    make_run(tmp_path / "good")
    runs, (note,) = collect([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert said in note


def test_tables_hold_what_can_be_compared(tmp_path):
    base = read_run(make_run(tmp_path / "base"))
    names = [f"photo{number}" for number in range(24)]
    other = {
        "fewer": make_run(tmp_path / "fewer", counts=matrices(10)),
        "strangers": make_run(tmp_path / "strangers", names=[f"other {name}" for name in names]),
        "classes": make_run(tmp_path / "classes", classes=("sky", "road", "bush")),
        "trained": make_run(tmp_path / "trained", networks="other weights"),
        "more": make_run(tmp_path / "more", white_box={**NETWORKS, "net_d": False}, counts=matrices(24, networks=4)),
    }
    reasons = {
        "fewer": "of their 24 and 10 images 10 are the same (--common",
        "strangers": "of their 24 and 24 images none is the same",
        "classes": "their classes differ (3 and 3, such as bush)",
        "trained": "'net_a' is not the same network",
    }
    for name, folder in other.items():
        groups, notes = together([base, read_run(folder)])
        assert [len(group.runs) for group in groups] == ([2] if name == "more" else [1, 1]), name
        assert all(reasons[name] in note and "base" in note and name in note for note in notes), notes
        assert bool(notes) == (name != "more")
    (group,), notes = together([base, read_run(other["fewer"])], common=True)
    assert (len(group.images), group.of, notes) == (10, 24, [])
    with pytest.raises(RunsError, match=r"base' and .*strangers' have no image in common\n"):
        together([base, read_run(other["strangers"])], common=True)
    (group,), _ = together([base, read_run(other["more"])])
    assert group.targets == ("net_a", "net_b", "net_c", "net_d")


def test_networks_without_a_hash_are_known_by_their_clean_predictions(tmp_path):
    first = read_run(make_run(tmp_path / "first", networks=None))
    same = read_run(make_run(tmp_path / "same", counts=matrices(24, lost=0.6), networks=None))
    other = read_run(make_run(tmp_path / "other", counts=matrices(24, seed=1), networks=None))
    assert [len(together([first, run])[0]) for run in (same, other)] == [1, 2]


def test_equal_photos_of_one_run_are_two_images(tmp_path):
    run = read_run(make_run(tmp_path / "run", counts=matrices(3), digests=["a", "a", "b"]))
    assert run.images == {"a": 0, "a#2": 1, "b": 2}


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
        [{"class": "Momentum", "decay": 0.5}, {"class": "TI", "size": 3}],
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


def test_intervals_of_the_page_leave_out_what_was_not_scored(tmp_path):
    all_but_two = [(image, "net_c") for image in range(22)]
    run = read_run(make_run(tmp_path / "run", failed=[(2, "net_b"), *all_but_two]))
    place = HEADINGS.index("95 % interval")
    shown = [row.cells[place].text for row in table_rows([run], ["run"], 200)]
    scored = [*range(2), *range(3, 24)]
    found = [miou_interval(run.confusions("net_a")[:, 1], 200), miou_interval(run.confusions("net_b")[scored, 1], 200)]
    assert shown == [*(f"{100 * one.low:.1f}..{100 * one.high:.1f}" for one in found), MISSING]
    none = read_run(make_run(tmp_path / "none", failed=[(image, "net_c") for image in range(24)]))
    assert table_rows([none], ["none"], 200)[2].cells[place].text == MISSING
