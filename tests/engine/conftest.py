import pytest
import torch


@pytest.fixture
def silent(caplog):
    """Fails the test if a network was not understood and ran itself, which would make all comparisons true.

    Weights are the same whichever tests ran before: a value that is nearly 0 before ReLU makes bfloat16 look wrong.
    """
    torch.manual_seed(0)
    yield
    assert not [record for record in caplog.records if record.name.startswith("lightning_attack")], caplog.text
