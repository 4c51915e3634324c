"""Settings that must be the same when a run goes on."""

import pytest

from lightning_attack.runs import RunError
from lightning_attack.runs.settings import Advice, check_same, write_settings

SETTINGS = {"model": {"seed": 0, "parts": [{"class": "A", "size": 3}], "steps": [1, 2]}, "data": {"limit": None}}


def change(place, key, value):
    return SETTINGS | {place: SETTINGS[place] | {key: value}}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (change("model", "seed", 1), "model.seed: 0 before, 1 now"),
        (change("model", "steps", (1, 3)), "model.steps: [1, 2] before, [1, 3] now"),
        (change("model", "parts", []), "model.parts.0.class: A before, not there now"),
        (change("model", "parts", [{"class": "A", "size": 5}]), "model.parts.0.size: 3 before, 5 now"),
        (change("data", "more", 1), "data.more: not there before, 1 now"),
    ],
)
def test_every_setting_that_differs_is_named(settings, line, tmp_path):
    write_settings(tmp_path, SETTINGS)
    check_same(tmp_path, SETTINGS | {"model": SETTINGS["model"] | {"steps": (1, 2), "new": None}})
    with pytest.raises(RunError, match=r"is a run of other settings; .*--fresh=true") as error:
        check_same(tmp_path, settings)
    assert f"  {line}" in str(error.value).splitlines()


def test_a_network_that_differs_is_said_in_words(tmp_path):
    old, new = {"source": {"mine": "v3:0a"}, "targets": {"mine": "v3:0a", "x": "1b"}}, "v3:0b"
    write_settings(tmp_path, {"model": old})
    now = {"model": {"source": {"mine": new}, "targets": {"mine": "v3:0a", "x": new}}}
    with pytest.raises(RunError, match="choose another --name:") as error:
        check_same(tmp_path, now, advice=Advice("choose another --name", {"mine": "a.pt2"}))
    mine, other = str(error.value).splitlines()[1:]
    assert mine == (
        "  'mine' (model.source.mine), now from 'a.pt2', is not the network of before: its weights, structure or "
        "settings are others (hash v3:0a before, v3:0b now)"
    )
    assert other.endswith(
        "(hash 1b before, v3:0b now; an earlier version, whose hashes were of another kind, made the first)"
    )


def test_targets_in_another_order_are_other_settings(tmp_path):
    """Records hold figures by the places of the targets."""
    write_settings(tmp_path, {"model": {"targets": {"fpn": "v3:0a", "seg": "v3:0b"}}})
    with pytest.raises(RunError) as error:
        check_same(tmp_path, {"model": {"targets": {"seg": "v3:0b", "fpn": "v3:0a"}}})
    assert str(error.value).splitlines()[1:] == ["  order of model.targets: fpn, seg before, seg, fpn now"]
    with pytest.raises(RunError) as error:
        check_same(tmp_path, {"model": {"targets": {"new": "v3:0c", "fpn": "v3:0a", "seg": "v3:0b"}}})
    assert str(error.value).splitlines()[1:] == ["  model.targets.new: not there before, v3:0c now"]


def test_rounding_makes_no_other_settings(tmp_path):
    write_settings(tmp_path, {"model": {"step_size": 0.8 / 255, "eps": float("inf")}})
    check_same(tmp_path, {"model": {"step_size": (8 / 255) / 10, "eps": float("inf")}})
    with pytest.raises(RunError, match=r"model\.step_size"):
        check_same(tmp_path, {"model": {"step_size": 0.8 / 255 * (1 + 1e-9), "eps": float("inf")}})


@pytest.mark.parametrize("content", ["{", None])
def test_a_folder_without_settings_is_no_run_that_could_go_on(content, tmp_path):
    if content:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(RunError, match=r"no run that could go on \(no readable settings.json\)"):
        check_same(tmp_path, SETTINGS)
