"""`lightning-attack figure`: what is drawn is what the runs hold, and what they do not hold is an error."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from lightning_attack.cli.main import main
from lightning_attack.common.labels import class_colour
from lightning_attack.report import collect
from lightning_attack.report.charts import strength_curves
from lightning_attack.report.figures import curves, entries, matrix, strip
from lightning_attack.report.figures.display import Display
from lightning_attack.report.groups import group_runs
from lightning_attack.report.intervals import miou_interval
from lightning_attack.report.page import write_page
from lightning_attack.report.row_names import siblings
from lightning_attack.report.strengths import families
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.panels import Panel, cut, panel_order, read_strip
from tests.runs.made import NETWORKS, edit, make_run, matrices

ONTO_B = {"net_a": False, "net_b": True, "net_c": False}
CURVE = (5, 10, 20)
PLAIN = Display({})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs in folders by what they differ in."""
    folder = tmp_path_factory.mktemp("study")
    for eps in (2, 4, 8):
        make_run(folder / "eps" / f"pgd_{eps}", counts=matrices(24, lost=eps / 20), eps=eps / 255)
    make_run(folder / "eps" / "segpgd_8", "segpgd", matrices(24, lost=0.6))
    for steps in (10, 40):
        make_run(folder / "passes" / f"{steps}", counts=matrices(24, lost=steps / 100), steps=steps)
    for attack in ("pgd", "segpgd"):
        counts = matrices(24, lost=0.2 if attack == "pgd" else 0.4)
        make_run(folder / "kept" / f"{attack}_a", attack, counts, curve_steps=CURVE, strips=(0, 3))
    for seed in (1, 2):
        make_run(folder / "seeds" / str(seed), counts=matrices(24, lost=seed / 5), seed=seed, curve_steps=CURVE)
    make_run(folder / "other" / "pgd_b", "pgd", matrices(24, lost=0.3), "net_b", ONTO_B)
    return folder


def group(*folders):
    (found,), _ = group_runs(collect(folders)[0])
    return found


def drawn(axes):
    """The lines of a panel by color: x, and y in percent; the clean line is grey and dashed."""
    return {line.get_color(): np.array(line.get_data()).T for line in axes.lines}


def test_curves_go_through_the_figures_of_the_runs(study):
    found = group(study / "eps")
    axis, facets = entries.over_eps(found, found.targets, mean=False, draws=200)
    assert axis.title == "ε (L∞, in 1/255)"
    assert [(facet.target, facet.white_box) for facet in facets] == [
        ("net_b", False), ("net_c", False), ("net_a", True)
    ]  # fmt: skip
    figure = curves.draw_curves(axis, facets, 6.875, 7, None, PLAIN)
    rows = {(run.folder.name, row["target"]): row for run in found.runs for row in run.summary["targets"]}
    for axes, facet in zip(figure.axes, facets, strict=True):
        name = lambda folder, column: 100 * rows[folder, facet.target][column]  # noqa: B023, E731
        lines = drawn(axes)
        start = (0, name("pgd_8", "clean_miou"))
        expected = [start, *((eps, name(f"pgd_{eps}", "adversarial_miou")) for eps in (2, 4, 8))]
        np.testing.assert_allclose(lines[curves.COLOURS[0]], expected)
        expected = [start, (8, name("segpgd_8", "adversarial_miou"))]
        np.testing.assert_allclose(lines[curves.COLOURS[1]], expected)
        np.testing.assert_allclose(lines[curves.CLEAN][:, 1], start[1])
        assert axes.get_ylim()[0] == axes.get_xlim()[0] == 0
        run = next(run for run in found.runs if run.folder.name == "pgd_4")
        interval = miou_interval(run.counts(facet.target)[:, 1], 200)
        assert facet.lines["pgd"][1].miou == interval
        band = axes.collections[0].get_paths()[0].vertices
        ends = [100 * interval.low, 100 * interval.high]
        np.testing.assert_allclose(np.unique(band[band[:, 0] == 4][:, 1]), ends)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["pgd", "segpgd", "clean images"]


