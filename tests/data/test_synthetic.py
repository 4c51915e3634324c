"""Drawn scenes: the same everywhere, all classes, arguments checked."""

import numpy as np
import pytest

from lightning_attack.data import SyntheticScenes


def test_scene_depends_on_seed_and_index_alone():
    first, again = SyntheticScenes(8, size=48, seed=3), SyntheticScenes(100, size=48, seed=3)
    for index in (7, 0, 3):  # another length, another order
        assert first[index].image.tobytes() == again[index].image.tobytes()
        assert first[index].mask.tobytes() == again[index].mask.tobytes()
        assert first[index].name == again[index].name


def test_other_index_or_seed_is_another_scene():
    scenes = [SyntheticScenes(4, size=32, seed=seed)[index] for seed in (0, 1) for index in range(4)]
    assert len({scene.image.tobytes() for scene in scenes}) == 8
    assert len({scene.mask.tobytes() for scene in scenes}) == 8
    assert len({scene.name for scene in scenes}) == 4


def test_64_scenes_hold_all_classes_and_nothing_else():
    data = SyntheticScenes(64, size=64)
    counts = np.zeros(256, np.int64)
    for index in range(len(data)):
        scene = data[index]
        assert scene.image.shape == (64, 64, 3)
        assert scene.mask.shape == (64, 64)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        counts += np.bincount(scene.mask.ravel(), minlength=256)
    shares = counts / counts.sum()
    assert data.classes == ("background", "disk", "square", "triangle", "ring", "cross", "star", "bar")
    assert shares[:8].min() > 0.01  # each often enough to be learnt
    assert 0 < shares[255] < 0.2
    assert shares[8:255].sum() == 0


def test_border_is_drawn_around_shapes_only():
    shapes = [SyntheticScenes(1, size=64, border=border)[0].mask for border in (0, 2)]
    assert 255 not in shapes[0]
    ignored = shapes[1] == 255
    assert ignored.any()
    # Without the border the pixel is background or part of a shape that lies below.
    assert np.array_equal(shapes[0][~ignored], shapes[1][~ignored])


def test_no_shapes_is_only_background():
    assert not SyntheticScenes(1, size=16, shapes=(0, 0))[0].mask.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count=0"),
        ({"size": 15}, "size=15"),
        ({"shapes": (3, 2)}, r"shapes=\(3, 2\)"),
        ({"shapes": (-1, 2)}, "shapes"),
        ({"spread": -1}, "spread=-1"),
        ({"noise": -1}, "noise=-1"),
        ({"border": -1}, "border=-1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticScenes(**arguments)


def test_index_out_of_range_ends_iteration():
    assert len(list(SyntheticScenes(3, size=16))) == 3
    with pytest.raises(IndexError):
        SyntheticScenes(3, size=16)[-1]
