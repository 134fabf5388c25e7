"""The page about the night, as text and in a browser."""

import json
import re
import shutil

import pytest
from smallnight import HOSTILE, names

from lib.report import embed, page, sizes


@pytest.fixture
def made(reduced):
    night, imdir, *_ = reduced
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    return (imdir / "night.html").read_text(encoding="utf-8")


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))


def test_page_needs_nothing_but_itself(made):
    own = made
    for library in embed.libraries().values():
        own = own.replace(library, "")
    assert len(own) < len(made)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", own)
    assert not re.search(r"@import|url\((?!data:)", own)


def test_hostile_header_text_stays_text(made):
    assert HOSTILE not in made
    assert "window.hurt=1</script>" not in made
    data = data_of(made)
    logs = data["cards"][names(1)[0]]["logs"]
    assert HOSTILE in logs["prepare"]


def test_page_tells_every_row_and_every_stack(made, reduced):
    night, _, good, lost = reduced
    data = data_of(made)
    assert len(data["rows"]) == len(night.rows)
    assert {one["stack"] for one in data["stacks"]} == set(night.stacks)
    assert [one["frame"] for one in data["frames"]] == night.science
    pictures = data["cards"][good[0]]["pictures"]
    assert [one["title"] for one in pictures] == [
        "flat-fielded", "sky-subtracted", "mask (3 px cosmic)",
    ]  # fmt: skip
    assert "NO_FLAT" in made and "camera C1, not C0" in made


def test_details_of_a_large_night_are_kept_beside_the_page(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    monkeypatch.setattr(page, "sizes_for", lambda *_: sizes.Sizes(embed=0))
    page.make_page(night, {"datadir": "none"}, imdir)
    data = data_of((imdir / "night.html").read_text(encoding="utf-8"))
    assert data["cards"] == {} and data["aside"] == "qa/frames/"
    aside = (imdir / "qa" / "frames" / f"{good[0]}.js").read_text(encoding="utf-8")
    assert aside.startswith(f'autoprocCard("{good[0]}", {{') and "</script" not in aside


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that records its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "headless", "no-sandbox", "disable-gpu", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=1300,900",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()


def open_page(browser, path):
    """Open a page and wait until its table is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what the browser did before
    browser.get(path.as_uri())
    ready = "return document.body.dataset.table === 'ready'"
    WebDriverWait(browser, 30).until(lambda one: one.execute_script(ready))


def cells(browser, column):
    script = (
        "return [...document.querySelectorAll('#frame-table tbody tr')]"
        ".map(row => row.cells[arguments[0]].textContent)"
    )
    return browser.execute_script(script, column)


def click(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def text_of(browser, selector):
    from selenium.webdriver.support.ui import WebDriverWait

    script = "const one = document.querySelector(arguments[0]); return one && one.textContent"
    return WebDriverWait(browser, 10).until(lambda one: one.execute_script(script, selector))


@pytest.mark.parametrize("embed", [8e6, 0])
def test_page_in_a_browser(browser, reduced, monkeypatch, embed):
    night, imdir, good, lost = reduced
    monkeypatch.setattr(page, "sizes_for", lambda *_: sizes.Sizes(embed=embed))
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    open_page(browser, imdir / "night.html")

    assert cells(browser, 0) == night.science, "the table does not begin with the science frames"
    click(browser, "#frame-table thead th:first-child .dt-column-order")
    assert cells(browser, 0) == sorted(night.science)
    click(browser, "#frame-table thead th:first-child .dt-column-order")
    assert cells(browser, 0) == sorted(night.science, reverse=True)
    browser.execute_script(
        "const one = document.querySelector('select[data-column=status]');"
        "one.value = 'REJECTED'; one.dispatchEvent(new Event('change'))"
    )
    assert set(cells(browser, 0)) == {good[3], lost[0]}

    click(browser, "#frame-table tbody tr:nth-child(2)")
    assert "cosmic" in text_of(browser, "#frame-dialog[open] .pictures")
    assert text_of(browser, "#frame-dialog[open] h2") == good[3]
    click(browser, "#frame-dialog .close")
    click(browser, f"#left-table button[data-frame='{lost[1]}']")
    assert HOSTILE in text_of(browser, "#frame-dialog[open] details pre")
    click(browser, "#frame-dialog .close")

    click(browser, "[data-stack='T1.r'] .picture")
    assert "27.0000 ± 0.0100" in text_of(browser, "#stack-dialog[open] .facts")
    strip = "return document.querySelectorAll('#stack-dialog .strip button').length"
    assert browser.execute_script(strip) == 4
    click(browser, "#stack-dialog .close")

    browser.execute_script(
        "window.copied = ''; Object.defineProperty(navigator, 'clipboard',"
        "{value: {writeText: async text => { window.copied = text; }}})"
    )
    click(browser, f"input[data-name='{good[3]}']")
    click(browser, "#copy-exclude")
    line = browser.execute_script("return window.copied")
    assert line.split(None, 1) == [good[3], "CLOUDY: 0.02 < 0.1"]

    assert browser.execute_script("return typeof window.hurt") == "undefined"
    assert [one["message"] for one in browser.get_log("browser")] == []
    messages = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    asked = [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    ]
    here = imdir.as_uri()
    assert [url for url in asked if not url.startswith((here, "data:", "blob:"))] == []