def test_curves_over_steps_and_passes(study):
    found = group(study / "kept")
    _, facets = entries.over_steps(found, ("net_c", "net_b"), mean=False, draws=100)
    assert [facet.target for facet in facets] == ["net_c", "net_b"]
    for facet in facets:
        for run in found.runs:
            points = facet.lines[run.attack]
            assert tuple(point.x for point in points) == CURVE
            assert [point.miou.value for point in points] == pytest.approx(
                run.summary["step_curve"]["targets"][facet.target]
            )
            final = miou_interval(run.counts(facet.target)[:, 1], 100)
            assert (points[-1].miou.low, points[-1].miou.high) == (final.low, final.high)
    found = group(study / "passes")
    _, facets = entries.over_passes(found, found.targets, mean=False, draws=100)
    for facet in facets:
        expected = [(row["adversarial_miou"], steps) for run, steps in zip(found.runs, (10, 40), strict=True)
                    for row in run.summary["targets"] if row["target"] == facet.target]  # fmt: skip
        assert [(point.miou.value, point.x) for point in facet.lines["pgd"]] == expected


def test_seeds_are_lines_or_with_mean_one(study):
    found = group(study / "seeds")
    _, facets = entries.over_steps(found, ("net_b",), mean=False, draws=100)
    assert set(facets[0].lines) == {"pgd seed=1", "pgd seed=2"}
    ends = [points[-1].miou.value for points in facets[0].lines.values()]
    _, facets = entries.over_steps(found, ("net_b",), mean=True, draws=100)
    ((label, points),) = facets[0].lines.items()
    assert label == "pgd (mean of 2 seeds)"
    assert points[-1].miou.value == pytest.approx(sum(ends) / 2)


def test_a_matrix_has_sources_in_rows(study):
    found = group(study / "kept", study / "other")
    clean, matrices_ = matrix.matrices(found, found.targets, mean=False, draws=100)
    assert list(matrices_) == ["pgd", "segpgd"]
    figure = matrix.draw_matrices(clean, matrices_, 6.875, 7, None, PLAIN)
    places = {(round(x), round(y)): text for text in figure.axes[0].texts for x, y in [text.get_position()]
              if re.fullmatch(r"\d+\.\d", text.get_text())}  # fmt: skip
    shown = {place: text.get_text() for place, text in places.items()}
    rows = {run.source: {row["target"]: row for row in run.summary["targets"]} for run in found.runs
            if run.attack == "pgd"}  # fmt: skip
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["clean", "net_a", "net_b"]
    for column, target in enumerate(found.targets):
        assert shown[column, -1] == f"{100 * rows['net_a'][target]['clean_miou']:.1f}"
        for row, source in enumerate(("net_a", "net_b")):
            assert shown[column, row] == f"{100 * rows[source][target]['adversarial_miou']:.1f}"
    boxes = [(round(box.get_x() + 0.5), round(box.get_y() + 0.5)) for box in figure.axes[0].patches]
    assert boxes == [(0, 0), (1, 1)]


def test_a_matrix_of_networks_that_are_never_right(tmp_path):
    make_run(tmp_path / "run", counts=matrices(24) * (1 - np.eye(3, dtype=int)))
    found = group(tmp_path)
    figure = matrix.draw_matrices(*matrix.matrices(found, found.targets, False, 100), 6.875, 7, None, PLAIN)
    assert {text.get_text() for text in figure.axes[0].texts if "." in text.get_text()} >= {"0.0"}


