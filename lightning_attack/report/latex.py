"""Sheets as LaTeX tables in the form of the papers: booktabs, white boxes grey, the strongest attack bold."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lightning_attack.common.counted import counted
from lightning_attack.report.facts import data_text
from lightning_attack.report.figures.display import Display
from lightning_attack.report.intervals import LEVEL, Interval
from lightning_attack.report.paper_names import PaperName, paper_names
from lightning_attack.report.sheet import Row, Score, Section, Sheet
from lightning_attack.report.tables import figure, percent

LABEL = "tab:transfer"
_NORMS = {"L-inf": r"\ell_\infty", "L2": r"\ell_2"}
# A straight quotation mark is not in LaTeX's own fonts.
_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": r"{[}", "]": r"{]}",
}  # fmt: skip


def escape(text: str) -> str:
    r"""Escape text for LaTeX, which prints it as it is; letters of any language stay, in UTF-8.

    Example:
        >>> escape("pgd_50% {a}")
        'pgd\\_50\\% \\{a\\}'
        >>> escape("Straße 道路")
        'Straße 道路'
    """
    escaped = "".join(_SPECIAL.get(sign, sign if sign.isprintable() else "?") for sign in text)
    return re.sub("-(?=-)", "-{}", escaped)  # two of them would be a dash


def budget_text(budget: str) -> str:
    r"""A budget as a formula.

    Example:
        >>> budget_text("L-inf 8/255")
        '$\\ell_\\infty \\le 8/255$'
        >>> budget_text("no radius")
        'no radius'
    """
    parts = []
    for part in budget.split(" + "):
        norm, _, eps = part.partition(" ")
        parts.append(rf"${_NORMS[norm]} \le {eps}$" if norm in _NORMS and eps != "None" else escape(part))
    return ", ".join(parts)


def latex(sheets: Sequence[Sheet], display: Display, intervals: bool = False) -> str:
    r"""All tables, to be `\input` into a document with `booktabs` and `xcolor`.

    Rows are attacks by source and budget, columns are targets. A source or budget that all rows have stands in the
    caption. An attack is cited where it comes first in a table; `bibtex` has what is cited.

    Args:
        sheets: the tables.
        display: names of attacks and networks.
        intervals: whether figures have their intervals.
    """
    head = [
        r"% In the head of the document: \usepackage{booktabs} and \usepackage{xcolor}; names beyond ASCII need an",
        r"% engine or a font that has their letters. At its end: \bibliographystyle{plain} and \bibliography{report}.",
        r"% Too wide? \small or \setlength{\tabcolsep}{3pt} after \centering, or table* for two columns.",
    ]
    labels = [LABEL if len(sheets) == 1 else f"{LABEL}-{number}" for number in range(1, len(sheets) + 1)]
    tables = [_table(sheet, label, display, intervals) for sheet, label in zip(sheets, labels, strict=True)]
    return "\n\n".join(["\n".join(head), *tables]) + "\n"


def bibtex(sheets: Sequence[Sheet]) -> str:
    """The papers of the attacks in the tables, by their keys."""
    found: dict[str, str] = {}
    for row in (row for sheet in sheets for section in sheet.sections for row in section.rows):
        for run in row.entry.runs:
            found |= run.citations
    none = "% The runs do not say which papers their attacks come from."
    return "\n\n".join(found[key] for key in sorted(found)) + "\n" if found else none + "\n"


def _table(sheet: Sheet, label: str, display: Display, intervals: bool) -> str:
    sources, budgets = ({getattr(section, what) for section in sheet.sections} for what in ("source", "budget"))
    width = 1 + len(sheet.targets)
    clean = {target: _first(sheet, target) for target in sheet.targets}
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(sheet, sources, budgets, display, intervals)}}}",
        rf"\label{{{label}}}\smallskip",
        rf"\begin{{tabular}}{{l{'r' * len(sheet.targets)}}}",
        r"\toprule",
        _line(["attack", *(escape(display(target)) for target in sheet.targets)]),
        r"\midrule",
        _line(["clean images", *(_with_ends(percent(one.value), one, intervals) for one in clean.values())]),
    ]
    cited: set[str] = set()
    names = paper_names(sheet.sections, display.attack)
    for section, named in zip(sheet.sections, names, strict=True):
        lines.append(r"\midrule")
        if heading := _heading(section, sources, budgets, display):
            lines.append(_line([rf"\multicolumn{{{width}}}{{l}}{{\textit{{{heading}}}}}"]))
        for row, name in zip(section.rows, named, strict=True):
            cells = (_cell(row.cells.get(target), intervals) for target in sheet.targets)
            lines.append(_line([_attack(row, name, cited), *cells]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {escape(note)}}}" for note in sheet.notes]
    return "\n".join([*lines, r"\end{table}"])


def _caption(sheet: Sheet, sources: set[str], budgets: set[str], display: Display, intervals: bool) -> str:
    """What is measured, on which data, with what in common to all rows, and what the marks mean."""
    rows = [row for section in sheet.sections for row in section.rows]
    data = dict.fromkeys(text for row in rows for run in row.entry.runs if (text := data_text(run, display)))
    where = [escape(" and ".join(data))] if data else []
    where.append(counted(sheet.images, "image"))
    where += [f"source {escape(display(source))}" for source in sources if len(sources) == 1]
    where += [budget_text(budget) for budget in budgets if len(budgets) == 1]
    level = rf"{100 * LEVEL:.0f}\,\%"
    seeds = sorted({len(row.entry.runs) for row in rows})
    said = [f"mIoU in percent on adversarial images (lower: stronger attack); {', '.join(where)}."]
    if any(cell.white_box for row in rows for cell in row.cells.values()):
        said.append("Gray: the attacked network itself (white box).")
    if any(cell.best for row in rows for cell in row.cells.values()):
        said.append(
            f"Bold: significantly stronger than the second ({level} interval of the paired difference excludes 0)."
        )
    if intervals:
        said.append(rf"In brackets: {level} intervals over images.")
    if seeds[-1] > 1:
        of = f"{seeds[0]} seeds" if len(seeds) == 1 else "seeds"
        said.append(rf"Means of {of} $\pm$ standard deviation.")
    return " ".join(said)


def _heading(section: Section, sources: set[str], budgets: set[str], display: Display) -> str:
    """Source and budget of a section, where other sections have others."""
    parts = [f"source {escape(display(section.source))}"] if len(sources) > 1 else []
    return ", ".join([*parts, *([budget_text(section.budget)] if len(budgets) > 1 else [])])


def _attack(row: Row, name: PaperName, cited: set[str]) -> str:
    keys = [key for run in row.entry.runs for key in run.citations]
    keys = [key for key in dict.fromkeys(keys) if re.fullmatch(r"[\w:./+-]+", key)]
    cite = rf"~\cite{{{','.join(keys)}}}" if keys and name.attack not in cited else ""
    cited.add(name.attack)
    return escape(name.attack) + cite + (f", {escape(name.details)}" if name.details else "")


def _first(sheet: Sheet, target: str) -> Interval:
    """The mIoU of a target on the clean images, as `Sheet.clean` has it."""
    return next(row.cells[target].clean for section in sheet.sections for row in section.rows if target in row.cells)


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _cell(cell: Score | None, intervals: bool) -> str:
    if cell is None:
        return "--"
    text = figure(cell).replace("±", r"\,$\pm$\,")
    if cell.white_box:
        return rf"\textcolor{{gray}}{{{_with_ends(text, cell.adversarial, intervals)}}}"
    return _with_ends(rf"\textbf{{{text}}}" if cell.best else text, cell.adversarial, intervals)


def _with_ends(text: str, interval: Interval, intervals: bool) -> str:
    if not intervals or math.isnan(interval.low):
        return text
    return rf"{text}\,{{\scriptsize {{[}}{100 * interval.low:.1f}, {100 * interval.high:.1f}{{]}}}}"
