"""The page of a comparison: what is in the file, and what a browser makes of it."""

import base64
import io
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import lightning_attack
from lightning_attack.cli.main import main
from lightning_attack.report import Run, RunsError, page, read_run
from lightning_attack.report.page_table import HEADINGS
from lightning_attack.report.pictures import gallery, titles

SMALL = ("--data.dataset.init_args.count=3", "--data.dataset.init_args.size=64", "--trainer.accelerator=cpu",
         "--image_writer.workers=1", "--transfer_metrics.table=false", "--image_logger.count=2")  # fmt: skip
RUNS = {
    "short": ("--model.attack.steps=2",),
    "long": ("--model.attack.steps=4",),
    "pgd": ("--model.attack=configs/attacks/pgd.yaml", "--model.attack.steps=2"),
}
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&amp;${x}%{x}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["main.py"])
        for name, words in RUNS.items():
            assert main(["predict", f"--results={results}", f"--run_name={name}", *SMALL, *words]) == 0
    found = [read_run(results / name) for name in RUNS]
    curve = {"steps": [1, 2], "targets": {target: [0.5, 0.25] for target in found[0].targets}}
    return [replace(found[0], summary=found[0].summary | {"step_curve": curve}), *found[1:]]


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium.webdriver", reason="the page is driven by selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("the page is shown to chromium and chromedriver, which are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,999",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(programs[1]))
    driver.implicitly_wait(10)
    yield driver
    driver.quit()