def test_a_strip_shows_the_panels_that_are_asked_for(study, tmp_path):
    runs = collect([study / "kept"])[0]
    shown = strip.pictures(runs, ["photo3"], ["labels", "net_b", "clean"])
    assert [line.label for line in shown.lines] == ["pgd", "segpgd"]
    assert shown.captions["difference"] == "difference ×\u00a010"
    assert shown.captions["labels"] == "ground truth"
    order = [Panel("labels"), Panel("clean", "net_b"), Panel("adversarial", "net_b"), Panel("clean")]
    stored = cut(read_strip(next((runs[0].folder / "panels").glob("*3.png"))).pixels, NETWORKS)
    figure = strip.draw_strip(shown, 3.25, 7, None, Display({"sky": "Himmel"}))
    assert len(figure.axes) == 2 * 4
    for axes, panel in zip(figure.axes[:4], order, strict=True):
        assert np.array_equal(axes.images[0].get_array(), stored[panel])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Himmel", "road", "tree"]
    colours = [
        tuple(round(255 * part) for part in patch.get_facecolor()[:3]) for patch in figure.legends[0].get_patches()
    ]
    assert colours == [class_colour(number) for number in range(3)]
    make_run(tmp_path / "fewer", "fewer", matrices(6), strips=(0, 3))
    words = ["figure", "strip", str(runs[0].folder), str(tmp_path / "fewer"), f"--output={tmp_path / 'a.pdf'}"]
    assert main([*words, "--panels=clean"]) == 0, "runs of more and of fewer images"
    every = strip.pictures(runs[:1], None, None)
    assert every.images == ("photo0", "photo3")
    assert list(every.lines[0].panels) == list(panel_order(NETWORKS))
    assert every.lines[0].label == ""


def test_files_have_the_width_and_the_labels(study, tmp_path, capsys):
    files = [tmp_path / f"curves{suffix}" for suffix in (".pdf", ".svg", ".png")]
    words = ["figure", "steps", str(study / "kept"), "--draws=100", "--names", "pgd=P$G$D <&>", "net_c=Netz C"]
    assert main([*words, "--width=column", "--output", *map(str, files)]) == 0
    pdf, svg = files[0].read_bytes(), files[1].read_text()
    assert re.findall(rb"/MediaBox \[ 0 0 (\d+) ", pdf) == [b"234"]  # 3.25 inches of 72 points; one page
    assert b"/FontFile2" in pdf
    assert b"/Subtype /Type3" not in pdf
    for label in ("P$G$D &lt;&amp;&gt;", "segpgd", "Netz C", "net_b", "clean images", "adversarial mIoU (%)", "steps"):
        assert f">{label}</text>" in svg, label
    assert Image.open(files[2]).width == 975
    assert main([*words, "--width=column", f"--output={tmp_path / 'again.pdf'}"]) == 0
    assert (tmp_path / "again.pdf").read_bytes() == pdf
    named = tmp_path / "named.svg"
    runs = [make_run(tmp_path / "runs" / one, one, strips=(0,), display_name=f"{one}-Paper") for one in ("a", "b")]
    assert main(["figure", "strip", *map(str, runs), "--names", "b=B", f"--output={named}"]) == 0
    assert "a-Paper" in named.read_text()
    assert "b-Paper" not in named.read_text()
    named.unlink()
    shutil.rmtree(tmp_path / "runs")
    strips = [tmp_path / "new" / f"strip{suffix}" for suffix in (".jpg", ".pdf")]
    assert main(["figure", "strip", str(study / "kept" / "pgd_a"), "--dpi=100", "--output", *map(str, strips)]) == 0
    assert Image.open(strips[0]).size[0] == 687
    assert {path.name for path in tmp_path.iterdir()} == {"again.pdf", "new", *(path.name for path in files)}
    assert "Note: the strip shows photo0, photo3" in capsys.readouterr().out


def test_text_has_the_font_and_the_size_that_were_given(study, tmp_path):
    files = [tmp_path / name for name in ("matrix.svg", "matrix.pdf")]
    words = ["figure", "matrix", str(study / "kept"), "--draws=100", "--font=STIXGeneral", "--font_size=11"]
    assert main([*words, "--output", *map(str, files)]) == 0
    styles = re.findall(r"font-size: ([\d.]+)px; font-family: '([^']+)'", files[0].read_text())
    assert {family for _, family in styles} == {"STIXGeneral"}
    assert max(float(size) for size, _ in styles) == 11
    fonts = re.findall(rb"/BaseFont /\w+\+(\S+)", files[1].read_bytes())
    assert {*fonts} == {b"STIXGeneral-Regular"}


