"""Signals at awkward moments."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.callbacks import GracefulStop, RunFolder, TransferMetrics
from lightning_attack.callbacks.graceful_stop import SIGNALS
from lightning_attack.predict.module import AttackModule
from tests.callbacks.small_runs import model, run


class SignalInTeardown(Callback):
    """Sends SIGTERM where a process without photos is while the others attack: before Lightning gives signals back."""

    def setup(self, trainer, pl_module, stage):
        teardown = trainer.strategy.teardown

        def with_signal():
            os.kill(os.getpid(), signal.SIGTERM)
            teardown()

        self.trainer, trainer.strategy.teardown = trainer, with_signal


def test_a_process_without_photos_does_not_wait_for_the_others(tmp_path, capfd):
    """Lightning's own function for SIGTERM waits for a broadcast, which other processes never send."""
    before = signal.getsignal(signal.SIGTERM)
    run(tmp_path, pgd(steps=1), callbacks=[RunFolder(str(tmp_path), "run"), TransferMetrics(table=False)])
    stop, last = GracefulStop(), SignalInTeardown()
    # All photos have been attacked: this process has none left.
    again = [RunFolder(str(tmp_path), "run"), TransferMetrics(table=False), last, stop]
    run(tmp_path, pgd(steps=1), callbacks=again)
    assert stop.signal == signal.SIGTERM
    assert capfd.readouterr().err.count("SIGTERM: the batch that runs is finished first") == 1, "said at once"
    assert not last.trainer.received_sigterm, "Lightning's function was called"
    assert "_sigterm_notifier_fn" not in vars(last.trainer._signal_connector), "it is back afterwards"
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_the_line_promises(capfd):
    """One line for the first signal, of the first process only; a SIGINT after it interrupts."""
    for speaks in (True, False):
        stop = GracefulStop()
        stop._speaks = speaks
        for _ in range(2):  # launchers send SIGTERM to processes that a whole group's has reached already
            stop._told(signal.SIGTERM, None)
        assert capfd.readouterr().err.count("(SIGINT) from now on stops it at once") == speaks
        with pytest.raises(KeyboardInterrupt):
            stop._told(signal.SIGINT, None)


class SignalAfter(Callback):
    """Sends SIGTERM in a batch, or raises an error there."""

    def __init__(self, batch, error=None):
        self.batch, self.error = batch, error

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        if batch_idx == self.batch and self.error:
            raise self.error
        if batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.rand(5, 3, 32, 32))


@pytest.mark.parametrize("photos", [TensorDataset(torch.rand(5, 3, 32, 32)), Stream()])
@pytest.mark.parametrize(("batch", "images"), [(0, 2), (2, 5)])
def test_a_run_on_a_loader_of_one_s_own_that_is_stopped_is_partial(photos, batch, images, tmp_path, capsys):
    """Not if the signal came in its last batch."""
    metrics, stop = TransferMetrics(str(tmp_path)), GracefulStop()
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[metrics, SignalAfter(batch), stop],
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    module = AttackModule(model(), NoAttack())
    trainer.predict(module, DataLoader(photos, batch_size=2), return_predictions=False)
    assert stop.signal == signal.SIGTERM
    assert metrics.rows[0]["images"] == images
    partial = images < 5
    assert metrics.summary.get("partial", False) == metrics.rows[0].get("partial", False) == partial
    assert ("Partial: some images are missing" in capsys.readouterr().out) == partial


def test_scripts_in_one_folder_do_not_stop_each_other(tmp_path):
    strategy = SimpleNamespace(broadcast=lambda one: one, barrier=lambda name: None)
    trainer = SimpleNamespace(log_dir=str(tmp_path), callbacks=[], is_global_zero=True, strategy=strategy)
    stopped, other = GracefulStop(), GracefulStop()
    for one in (stopped, other):
        one.setup(trainer, None, "predict")
    stopped.signal = signal.SIGTERM
    with pytest.raises(StopIteration):
        stopped.on_predict_batch_end(trainer, None)
    other.on_predict_batch_end(trainer, None)
    for one in (other, stopped):
        one.teardown(trainer, None, "predict")
    assert (stopped.signal, other.signal) == (signal.SIGTERM, 0)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_signals_mean_what_they_did_after_a_run_that_failed(error, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    callbacks = [RunFolder(str(tmp_path)), SignalAfter(0, error("broken")), GracefulStop()]
    with pytest.raises((RuntimeError, SystemExit)):
        run(tmp_path, NoAttack(), callbacks=callbacks)
    assert [signal.getsignal(number) for number in SIGNALS] == before
