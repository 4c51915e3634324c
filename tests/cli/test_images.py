"""`--images=none`: a run keeps no adversarial images, and goes on all the same."""

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
