"""CUDA graphs pretended on the CPU."""

import sys

from lightning_attack.engine import prepare, recorded


def pretend_card(monkeypatch):
    """Let the engine take the CPU for a CUDA device; returns what pretends to record for it."""
    recorder = FakeRecorder()
    monkeypatch.setattr(sys.modules[prepare.__module__], "_on_cuda", lambda images: True)
    monkeypatch.setattr(recorded, "recorder", lambda device: recorder)
    return recorder


class FakeRecorder:
    """Records by keeping the function, and runs it again into the memory of its first results."""

    def __init__(self):
        self.recorded = self.replayed = 0
        self.current, self.error = "stream", None

    def __call__(self, work):
        if self.error:
            raise self.error
        self.recorded += 1
        work()
        results = [result.clone() for result in work()]

        def replay():
            self.replayed += 1
            for result, value in zip(results, work(), strict=True):
                result.copy_(value)

        return results, replay

    def stream(self):
        return self.current
