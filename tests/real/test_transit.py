"""The transit of HAT-P-32 b on 2017-12-20, in 48 frames of a 6-inch telescope without flats."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from running import reduce

STAR = (424, 286)
"""Column and row of the star in the first frame, from 1, as the observers give it."""

DEPTH = 0.0225
MIDDLE = 2454420.44712 + 1715 * 2.1500082
"""BJD_TDB by the ephemeris of Hartman et al. 2011 (ApJ 742, 59)."""

DURATION, INGRESS = 0.1295, 0.0185
"""[d] First to last contact, first to second (Hartman et al. 2011)."""

DETREND = ("AIRMASS", "X", "Y", "SEEING", "SKY")


@pytest.fixture(scope="module")
def curve(real_data, tmp_path_factory):
    night = tmp_path_factory.mktemp("transit")
    folder = real_data("microobservatory_hatp32")
    options = {
        "datadir": folder, "imdir": "imredux", "refcat": "none",
        "instrument": folder / "microobs.yaml",
    }  # fmt: skip
    done = reduce(night, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    first = min((night / "imredux").glob("azsfp*.fits"))
    # Nothing ties these positions to the sky: the star is where the solution has its pixel.
    place = WCS(fits.getheader(first)).all_pix2world(STAR[0] - 1, STAR[1] - 1, 0)
    options["target_radec"] = [float(value) for value in place]
    options["lightcurve"] = "{position: matched}"
    done = reduce(night, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    path = night / "imredux" / "HATP-32.lightcurve.ecsv"
    table = Table.read(path, format="ascii.ecsv")
    return table[(table["KIND"] == "frame") & np.isfinite(table["FLUX"])]


def fit_transit(curve, column):
    """Return chi^2, middle, depth and its error of a trapezium times a baseline in one column."""
    time = np.asarray(curve["BJD_TDB"])
    sigma = np.hypot(curve["FLUXERR"] / curve["FLUX"], curve["ZPERR"] / 1.0857)
    flux = np.asarray(curve["FLUX"] / np.median(curve["FLUX"]))
    trend = np.asarray(curve[column], float)
    trend = (trend - trend.mean()) / trend.std()
    best = (np.inf,)
    for middle in MIDDLE + np.arange(-0.03, 0.03, 0.0005):
        shape = np.clip((DURATION / 2 - np.abs(time - middle)) / INGRESS, 0, 1)
        design = np.column_stack([np.ones(time.size), -shape, trend]) / sigma[:, None]
        found, *_ = np.linalg.lstsq(design, flux / sigma, rcond=None)
        chi2 = np.sum((design @ found - flux / sigma) ** 2)
        if chi2 < best[0]:
            error = np.sqrt(np.linalg.inv(design.T @ design)[1, 1])
            residual = np.std((design @ found - flux / sigma) * sigma)
            best = (chi2, middle, found[1] / found[0], error, residual)
    return best


@pytest.mark.slow
def test_depth_and_middle_of_the_transit(curve):
    """With the detrending column that leaves least: depth within 3 sigma, middle within 9 min."""
    assert len(curve) == 48
    _, middle, depth, error, residual = min(fit_transit(curve, column) for column in DETREND)
    assert abs(depth - DEPTH) < 3 * error and error < 0.004
    assert middle == pytest.approx(MIDDLE, abs=0.006)
    assert residual < 0.01
