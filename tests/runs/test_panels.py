"""Strips of panels: written, read back, and cut apart."""

import numpy as np
import pytest

from lightning_attack.runs.panels import (
    LABELS,
    Panel,
    Strip,
    StripError,
    cut,
    panel_order,
    read_strip,
    with_classes,
    write_strip,
)

NETWORKS = {"other": False, "source": True}


def test_a_strip_comes_back_panel_by_panel(tmp_path):
    order = panel_order(NETWORKS)
    panels = {panel: np.full((2, 3, 3), 10 * place, np.uint8) for place, panel in enumerate(order)}
    write_strip(tmp_path / "a.png", Strip("town/a", np.concatenate(list(panels.values()), 1)))
    strip = read_strip(tmp_path / "a.png")
    assert (strip.name, strip.magnify) == ("town/a", None)
    found = cut(strip.pixels, NETWORKS)
    assert list(found) == list(order)
    assert all(np.array_equal(found[panel], pixels) for panel, pixels in panels.items())
    assert [panel.network for panel in order[-4:]] == ["source", "source", "other", "other"]
    assert found[Panel(LABELS)].shape == (2, 3, 3)
    assert np.unique(with_classes(strip.pixels, NETWORKS)).tolist() == [30, 40, 50, 60, 70]


def test_what_is_no_strip_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(StripError, match=r"a.png' cannot be read"):
        read_strip(tmp_path / "a.png")
    with pytest.raises(StripError, match="25 pixels wide, which is no strip of 8 panels"):
        cut(np.zeros((2, 25, 3), np.uint8), NETWORKS)