@pytest.mark.parametrize("kind", ["matrix", "eps"])
def test_networks_that_could_not_be_scored_are_named(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for eps in (4, 8):
        make_run(tmp_path / str(eps), eps=eps / 255, failed=[(place, "net_b") for place in range(24)])
    assert main(["figure", kind, "4", "8", "--output=a.svg"]) == 0
    assert "Note: net_b: not drawn, could be scored on none of the images." in capsys.readouterr().out
    drawn = (tmp_path / "a.svg").read_text()
    assert "net_c" in drawn
    assert "net_b" not in drawn


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["steps", "eps"], ["no mIoU over the steps in", "predict --curve=steps keeps it"]),
        (["eps", "kept"], ["all have 8/255", "predict --model.attack.eps=4/255"]),
        (["passes", "kept"], ["all have 20 passes", "predict --model.attack.steps=40"]),
        (["passes", "passes", "passes_too"], ["passes_too/again' are the same point", "leave one out"]),
        (["strip", "eps"], ["keeps no pictures", "predict --image_logger.count=8"]),
        (["strip", "kept", "--images", "photo1"], ["no picture of 'photo1', but of photo0, photo3", "--image_logger"]),
        (["strip", "kept", "--panels", "clear"], ["there is no 'clear'", "clean, adversarial, difference"]),
        (["strip", "kept", "other"], ["have other sources, targets or classes", "runs of one source"]),
        (["strip", "kept", "other_networks"], ["one figure cannot show these runs", "'net_a' is not the same network"]),
        (["strip", "kept", "other_labels"], ["one figure cannot show these runs", "their labels differ"]),
        (["strip", "kept", "other_photos"], ["have no image in common"]),
        (["strip", "kept", "other_first"], ["'photo0' is another photo in '", "other_first/run' than in", "--images"]),
        (["matrix", "kept", "fewer"], ["one figure cannot show these runs", "6 and 24 images", "one table"]),
        (["matrix", "kept", "--targets", "net_d"], ["no network 'net_d'", "known: net_a, net_b, net_c"]),
        (["matrix", "kept", "--names", "net_d=D"], ["is called 'net_d'", "known: pgd, segpgd, net_a"]),
        (["matrix", "kept", "--width=wide"], ["give column (3.25 in), page (6.875 in), or 1 to 40 inches"]),
        (["matrix", "kept", "--font=Nowhere"], ["--font=Nowhere: matplotlib finds no such font", "installed"]),
        (["matrix", "kept", "--output=a.gif"], ["--output=a.gif", "allowed: .pdf, .svg, .png, .jpg"]),
        (["matrix", "kept", "--output=kept/pgd_a/a.pdf"], ["lies in the run"]),
        (["matrix", "failed", "--targets=net_b"], ["net_b could be scored on none of the images", "run them again"]),
        (["eps", "failed", "--targets=net_b"], ["net_b could be scored on none of the images"]),
        (["matrix", "unlabelled"], ["net_a, net_b, net_c have no mIoU", "photos with labels"]),
        (["eps", "unlabelled"], ["net_a, net_b, net_c have no mIoU"]),
        (["matrix", "none"], ["there is no folder 'none'"]),
        (["kept"], ["no kind of figure 'kept'", "known: eps, matrix, passes, steps, strength, strip", "matrix kept"]),
        (["steps", "kept", "--images", "a"], ["there is no option 'images'"]),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_an_error(words, says, study, tmp_path, monkeypatch, capsys):
    for place in study.iterdir():
        (tmp_path / place.name).symlink_to(place)
    if "fewer" in words:
        make_run(tmp_path / "fewer" / "run", counts=matrices(6))
    for eps in (4, 8):
        if "failed" in words:
            make_run(tmp_path / "failed" / str(eps), eps=eps / 255, failed=[(place, "net_b") for place in range(24)])
        if "unlabelled" in words:
            make_run(tmp_path / "unlabelled" / str(eps), eps=eps / 255, counts=0 * matrices(24))
    others = {
        "networks": {"networks": "other weights", "counts": matrices(24, seed=1)},
        "labels": {"labels": "clean prediction of the source"},
        "photos": {"digests": [f"other {number}" for number in range(24)]},
        "first": {"digests": ["other", *(f"digest of photo{number}" for number in range(1, 24))]},
    }
    for name, changes in others.items():
        if f"other_{name}" in words:
            make_run(tmp_path / f"other_{name}" / "run", **{"strips": (0, 3), **changes})
    if "passes_too" in words:
        make_run(tmp_path / "passes_too" / "again", counts=matrices(24), steps=10)
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    assert main(["figure", *words[:1], "--output=a.pdf", *words[1:]]) == 2
    printed = capsys.readouterr().err
    assert all(one in printed for one in says), printed
    assert printed.count("\n") <= 3
    assert {path.name for path in tmp_path.iterdir()} == before


