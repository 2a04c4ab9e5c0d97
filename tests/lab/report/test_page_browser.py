"""The report in a real browser: Chromium without a window, where there is one."""

import base64
import functools
import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from report_records import (
    HOSTILE,
    drawing_of,
    hostile_record,
    record_of,
    row_of,
    run_of,
    write_record,
    write_run_files,
)

from mmkd_logit.lab.report.page import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("chromium and chromedriver are not on the path", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.timeout(240)

CELLS = dict(
    a=("tau 20", "", [-1.5, -2.5], -2.25),
    b=("tau 3", "", [10.25], 9.0),
    c=("tau 0.5", "", [None], 100.0),
    d=("tau 0.25", "", [9.75, None], None),
    e=("tau inf", "", [float("nan")], 0.5),
    f=("MSE", "", [], -10.0),
)  # fmt: skip
WIDE = {
    f"r{k}": ("WRN-16-2 -> a row of long words", f"tau {k}", [70.0, 71.0][: 1 + (k == 9)], 74.88)
    for k in range(20)
}


def write_pages(root):
    """Write experiments of every kind, one with odd texts, and report on them."""
    listed = record_of(CELLS, "list", title="A list -> of cells")
    listed["runs"].append(run_of("teacher", 0, 90.5, dict(kind="ce", network="WRN")))
    records = [
        (listed, None),
        (record_of(WIDE, "wide", note="word " * 60 + "x" * 300), None),
        (hostile_record("odd", " ".join(HOSTILE)), "odd/all.json"),
        (hostile_record("odd", HOSTILE[3]), "odd/link.json"),
    ]
    for record, place in records:
        write_record(root, record, place)
        if place is None:
            write_run_files(root, record)
    with open(root / "results/runs.jsonl", "a") as file:
        file.write(json.dumps(row_of(HOSTILE[0], 0, 1.0)) + "\n")

    def draw(experiment=None):
        if experiment is None:
            return [drawing_of("losses")]
        if experiment.key == "list":
            return [drawing_of("curves", sources=["work_dirs/a/seed0/train.log"])]
        if experiment.key == "wide":
            return []
        odd = [dict(title=t, caption=t, paper=t, sources=[t], numbers={t: t}) for t in HOSTILE[:2]]
        return [drawing_of(fields["title"], **fields) for fields in odd]

    def refuse(experiment):
        raise ValueError(" ".join(HOSTILE))

    figures = dict(
        drawn=SimpleNamespace(NEEDS="runs", draw=draw),
        refused=SimpleNamespace(NEEDS="runs", draw=refuse),
        losses=SimpleNamespace(NEEDS=None, draw=draw),
    )
    return build_report(root / "results", figures=figures)[0]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    words = "--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu --user-data-dir="
    for word in f"{words}{profile}".split():
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", dict(browser="ALL", performance="ALL"))
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, report):
    """The page, newly opened on a desk."""
    browser = Browser(chromium)
    browser.resize(1280, 900)
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get_log("performance")
    chromium.get(report.as_uri())
    return browser


class Browser:
    """What tests ask of a page."""

    def __init__(self, driver):
        self.driver = driver
        self.all = functools.partial(driver.find_elements, "css selector")
        self.one = functools.partial(driver.find_element, "css selector")
        self.run = driver.execute_script
        self.tell = driver.execute_cdp_cmd

    def resize(self, width, height, phone=False):
        metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.tell("Emulation.setDeviceMetricsOverride", metrics)

    def press(self, key):
        """Press a key where the focus is."""
        self.driver.switch_to.active_element.send_keys(key)


def test_no_errors_and_nothing_fetched(browser, report):
    assert browser.driver.title == "Distilling logits: what was measured"
    assert browser.driver.get_log("browser") == []
    events = [
        json.loads(line["message"])["message"] for line in browser.driver.get_log("performance")
    ]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert report.as_uri() in asked
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}


def test_what_data_say_is_not_run(browser, report):
    """Not on opening, not on unfolding, focusing and pointing, not by its links."""
    title = browser.driver.title
    browser.run(
        "for (const each of document.querySelectorAll('details')) each.open = true;"
        "for (const each of document.querySelectorAll('main *')) {"
        "  if (each.focus) each.focus();"
        "  each.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));"
        "}"
    )
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelectorAll('svg, iframe, object').length") == 0
    kinds = browser.run("return [...document.links].map((each) => each.protocol)")
    assert set(kinds) == {"file:"}
    shown = browser.one("main").text
    for text in HOSTILE[:6]:
        assert text in shown
    assert browser.driver.title == title
    assert browser.driver.get_log("browser") == []  # a refused script would be told here


