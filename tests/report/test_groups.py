"""Which runs stand in one table."""

import json

import pytest

from lightning_attack.report.groups import group_runs
from lightning_attack.runs import RunsError, read_run
from lightning_attack.runs.summary import PREDICTED
from tests.runs.made import NETWORKS, make_run, matrices


def test_tables_hold_what_can_be_compared(tmp_path):
    base = read_run(make_run(tmp_path / "base"))
    names = [f"photo{number}" for number in range(24)]
    other = {
        "fewer": make_run(tmp_path / "fewer", counts=matrices(10)),
        "strangers": make_run(tmp_path / "strangers", names=[f"other {name}" for name in names]),
        "classes": make_run(tmp_path / "classes", classes=("sky", "road", "bush")),
        "trained": make_run(tmp_path / "trained", networks="other weights"),
        "guessed": make_run(tmp_path / "guessed", labels=PREDICTED),
        "more": make_run(tmp_path / "more", white_box={**NETWORKS, "net_d": False}, counts=matrices(24, networks=4)),
    }
    reasons = {
        "fewer": "of their 24 and 10 images 10 are the same (--common",
        "strangers": "of their 24 and 24 images none is the same",
        "classes": "their classes differ (3 and 3, such as bush)",
        "trained": "'net_a' is not the same network",
        "guessed": "their labels differ (masks and clean prediction of net_a)",
    }
    for name, folder in other.items():
        groups, notes = group_runs([base, read_run(folder)])
        assert [len(group.runs) for group in groups] == ([2] if name == "more" else [1, 1]), name
        assert all(reasons[name] in note and "base" in note and name in note for note in notes), notes
        assert bool(notes) == (name != "more")
    (group,), notes = group_runs([base, read_run(other["fewer"])], common=True)
    assert (len(group.images), group.of, notes) == (10, 24, [])
    with pytest.raises(RunsError, match=r"base' and .*strangers' have no image in common\n"):
        group_runs([base, read_run(other["strangers"])], common=True)
    (group,), _ = group_runs([base, read_run(other["more"])])
    assert group.targets == ("net_a", "net_b", "net_c", "net_d")


def test_labels_that_two_sources_have_predicted_are_not_the_same(tmp_path):
    """The mIoU on clean images is agreement with the source, so a column has another one for each source."""
    first, same, other = (
        read_run(make_run(tmp_path / name, source=source, attack=name, labels=PREDICTED))
        for name, source in (("first", "net_a"), ("same", "net_a"), ("other", "net_b"))
    )
    assert [[run.attack for run in group.runs] for group in group_runs([first, other, same])[0]] == [
        ["first", "same"], ["other"]
    ]  # fmt: skip


def test_one_note_for_each_kind_of_reason(tmp_path):
    runs = [read_run(make_run(tmp_path / "base"))]
    runs += [read_run(make_run(tmp_path / f"fewer_{count}", counts=matrices(count))) for count in (9, 8, 7, 6, 5)]
    runs.append(read_run(make_run(tmp_path / "classes", classes=("sky", "road", "bush"))))
    groups, notes = group_runs(runs)
    assert len(groups) == 7
    first, second = notes
    assert "of their 24 and 9 images 9 are the same" in first
    assert first.endswith(f"; likewise {', '.join(repr(str(tmp_path / f'fewer_{n}')) for n in (8, 7, 6))} and 1 more")
    assert "such as bush" in second
    assert "likewise" not in second


def test_networks_without_a_hash_are_known_by_their_clean_predictions(tmp_path):
    first = read_run(make_run(tmp_path / "first", networks=None))
    same = read_run(make_run(tmp_path / "same", counts=matrices(24, lost=0.6), networks=None))
    other = read_run(make_run(tmp_path / "other", counts=matrices(24, seed=1), networks=None))
    assert [len(group_runs([first, run])[0]) for run in (same, other)] == [1, 2]