def test_radii_over_seeds_and_runs_without_a_radius(study, tmp_path):
    for seed in (5, 6):
        for eps in (2, 4):
            counts = matrices(24, lost=(seed + eps) / 20)
            make_run(tmp_path / f"{seed} {eps}", counts=counts, seed=seed, eps=eps / 255)
    edit(make_run(tmp_path / "none", "no_attack"), lambda summary: summary["settings"]["attack"].pop("norm"))
    found = group(tmp_path)
    axis, facets = entries.over_eps(found, ("net_b",), mean=True, draws=100)
    assert [note.rpartition("/")[2] for note in axis.notes] == ["none' has no radius and is left out"]
    ((label, points),) = facets[0].lines.items()
    assert label == "pgd (mean of 2 seeds)"
    for point in points:
        both = [row["adversarial_miou"] for run in found.runs for row in run.summary["targets"]
                if row["target"] == "net_b" and run.folder.name.endswith(f" {point.x:.0f}")]  # fmt: skip
        assert point.miou.value == pytest.approx(sum(both) / 2)
    _, facets = entries.over_eps(found, ("net_b",), mean=False, draws=100)
    assert list(facets[0].lines) == ["pgd seed=5", "pgd seed=6"]


def test_passes_over_seeds_that_end_early(tmp_path):
    """Each seed has its own number of passes; their mean is the place of the point."""
    for steps in (10, 20):
        for seed in (0, 1):
            run = make_run(tmp_path / f"{steps}_{seed}", counts=matrices(24, lost=steps / 50), steps=steps, seed=seed)
            edit(run, lambda summary: summary["passes_per_image"].update(backward=steps - 1 + seed / 4))  # noqa: B023
    _, facets = entries.over_passes(group(tmp_path), ("net_b",), mean=True, draws=100)
    assert {label: [point.x for point in points] for label, points in facets[0].lines.items()} == {
        "pgd (mean of 2 seeds)": [9.125, 19.125]
    }


@pytest.mark.parametrize(("over", "far"), [(entries.over_eps, {"eps": 4 / 255}), (entries.over_passes, {"steps": 10})])
def test_seeds_of_changed_code_are_no_point(over, far, tmp_path):
    for number, (seed, code) in enumerate([(0, "old"), (1, "old"), (2, "new")]):
        folder = make_run(tmp_path / f"{number}", "mine", seed=seed)
        edit(folder, lambda summary: summary["passes_per_image"].update(backward=19 + number))  # noqa: B023
        settings = json.loads((folder / "settings.json").read_text())
        settings["model"]["code"] = {"attack": {"mine.attack": code}, "networks": {}}
        (folder / "settings.json").write_text(json.dumps(settings))
    make_run(tmp_path / "far", "mine", **far)
    runs, _ = collect([tmp_path])
    assert [len(alike) for alike in siblings(runs)] == [2, 1, 1]
    with pytest.raises(RunsError, match="2' are the same point of the line 'mine', but code of your own was changed"):
        over(group(tmp_path), ("net_b",), mean=True, draws=100)
    shutil.rmtree(tmp_path / "2")
    _, facets = over(group(tmp_path), ("net_b",), mean=True, draws=100)
    assert {label: len(points) for label, points in facets[0].lines.items()} == {"mine (mean of 1 to 2 seeds)": 2}


def behind(folder, defences, lost=0.3, **more):
    """A run whose targets are one network, and it behind defences: names -> seed and parts."""
    targets = {"net": True, **dict.fromkeys(defences, False)}
    make_run(folder, counts=matrices(24, len(targets), lost=lost), source="net", white_box=targets, **more)

    def noted(summary):
        for row in summary["targets"][1:]:
            seed, parts = defences[row["target"]]
            row["defence"] = {"network": "net", "seed": seed, "parts": parts}

    edit(folder, noted)
    return folder


