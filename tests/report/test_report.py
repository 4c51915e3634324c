"""`python main.py report` as a user meets it."""

import csv
import io
import json
import os
import re
import shutil
import statistics
import subprocess

import pytest
from rich.console import Console

from lightning_attack.cli.main import main
from lightning_attack.report import collect, read_run
from lightning_attack.report.groups import group_runs
from lightning_attack.report.intervals import difference_interval, miou_interval
from lightning_attack.report.screen import print_tables
from lightning_attack.report.sheet import compute
from lightning_attack.report.tables import COLUMNS, console, console_differences
from lightning_attack.runs.order import write_order
from tests.runs.made import NETWORKS, make_run, matrices

FILES = {"report.csv", "report.md", "report.tex", "report.bib", "report.html", "differences.csv"}
ONTO_B = {"net_a": False, "net_b": True, "net_c": False}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weaken(lost):
    """Matrices whose attacked ones lose these shares of the hits on the three networks, nearly alike in each image."""
    counts = matrices(24)
    for network, share in enumerate(lost):
        counts[:, network, 1] = matrices(24, lost=share, spread=0.02)[:, network, 1]
    return counts


@pytest.fixture
def study(tmp_path):
    """Three attacks on two sources: `strong` beats `pgd` and `even` on net_c by far, on net_b hardly."""
    folder = tmp_path / "study"
    for source, white_box in (("net_a", NETWORKS), ("net_b", ONTO_B)):
        make_run(folder / f"{source}_pgd", "pgd", weaken([0.6, 0.2, 0.1]), source, white_box)
        make_run(folder / f"{source}_strong", "strong", weaken([0.5, 0.2, 0.3]), source, white_box)
        make_run(folder / f"{source}_even", "even", matrices(24, lost=0.11, spread=0.1), source, white_box)
    return folder


