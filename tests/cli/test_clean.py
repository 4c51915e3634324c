"""`clean`: fewer files, and the same report."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lightning_attack.cli.main import main
from lightning_attack.common.shards import ShardWriter, is_ended, members
from lightning_attack.data.adversarial_files import Gallery
from lightning_attack.runs.images import KeptImages
from lightning_attack.runs.names import image_name, segment_files, shard_files, shard_path
from lightning_attack.runs.skipped import write_skipped
from lightning_attack.runs.store import RecordStore
from tests.runs.kept import damage, drop, packed, write
from tests.runs.made import edit, make_run


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path):
    """A run of two parts, with an image, what a killed process left, and a lock of its second process."""
    folder = make_run(tmp_path / "run")
    last = list(RecordStore(folder).read([20, 21, 22, 23]))
    drop(folder, 20, 21, 22, 23)
    write(folder, *last)
    assert len(segment_files(folder)) == 2
    write_skipped(folder, 99, "bad", "torn")
    (folder / ".lock.process_1").touch()
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"picture")
    (folder / "images" / ".7.unfinished.b.png").write_bytes(b"half")
    return folder


def test_a_clean_run_has_few_files_and_the_same_report(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["report", "~/run", "--output=~/before"]) == 0
    kept, whole = packed(run), everything(run)
    assert main(["clean", "~", "--dry_run"]) == 0  # a folder above it
    assert {name: content for name, content in everything(run).items() if name != ".lock"} == whole
    assert "run: would drop 1 file: locks of processes" in capsys.readouterr().out
    assert main(["clean", str(run)]) == 0
    said = capsys.readouterr().out
    for line in ("1 file: 2 files of records became one", "1 file: notes on images", "1 file: locks of processes",
                 "1 file: files that were not written to their end"):  # fmt: skip
        assert f"run: dropped {line}" in said
    assert packed(run) == kept
    left = {name for name in everything(run) if name != ".lock"}
    assert left == {"transfer.json", "settings.json", "images/a.png", "records/0000_0002.segment"}
    assert main(["report", str(run), f"--output={tmp_path / 'after'}"]) == 0
    for name in ("report.csv", "report.md"):
        assert (tmp_path / "before" / name).read_text() == (tmp_path / "after" / name).read_text()
    assert main(["clean", str(run), "--images"]) == 0
    assert not (run / "images").exists()
    assert main(["clean", str(run), "--images"]) == 0
    assert "nothing to drop" in capsys.readouterr().out


def test_what_is_not_finished_or_damaged_stays(run, tmp_path, capsys):
    edit(run, lambda summary: summary.update(partial=True, missing=1))
    whole = everything(run)
    assert main(["clean", str(run)]) == 2
    assert "run' is not finished" in capsys.readouterr().err
    assert everything(run) == whole
    damage(run, 5)
    assert main(["clean", str(run), "--unfinished"]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert len(segment_files(run)) == 2
    assert main(["clean", str(tmp_path)]) == 2
    assert "is not finished" in capsys.readouterr().err, "of the run below it"
    (tmp_path / "empty").mkdir()
    assert main(["clean", str(tmp_path / "empty")]) == 2
    assert "is no run" in capsys.readouterr().err


def test_runs_that_are_not_finished_do_not_keep_it_from_the_others(run, tmp_path, capsys):
    edit(make_run(tmp_path / "a"), lambda summary: summary.update(partial=True, missing=1))
    assert main(["clean", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "run: dropped 1 file: 2 files of records became one" in said.out
    assert said.err.startswith(f"left as it is: '{tmp_path / 'a'}' is not finished\n")
    assert len(segment_files(run)) == 1
    damage(make_run(tmp_path / "b"), 5)
    assert main(["clean", str(tmp_path), str(tmp_path / "none")]) == 2, "these are more than notes"
    said = capsys.readouterr()
    assert "run: nothing to drop" in said.out
    assert [said.err.count(text) for text in ("left as it is: ", "nothing was changed", "none' is no run")] == [3, 1, 1]
    edit(run, lambda summary: summary.update(partial=True, missing=1))
    (tmp_path / "b" / "transfer.json").unlink()
    assert main(["clean", str(tmp_path)]) == 2, "nothing could be cleaned"


def test_runs_behind_links_stay_unless_they_are_named(run, tmp_path, capsys):
    make_run(tmp_path / "paper" / "own")
    (tmp_path / "paper" / "link").symlink_to(run)
    assert main(["clean", str(tmp_path / "paper")]) == 0
    assert capsys.readouterr().out.count("\n") == 1, "only of the run that lies there"
    assert len(segment_files(run)) == 2
    assert main(["clean", str(tmp_path / "paper" / "link")]) == 0
    assert len(segment_files(run)) == 1


def png(value):
    content = io.BytesIO()
    Image.fromarray(np.full((2, 3, 3), value, np.uint8)).save(content, format="png")
    return content.getvalue()


@pytest.fixture
def sharded(run):
    """The run with its images in shards: of two processes, of a later part, and of one that was killed soon."""
    names = [facts.name for _, facts in RecordStore(run).facts()]
    half = len(names) // 2
    for part, process, chosen in ((0, 0, names[:half]), (0, 1, names[half:-1]), (1, 0, [names[0], names[-1], "more"])):
        writer = ShardWriter(shard_path(run, part, process))
        for name in chosen:
            writer.append(image_name(name), png(part))
        if (part, process) != (1, 0):
            writer.close()
    last = shard_files(run)[-1]
    last.write_bytes(last.read_bytes()[:-600])  # "more" was being written, and has no record
    return run, names


def test_shards_become_one_with_the_latest_of_each_image(sharded, capsys):
    run, names = sharded
    (run / "images" / "a.png").unlink()
    before, whole = {name: one.read() for name, one in members(shard_files(run)).items()}, everything(run)
    assert [*before] == [*map(image_name, names)]
    assert main(["clean", str(run), "--dry_run"]) == 0
    assert "would drop 2 files: 3 shards of images become one" in capsys.readouterr().out
    assert {name: content for name, content in everything(run).items() if name != ".lock"} == whole
    assert main(["clean", str(run)]) == 0
    assert "dropped 2 files: 3 shards of images became one" in capsys.readouterr().out
    assert [path.name for path in (run / "images").iterdir()] == ["0002_0000.tar"], "the last part"
    with tarfile.open(shard_files(run)[0], "r:") as archive:  # as strict as `tar`
        assert {info.name: archive.extractfile(info).read() for info in archive} == before
    assert all(name in KeptImages(run) for name in names), "a run that goes on does not attack them again"
    gallery = Gallery(str(run / "images"))
    shown = [int(gallery.picture(name, 0, [0], 1).read().float().mean()) for name in names]
    assert shown == [1, *[0] * (len(names) - 2), 1]
    assert main(["clean", str(run)]) == 0
    assert "nothing to drop" in capsys.readouterr().out


def test_what_is_not_whole_in_a_single_shard_goes(sharded, capsys):
    run, _ = sharded
    assert main(["clean", str(run)]) == 0
    (shard,) = shard_files(run)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1024] + whole[:520])  # half of the next image, and no end
    assert not is_ended(shard)
    assert main(["clean", str(run), "--dry_run"]) == 0
    assert "would drop what a killed process was writing to a shard" in capsys.readouterr().out
    assert not is_ended(shard)
    assert main(["clean", str(run)]) == 0
    assert shard.read_bytes() == whole


def test_a_run_that_lacks_images_of_its_shards_stays_as_it_is(sharded, capsys):
    run, _ = sharded
    shard_files(run)[1].unlink()
    whole = everything(run)
    assert main(["clean", str(run)]) == 2
    said = capsys.readouterr().err
    assert "is in no shard of" in said
    assert "nothing was changed" in said
    assert {name: content for name, content in everything(run).items() if name != ".lock"} == whole
    assert main(["clean", str(run), "--images"]) == 0
    assert not (run / "images").exists()


def test_a_run_goes_on_without_the_images_that_were_deleted(run, capsys):
    """Its later ones come in shards, in which the earlier ones are not looked for."""
    assert main(["clean", str(run), "--images"]) == 0
    first = next(iter(RecordStore(run)))
    for part, name in enumerate(("more", "most")):
        write(run, replace(first, index=24 + part, name=name))
        writer = ShardWriter(shard_path(run, part, 0))
        writer.append(image_name(name), png(part))
        writer.close()
    assert main(["clean", str(run)]) == 0
    assert "2 shards of images became one" in capsys.readouterr().out
    assert "most" in KeptImages(run)
