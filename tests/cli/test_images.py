"""`--images`: a run keeps no adversarial images, or those of each process in one file, and goes on all the same."""

import tarfile

import pytest

from lightning_attack.cli.main import main
from lightning_attack.common.shards import members
from tests.runs.kept import drop, packed

SMALL = ("--data.dataset.init_args.count=3", "--data.dataset.init_args.size=64", "--model.attack.steps=1",
         "--trainer.accelerator=cpu", "--image_logger.count=0", "--run_name=mine", "--model.targets={}")  # fmt: skip


def test_a_run_without_images(predict, tmp_path, capsys):
    assert predict(*SMALL, "--images=none") == 0
    folder = tmp_path / "results" / "mine"
    assert not (folder / "images").exists()
    assert [path.name for path in (folder / "records").iterdir()] == ["0000_0000.segment"]
    before, table = packed(folder), (folder / "transfer.csv").read_text()
    drop(folder, 1)
    assert predict(*SMALL, "--images=none") == 0
    after = packed(folder)
    assert {index for index in after if after[index] != before[index]} == {1}
    assert (folder / "transfer.csv").read_text() == table
    assert predict(*SMALL) == 2
    assert "images: none before, not there now" in capsys.readouterr().err


def contents(folder):
    """The adversarial images of a run by name, from files or from shards."""
    images = folder / "images"
    found = {path.relative_to(images).as_posix(): path.read_bytes() for path in images.rglob("*.png")}
    for path in sorted(images.glob("*.tar")):
        with tarfile.open(path) as archive:
            found |= {info.name: archive.extractfile(info).read() for info in archive}
    return found


def test_a_run_with_shards(predict, tmp_path):
    files, folder = tmp_path / "results" / "files", tmp_path / "results" / "mine"
    assert predict(*SMALL, "--run_name=files") == 0
    assert predict(*SMALL, "--images=shards") == 0
    first = folder / "images" / "0000_0000.tar"
    assert [*(folder / "images").iterdir()] == [first]
    assert contents(folder) == contents(files)
    table = (folder / "transfer.csv").read_text()
    assert table == (files / "transfer.csv").read_text()

    # Killed while the second image was written: its record is not there, and neither is the third image.
    whole, cut = first.read_bytes(), members([first])["scene_000001.png"]
    first.write_bytes(whole[: cut.start + cut.length - 1])
    drop(folder, 1, 2)
    assert predict(*SMALL, "--images=shards") == 0
    second = folder / "images" / "0001_0000.tar"
    assert {path: [*members([path])] for path in (first, second)} == {
        first: ["scene_000000.png"], second: ["scene_000001.png", "scene_000002.png"],
    }  # fmt: skip
    assert contents(folder) == contents(files)
    assert (folder / "transfer.csv").read_text() == table

    # A shard that is gone takes its images along; the one that is attacked again has the later part's place.
    second.unlink()
    with pytest.warns(UserWarning, match="is gone; its image is attacked again") as said:
        assert predict(*SMALL, "--images=shards") == 0
    assert [str(one.message).split("scene_")[1][:6] for one in said if "is gone" in str(one.message)] == [
        "000001", "000002",
    ]  # fmt: skip
    assert contents(folder) == contents(files)
    assert (folder / "transfer.csv").read_text() == table

    before = packed(folder)
    assert main(["clean", str(folder)]) == 0
    assert [path.name for path in (folder / "images").iterdir()] == ["0002_0000.tar"]
    assert contents(folder) == contents(files)
    assert predict(*SMALL, "--images=shards") == 0
    assert packed(folder) == before, "nothing is attacked again"
    assert [path.name for path in (folder / "images").iterdir()] == ["0002_0000.tar"]
    assert main(["clean", str(folder), "--images"]) == 0
    assert not (folder / "images").exists()