def test_tables_of_a_study(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    assert main(["report", str(study), f"--output={tmp_path / 'report'}"]) == 0
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES
    table = rows(tmp_path / "report" / "report.csv")
    assert tuple(table[0]) == COLUMNS
    assert len(table) == 2 * 3 * 3
    for row in table:
        run = read_run(study / row["run"].rpartition("/")[2])
        counts = run.counts(row["target"])
        reported = next(one for one in run.summary["targets"] if one["target"] == row["target"])
        for column in ("clean_miou", "adversarial_miou", "drop"):
            assert float(row[column]) == pytest.approx(reported[column], abs=1e-12)
        drop = difference_interval(counts[:, 0], counts[:, 1])
        assert (float(row["drop_low"]), float(row["drop_high"])) == (drop.low, drop.high)
        miou = miou_interval(counts[:, 1])
        assert (float(row["adversarial_miou_low"]), float(row["adversarial_miou_high"])) == (miou.low, miou.high)
        assert row["images"] == "24"
    best = {(row["source"], row["target"], row["attack"]) for row in table if row["best"] == "True"}
    # On net_a, attacked from net_b, pgd loses most; a white box is nowhere the best.
    assert best == {("net_a", "net_c", "strong"), ("net_b", "net_c", "strong"), ("net_b", "net_a", "pgd")}

    text = (tmp_path / "report" / "report.md").read_text()
    assert text.split("\n\n")[1].splitlines()[:3] == ["- images: 24", "- budget: 8/255", "- steps: 20"]
    assert len(re.findall(r"\*\*\d\d\.\d\d\*\*", text)) == 3
    assert len(re.findall(r"(?<!\*)\*\d\d\.\d\d\*(?!\*)", text)) == 6, "white boxes in italics"
    said = next(line for line in text.splitlines() if line.startswith("- net_a -> net_c: strong"))
    differences = {(row["source"], row["target"], row["label"]): row
                   for row in rows(tmp_path / "report" / "differences.csv")}  # fmt: skip
    assert len(differences) == 2 * 2 * 3, "the baseline has none"
    real = differences["net_a", "net_c", "strong"]
    low, value, high = (-100 * float(real[f"difference{end}"]) for end in ("_high", "", "_low"))
    assert said == (
        f"- net_a -> net_c: strong is {value:.1f} points lower than pgd (95 % {low:.1f}..{high:.1f}, 24 images)"
    )
    assert (real["real"], real["against"]) == ("True", "pgd")
    assert differences["net_a", "net_b", "strong"]["real"] == "False"
    assert "strong does not really differ from pgd" in text

    printed = capsys.readouterr().out
    assert "net_a, L-inf 8/255" in printed
    assert f"Report: {tmp_path / 'report'}" in printed


def test_the_console_dims_white_boxes_and_what_is_not_real(study):
    (group,), _ = group_runs(collect([study])[0])
    sheet = compute(group)
    plain, bold, dim = None, "1", "2"
    # Against pgd, strong is higher on net_a, much the same on net_b, and lower on net_c.
    expected = (console(sheet, "title"), [dim, plain, bold]), (console_differences(sheet), [plain, dim, plain])
    for table, styles in expected:
        screen = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
        screen.print(table)
        line = next(line for line in screen.file.getvalue().splitlines() if "  strong " in line)
        cells = line.split("│")[2:5]
        assert [re.search(r"(?:\x1b\[(\d)m)?[-+]?\d+\.\d\d", cell)[1] for cell in cells] == styles


def test_odd_names(tmp_path, capsys, monkeypatch):
    """On a narrow console nothing is cut, in Markdown nothing is markup, and a folder may be no UTF-8."""
    monkeypatch.setenv("COLUMNS", "80")
    odd, long = "<b>*a*|b</b>\n[red]c", "network_of_a_very_long_name_indeed"
    networks = {"net_a": True, f"{long}_1": False, f"{long}_2": False}
    for number, attack in enumerate((odd, f"attack_of_{long}")):
        for again in (b"", b"_again"):  # folders tell them apart
            make_run(tmp_path / "study" / os.fsdecode(b"%d\xff%s" % (number, again)), attack, white_box=networks)
    assert main(["report", str(tmp_path / "study"), f"--output={tmp_path / 'report'}"]) == 0
    said = capsys.readouterr().out
    tables = "".join(line.partition("│")[2].partition("│")[0].strip() for line in said.splitlines())
    assert tables.count(f"attack_of_{long}") >= 2, said
    assert "[red]c" in tables
    assert "…" not in said
    assert r"0\udcff" in tables
    text = (tmp_path / "report" / "report.md").read_text()
    assert r"| &lt;b>\*a\*\|b&lt;/b> [red]c [" in text
    for name in FILES - {"report.tex", "report.bib"}:  # LaTeX has a question mark for what is not ASCII
        assert "udcff" in (tmp_path / "report" / name).read_text("utf-8"), name
    # The log of a job has no width: a row is a line.
    monkeypatch.delenv("COLUMNS")
    print_tables([tmp_path / "study"])
    rows_of_log = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"│   attack_of_{long}")]
    assert len(rows_of_log) == 2
    assert all(len(line.split("│")) == 6 and line.count("(") == 3 for line in rows_of_log)


@pytest.fixture
def odd_study(study):
    """A study with an attack whose name is full of what LaTeX takes for commands."""
    make_run(study / "odd", '50%_of {it} & #1 ^~\\ <é> "a"', weaken([0.1, 0.1, 0.1]))
    return study


def test_latex_has_the_marks(odd_study, tmp_path):
    assert main(["report", str(odd_study), f"--output={tmp_path / 'report'}", "--draws=200"]) == 0
    text = (tmp_path / "report" / "report.tex").read_text()
    assert len(re.findall(r"\\textbf\{\d\d\.\d\d\}", text)) == 3
    assert len(re.findall(r"\\textcolor\{gray\}\{\d\d\.\d\d\}", text)) == 7


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex to compile the tables with")
def test_latex_compiles(odd_study, tmp_path):
    """Odd names, and what papers have: citations and intervals."""
    for attack, name in (("pgd", "PGD"), ("a_mi", "A + MI")):
        paper_run(tmp_path / "papers" / attack, attack, name)
    for runs, more in ((odd_study, []), (tmp_path / "papers", ["--intervals"])):
        report = tmp_path / f"report_of_{runs.name}"
        assert main(["report", str(runs), f"--output={report}", "--draws=200", *more]) == 0
        compile_paper(report)