def column(browser, number):
    """The texts of a column of the first table of the list."""
    return browser.run(
        "const table = document.querySelector('#experiment-list table');"
        "const text = (row) => row.cells[arguments[0]].innerText.replaceAll('\u00a0', ' ');"
        "return [...table.tBodies[0].rows].map(text)",
        number,
    )


def test_columns_sort_by_click(browser):
    assert column(browser, 1)[1] == "10.25 (1)"
    name, ours, paper, difference = browser.all(
        "#experiment-list table:first-of-type thead button"
    )[:4]
    ours.click()
    last = ["1 failed", "nan (1)", "-"]
    assert column(browser, 1) == ["−2.00 ± 0.71 (2)", "1 failed 9.75 (1)", "10.25 (1)", *last]
    ours.click()
    assert column(browser, 1) == ["10.25 (1)", "1 failed 9.75 (1)", "−2.00 ± 0.71 (2)", *last]
    heads = browser.all("#experiment-list table:first-of-type thead th")[:4]
    order = [head.get_attribute("aria-sort") for head in heads]
    assert order == ["none", "descending", "none", "none"]
    paper.click()
    assert column(browser, 2) == ["−10.00 S", "−2.25 S", "0.50 S", "9.00 S", "100.00 S", ""]
    difference.click()
    assert column(browser, 3)[:3] == ["+0.25", "+1.25", ""]
    name.click()
    names = ["MSE", "tau 0.25", "tau 0.5", "tau 3", "tau 20", "tau inf"]
    assert column(browser, 0) == names
    browser.run("arguments[0].focus()", paper)
    browser.press("\ue007")  # enter
    assert column(browser, 2)[0] == "−10.00 S"
    assert browser.driver.switch_to.active_element == paper


def test_the_first_stop_of_the_keyboard_leads_to_the_results(browser):
    browser.one("body").send_keys("\ue004")  # tab
    skip = browser.driver.switch_to.active_element
    assert skip.text == "Skip to the results"
    assert skip.rect["x"] >= 0
    skip.send_keys("\ue007")
    assert browser.run("return location.hash") == "#main"


def test_a_number_leads_to_its_runs(browser):
    link = browser.all("#experiment-list a.number")[1]
    assert link.text == "10.25"
    target = browser.one(link.get_attribute("href").partition("#")[2].join(["[id='", "']"]))
    for _ in range(2):  # also once it was folded again
        assert not target.get_property("open")
        browser.run("arguments[0].scrollIntoView()", link)
        link.click()
        assert browser.driver.execute_async_script(
            "const [target, done] = arguments;"
            "requestAnimationFrame(() => setTimeout(() => done(target.open), 0))",
            target,
        )
        assert 0 <= target.rect["y"] - browser.run("return scrollY") < 900
        assert "configs/kd/b.py --seed 0" in target.get_attribute("textContent")
        browser.run("arguments[0].open = false", target)
    log = target.find_element("link text", "log") if target.get_property("open") else None
    assert log is None


def test_a_link_from_elsewhere_opens_its_runs(browser, report):
    browser.driver.get("about:blank")
    browser.driver.get(f"{report.as_uri()}#experiment-list-b")
    target = browser.one("#experiment-list-b")
    assert target.get_property("open")
    target.find_element("link text", "log").click()
    assert "this is work_dirs/b/seed0/train.log" in browser.one("body").text


def test_figures_enlarge(browser):
    dialog, button = browser.one("dialog"), browser.one("#figure-curves .zoom")
    browser.run("arguments[0].scrollIntoView()", button)
    button.click()
    assert dialog.get_property("open")
    assert dialog.accessible_name.startswith("Figure curves")
    image = dialog.find_element("css selector", "img")
    first = float(image.get_attribute("data-scale"))
    browser.press("+")
    assert float(image.get_attribute("data-scale")) > first
    browser.press("0")
    assert float(image.get_attribute("data-scale")) == first
    dialog.find_element("css selector", "[data-do=out]").click()
    assert float(image.get_attribute("data-scale")) < first
    assert image.rect["width"] > 100
    browser.press("\ue00c")  # escape
    assert not dialog.get_property("open")
    assert browser.driver.switch_to.active_element == button
    button.click()
    dialog.find_element("css selector", "[data-do=close]").click()
    assert not dialog.get_property("open")


