"""ADE20K: every value, and the names of the classes."""

import numpy as np
import pytest

from lightning_attack.data import ADE20K, DataError
from tests.data.trees import LAYOUTS, ade20k, photo, png

LAYOUT = LAYOUTS["ade20k"]


def write_names(root, names):
    rows = [f"{number} \t0.1\t5\t6\t{name}" for number, name in enumerate(names, 1)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows, ""]))


def test_every_value(tmp_path):
    ade20k(tmp_path)
    photo(tmp_path / LAYOUT.photo, size=(1, 151))
    png(tmp_path / LAYOUT.mask, [np.arange(151)])
    assert ADE20K(str(tmp_path))[0].mask.tolist() == [[255, *range(150)]]


def test_shifted_masks_are_refused(tmp_path):
    ade20k(tmp_path)
    png(tmp_path / LAYOUT.mask, np.full((4, 6), 255))  # what others write for 0 after subtracting 1
    with pytest.raises(DataError, match="holds the value 255; expected 0 = other"):
        ADE20K(str(tmp_path))[0]


def test_names_are_the_first_synonyms_of_the_file(tmp_path):
    ade20k(tmp_path)
    write_names(tmp_path, ["wall", "building, edifice", "bed "] + [f"thing{number}, x" for number in range(4, 151)])
    assert ADE20K(str(tmp_path)).classes[:4] == ("wall", "building", "bed", "thing4")
    assert len(ADE20K(str(tmp_path)).classes) == 150


def test_without_that_file_the_names_are_its_numbers(tmp_path):
    ade20k(tmp_path)
    assert ADE20K(str(tmp_path)).classes == tuple(map(str, range(1, 151)))


@pytest.mark.parametrize("content", ["", "no table", "Idx\tName\n1\twall\n", "Idx\tName\nx\twall\n", "Idx\tName\n1\n"])
def test_file_of_another_form(tmp_path, content):
    ade20k(tmp_path)
    (tmp_path / "objectInfo150.txt").write_text(content)
    with pytest.raises(DataError, match=r"objectInfo150.txt' cannot be read as the names .*expected tab-separated"):
        ADE20K(str(tmp_path))