def compile_paper(folder):
    """Compile the tables of a report, with what they cite; nothing may be undefined."""
    document = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\usepackage{xcolor}", r"\begin{document}",
                r"\nocite{*}\input{report}", r"\bibliographystyle{plain}\bibliography{report}",
                r"\end{document}"]  # fmt: skip
    (folder / "paper.tex").write_text("\n".join(document))
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] * (command == "pdflatex")
        done = subprocess.run([command, *options, "paper"], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or (command == "bibtex" and "@" not in (folder / "report.bib").read_text())
    assert "undefined" not in done.stdout
    assert (folder / "paper.pdf").stat().st_size > 1000


def paper_run(folder, attack, name, **more):
    """A run that says what papers call its attack."""
    citations = {f"{attack}2020": f"@misc{{{attack}2020, title = {{A title}}, author = {{Doe, J.}}, year = {{2020}}}}"}
    data = {"dataset": "PascalVOC", "split": "val"}
    return make_run(folder, attack, display_name=name, citations=citations, data=data, **more)


def body(folder):
    """The lines of the only table in `report.tex`: before, in and after its rows."""
    lines = (folder / "report.tex").read_text().splitlines()
    return lines, [line.partition(" & ")[0] for line in lines if " & " in line]


def test_latex_for_a_paper(tmp_path):
    """Names of papers with citations, the order of the study, and what all rows have in common in the caption."""
    study = tmp_path / "study"
    for attack, name in (("pgd", "PGD"), ("a_mi", "A + MI")):
        paper_run(study / f"{attack}_net_a_eps8", attack, name)
    write_order(study, ["pgd_net_a_eps8", "a_mi_net_a_eps8"])
    words = [
        "report",
        str(study),
        "--draws=200",
        f"--output={tmp_path}",
        "--names",
        "net_b=Netz & B",
        "PascalVOC=VOC 2012",
    ]
    assert main(words) == 0
    lines, rows = body(tmp_path)
    assert rows == ["attack", "clean images", r"PGD~\cite{pgd2020}", r"A + MI~\cite{a_mi2020}"]
    caption = next(line for line in lines if line.startswith(r"\caption"))
    assert "VOC 2012 (val), 24 images, source net\\_a, $\\ell_\\infty \\le 8/255$." in caption
    assert [line for line in lines if "label{" in line] == [r"\label{tab:transfer}\smallskip"]
    assert r"attack & net\_a & Netz \& B & net\_c \\" in lines
    assert not any("textit" in line or "scriptsize" in line for line in lines)
    assert re.findall(r"@misc\{(\w+),", (tmp_path / "report.bib").read_text()) == ["a_mi2020", "pgd2020"]

    paper_run(study / "pgd_net_a_eps4", "pgd", "PGD", eps=4 / 255)
    paper_run(study / "pgd_net_a_eps4_40", "pgd", "PGD", eps=4 / 255, steps=40)
    paper_run(study / "pgd_net_b", "pgd", "PGD", source="net_b", white_box=ONTO_B)
    assert main([*words, "--intervals"]) == 0
    lines, rows = body(tmp_path)
    assert rows == [
        "attack", "clean images", r"PGD~\cite{pgd2020}, steps=20", r"A + MI~\cite{a_mi2020}", "PGD, steps=20",
        "PGD, steps=40", "PGD, steps=20",
    ]  # fmt: skip
    headings = [found[1] for line in lines if (found := re.search(r"textit\{(.*)\}\}", line))]
    assert headings == [
        r"source net\_a, $\ell_\infty \le 8/255$", r"source net\_a, $\ell_\infty \le 4/255$",
        r"source Netz \& B, $\ell_\infty \le 8/255$",
    ]  # fmt: skip
    assert all(line.count("scriptsize") == 3 for line in lines if re.match(r"(PGD|A \+|clean)", line))


def test_common_images_partial_runs_and_failed_targets_are_said(tmp_path, capsys):
    make_run(tmp_path / "whole", "pgd")
    make_run(tmp_path / "short", "fgsm", matrices(10, lost=0.4), failed=[(2, "net_b")], partial=True, missing=14)
    words = ["report", str(tmp_path / "whole"), str(tmp_path / "short"), f"--output={tmp_path / 'report'}"]
    assert main(words) == 2
    assert "not finished" in capsys.readouterr().err
    assert main([*words, "--partial", "--common"]) == 0
    table = {(row["attack"], row["target"]): row for row in rows(tmp_path / "report" / "report.csv")}
    assert {row["table"] for row in table.values()} == {"1"}
    assert [table[attack, "net_c"]["images"] for attack in ("pgd", "fgsm")] == ["10", "10"]
    assert [table[attack, "net_b"]["images"] for attack in ("pgd", "fgsm")] == ["10", "9"]
    assert [table[attack, "net_b"]["partial"] for attack in ("pgd", "fgsm")] == ["False", "True"]
    half = read_run(tmp_path / "whole").counts("net_c")[:10, 1]
    assert float(table["pgd", "net_c"]["adversarial_miou"]) == pytest.approx(miou_interval(half).value)
    text = (tmp_path / "report" / "report.md").read_text()
    for said in ("10 of 24 images that the runs have in common", "14 images are missing", "intervals are rough",
                 "net_b could not be scored on 1 image.", "| fgsm (partial) |"):  # fmt: skip
        assert said in text
    (pair,) = [row for row in rows(tmp_path / "report" / "differences.csv") if row["target"] == "net_b"]
    assert pair["images"] == "9"

    assert main([*words, "--partial"]) == 0
    assert {row["table"] for row in rows(tmp_path / "report" / "report.csv")} == {"1", "2"}
    assert not rows(tmp_path / "report" / "differences.csv")
    assert "10 are the same (--common" in capsys.readouterr().out.replace("\n", " ")


def test_baselines_are_of_the_same_budget_and_seed(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "study" / f"pgd{seed}", "pgd", weaken([0.5, 0.1 + seed / 10, 0.1]), seed=seed)
        make_run(tmp_path / "study" / f"fgsm{seed}", "fgsm", weaken([0.5, 0.3, 0.1]), seed=seed)
    make_run(tmp_path / "study" / "wide", "fgsm", eps=16 / 255)
    words = ["report", str(tmp_path / "study"), f"--output={tmp_path / 'report'}"]
    assert main(words) == 0
    made = {(row["label"], row["target"]): row for row in rows(tmp_path / "report" / "differences.csv")}
    assert {key[0] for key in made} == {"fgsm eps=8/255, seed=0", "fgsm eps=8/255, seed=1"}
    assert [made[f"fgsm eps=8/255, seed={seed}", "net_b"]["against"] for seed in (0, 1)] == ["pgd seed=0", "pgd seed=1"]
    means = [float(made[f"fgsm eps=8/255, seed={seed}", "net_b"]["difference"]) for seed in (0, 1)]
    assert means[0] < means[1] < 0
    assert main([*words, "--baseline=fgsm1"]) == 0
    made = rows(tmp_path / "report" / "differences.csv")
    assert {row["against"] for row in made} == {"fgsm eps=8/255, seed=1"}
    assert (
        "Nothing is compared on net_a, L-inf 16/255: there is no fgsm1" in (tmp_path / "report/report.md").read_text()
    )


def test_any_name_in_a_table_is_a_baseline(tmp_path):
    """Of two sources, and with `--mean`; without one, runs of one attack are compared with nothing, which is said."""
    for source, white_box in (("net_a", NETWORKS), ("net_b", ONTO_B)):
        for steps in (10, 40):
            for seed in (0, 1):
                folder = make_run(tmp_path / "study" / f"{source}_{steps}_{seed}", "pgd", source=source,
                                  white_box=white_box, seed=seed)  # fmt: skip
                report = json.loads((folder / "transfer.json").read_text())
                report["settings"]["attack"]["steps"] = steps
                (folder / "transfer.json").write_text(json.dumps(report))
    words = ["report", str(tmp_path / "study"), f"--output={tmp_path / 'report'}"]
    assert main(words) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "on net_b, L-inf 8/255: all are baselines, such as pgd steps=10, seed=0 and pgd" in text
    for name, more, count in (("pgd steps=10, seed=0", [], 3), ("pgd steps=10 (mean of 2 seeds)", ["--mean"], 1)):
        assert main([*words, *more, f"--baseline={name}"]) == 0
        made = rows(tmp_path / "report" / "differences.csv")
        assert {row["against"] for row in made} == {name}
        assert len(made) == 2 * count * 3


def test_no_label_anywhere_is_no_number(tmp_path):
    for attack in ("pgd", "fgsm"):
        make_run(tmp_path / "study" / attack, attack, 0 * matrices(6))
    assert main(["report", str(tmp_path / "study"), f"--output={tmp_path / 'report'}"]) == 0
    assert not rows(tmp_path / "report" / "differences.csv")
    assert "nan" not in (tmp_path / "report" / "report.md").read_text()


def test_seeds_become_one_row_when_asked_for(tmp_path):
    losses = {"pgd": [0.10, 0.12, 0.11], "strong": [0.20, 0.23, 0.24]}
    for attack, lost in losses.items():
        for seed, share in enumerate(lost):
            make_run(tmp_path / "study" / f"{attack}{seed}", attack, weaken([0.5, share, 0.1]), seed=seed)
    make_run(tmp_path / "study" / "lone", "fgsm", weaken([0.5, 0.05, 0.1]), seed=7)
    words = ["report", str(tmp_path / "study"), f"--output={tmp_path / 'report'}"]
    assert main(words) == 0
    single = [row for row in rows(tmp_path / "report" / "report.csv") if row["target"] == "net_b"]
    assert len(single) == 7
    assert main([*words, "--mean"]) == 0
    means = {row["attack"]: row for row in rows(tmp_path / "report" / "report.csv") if row["target"] == "net_b"}
    assert {row["label"] for row in means.values()} == {"fgsm", "pgd (mean of 3 seeds)", "strong (mean of 3 seeds)"}
    for attack in losses:
        mious = [float(row["adversarial_miou"]) for row in single if row["attack"] == attack]
        assert float(means[attack]["adversarial_miou"]) == pytest.approx(statistics.mean(mious))
        assert float(means[attack]["spread"]) == pytest.approx(statistics.stdev(mious))
        assert (means[attack]["seed"], len(means[attack]["run"].split(";"))) == ("0;1;2", 3)
    assert (means["fgsm"]["seed"], means["fgsm"]["spread"], means["strong"]["best"]) == ("7", "", "True")
    made = [row for row in rows(tmp_path / "report" / "differences.csv") if row["target"] == "net_b"]
    assert {row["against"] for row in made} == {"pgd (mean of 3 seeds)"}
    for row in made:
        other = means["strong" if "strong" in row["label"] else "fgsm"]
        expected = float(other["adversarial_miou"]) - float(means["pgd"]["adversarial_miou"])
        assert float(row["difference"]) == pytest.approx(expected)
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"\| strong \(mean of 3 seeds\) \| .*\*\*\d\d\.\d\d±\d\.\d\d\*\*", text)


