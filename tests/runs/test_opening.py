"""Folders of runs, made and entered again without any network."""

from dataclasses import replace

import pytest

from lightning_attack.runs import RunError
from lightning_attack.runs.cleaning import clean_run
from lightning_attack.runs.names import image_path
from lightning_attack.runs.opening import Place, open_run
from lightning_attack.runs.store import RecordStore
from tests.runs.kept import write
from tests.runs.made import make_run

SETTINGS = {"seed": 0}


def unchanged(indices):
    return {index: f"digest of photo{index}" for index in indices}


def test_jobs_that_start_together_have_folders_of_their_own(tmp_path):
    place = Place(tmp_path / "results", "pgd_net")
    runs = [open_run(place, SETTINGS, ["python", "main.py"], None) for _ in range(2)]
    assert [run.folder.name for run in runs] == ["version_0", "version_1"]
    assert (runs[0].folder / "command.txt").read_text() == "python main.py\n"
    runs[1].discard()
    assert [path.name for path in (tmp_path / "results" / "pgd_net").iterdir()] == ["version_0"]
    runs[0].discard()  # it has made the folders above
    assert not (tmp_path / "results").exists()


def test_a_run_with_finished_images_is_kept_when_it_fails(tmp_path):
    run = open_run(Place(tmp_path, "", "mine"), SETTINGS, (), None)
    make_run(run.folder, networks=None)
    run.discard()
    again = open_run(Place(tmp_path, "", "mine"), SETTINGS, (), unchanged)
    assert again.finished == frozenset(range(24))
    with pytest.raises(RunError, match="is in use"):
        open_run(Place(tmp_path, "", "mine"), SETTINGS, (), unchanged)
    with pytest.raises(RunError, match="is in use"):
        open_run(Place(tmp_path, "", "mine", fresh=True), SETTINGS, (), unchanged)
    again.discard()
    assert (tmp_path / "mine" / "transfer.json").exists()
    with pytest.raises(RunError, match="only a SegmentationDataModule can leave them out"):
        open_run(Place(tmp_path, "", "mine"), SETTINGS, (), None)
    fresh = open_run(Place(tmp_path, "", "mine", fresh=True), {"seed": 1}, (), unchanged)
    assert (fresh.finished, sorted(path.name for path in tmp_path.iterdir())) == (frozenset(), ["mine", "mine.old_0"])
    fresh.close()


def test_images_on_which_a_target_failed_are_tried_again(tmp_path):
    run = open_run(Place(tmp_path, "", "mine"), SETTINGS, (), None)
    make_run(run.folder, networks=None, failed=[(3, "net_b"), (7, "net_b"), (7, "net_c")])
    run.close()
    with pytest.warns(UserWarning, match="mine' has 2 images on which a target could not be scored") as warned:
        again = open_run(Place(tmp_path, "", "mine"), SETTINGS, (), unchanged)
    assert len(warned) == 1
    assert again.finished == frozenset(range(24)) - {3, 7}
    again.close()


def test_images_that_clean_has_deleted_are_not_missed(tmp_path):
    """Also once the run has written others; but those that it has written again are."""

    def again(known=unchanged):
        run = open_run(Place(tmp_path, "", "mine"), SETTINGS, (), known)
        run.close()
        return run.finished

    folder = open_run(Place(tmp_path, "", "mine"), SETTINGS, (), None)
    folder.close()
    folder = make_run(folder.folder, networks=None, partial=True)
    image_path(folder, "photo0").parent.mkdir()
    for number in range(24):
        image_path(folder, f"photo{number}").touch()
    assert [*clean_run(folder, images=True, unfinished=True, dry_run=True)]
    assert not (folder / "dropped_images.json").exists()
    assert [*clean_run(folder, images=True, unfinished=True)]
    assert again() == frozenset(range(24))
    image_path(folder, "photo24").parent.mkdir()
    write(folder, replace(next(iter(RecordStore(folder))), index=24, name="photo24", digest="digest of photo24"))
    with pytest.warns(UserWarning, match=r"photo24.png' is gone; its image is attacked again") as warned:
        assert again() == frozenset(range(24))
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="'photo3' has changed"):
        again(lambda indices: {**unchanged(indices), 3: "another photo"})
    with pytest.warns(UserWarning, match=r"photo3.png' is gone"):  # the run was to write it, and did not
        assert again() == frozenset(range(24)) - {3}
