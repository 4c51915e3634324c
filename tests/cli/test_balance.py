"""Real processes of one run, whose photos differ in size."""

from tests.benchmarks.balance import done_by_each, ends_by_work, left_when_the_first_ends, make_photos


def test_four_processes_end_within_two_photos_of_each_other(run, tmp_path):
    (tmp_path / "photos").mkdir()
    make_photos(tmp_path / "photos", count=14, smallest=12, seed=16)
    run(
        "predict", "--data.dataset=ImageFolder", f"--data.dataset.root={tmp_path / 'photos'}", "--data.size=null",
        "--data.batch_size=1", "--trainer.devices=4", "--trainer.strategy=ddp_fork", "--trainer.accelerator=cpu",
        "--model.attack=pgd", "--model.attack.steps=1", "--model.targets={}", "--images=none", "--image_logger.count=0",
        f"--results={tmp_path}", "--run_name=run",
    )  # fmt: skip
    shares = done_by_each(tmp_path / "run")
    assert sorted(index for own in shares for index, _ in own) == list(range(14))
    work = [sum(work for _, work in own) for own in shares]
    assert max(work) < 1.1 * min(work)
    assert max(left_when_the_first_ends(ends_by_work(shares))) <= 2
    by_turns = [sorted(one for own in shares for one in own)[rank::4] for rank in range(4)]
    assert max(left_when_the_first_ends(ends_by_work(by_turns))) > 2, "the photos are unlike enough"
