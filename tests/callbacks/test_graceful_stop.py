"""Signals at awkward moments."""

import os
import signal

import pytest
from lightning.pytorch import Callback

from lightning_attack.attacks import pgd
from lightning_attack.callbacks import GracefulStop, RunFolder, TransferMetrics
from tests.callbacks.small_runs import run


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
