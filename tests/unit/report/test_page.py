"""The page about the night, as text and in a browser."""

import base64
import gzip
import json
import re

import pytest
from browsing import load_axe, serious
from smallnight import HOSTILE, names

from lib.report import embed, page, sizes


@pytest.fixture(scope="module")
def made(shown):
    _, imdir, *_ = shown
    return (imdir / "night.html").read_text(encoding="utf-8")


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))


def cards_of(text):
    packed = re.search(r'id="cards">(.*?)</script>', text, re.S).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_page_needs_nothing_but_itself(made):
    own = made
    for library in embed.libraries().values():
        own = own.replace(library, "")
    assert len(own) < len(made)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", own)
    assert not re.search(r"@import|url\((?!data:|#)", own)


def test_hostile_header_text_stays_text(made):
    assert HOSTILE not in made
    assert "window.hurt=1</script>" not in made
    logs = cards_of(made)[names(1)[0]]["logs"]
    assert HOSTILE in logs["prepare"]


def test_page_tells_every_row_and_every_stack(made, shown):
    night, _, good, lost = shown
    data = data_of(made)
    assert len(data["rows"]) == len(night.rows)
    assert {one["stack"] for one in data["stacks"]} == set(night.stacks)
    assert [one["frame"] for one in data["frames"]] == night.science
    pictures = cards_of(made)[good[0]]["pictures"]
    assert [one["title"] for one in pictures] == [
        "flat-fielded", "sky-subtracted", "mask (3 px cosmic)",
    ]  # fmt: skip
    assert "NO_FLAT" in made and "camera C1, not C0" in made


