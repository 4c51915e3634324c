"""What a person sees who opens TensorBoard on a finished run: the README's command, a real browser."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

README = (Path(__file__).parents[2] / "README.md").read_text()
WALK = """
function walk(node, seen) {
  for (const child of node.childNodes) {
    seen(child);
    if (!["STYLE", "SCRIPT", "TEMPLATE", "NOSCRIPT"].includes(child.tagName)) walk(child, seen);
  }
  if (node.shadowRoot) walk(node.shadowRoot, seen);
}
const found = [];
"""
"""Through a page and its shadow roots, where web components keep what they show."""
TEXT = """
walk(document.body, node => { if (node.nodeType === Node.TEXT_NODE) found.push(node.textContent); });
return found.join(" ").replace(/\\s+/g, " ");
"""
SIZES = """
walk(document.body, node => {
  if (node.tagName === "IMG" && node.naturalWidth) found.push([node.naturalWidth, node.naturalHeight]);
});
return found;
"""


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def tensorboard(predict, tmp_path):
    """The address of the server that the README's command starts beside the results of a run."""
    assert predict("--run_name=mine", "--data.limit=2", "--model.attack.steps=4", "--data.dataset.size=64") == 0
    (command,) = re.findall(r"^tensorboard .*$", README, re.MULTILINE)
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *shlex.split(command)[1:], "--port=0"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    yield next(match[0] for line in server.stderr if (match := re.search(r"http://\S+", line)))
    server.kill()
    server.wait()


def wait_until(true, seconds=30):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.2)


def shows(browser, *words):
    """Wait until a page says all words."""
    missing, text = words, ""

    def says_all():
        nonlocal missing, text
        text = browser.execute_script(WALK + TEXT)
        missing = [word for word in words if word not in text]
        return not missing

    wait_until(says_all)
    assert not missing, text


def sizes(browser):
    """Of all pictures that a page has loaded."""
    return {tuple(size) for size in browser.execute_script(WALK + SIZES)}


def test_tensorboard_shows_a_run(browser, tensorboard):
    networks = ("deeplabv3plus_regnetx_002", "fpn_mobilenetv2", "segformer_efficientvit")

    browser.get(f"{tensorboard}?tagFilter=over_images#timeseries")
    shows(browser, "mine", *(f"/{name}" for name in networks))

    browser.get(f"{tensorboard}#custom_scalars")
    browser.refresh()
    shows(
        browser, "white box against transfer", "adversarial mIoU over percent of the images", "Matches (3)",
        "over_images/white_box/deeplabv3plus_regnetx_002", "over_images/transfer/fpn_mobilenetv2",
        "share of pixels that are fooled", "steps/fooled", "steps/stage_two_share",
    )  # fmt: skip

    browser.get(f"{tensorboard}#images")
    browser.refresh()
    shows(browser, "images/scene_000000", "images/scene_000001")
    # Two panels of 64 in a row, five rows with two lines of heading, four lines of legend.
    expected = {(2 * 64 + 6, 5 * (32 + 64 + 6) + 4 * 16)}
    wait_until(lambda: sizes(browser) == expected)
    assert sizes(browser) == expected
    screenshot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    assert len(screenshot.getcolors(1 << 24)) > 2000  # noise on photos has many colours, TensorBoard itself has few

    browser.get(f"{tensorboard}#text")
    browser.refresh()
    shows(
        browser, "result/per_class_iou", "clean → adversarial", "triangle", "python main.py predict", "--run_name=mine"
    )

    browser.get(f"{tensorboard}#hparams")
    browser.refresh()
    shows(browser, "TABLE VIEW", "transegpgd", "result/white_box_miou", "result/transfer_miou", "8.0000")
