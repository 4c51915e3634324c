"""Which folders are runs, and what is said of those that cannot be used."""

import os

import pytest

from lightning_attack.report import RunsError, collect
from lightning_attack.report.row_names import row_names
from tests.runs.kept import damage as flip
from tests.runs.kept import drop, frame_of
from tests.runs.made import edit, make_run, matrices


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


def test_runs_behind_links_are_found_once(tmp_path):
    for name in ("elsewhere/deep/segpgd", "paper/pgd", "outside"):
        make_run(tmp_path / name)
    links = {"all": "elsewhere", "again": "elsewhere/deep/segpgd", "a_copy": "paper/pgd", "up": ".", "none": "nowhere"}
    for name, to in links.items():
        (tmp_path / "paper" / name).symlink_to(tmp_path / to)
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
    runs, notes = collect([tmp_path / "paper"])
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == ["paper/again", "paper/pgd"]
    assert not notes
    assert len(collect([tmp_path / "paper" / "all"])[0]) == 1


def tear(folder, index):
    path, frame = frame_of(folder, index)
    os.truncate(path, frame.start + 1)


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
        (lambda folder: drop(folder, 3), r"23 records.*24 images"),
        (lambda folder: flip(folder, 3), r"0000_0000.segment' \(bytes \d+ to \d+\) is damaged.*\n.*repairs it"),
        (lambda folder: tear(folder, 23), r"0000_0000.segment' \(bytes \d+ to \d+\) is damaged.*\n.*repairs it"),
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
