"""A small reduced night."""

import shutil

import pytest
from smallnight import reduce_small_night

from lib.report import page


@pytest.fixture
def reduced(tmp_path):
    """A reduction of `smallnight`, to be changed at will."""
    return reduce_small_night(tmp_path / "imredux")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A reduction of `smallnight` with its page; not to be changed."""
    night, imdir, good, lost = reduce_small_night(tmp_path_factory.mktemp("shown") / "imredux")
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    return night, imdir, good, lost


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
