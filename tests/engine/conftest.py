import pytest


@pytest.fixture
def silent(caplog):
    """Fails the test if a network was not understood and ran itself, which would make all comparisons true."""
    yield
    assert not [record for record in caplog.records if record.name.startswith("lightning_attack")], caplog.text
