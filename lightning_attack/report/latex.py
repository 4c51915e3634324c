"""Sheets as LaTeX tables in the form of the papers: booktabs, white boxes grey, the strongest attack bold."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_attack.report.sheet import Score, Sheet
from lightning_attack.report.tables import figure, percent

# A straight quotation mark is not in LaTeX's own fonts.
_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": r"{[}", "]": r"{]}", "-": r"{-}",
}  # fmt: skip


def escape(text: str) -> str:
    r"""Escape text for LaTeX, which prints it as it is; letters of any language stay, in UTF-8.

    Example:
        >>> escape("pgd_50% {a}")
        'pgd\\_50\\% \\{a\\}'
        >>> escape("Straße 道路")
        'Straße 道路'
    """
    return "".join(_SPECIAL.get(sign, sign if sign.isprintable() else "?") for sign in text)


def latex(sheets: Sequence[Sheet], titles: Sequence[str]) -> str:
    r"""All tables, to be `\input` into a document with `booktabs` and `xcolor`.

    Rows are attacks in groups by source and budget, columns are targets.
    """
    head = r"% \usepackage{booktabs} and \usepackage{xcolor} in the document's head; wide: \resizebox or \small"
    return "\n\n".join([head, *map(_table, sheets, titles)]) + "\n"


def _table(sheet: Sheet, title: str) -> str:
    width = 1 + len(sheet.targets)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(title)}: mIoU in percent on the adversarial images, lower is stronger; "
        r"white boxes grey, bold where the strongest attack is really lower than the second "
        r"(95\,\% interval of the paired difference over images).}",
        rf"\begin{{tabular}}{{l{'r' * len(sheet.targets)}}}",
        r"\toprule",
        _line(["attack", *map(escape, sheet.targets)]),
        r"\midrule",
        _line(["clean", *(percent(sheet.clean[target]) for target in sheet.targets)]),
    ]
    for section in sheet.sections:
        lines += [r"\midrule", _line([rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(section.title)}}}}}"])]
        for row in section.rows:
            lines.append(_line([escape(row.label), *(_number(row.cells.get(target)) for target in sheet.targets)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {escape(note)}" for note in sheet.notes]
    return "\n".join([*lines, r"\end{table}"])


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _number(cell: Score | None) -> str:
    if cell is None:
        return "--"
    text = figure(cell).replace("±", r"\,$\pm$\,")
    if cell.white_box:
        return rf"\textcolor{{gray}}{{{text}}}"
    return rf"\textbf{{{text}}}" if cell.best else text