def test_report_of_real_runs(predict, tmp_path):
    """What `predict` wrote is read back to the last digit, and the clean figures are no attack's."""
    for attack in ("pgd", "fgsm"):
        small = ("--data.limit=2", "--data.batch_size=2", "--model.attack.steps=1", f"--run_name={attack}")
        assert predict(f"--model.attack=configs/attacks/{attack}.yaml", *small) == 0
    assert main(["report", str(tmp_path / "results"), f"--output={tmp_path / 'report'}"]) == 0
    table = rows(tmp_path / "report" / "report.csv")
    for attack in ("pgd", "fgsm"):
        written = {row["target"]: row for row in rows(tmp_path / "results" / attack / "transfer.csv")}
        mine = {row["target"]: row for row in table if row["attack"] == attack}
        assert list(mine) == list(written)
        for target, row in written.items():
            for column in ("clean_miou", "adversarial_miou", "drop"):
                assert float(mine[target][column]) == pytest.approx(float(row[column]), abs=1e-12)
            assert mine[target]["white_box"] == row["white_box"]
    assert {row["table"] for row in table} == {"1"}, "the same networks and photos"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "--output=report"], "there is no folder 'nowhere'"),
        (["empty", "--output=report"], "'empty' holds no run"),
        (["run", "--output=run/report"], "lies in the run"),
        (["run", "--output=run"], "lies in the run"),
        (["run", "--output=file"], "is a file"),
        (["run", "--output=report", "--draws=3"], "give 100 or more"),
        (["run", "--output=report", "--draws=many"], "many"),
        (["run", "--output=report", "--baseline=pdg"], "known: pgd"),
        (["run", "--output=report", "--comon"], "comon"),
        (["torn", "--output=report"], "00000000.png' cannot be read"),
        (["run", "strangers", "--output=report", "--common"], "no image in common"),
        (["--output=report"], "runs"),
        (["run", "--names", "pdg=PGD"], "no attack, network, data set or class of the runs is called 'pdg'"),
    ],
)
def test_mistakes(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    make_run(tmp_path / "strangers", names=[f"other{number}" for number in range(24)])
    (make_run(tmp_path / "torn") / "panels").mkdir()
    (tmp_path / "torn" / "panels" / "00000000.png").write_bytes(b"torn")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *words]) == 2
    answer = capsys.readouterr().err.strip()
    assert says in answer
    assert len(answer.splitlines()) <= 2
    assert sorted(tmp_path.rglob("*")) == before, "something was written"