def test_a_hash_of_an_earlier_version_does_not_make_a_network_another_one(tmp_path):
    """It depended on what the network was called; where it differs, the clean predictions decide."""
    first = read_run(make_run(tmp_path / "first"))
    cases = ("", "weights", 0, 1), ("", "other", 0, 1), ("", "other", 1, 2), ("v3:", "other", 0, 2)
    for form, networks, seed, tables in cases:
        counts = matrices(24, seed=seed, lost=0.6)
        old = read_run(make_run(tmp_path / f"{form}{networks}{seed}", counts=counts, networks=networks, form=form))
        assert len(group_runs([first, old])[0]) == tables


def test_other_code_of_networks_lets_the_clean_predictions_decide(tmp_path):
    """Their weights may have the same hash. Code of the attack says nothing about networks, whatever a pixel does."""

    def made(name, seed=0, **code):
        folder = make_run(tmp_path / name, counts=matrices(24, seed=seed))
        settings = json.loads((folder / "settings.json").read_text())
        settings["model"] |= code
        (folder / "settings.json").write_text(json.dumps(settings))
        return read_run(folder)

    def of(attack, networks):
        return {"attack": {"own.Attack": attack}, "networks": {"own.Net": networks} if networks else {}}

    first = made("first", code=of("1", "1"))
    cases = {
        "attack": (made("attack", 1, code=of("2", "1")), 1),
        "edited": (made("edited", 1, code=of("1", "2")), 2),
        "tidied": (made("tidied", 0, code=of("1", "2")), 1),
        "gone": (made("gone", 1, code=of("1", "")), 2),
        "removed": (made("removed", 0), 1),
        "not told apart": (made("mixed", 0, code={"own.Attack": "2", "own.Net": "1"}), 1),
        "not told apart, edited": (made("mixed too", 1, code={"own.Attack": "1", "own.Net": "2"}), 2),
    }
    for name, (run, tables) in cases.items():
        assert len(group_runs([first, run])[0]) == tables, name
    _, (note,) = group_runs([first, cases["edited"][0]])
    assert "'net_a' is not the same network in both (weights, code, " in note


def test_photos_without_digests_are_known_by_their_labels_and_clean_predictions(tmp_path):
    """Runs from Python on data of one's own call the first photo of every data set `image_000000`."""

    def made(name, counts, networks="weights", **more):
        return read_run(make_run(tmp_path / name, counts=counts, digests=[""] * 24, networks=networks, **more))

    def of_classes(matrices):  # clean labels
        return matrices[:, 0, 0].sum(-1)

    whole = matrices(24)
    first, other = made("first", whole), matrices(24, seed=1)
    assert (of_classes(whole) != of_classes(other)).any(1).all()
    turned = whole.copy()  # the same labels
    turned[3, :, 0, 0, :2] = whole[3, :, 0, 0, 1::-1]
    same, failed = matrices(24, lost=0.6), [(5, "net_a"), (5, "net_b"), (6, "net_c")]
    assert len(group_runs([first, made("same", same), made("failed", same, failed=failed)])[0]) == 1
    cases = (
        ("val", other, {}, "of 24 images with the same name in both, the labels or clean predictions differ"),
        ("turned", turned, {}, "of 1 image with the same name"),
        ("bare", other, {"networks": None}, "of 24 images with the same name"),
        ("others", matrices(24, networks=1, seed=1), {"white_box": {"net_d": True}}, "of 24 images with the same name"),
        ("trained", turned, {"networks": "other"}, "'net_a' is not the same network"),
    )
    for name, counts, more, says in cases:
        run = made(name, counts, **more)
        for common in (False, True):
            groups, (note,) = group_runs([first, run], common)
            assert len(groups) == 2, name
            assert says in note
    # Two networks of one name have predicted other labels.
    guessed = [made(f"guessed {networks}", counts, networks, labels=PREDICTED) for networks, counts in
               (("weights", whole), ("other", other))]  # fmt: skip
    assert "is not the same network" in group_runs(guessed)[1][0]
    assert "is the same" in group_runs([first, read_run(make_run(tmp_path / "digests"))])[1][0]