def test_everything_has_a_name_for_those_who_listen(browser):
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    nodes = browser.tell("Accessibility.getFullAXTree", {})["nodes"]
    found = {}
    for node in nodes:
        if not node["ignored"]:
            name = node.get("name", {}).get("value", "").strip()
            found.setdefault(node["role"]["value"], []).append(name)
    for role in ("button", "link", "image", "region", "navigation", "DisclosureTriangle"):
        assert found[role], role
        assert all(found[role]), role
    assert len(found["main"]) == 1


def overflow(browser):
    """Elements that scroll or reach beyond the window, but for tables in their boxes."""
    return browser.run(
        "const page = document.documentElement;"
        "const wide = [page.scrollWidth - page.clientWidth];"
        "return wide.concat([...document.querySelectorAll('body *:not(.box, .stage)')].filter("
        "  (each) => each.scrollWidth > each.clientWidth + 1"
        "    && ['auto', 'scroll'].includes(getComputedStyle(each).overflowX)"
        ").map((each) => each.outerHTML.slice(0, 200)))"
    )


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_but_tables_scrolls_sideways(browser, width):
    browser.resize(width, 760, phone=width == 360)
    assert browser.run("return innerWidth") == width
    assert overflow(browser) == [0]
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    assert overflow(browser) == [0]
    box = browser.one("#experiment-wide .box")
    wide, seen = box.get_property("scrollWidth"), box.get_property("clientWidth")
    assert wide > seen  # the control: twenty columns do
    first = box.find_element("css selector", "tbody th")
    assert first.size["width"] < 0.6 * seen


def test_paper_has_all_tables(browser, tmp_path):
    """Folded parts are printed too, and folded again afterwards."""
    words = dict(paperWidth=8.27, paperHeight=11.69, printBackground=True, preferCSSPageSize=True)
    data = browser.tell("Page.printToPDF", words)["data"]
    assert browser.all("details[open]") == []
    path = tmp_path / "page.pdf"
    path.write_bytes(base64.b64decode(data))
    assert path.read_bytes().startswith(b"%PDF")
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not on the path")
    done = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, check=True)
    text = " ".join(done.stdout.decode().split())
    shown = ("−2.00 ± 0.71 (2)", "10.25 (1)", "tau 0.25", "100.00 S", "+0.25", "What is drawn.")
    assert not [each for each in shown if each not in text]
    assert text.count("74.88") >= 20
    assert "python tools/train.py configs/kd/b.py --seed 0" in text
    assert "Copy" not in text
    pages = done.stdout.decode().split("\f")
    assert len(pages) < 60


def test_paper_cuts_nothing_off(browser):
    """At the width of a page nothing reaches beyond it, which Chromium would make smaller."""
    browser.run("dispatchEvent(new Event('beforeprint'))")
    browser.tell("Emulation.setEmulatedMedia", dict(media="print"))
    try:
        browser.resize(688, 1000)  # A4 less the margins
        wide = browser.run(
            "return [...document.querySelectorAll('table, img, pre, code')].filter("
            "  (each) => each.offsetParent && each.getBoundingClientRect().right > 688.5"
            ").map((each) => each.outerHTML.slice(0, 200))"
        )
        assert wide == []
        assert overflow(browser) == [0]
    finally:
        browser.tell("Emulation.setEmulatedMedia", dict(media=""))
        browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.all("details[open]") == []


def test_commands_can_be_copied(browser):
    code = browser.one("#experiment-list .command code")
    assert code.get_attribute("textContent") == "python tools/reproduce.py list --only '*_mse'"
    button = browser.one("#experiment-list .copy")
    button.click()
    assert browser.driver.execute_async_script(
        "const [button, done] = arguments;"
        "const look = () => button.textContent === 'Copy' ? setTimeout(look, 20)"
        "  : done(button.textContent); look()",
        button,
    ) in ("Copied", "Selected")
