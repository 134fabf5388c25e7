"""hotpants is run as its manual has it; a stand-in does the subtraction."""

import sys

import numpy as np
import pytest

from lib.core.programs import ProgramFailed
from lib.difference.hotpants import run_hotpants
from lib.difference.planes import REACHED, Plane
from lib.difference.regions import Regions
from lib.difference.stars import SharedStars

PROGRAM = """#!{python}
import sys
import numpy as np
from astropy.io import fits

words = sys.argv[1:]
given = {{words[k]: words[k + 1] for k in range(len(words) - 1) if words[k].startswith("-")}}
assert given["-c"] == "t" and given["-n"] == "i" and given["-r"] == "6", given
assert words[words.index("-ng") + 1] == "3" and float(given["-tu"]) > float(given["-tl"])
image, template = (fits.getdata(given[key]) for key in ("-inim", "-tmplim"))
noise = [fits.getdata(given[key]) for key in ("-ini", "-tni")]
bad = fits.getdata(given["-imi"]) + fits.getdata(given["-tmi"]) > 0
places = np.loadtxt(given["-ssf"], ndmin=2)
assert places.tolist() == [[11.0, 21.0]], places
difference = np.where(bad, 1e-30, image - template)
header = fits.Header({{"KSUM00": 0.97}})
fits.writeto(given["-outim"], difference, header)
spread = np.hypot(*noise)
spread[0] = 1e30
fits.writeto(given["-oni"], spread)
{end}
"""


def install(folder, monkeypatch, end=""):
    path = folder / "hotpants"
    path.write_text(PROGRAM.format(python=sys.executable, end=end))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    images = rng.normal(0, 10, (2, 40, 50)).astype(np.float32)
    variance = np.full((40, 50), 100, np.float32)
    variance[5, 7] = 0
    planes = [
        Plane(image, one, np.zeros((40, 50), bool), fwhm, 0.0)
        for image, one, fwhm in zip(images, (variance, variance), (3.0, 4.0), strict=True)
    ]
    values = [np.array(one, float) for one in ([10, 30], [20, 30], [1e4, 1e4], [1, 1])]
    constant = np.array([True, False])
    stars = SharedStars(*values, values[2], values[3], np.zeros((2, 2)), constant, 1.0, 0.01)
    return planes, stars


def test_what_it_says_is_taken(case, tmp_path, monkeypatch):
    (sharp, wide), stars = case
    install(tmp_path, monkeypatch)
    made = run_hotpants(sharp, wide, stars, Regions((40, 50), 1), 6)
    np.testing.assert_allclose(made.image[10:], (wide.image - sharp.image)[10:], rtol=1e-5)
    assert made.variance[5, 7] == 0 and made.variance[20, 20] == pytest.approx(200)
    # What the program gives no noise for is no difference.
    assert (made.variance[0] == 0).all() and (made.reached[0] == REACHED).all()
    assert made.sums[0] == pytest.approx(0.97)


def test_its_failure_is_told(case, tmp_path, monkeypatch):
    (sharp, wide), stars = case
    install(tmp_path, monkeypatch, end="print('no stamps', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ProgramFailed, match="exit code 3: no stamps"):
        run_hotpants(sharp, wide, stars, Regions((40, 50), 1), 6)