def test_details_of_a_large_night_are_kept_beside_the_page(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    monkeypatch.setattr(page, "sizes_for", lambda *_: sizes.Sizes(embed=0))
    page.make_page(night, {"datadir": "none"}, imdir)
    text = (imdir / "night.html").read_text(encoding="utf-8")
    assert cards_of(text) == {} and data_of(text)["aside"] == "qa/frames/"
    aside = (imdir / "qa" / "frames" / f"{good[0]}.js").read_text(encoding="utf-8")
    assert aside.startswith(f'autoprocCard("{good[0]}", {{') and "</script" not in aside


def test_page_begins_with_the_target(made):
    parts = re.findall(r'<section id="(\w+)"', made)
    assert parts[:2] == ["targets", "stacks"]
    target = made[made.index('data-target="T1"') : made.index('data-target="T2"')]
    # 18.40 +- 0.03 and a zero point known to 0.01: the errors add in quadrature.
    assert "<b>18.400</b> ± 0.032</td><td>AB</td>" in target
    assert "10:00:00.360 +02:00:03.60" in target
    assert "finding chart of T1" in target and ">N</text>" in target
    curve = data_of(made)["targets"][0]
    assert curve["systems"] == {"r": "AB"} and len(curve["curve"]) == 4


def test_page_of_a_single_night_knows_no_page_about_all(made):
    assert "campaign.html" not in made and "All nights" not in made


def test_links_lead_to_products(made, shown):
    _, imdir, *_ = shown
    html = re.sub(r"<script.*?</script>", "", made, flags=re.S)
    addresses = {one for one in re.findall(r'href="([^"#]+)"', html) if "data:" not in one}
    addresses |= {one["href"] for stack in data_of(made)["stacks"] for one in stack["links"]}
    assert {"coaddT1.r.fits", "T1.lightcurve.ecsv", "frames.ecsv", "bias-C0.fits"} <= addresses
    for address in addresses:
        assert (imdir / address).is_file(), address


def test_stack_without_zero_point_says_why(made):
    text = re.sub(r"\s+", " ", made)
    assert "none: the stack was not made" in text
    assert "zero point</dt><dd>27.000 ± 0.010 AB</dd>" in text


def open_page(browser, path):
    """Open a page, scroll to its table and wait until that is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what the browser did before
    browser.get(path.as_uri())
    browser.execute_script("document.querySelector('#frames').scrollIntoView()")
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
    from selenium.webdriver.support.ui import WebDriverWait

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
    assert "27.0000 ± 0.0100 AB" in text_of(browser, "#stack-dialog[open] .facts")
    assert browser.current_url.endswith("#stack=T1.r")
    strip = "return document.querySelectorAll('#stack-dialog .strip button').length"
    assert browser.execute_script(strip) == 4
    click(browser, "#stack-dialog .close")
    WebDriverWait(browser, 10).until(lambda one: "#" not in one.current_url)
    browser.execute_script("location.hash = '#frame=' + arguments[0]", good[1])
    assert text_of(browser, "#frame-dialog[open] h2") == good[1]
    click(browser, "#frame-dialog .close")

    browser.execute_script(
        "window.copied = ''; Object.defineProperty(navigator, 'clipboard',"
        "{value: {writeText: async text => { window.copied = text; }}})"
    )
    click(browser, f"input[data-name='{good[3]}']")
    click(browser, "#copy-exclude")
    line = browser.execute_script("return window.copied")
    assert line.split(None, 1) == [good[3], "CLOUDY: 0.02 < 0.1"]

    click(browser, "[data-target='T1'] [aria-label='copy the line of r']")
    assert browser.execute_script("return window.copied").split() == (
        "2022-01-28T05:01:05 30 s r 18.40 +/- 0.03 AB".split()
    )

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


def trusted(browser, kind, x, y, **more):
    event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1} | more
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def test_light_curve_tells_its_values(browser, shown):
    """A point says its value under the pointer and opens its frame."""
    _, imdir, good, _ = shown
    open_page(browser, imdir / "night.html")
    place = (
        "const svg = document.querySelector('[data-curve=T1] svg');"
        "svg.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const box = svg.getBoundingClientRect();"
        "const path = [...svg.querySelectorAll('path[stroke-linecap]')][0].getAttribute('d');"
        "const [x, y] = path.match(/[\\d.]+/g).map(Number); return [box.x + x, box.y + y]"
    )
    browser.execute_script(place)
    x, y = browser.execute_script(place)
    trusted(browser, "mouseMoved", x + 2, y + 1, button="none")
    assert "18.300 ± 0.040 AB" in text_of(browser, "#tip:not([hidden])")
    for kind in ("mousePressed", "mouseReleased"):
        trusted(browser, kind, x + 2, y + 1)
    assert text_of(browser, "#frame-dialog[open] h2") == good[0]
    click(browser, "#frame-dialog .close")
    points = "return document.querySelectorAll('[data-curve=T1] tbody tr').length"
    assert browser.execute_script(points) == 4


def test_page_can_be_read_and_used_by_all(browser, shown):
    _, imdir, good, _ = shown
    open_page(browser, imdir / "night.html")
    load_axe(browser)
    assert serious(browser) == []
    for address in ("#stack=T1.r", f"#frame={good[0]}"):
        browser.execute_script("location.hash = arguments[0]", address)
        text_of(browser, "dialog[open] h2")
        assert serious(browser, "dialog[open]") == []
        browser.execute_script("document.querySelector('dialog[open]').close()")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert serious(browser, runOnly=["color-contrast"]) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_printed_page_has_the_whole_table(browser, shown):
    _, imdir, good, lost = shown
    open_page(browser, imdir / "night.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    rows = "return [...document.querySelectorAll('#frame-print tr > :first-child')]"
    told = browser.execute_script(f"{rows}.map(one => one.textContent)")
    assert told[0] == "frame" and {*good, *lost, "grism.fits"} <= set(told)
    shown = "return getComputedStyle(document.querySelector(arguments[0])).%s"
    assert browser.execute_script(shown % "display", "#frame-scroll") == "none"
    assert browser.execute_script(shown % "position", "header") == "static"
    wide = browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert wide, "something is cut off on paper"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
