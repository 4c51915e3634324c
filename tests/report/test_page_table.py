"""The table of the page."""

from lightning_attack.report.intervals import miou_interval
from lightning_attack.report.page_table import HEADINGS, MISSING, table_rows
from lightning_attack.runs import read_run
from tests.runs.made import make_run


def test_intervals_of_the_page_leave_out_what_was_not_scored(tmp_path):
    all_but_two = [(image, "net_c") for image in range(22)]
    run = read_run(make_run(tmp_path / "run", failed=[(2, "net_b"), *all_but_two]))
    place = HEADINGS.index("95 % interval")
    shown = [row.cells[place].text for row in table_rows([run], ["run"], 200)]
    scored = [*range(2), *range(3, 24)]
    found = [miou_interval(run.counts("net_a")[:, 1], 200), miou_interval(run.counts("net_b")[scored, 1], 200)]
    assert shown == [*(f"{100 * one.low:.1f}..{100 * one.high:.1f}" for one in found), MISSING]
    none = read_run(make_run(tmp_path / "none", failed=[(image, "net_c") for image in range(24)]))
    assert table_rows([none], ["none"], 200)[2].cells[place].text == MISSING
