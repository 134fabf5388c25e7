"""lib.stack.reference: references and custom catalogues, also those that do not serve."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from stackruns import (
    custom_catalogue,
    flagged,
    run,
    true_zeropoint,
)
from starfields import (
    ZP,
    make_stars,
    write_night,
    write_reference,
)

from lib.reference.referencetable import CatalogueError
from lib.stack.reference import centring_error


def test_no_reference_aligns_by_common_stars(tmp_path):
    rng = np.random.default_rng(27)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3, transparency=[1.0, 0.6, 0.8])
    empty = tmp_path / "empty.ecsv"
    table = Table(names=["ra", "dec", "r", "r_err"])
    table.meta["source"], table.meta["reason"] = "NONE", "refcat=none"
    table.write(empty, format="ascii.ecsv")
    header = flagged(tmp_path, paths, refcat=empty, plot_path=tmp_path / "zp.png")
    assert header["ZPREASON"] == "NO_REFERENCE" and header["ASTRCAT"] == "NONE"
    assert "ASTRMS1" not in header
    frames = json.loads((tmp_path / "truth.r.json").read_text())["frames"]
    found = [frame["transparency"] for frame in frames.values()]
    assert found == pytest.approx([1.0, 0.6, 0.8], rel=0.02)


def test_reference_without_the_band_with_two_stars_or_elsewhere(tmp_path):
    rng = np.random.default_rng(28)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3)
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    table = Table.read(reference, format="ascii.ecsv")
    table.remove_columns(["r", "r_err"])
    table.write(tmp_path / "g.ecsv", format="ascii.ecsv")
    header = flagged(tmp_path, paths, refcat=tmp_path / "g.ecsv")
    assert header["ZPREASON"].startswith("NO_BAND: the reference has no r")
    bright = np.argsort(stars["mag"])
    middle = bright[30:32]
    two = write_reference(tmp_path / "two.ecsv", rng, stars, rows=middle)
    header = flagged(tmp_path, paths, refcat=two)
    assert header["ZPREASON"].startswith("TOO_FEW_REFERENCE_STARS")
    away = {key: value + (1.0 if key == "dec" else 0.0) for key, value in stars.items()}
    elsewhere = write_reference(tmp_path / "away.ecsv", rng, away)
    header = flagged(tmp_path, paths, refcat=elsewhere)
    assert header["ZPREASON"].startswith("NO_MATCH")


def test_all_reference_stars_saturated(tmp_path):
    rng = np.random.default_rng(29)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3)
    saturated = np.argsort(stars["mag"])[:15]
    peak = 10 ** (-0.4 * (stars["mag"][saturated].max() - ZP)) * 60 * 0.04
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["SATURATE"] = peak
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars, rows=saturated)
    assert flagged(tmp_path, paths, refcat=reference)["ZPREASON"].startswith("TOO_FEW")


def test_custom_catalogue_serves_its_filters_only(night, tmp_path):
    _, stars, paths, reference = night
    custom = custom_catalogue(tmp_path / "custom.txt", stars)
    for bands, offset, name in ((["r"], 0.5, "custom.txt"), (["z"], 0.0, "truth")):
        out, qa = run(tmp_path, paths[:3], refcat=reference, customcat=custom, customcatfilt=bands)
        header = fits.getheader(out["coadd"])
        assert header["ABSZPT"] == pytest.approx(true_zeropoint(qa) + offset, abs=0.02)
        assert header["ABSZPCAT"] == name and header["ASTRCAT"] == "truth"


def test_custom_catalogue_in_hours_is_an_error(night, tmp_path):
    _, stars, paths, reference = night
    custom = custom_catalogue(tmp_path / "custom.txt", stars, factor=1 / 15)
    with pytest.raises(CatalogueError, match="hours"):
        run(tmp_path, paths[:2], refcat=reference, customcat=custom, customcatfilt=["r"])
    assert not (tmp_path / "coaddtruth.r.fits").exists()


def test_custom_catalogue_with_wrong_columns_is_an_error(night, tmp_path):
    _, stars, paths, reference = night
    custom = custom_catalogue(tmp_path / "custom.txt", stars)
    lines = custom.read_text().splitlines(keepends=True)
    wrong = {
        "line 3 has 5 fields, not 29": "150.1 20.1 15.0 15.1 0\n",
        "line 3: .*'none'": lines[2].replace("nan", "none", 1),
        "line 3: .*'10:00:00'": " ".join(["10:00:00", "+20:00:00", *lines[2].split()[2:]]) + "\n",
        "degrees, -90 to 90": " ".join(["20.0", "150.0", *lines[2].split()[2:]]) + "\n",
    }
    for words, line in wrong.items():
        custom.write_text("".join([*lines[:2], line, *lines[3:]]))
        with pytest.raises(CatalogueError, match=words):
            run(tmp_path, paths[:2], refcat=reference, customcat=custom, customcatfilt=["r"])
    custom.write_text(lines[0])
    with pytest.raises(CatalogueError, match="no stars"):
        run(tmp_path, paths[:2], refcat=reference, customcat=custom, customcatfilt=["r"])
    assert not (tmp_path / "coaddtruth.r.fits").exists()


@pytest.mark.parametrize("own", [0.0, 0.03])
def test_error_of_positions_that_photons_do_not_tell(own):
    """Positions scatter about a reference by their errors, its own, and 0.03 pixel."""
    rng = np.random.default_rng(5)
    n, scale = 60, 0.4
    ra, dec = 150 + rng.uniform(-0.02, 0.02, n), rng.uniform(-0.02, 0.02, n)
    error, theirs = np.full(n, 0.01), 0.02
    off = rng.normal(0, np.sqrt(0.01**2 + theirs**2 + own**2), (n, 2)) * scale / 3600
    field = SimpleNamespace(flags=np.zeros(n, int), snr=np.full(n, 100.0))
    coadd = SimpleNamespace(
        field=field, scale=scale, source_positions=lambda: np.column_stack([ra, dec]) + off
    )
    mas = np.full(n, 1000 * theirs * scale)
    reference = {"ra": ra, "dec": dec, "ra_err": mas, "dec_err": mas}
    found = centring_error(coadd, reference, error, 1.5)
    assert found == pytest.approx(max(own, 0.01), abs=0.007)
    assert centring_error(coadd, None, error, 1.5) == 0.01
    few = {key: values[:5] for key, values in reference.items()}
    assert centring_error(coadd, few, error, 1.5) == 0.01
