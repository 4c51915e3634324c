"""Dry runs, the device that is used, and what a run that was stopped says."""

import re
import shlex
import signal
import sys
import warnings

import pytest
import torch

from lightning_attack.callbacks import GracefulStop
from lightning_attack.callbacks.timing import Timing
from lightning_attack.cli import main
from lightning_attack.cli.base import CommandCLI
from lightning_attack.predict import device
from lightning_attack.runs.store import count_records

SMALL = ("--data.dataset.init_args.count=5", "--data.dataset.init_args.size=32", "--data.batch_size=2",
         "--model.attack=pgd", "--model.attack.steps=2", "--trainer.accelerator=cpu")  # fmt: skip


class Clock:
    """A clock that moves one second with each look."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.mark.parametrize("option", ["--dry_run", "--dry-run=true"])
def test_a_dry_run_times_the_second_batch_and_writes_nothing(option, predict, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Timing, "clock", Clock())
    monkeypatch.chdir(tmp_path)
    assert predict(*SMALL, option) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Dry run, nothing is written: pgd (eps 8/255) attacks deeplabv3plus_regnetx_002, targets: ")
    assert first.endswith("; 5 photos on cpu")
    assert second == "A batch of 2 took 1.0 s (after another to warm up), 0.5 s per photo: about 2.5 s for 5 photos"
    assert not [*tmp_path.iterdir()]


def test_a_run_without_a_name_says_how_it_goes_on_and_a_dry_run_counts_what_is_left(
    predict, tmp_path, monkeypatch, capsys
):
    """The command that is printed finishes the same folder."""

    def told(self, trainer, module, *_):
        self.signal = signal.SIGTERM
        raise StopIteration

    with monkeypatch.context() as change:
        change.setattr(GracefulStop, "on_predict_batch_end", told)
        assert predict(*SMALL) == 128 + signal.SIGTERM
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Partial")]
    said, command = line.split("; to go on: python main.py ")
    assert said == "Partial: 3 images are missing"
    words = shlex.split(command)
    assert main([*words, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "5 photos, 2 of them done, on cpu" in out
    assert "for 3 photos" in out
    assert main(words) == 0
    assert "2 of 5 photos are done, going on" in capsys.readouterr().err
    (folder,) = (tmp_path / "results").glob("*/*")
    assert folder.name == "version_0"
    assert count_records(folder) == 5


def test_after_an_error_it_is_said_what_is_done(predict, monkeypatch, capsys):
    def broken(self, trainer, module, outputs, batch, batch_idx, *_):
        if batch_idx == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(GracefulStop, "on_predict_batch_end", broken)
    assert predict(*SMALL, "--run_name=mine") == 2
    said = capsys.readouterr().err
    assert re.search(r"^\d photos are done in '.*mine'; the same command goes on: python main.py predict ", said, re.M)


@pytest.mark.parametrize(
    ("error", "environment", "said"),
    [
        (
            RuntimeError("The NVIDIA driver on your system\nis too old"),
            {},
            "The NVIDIA driver on your system is too old ",
        ),
        (RuntimeError("No CUDA GPUs are available"), {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides it"),
        (RuntimeError("No CUDA GPUs are available"), {"CUDA_VISIBLE_DEVICES": "0"}, "No CUDA GPUs are available "),
        (None, {}, None),
    ],
)
def test_why_a_gpu_is_not_used(error, environment, said, monkeypatch):
    def init():
        if error:
            raise error

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(device.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    found = device.why_no_gpu(environment)
    assert found is None if said is None else found.startswith(said)
    monkeypatch.setattr(device.shutil, "which", lambda _: None)
    monkeypatch.setattr(device, "_SIGNS", ())
    assert device.why_no_gpu(environment) is None


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_a_run_does_not_fall_back_to_the_cpu_in_silence(accelerator, predict, monkeypatch):
    monkeypatch.setattr(sys.modules[CommandCLI.__module__], "why_no_gpu", lambda: "the driver is too old")
    monkeypatch.setattr(
        "lightning.pytorch.trainer.connectors.accelerator_connector._select_auto_accelerator", lambda: "cpu"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert predict(*SMALL[:-1], f"--trainer.accelerator={accelerator}", "--dry_run") == 0
    told = [one for one in caught if "is not used, the CPU computes: the driver is too old" in str(one.message)]
    assert len(told) == (accelerator == "auto")