def quiet(browser):
    """Whether the console is empty and nothing but the file itself was asked for since the last look."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    inside = [url for url in asked if url.startswith(("file://", "data:", "blob:"))]
    assert inside
    return browser.get_log("browser") == [] and asked == inside


def opened(browser, runs, path):
    page.write_page(runs, path)
    browser.get(path.as_uri())
    return lambda selector: browser.find_elements("css selector", selector)


@pytest.fixture(scope="module")
def find(browser, runs, tmp_path_factory):
    """The page of the runs, opened; looks elements up."""
    folder = tmp_path_factory.mktemp("page")
    found = opened(browser, runs, folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return found


def column(find, number):
    return [
        row.find_elements("css selector", "td")[number].text for row in find("#table tbody tr") if row.is_displayed()
    ]


def choose(find, name, text):
    for option in find(f"#{name} option"):
        if option.get_attribute("textContent") == text:
            option.click()
            return
    raise AssertionError(f"no {text}")


def drawn(browser, find, selector):
    """The figures of charts, each brought into view and waited for."""
    figures = []
    here = "const chart = document.querySelectorAll(arguments[0])[arguments[1]]; "
    told = (
        "return {title: chart.layout.title.text, x: chart.layout.xaxis.title.text, data: chart.data,"
        "y: chart.layout.yaxis.ticktext, shapes: chart.layout.shapes,"
        "from: [chart._fullLayout.xaxis.range[0], chart._fullLayout.yaxis.range[0]]}"
    )
    for place in range(len(find(selector))):
        browser.execute_script(here + "chart.scrollIntoView()", selector, place)
        assert find(f"{selector}:nth-child({place + 1}) .main-svg")
        figures.append(browser.execute_script(here + told, selector, place))
    return figures


def test_table_sorts_and_filters(browser, find, runs):
    rows = [row for run in runs for row in run.summary["targets"]]
    headings = [heading.text for heading in find("#table thead button")]
    place = headings.index("adversarial mIoU")
    assert column(find, place) == [f"{100 * row['adversarial_miou']:.2f}" for row in rows]
    assert column(find, headings.index("steps")) == ["2"] * 3 + ["4"] * 3 + ["2"] * 3
    assert set(column(find, headings.index("eps"))) == {"8/255"}
    assert column(find, headings.index("images")) == ["3"] * 9
    assert column(find, headings.index("run")) == [name for name in RUNS for _ in range(3)]

    heading = find("#table thead th")[place]
    button = find("#table thead button")[place]
    button.click()
    in_order = sorted(row["adversarial_miou"] for row in rows)
    assert column(find, place) == [f"{100 * value:.2f}" for value in in_order]
    assert heading.get_attribute("aria-sort") == "ascending"
    button.send_keys("\n")  # by the keyboard too
    assert column(find, place) == [f"{100 * value:.2f}" for value in in_order[::-1]]
    assert heading.get_attribute("aria-sort") == "descending"
    find("#table thead button")[0].click()
    assert column(find, 0) == ["pgd"] * 3 + ["transegpgd"] * 6
    assert heading.get_attribute("aria-sort") == "none"

    find("#words")[0].send_keys("TRANSEG fpn")
    assert column(find, 2) == ["fpn_mobilenetv2"] * 2
    assert find("#count")[0].text == "2 of 9 rows"
    find("#words")[0].clear()
    choices = find(".filter")
    choices[0].send_keys("pgd")
    choices[3].send_keys("transfer")
    assert column(find, 0) == ["pgd"] * 2
    assert set(column(find, 3)) == {"no"}
    for choice in choices:
        choice.send_keys("all")
    assert find("#count")[0].text == "9 of 9 rows"
    assert quiet(browser)


def test_overview_is_the_table_of_the_report(browser, find, runs):
    script = """
        const texts = (row, kind) => [...row.querySelectorAll(kind)].map((cell) => cell.textContent);
        return [...document.querySelectorAll(".overview tr:has(td.run)")].map((row) => [
            texts(row, "th")[0], texts(row, "td.run")[0], texts(row, "td.number"), texts(row, "td.white-box")]);
    """
    expected = []
    for name, run in zip(("TranSegPGD, steps=2", "TranSegPGD, steps=4", "PGD"), runs, strict=True):
        cells = {one["target"]: f"{100 * one['adversarial_miou']:.2f}" for one in run.summary["targets"]}
        white = [cells[target] for target, white in run.targets.items() if white]
        expected.append([name, run.folder.name, [*cells.values()], white])
    assert browser.execute_script(script) == expected
    assert [cell.text for cell in find(".overview .section")] == ["source deeplabv3plus_regnetx_002, L-inf 8/255"]
    facts = find(".facts")[0].text
    versions = runs[0].summary["versions"]
    for text in ("SyntheticScenes, 3 photos", runs[0].summary["date"][:10], f"torch {versions['torch']}"):
        assert text in facts


def test_charts_show_the_figures(browser, find, runs):
    (heat,) = drawn(browser, find, "[data-charts=heat] > div")
    assert heat["y"] == ["clean images", "TranSegPGD steps=2", "TranSegPGD steps=4", "PGD"]
    conditions = [("clean", runs[0]), *(("adversarial", run) for run in runs)]
    values = [[100 * row[f"{name}_miou"] for row in run.summary["targets"]] for name, run in conditions]
    assert np.allclose(heat["data"][0]["z"], values, atol=1e-3)
    curves = drawn(browser, find, "[data-charts=curves] > div")
    assert [chart["x"] for chart in curves] == ["steps", "steps", "backward passes per image"]  # one eps: no chart
    assert [line["y"] for line in curves[0]["data"]] == [[50, 25]] * 3
    transfer = [[row["adversarial_miou"] for row in run.summary["targets"] if not row["white_box"]] for run in runs]
    clean = {row["target"]: 100 * row["clean_miou"] for row in runs[0].summary["targets"]}
    for chart in curves:
        assert chart["from"][0] <= 0 == chart["from"][1]
        assert chart["from"][0] > -1
        across = {shape["label"]["text"]: shape["y0"] for shape in chart["shapes"]}
        shown = clean if chart is curves[0] else {name: clean[name] for name in list(clean)[1:]}
        assert across == pytest.approx({f"{name}, clean": value for name, value in shown.items()}, abs=1e-3)
    for chart in curves[1:]:
        assert [line["x"] for line in chart["data"]] == [[2, 4], [2, 4], [2], [2]]
        points = [*zip(transfer[0], transfer[1], strict=True), (transfer[2][0],), (transfer[2][1],)]
        for line, expected in zip(chart["data"], points, strict=True):
            assert np.allclose(line["y"], 100 * np.array(expected), atol=1e-3)

    choose(find, "run", "PGD on deeplabv3plus_regnetx_002")
    choose(find, "target", "fpn_mobilenetv2")
    classes, distance, size = drawn(browser, find, "#run-charts > div")
    row = runs[2].summary["targets"][1]
    assert row["target"] == "fpn_mobilenetv2"
    for bars, name in zip(classes["data"], ("clean", "adversarial"), strict=True):
        shown = dict(zip(bars["x"], bars["y"], strict=True))
        expected = {key: 100 * value for key, value in row[f"{name}_iou"].items() if value is not None}
        assert shown == pytest.approx(expected, abs=1e-3)
    assert [chart["title"] for chart in (distance, size)] == [
        "Flipped pixels by distance to an edge",
        "Flipped pixels by size of object",
    ]
    for chart, kind in ((distance, "distance"), (size, "size")):
        counts = row["flips"][kind]
        for place, bars in zip(counts["right"], chart["data"][1]["y"], strict=True):
            right = counts["right"][place]
            assert bars == (pytest.approx(100 * counts["flipped"][place] / right) if right else None)
    assert quiet(browser)


def test_gallery_and_its_slider(browser, find, runs):
    choose(find, "run", "PGD on deeplabv3plus_regnetx_002")
    choose(find, "image", "scene_000001")
    choose(find, "left", "labels")
    choose(find, "right", "prediction of fpn_mobilenetv2: adversarial")
    with Image.open(runs[2].folder / "panels" / "00000001.png") as strip:
        panels = np.array(strip).reshape(64, 10, 64, 3).swapaxes(0, 1)
    for side, panel in (("left", 3), ("right", 7)):
        picture = find(f"#{side}-picture")[0]
        content = base64.b64decode(picture.get_attribute("src").partition(",")[2])
        assert np.array_equal(np.array(Image.open(io.BytesIO(content)).convert("RGB")), panels[panel])
        assert picture.get_attribute("alt").startswith("scene_000001: ")

    def look(wipe, left, right):
        choose(find, "left", left)
        choose(find, "right", right)
        slider = find("#wipe")[0]
        slider.send_keys({0: "\ue011", 100: "\ue010"}.get(wipe, "\ue011"))  # Home or End
        slider.send_keys("\ue014" * (wipe % 100))  # arrow to the right
        assert slider.get_attribute("value") == str(wipe)
        shot = find(".stack")[0].screenshot_as_png
        return np.array(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    clean, labels = look(0, "clean", "clean"), look(0, "labels", "labels")
    assert (look(0, "clean", "labels") == labels).all()
    assert (look(100, "clean", "labels") == clean).all()
    mixed, middle = look(30, "clean", "labels"), round(0.3 * clean.shape[1])
    assert (mixed[:, : middle - 2] == clean[:, : middle - 2]).all()
    assert (mixed[:, middle + 2 :] == labels[:, middle + 2 :]).all()
    assert quiet(browser)


def test_command_is_copied(browser, find, runs):
    text = (runs[1].folder / "command.txt").read_text().strip()
    assert find("dd pre")[1].text == text
    button = find("button.copy")[1]
    button.click()
    find("button.copy")[1]
    words = find("#words")[0]
    words.send_keys("\ue009v\ue000")  # Ctrl+V
    assert button.text == "copied"
    assert words.get_attribute("value") == text
    words.clear()


def test_long_tables_are_shown_in_pages(browser, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "ROWS", 4)
    find = opened(browser, runs, tmp_path / "report.html")
    place = HEADINGS.index("adversarial mIoU")
    figures = [f"{100 * row['adversarial_miou']:.2f}" for run in runs for row in run.summary["targets"]]
    back, on = find("#back")[0], find("#on")[0]

    def shown():
        script = "return [...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[%d].textContent)"
        return browser.execute_script(script % place)

    def pages():
        """What the pages show, turned one after the other, and the names that they have."""
        turned = [shown()]
        while on.is_enabled():
            on.click()
            turned.append(shown())
        return turned, find("#page")[0].text.split("\n")

    assert pages() == ([figures[:4], figures[4:8], figures[8:]], ["1 of 3", "2 of 3", "3 of 3"])
    back.click()
    assert shown() == figures[4:8]
    find("#table thead button")[place].click()  # all rows are sorted, and the first page is shown
    in_order = sorted(figures, key=float)
    assert not back.is_enabled()
    assert pages()[0] == [in_order[:4], in_order[4:8], in_order[8:]]
    choose(find, "page", "2 of 3")
    assert shown() == in_order[4:8]
    find("#words")[0].send_keys("transegpgd")  # what is found is paged, from its first page on
    assert find("#count")[0].text == "6 of 9 rows"
    assert [len(one) for one in pages()[0]] == [4, 2]
    find("#words")[0].send_keys(" fpn")
    assert len(shown()) == 2
    assert not find("#pages")[0].is_displayed()
    find("#words")[0].send_keys(" nothing")
    assert find("#count")[0].text == "0 of 9 rows"
    assert quiet(browser)


def test_names_are_no_markup(browser, runs, tmp_path):
    """A network, a class, an attack, a photo and a folder with a script in their names."""
    (old,) = [row for row in runs[0].summary["targets"] if row["white_box"]]
    folder = tmp_path / HOSTILE.replace("/", "_")
    shutil.copytree(runs[0].folder / "records", folder / "records")
    (folder / "panels").mkdir()
    (folder / "command.txt").write_text(f"python main.py {HOSTILE}\n")
    info = PngInfo()
    info.add_text("name", HOSTILE)
    Image.new("RGB", (6 * 8, 8)).save(folder / "panels" / "00000000.png", pnginfo=info)
    iou = {f"{key}_iou": {f"{HOSTILE}{name}": value for name, value in old[f"{key}_iou"].items()}
           for key in ("clean", "adversarial")}  # fmt: skip
    named = dict.fromkeys(("attack", "source", "target", "display_name"), HOSTILE)
    curve = {"steps": [1, 2], "targets": {HOSTILE: [0.5, None]}}
    changed = {"targets": [old | named | iou], "step_curve": curve, "partial": True, "missing": 1}
    summary = runs[0].summary | named | changed
    find = opened(browser, [Run(folder, summary, runs[0].records), runs[1]], tmp_path / "report.html")
    for selector in ("[data-charts=heat] > div", "[data-charts=curves] > div", "#run-charts > div"):
        drawn(browser, find, selector)
    assert column(find, 0)[0] == find("#run option")[0].text.partition(" (partial) on ")[0] == HOSTILE
    assert find("#image option")[0].text == HOSTILE
    assert "is partial: 1 image is missing" in find(".gap")[-1].text
    labels = [label.get_attribute("textContent") for label in find(".gtitle, .xtick text, .ytick text, .legendtext")]
    assert sum(HOSTILE in label for label in labels) >= 4
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.querySelector('img[src=x]')") is None
    assert quiet(browser)


def test_what_does_not_compare_is_said(runs, tmp_path):
    path = tmp_path / "report.html"
    page.write_page(runs, path)
    assert 'class="gap"' not in path.read_text()
    first = replace(runs[1].records[0], digest="another", failed=dict.fromkeys(runs[1].targets, "NaN"))
    other = replace(runs[1], records=(first, runs[1].records[1]))
    iou = {"clean_iou": {"one": 0.5}, "adversarial_iou": {"one": 0.5}}
    changed = {"skipped": [{"name": "a"}], "targets": [row | iou for row in runs[2].summary["targets"]]}
    skipped = replace(runs[2], summary=runs[2].summary | changed)
    page.write_page([runs[0], other, skipped], path)
    text = path.read_text()
    assert "long&#39; are in tables of their own: of their 3 and 2 images 1 are the same" in text
    assert "pgd&#39; are in tables of their own: their classes differ" in text
    assert "long: 1 image could not be scored on every target" in text
    assert "pgd: 1 image could not be used" in text
    settings = runs[1].settings | {"trainer": {"precision": "16-mixed"}}
    page.write_page([runs[0], replace(runs[1], settings=settings)], path)
    assert "is not the same network in both" in path.read_text()


def test_pictures_are_bounded_and_checked(runs, tmp_path, monkeypatch):
    assert [len([*gallery(runs[0], most)]) for most in (1, 2, 9)] == [1, 2, 2]
    monkeypatch.setattr(page, "IMAGES", 5)  # for three runs: one each
    page.write_page(runs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert ("scene_000000" in text, "scene_000001" in text) == (True, False)

    folder = tmp_path / "run"
    (folder / "panels").mkdir(parents=True)
    strip = folder / "panels" / "00000000.png"
    for content, message in (
        (b"no picture", r"00000000.png' cannot be read"),
        (_png(width=99), r"is 99 pixels wide, which is no strip of 10 panels \(clean, adversarial, "),
    ):
        strip.write_bytes(content)
        with pytest.raises(RunsError, match=message):
            page.write_page([replace(runs[0], folder=folder)], tmp_path / "none.html")
    assert not [*tmp_path.glob("*none*")]
    with pytest.raises(RunsError, match="there are no runs to compare"):
        page.write_page([], tmp_path / "none.html")


def test_panels_have_titles_in_the_order_of_the_strip(runs):
    """The source comes first in a strip, wherever it stands in the table."""
    summary = runs[0].summary | {"targets": runs[0].summary["targets"][::-1]}
    assert titles(replace(runs[0], summary=summary))[4].startswith("prediction of deeplabv3plus")


def _png(width):
    content = io.BytesIO()
    Image.new("RGB", (width, 8)).save(content, "png")
    return content.getvalue()


def test_a_notebook_shows_runs(runs):
    shown = lightning_attack.show(runs[0].folder.parent, images=1, draws=100)
    row = next(row for row in runs[0].summary["targets"] if not row["white_box"])
    for text in (repr(shown), shown._repr_html_()):
        assert f"{100 * row['adversarial_miou']:.2f}" in text
        assert row["target"] in text
    page_part = shown._repr_html_()
    assert page_part.count("<img ") == len(titles(runs[0]))
    assert "<script" not in page_part
