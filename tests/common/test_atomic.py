"""Files that appear when they are complete."""

import pytest

from lightning_attack.common.atomic import atomic_write


def test_an_error_names_the_file_that_the_user_knows(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError) as found, atomic_write(tmp_path / "a.json") as path:
        path.write_text("{}")
    assert str(found.value) == f"[Errno 21] Is a directory: '{tmp_path / 'a.json'}'"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
