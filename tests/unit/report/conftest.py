"""A small reduced night."""

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
