"""The walk through a notebook runs from its first cell to its last, and each cell shows what it promises."""

import ast

import pytest
from PIL.Image import Image

from lightning_attack.report import ShownRuns
from tests.readme.pages import NOTEBOOK, blocks


def run_cell(code, names):
    """Run a cell as a notebook does; returns the value of its last line, if that is an expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.filterwarnings("ignore:.*num_workers.*")
def test_all_cells_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    shown = [run_cell(block, names) for page, block in blocks("python") if page == NOTEBOOK]
    assert sum(isinstance(one, Image) for one in shown) == 3
    (tables,) = [one for one in shown if isinstance(one, ShownRuns)]
    page = tables._repr_html_()
    assert page.count("<img ") == 8
    assert "transegpgd_mi_di_ti" in page
    said = capsys.readouterr().out
    assert "PGD changes no value by more than 8.0 levels of 255" in said
    assert said.count("of the pixels are correct") == 4
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"report.tex", "report.bib", "report.html"}
    assert r"TranSegPGD + MI-DI-TI~\cite{jia2023transegpgd," in (tmp_path / "report" / "report.tex").read_text()