def behind_jpeg(folder, attack, lost, **more):
    """A run whose three targets are one network behind JPEG of three qualities."""
    defences = {f"jpeg_{quality}": (0, [{"class": "JPEG", "quality": quality}]) for quality in (95, 30, 60)}
    return behind(folder, defences, attack=attack, lost=lost, **more)


def test_curves_over_the_strength_of_a_defence(tmp_path, capsys):
    runs = [behind_jpeg(tmp_path / attack, attack, lost) for attack, lost in (("pgd", 0.2), ("segpgd", 0.4))]
    found = group(*runs)
    axis, (facet,) = entries.over_strength(found, found.targets, mean=False, draws=50)
    assert (axis.title, facet.source, facet.target, facet.white_box) == ("JPEG quality", "net", "net", False)
    (axes,) = curves.draw_curves(axis, [facet], 3.25, 7, None, PLAIN).axes
    rows = [{row["target"]: row for row in run.summary["targets"]} for run in found.runs]
    lines = drawn(axes)
    for colour, own, column in (
        (curves.COLOURS[0], rows[0], "adversarial_miou"),
        (curves.COLOURS[1], rows[1], "adversarial_miou"),
        (curves.CLEAN, rows[0], "clean_miou"),
    ):
        expected = [(quality, 100 * own[f"jpeg_{quality}"][column]) for quality in (30, 60, 95)]
        np.testing.assert_allclose(lines[colour], expected)
    bare = {line.get_color(): line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"}
    expected = [100 * own["net"]["adversarial_miou"] for own in rows]
    np.testing.assert_allclose([bare[curves.COLOURS[0]], bare[curves.COLOURS[1]]], expected)
    assert axes.get_ylim()[1] > max(expected)
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pgd", "segpgd", "clean images", "without the defence"]
    assert axes.get_xlim()[0] > 20
    assert main(["figure", "strength", *map(str, runs), "--draws=100", f"--output={tmp_path / 'curve.svg'}"]) == 0
    few = ["figure", "strength", *map(str, runs), "--targets", "net", "jpeg_95", f"--output={tmp_path / 'none.svg'}"]
    assert main(few) == 2
    assert "no two of the targets are one network behind one defence" in capsys.readouterr().err
    (page_curve,) = strength_curves(found.runs, ["a", "b"])
    assert [(line.name, line.x) for line in page_curve.data] == [
        (name, (30, 60, 95)) for name in ("clean images", "a", "b")
    ]  # fmt: skip
    assert page_curve.data[2].y[1] == round(100 * rows[1]["jpeg_60"]["adversarial_miou"], 4)


def test_families_of_targets_with_several_settings():
    """A grid of sigma and bits: each row and each column is a family; a target of other classes is none."""
    rows = [
        {"target": f"{sigma} {bits}", "defence": {"network": "net", "seed": 0, "parts": [
            {"class": "GaussianFilter", "sigma": sigma}, {"class": "BitDepth", "bits": bits}]}}
        for sigma in (2.0, 0.5) for bits in (3, 5)
    ]  # fmt: skip
    other = {"target": "flips", "defence": {"network": "net", "seed": 0, "parts": [{"class": "FlipAndScales"}]}}
    found = families([{"target": "net"}, other, *rows])
    assert [(one.setting, one.others, one.targets) for one in found] == [
        ("GaussianFilter sigma", "then BitDepth bits 3", {0.5: "0.5 3", 2.0: "2.0 3"}),
        ("GaussianFilter sigma", "then BitDepth bits 5", {0.5: "0.5 5", 2.0: "2.0 5"}),
        ("BitDepth bits", "after GaussianFilter sigma 2.0", {3: "2.0 3", 5: "2.0 5"}),
        ("BitDepth bits", "after GaussianFilter sigma 0.5", {3: "0.5 3", 5: "0.5 5"}),
    ]


def test_each_line_is_of_one_defence(tmp_path):
    """Parts before and after, and seeds, make other families of one setting: each has a chart of its own."""
    median = {"class": "MedianFilter", "size": 3}
    chains = {"": ([], []), "then MedianFilter": ([], [median]), "after MedianFilter": ([median], []),
              "then JPEG quality 50": ([], [{"class": "JPEG", "quality": 50}]),
              "after JPEG quality 30": ([{"class": "JPEG", "quality": 30}], [])}  # fmt: skip
    defences = {
        f"{name} {quality}": (0, [*before, {"class": "JPEG", "quality": quality}, *after])
        for name, (before, after) in chains.items()
        for quality in (30, 75)
    }
    pads = {f"{seed} {size}": (seed, [{"class": "ResizeAndPad", "size": size}]) for seed in (0, 1) for size in (8, 9)}
    run = behind(tmp_path / "run", defences | pads)
    found = group(run)
    _, facets = entries.over_strength(found, [*defences], mean=False, draws=50)
    assert {facet.behind for facet in facets} >= {*chains}
    _, seeds = entries.over_strength(found, [*pads], mean=False, draws=50)
    assert [facet.behind for facet in seeds] == ["seed 0", "seed 1"]
    panels = curves.draw_curves(entries.Axis("x", False), facets, 40, 7, None, Display({"net": "FPN"})).axes
    assert [axes.get_title() for axes in panels[:2]] == ["FPN", "FPN (then MedianFilter)"]
    charts = strength_curves(found.runs, ["pgd"], "Table 1")
    assert len({chart.layout.title.text for chart in charts}) == len(charts) == len(facets) + len(seeds)
    assert {"Table 1, net (seed 1), source net", "Table 1, net (after MedianFilter), source net"} <= {
        chart.layout.title.text for chart in charts
    }
    lines = [line.get_xdata() for axes in panels for line in axes.lines if line.get_marker() != "None"]
    for x in [*lines, *(line.x for chart in charts for line in chart.data)]:
        assert [*x] == sorted({*x})
    for chart in charts:
        assert [line.name for line in chart.data] == ["clean images", "pgd"]


def test_lines_of_runs_with_other_strengths(tmp_path):
    """The clean line has all of them, and a family is called alike whichever of its targets a run has."""

    def jpeg(*wanted):
        return {f"{quality} {bits}": (0, [{"class": "JPEG", "quality": quality}, {"class": "BitDepth", "bits": bits}])
                for quality, bits in wanted}  # fmt: skip

    runs = [
        behind(tmp_path / "few", jpeg((30, 3), (60, 3)), attack="pgd"),
        behind(tmp_path / "more", jpeg((60, 3), (90, 3), (30, 5), (60, 5)), attack="segpgd"),
    ]
    found = group(*runs)
    targets = [name for name in found.targets if name != "net"]
    with pytest.raises(RunsError, match="differ in several settings: JPEG quality, BitDepth bits"):
        entries.over_strength(found, targets, mean=False, draws=50)
    charts = {chart.layout.title.text: chart for chart in strength_curves(found.runs, ["pgd", "segpgd"])}
    lines = {line.name: line.x for line in charts["net (then BitDepth bits 3), source net"].data}
    assert lines == {"clean images": (30, 60, 90), "pgd": (30, 60), "segpgd": (60, 90)}
    lines = {line.name: line.x for line in charts["net (then BitDepth bits 5), source net"].data}
    assert lines == {"clean images": (30, 60), "segpgd": (30, 60)}
    _, (facet,) = entries.over_strength(found, ["30 3", "60 3", "90 3"], mean=False, draws=50)
    assert [point.x for point in facet.clean_line] == [30, 60, 90]


def test_the_page_has_charts_of_strength_for_each_table(tmp_path):
    """The clean line of one table is not that of runs on other photos."""
    for name in ("one", "two"):
        photos = [f"{name} {number}" for number in range(24)]
        behind_jpeg(tmp_path / name, "pgd", 0.2, names=photos)
    write_page(collect([tmp_path])[0], tmp_path / "page.html", draws=50)
    found = re.findall(r"Table (\d), net, source net", (tmp_path / "page.html").read_text())
    assert found == ["1", "2"]
