"""The page about all nights, as text and in a browser."""

import functools
import re
from http.server import SimpleHTTPRequestHandler
from types import SimpleNamespace
from urllib.parse import urljoin
from urllib.request import urlopen

import numpy as np
import pytest
from browsing import load_axe, serious
from loopback import LoopbackServer, QuietHandler
from smallnight import HOSTILE, Night, put, reduce_small_night

from lib.night.campaign import Campaign
from lib.night.plan import Plan
from lib.report.campaignpage import make_campaign_page, show_calendar
from lib.report.links import campaign_link
from lib.report.page import make_page
from lib.report.svgchart import Series, chart

NIGHTS = ("20220130", "20220131", "20220203")


def plan(stacks):
    return Plan(stacks, {"T1": tuple(stacks)}, {}, {}, {}, frozenset())


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Return three nights over the end of a month, the rows of their table, and the folder."""
    imdir = tmp_path_factory.mktemp("campaign") / "imredux"
    _, _, frames, _ = reduce_small_night(imdir)
    nights = {}
    for k, name in enumerate(NIGHTS):
        frame = frames[k]
        log = Night({"T1.r": [frame]})
        taken = {"flat": f"20220130/flat_r, {k} d older; nearer but other: {HOSTILE}"} if k else {}
        log.match = lambda frame, taken=taken: SimpleNamespace(taken=taken)
        nights[f"{name}/"] = SimpleNamespace(name=name, log=log, plan=plan({"T1.r": (frame,)}))
        (imdir / name).mkdir()
        if k < 2:
            (imdir / name / "night.html").write_text("a page")
    whole = Night({"T1.r": frames[:3]})
    coadd = {"NSTACK": 3, "ABSZPT": 27.0, "ABSZPERR": 0.01, "ZPSYS": "AB", "LIMMAG": 23.456}
    put(imdir, "coaddT1.r.all.fits", "", **coadd)
    (imdir / "coaddT1.r.all.fits").touch()
    rows = []
    for k, name in enumerate(NIGHTS):
        common = {"night": name, "mjd": 59610.3 + k}
        rows += [
            common | {"kind": "stack", "name": "T1.r", "frames": 1, "limit": 22.0 + 0.5 * k,
                      "seeing": 1.25, "zeropoint": 27.0, "sky": 200.0},
            common | {"kind": "bias", "name": "bias-C0", "level": 1000.0 + k, "rdnoise": 5.0},
        ]  # fmt: skip
    found = Campaign(whole, nights, {"T1.r.all": tuple(frames[:3])})
    make_campaign_page(found, rows, imdir)
    return found, rows, imdir


@pytest.fixture(scope="module")
def made(campaign):
    return (campaign[2] / "campaign.html").read_text(encoding="utf-8")


def test_calendar_has_depth_and_seeing_of_each_night(campaign):
    found, rows, imdir = campaign
    january, february = show_calendar(found, rows, imdir)
    assert (january.name, february.name) == ("January 2022", "February 2022")
    # 2022-01-31 was a Monday; what is no day of the month is empty.
    last = january.weeks[-1]
    assert last[0].name == "20220131" and last[1:] == [None] * 6
    assert last[0].values == [("r", 22.5, 1.25, 0.5)]
    assert last[0].href == "20220131/night.html"
    third = february.weeks[0][3]
    assert third.day == 3 and third.href == "" and third.values[0][3] == 1.0


def test_page_links_nights_and_products_by_relative_addresses(made):
    assert 'href="20220130/night.html"' in made and 'href="20220203/night.html"' not in made
    assert 'href="coaddT1.r.all.fits"' in made and 'href="T1.lightcurve.ecsv"' in made
    assert "23.46" in made and "27.000 ± 0.010 AB" in made
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", made)
    assert "<script" not in made.replace(HOSTILE, "") and len(made) < 100_000


class Server(LoopbackServer):
    """Answers requests by a class of handlers."""

    def __init__(self, handler):
        self.listen(handler)


class Files(QuietHandler, SimpleHTTPRequestHandler):
    """Serves a folder."""


def pages_from(address):
    """Return the pages to which links lead from one, all links of which must be answered."""
    asked, pages = {address}, {}
    while waiting := asked - pages.keys():
        page = waiting.pop()
        with urlopen(page) as answer:
            text = answer.read().decode("utf-8") if page.endswith(".html") else ""
        pages[page] = text
        html = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S)
        asked |= {urljoin(page, one) for one in re.findall(r'href="([^"#]+)"', html)
                  if not one.startswith("data:")}  # fmt: skip
    return {page for page, text in pages.items() if text}


def test_pages_of_nights_and_of_all_lead_to_each_other_wherever_they_lie(campaign, tmp_path):
    found, rows, _ = campaign
    imdir, made = tmp_path / "imredux", f"{NIGHTS[0]}/"
    night, folder, *_ = reduce_small_night(imdir / made)
    config = {"datadir": "none", "exclude": "exclude.txt"}
    make_page(night, config, folder, campaign=campaign_link(made))
    make_campaign_page(found, rows, imdir)
    imdir.rename(tmp_path / "moved here")
    with Server(functools.partial(Files, directory=tmp_path)) as server:
        top = f"{server.address}/moved%20here"
        both = {f"{top}/campaign.html", f"{top}/{made}night.html"}
        assert pages_from(f"{top}/campaign.html") == both
        assert pages_from(f"{top}/{made}night.html") == both


def test_masters_of_other_nights_are_told_and_texts_stay_texts(made):
    assert "flat: 20220130/flat_r, 1 d older" in made
    assert HOSTILE not in made and "nearer but other" in made


def test_light_curve_and_trends_are_drawn(made):
    charts = re.findall(r'<svg [^>]*aria-label="([^"]+)"', made)
    assert charts[0] == "magnitude of T1"
    assert {"bias level [adu]", "zero point [mag]", "sky [electron]"} <= set(charts)


def test_same_nights_give_the_same_page(campaign, made):
    found, rows, imdir = campaign
    before = (imdir / "campaign.html").stat().st_mtime_ns
    make_campaign_page(found, rows, imdir)
    assert (imdir / "campaign.html").stat().st_mtime_ns == before


def test_magnitudes_grow_downwards_and_nothing_is_drawn_beyond_the_frame():
    x, y = np.array([59607.0, 59608.0, np.nan]), np.array([18.0, 19.0, 20.0])
    text = chart([Series("r", "#000", x, y)], "m", (400, 200), inverted=True)
    places = re.search(r'stroke-linecap="round" d="M([\d.]+) ([\d.]+)h0M([\d.]+) ([\d.]+)h0"', text)
    x1, y1, x2, y2 = map(float, places.groups())
    assert 58 < x1 < x2 < 388 and 26 < y1 < y2 < 174
    assert chart([Series("r", "#000", x[2:], y[2:])], "m") == ""


def test_page_can_be_read_by_all(browser, campaign):
    browser.get((campaign[2] / "campaign.html").as_uri())
    load_axe(browser)
    assert serious(browser) == []
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert serious(browser, runOnly=["color-contrast"]) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    wide = browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert wide, "something is cut off"
