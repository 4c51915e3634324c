"""Which runs the charts put together, and how they call them."""

import json

from lightning_attack.report import read_run
from lightning_attack.report.charts import heat_map, transfer_curves
from lightning_attack.report.facts import radius_text
from lightning_attack.report.row_names import row_names
from tests.runs.made import NETWORKS, make_run

ONTO_B = {"net_a": False, "net_b": True, "net_c": False}


def made(folder, source="net_a", white_box=NETWORKS, eps=8 / 255, **settings):
    make_run(folder, source=source, white_box=white_box, eps=eps)
    report = json.loads((folder / "transfer.json").read_text())
    report["settings"]["attack"] |= settings
    (folder / "transfer.json").write_text(json.dumps(report))
    return read_run(folder)


def lines(figure):
    return {line.name: line.x for line in figure.data if line.name.endswith("net_c")}


def test_lines_go_through_runs_that_differ_in_nothing_else(tmp_path):
    runs = [
        made(tmp_path / f"{gamma} {steps}", gamma=gamma, steps=steps, step_size=1 / steps)
        for gamma in (0.1, 0.5)
        for steps in (20, 10)
    ]
    (curve,) = transfer_curves(runs)
    assert curve.layout.xaxis.title.text == "steps"
    assert lines(curve) == {f"pgd gamma={gamma}: net_a to net_c": (10, 20) for gamma in (0.1, 0.5)}
    runs.append(made(tmp_path / "wide", eps=0.1, gamma=0.1, steps=20, step_size=1 / 20))
    radii, curve = transfer_curves(runs)
    assert radii.layout.xaxis.title.text == "eps (Linf / 255)"
    assert lines(radii)["pgd steps=20, gamma=0.1: net_a to net_c"] == (8, 25.5)
    assert len(lines(radii)) == 4
    assert lines(curve)["pgd eps=8/255, gamma=0.1: net_a to net_c"] == (10, 20)
    assert lines(curve)["pgd eps=25.5/255, gamma=0.1: net_a to net_c"] == (20,)
    assert [radius_text(run) for run in runs[3:]] == ["8/255", "25.5/255"]


def test_the_heat_map_has_the_runs_of_all_sources(tmp_path):
    runs = [
        made(tmp_path / f"{source} {gamma}", source, white_box, gamma=gamma)
        for source, white_box in (("net_a", NETWORKS), ("net_b", ONTO_B))
        for gamma in (0.1, 0.5)
    ]
    figure = heat_map(runs, row_names(runs))
    assert figure.layout.yaxis.ticktext == (
        "clean images",
        *(f"pgd gamma={gamma} on {source}" for gamma in (0.1, 0.5) for source in ("net_a", "net_b")),
    )
    ordered = [runs[place] for place in (0, 2, 1, 3)]
    shown = [runs[0].summary["targets"], *(run.summary["targets"] for run in ordered)]
    for line, words, rows in zip(figure.data[0].z, figure.data[0].text, shown, strict=True):
        column = "clean_miou" if rows is shown[0] and line is figure.data[0].z[0] else "adversarial_miou"
        assert [*line] == [round(100 * row[column], 4) for row in rows]
        white = [row["white_box"] and column == "adversarial_miou" for row in rows]
        assert ["white box" in word for word in words] == white
