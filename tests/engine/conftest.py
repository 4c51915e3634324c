import pytest
import torch


@pytest.fixture
def silent(caplog):
    """Fails the test if a network was not understood and ran itself, which would make all comparisons true.

    Weights are the same whichever tests ran before: a value that is nearly 0 before ReLU makes bfloat16 look wrong.
    """
    torch.manual_seed(0)
    yield
    said = [record.getMessage() for record in caplog.get_records("call") if record.name.startswith("lightning_attack")]
    assert not said
