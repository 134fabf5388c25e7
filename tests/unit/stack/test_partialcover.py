"""Stars that some of the frames of a stack cover."""

import numpy as np
import pytest
from astropy.io import fits
from scipy.spatial import cKDTree
from stackruns import run
from starfields import SIZE, make_header, make_image, make_stars, write_reference

from lib.core.wcs import celestial_wcs
from lib.frame.file import Frame, write_frame
from lib.stack.jointtable import joint_table

FWHMS = (4.1, 3.3, 5.0, 3.0, 4.5, 3.7)
PARTIAL = 4096


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """Return six frames of changing seeing, a third of the field apart, and their stack."""
    folder, rng = tmp_path_factory.mktemp("partial"), np.random.default_rng(2)
    stars = make_stars(rng, number=190, half=0.036, faint=18.6, bright=15.2)
    paths, headers = [], []
    for i, fwhm in enumerate(FWHMS):
        header = make_header(angle=rng.uniform(-3, 3), shift=rng.uniform(-120, 120, 2))
        image = make_image(rng, header, stars, fwhm=fwhm, transparency=1 - 0.05 * i)
        header["SKYSUB"] = 400.0
        header["FRAME"] = header["RAWFILE"] = f"2022010{i}T000000C0o"
        header["DATE-OBS"], header["MJD-OBS"] = f"2022-01-0{i + 1}T00:00:00.000", 59580.0 + i
        paths.append(folder / f"azsfp{header['FRAME']}.fits")
        write_frame(paths[-1], Frame(image, np.zeros(image.shape, np.uint8), header))
        headers.append(header)
    reference = write_reference(folder / "reference.ecsv", rng, stars)
    out, _ = run(folder, paths, refcat=reference)
    return out, stars, headers


def frames_at(headers, ra, dec, margin):
    """Return in how many frames positions lie, so far from their edges [pixel]."""
    number = np.zeros(len(ra), int)
    for header in headers:
        x, y = celestial_wcs(header).all_world2pix(ra, dec, 0)
        number += (np.minimum(x, y) > margin) & (np.maximum(x, y) < SIZE - 1 - margin)
    return number


def test_coverage_map_and_column_count_the_frames(stacked):
    out, _, headers = stacked
    with fits.open(out["weight"]) as hdus:
        weight, number = hdus[0].data, hdus["COVERAGE"].data
        wcs = celestial_wcs(hdus[0].header)
        assert (hdus["COVERAGE"].header["CRPIX1"], number.shape) == (
            hdus[0].header["CRPIX1"], weight.shape,
        )  # fmt: skip
    assert ((number > 0) == (weight > 0)).all()
    y, x = (7 * axis.ravel() for axis in np.indices([size // 7 for size in number.shape]))
    ra, dec = wcs.all_pix2world(x, y, 0)
    inside, outside = (frames_at(headers, ra, dec, margin) for margin in (4, -4))
    counted = number[y, x]
    clear = inside == outside
    # Cosmic rays there are none: what is left out by chance is a few pixels in 100,000.
    assert (counted[clear] == inside[clear]).mean() > 0.999
    assert set(range(7)) <= set(counted)
    table = fits.getdata(out["cat"], "SOURCES")
    inside, outside = (frames_at(headers, table["RA"], table["DEC"], m) for m in (10, -10))
    clear = inside == outside
    assert clear.sum() > 60
    assert (table["NFRAMES"][clear] == inside[clear]).all()
    assert ((table["FLAGS"][clear] & PARTIAL > 0) == (inside[clear] < 6)).mean() > 0.95


def test_stars_covered_in_part_have_their_flux_and_no_part_in_the_zero_point(stacked):
    out, stars, _ = stacked
    table = fits.getdata(out["cat"], "SOURCES")
    partial = table["FLAGS"] & PARTIAL > 0
    assert table["ZP_STAR"].sum() >= 10 and table["NFRAMES"][table["ZP_STAR"]].min() >= 4
    wcs = celestial_wcs(fits.getheader(out["coadd"]))
    at = np.column_stack(wcs.all_world2pix(stars["ra"], stars["dec"], 1))
    apart, index = cKDTree(at).query(np.column_stack([table["X"], table["Y"]]))
    alone = cKDTree(at).query(at, k=2)[0][:, 1] > 20
    good = (apart < 1) & alone[index] & (table["SNR"] > 30)
    good &= table["FLAGS"] & (1 | 2 | 16 | 256 | 512 | 1024) == 0
    few = good & partial & (table["NFRAMES"] > 0) & (table["NFRAMES"] <= 3)
    assert few.sum() > 20
    off = table["MAG_POINT"] - stars["mag"][index]
    # Their frames' seeing differs by up to a fourth: without correction 0.02 mag and more.
    assert np.std(off[few]) < 0.016
    assert 0.5 < np.std(off[few] / table["MAGERR_POINT"][few]) < 1.3
    assert abs(np.mean(off[few])) < 0.006
    # The model of the point-spread function is that of all frames.
    pulls = (table["MAG_PSF"] - stars["mag"][index] - np.median(off))[few] / table["MAGERR_PSF"][
        few
    ]
    assert 1.4826 * np.median(np.abs(pulls)) < 1 + 3 * 1.17 / np.sqrt(few.sum())
    assert np.std(pulls) < 1.6


def test_joint_table_has_the_same_fluxes(stacked):
    out, _, _ = stacked
    cat = fits.getdata(out["cat"], "SOURCES")
    joint = joint_table([out["coadd"]], [out["weight"]], [out["cat"]], None, 5.0)
    at = np.column_stack([cat["RA"], cat["DEC"]])
    apart, index = cKDTree(at).query(np.column_stack([joint["RA"], joint["DEC"]]))
    theirs = cat[index]
    same = (apart < 1e-5) & (theirs["SNR"] > 30)
    same &= theirs["FLAGS"] & (1 | 2 | 16 | 256 | 512 | 1024) == 0
    partial = theirs["FLAGS"] & PARTIAL > 0
    assert (same & partial).sum() > 30
    assert ((joint["FLAGS_r"] & PARTIAL > 0) == partial)[same].all()
    # The edges of frames are known to a block of 8 pixels in both.
    ratio = np.asarray(joint["FLUX_r"] / theirs["FLUX_POINT"])
    assert np.abs(ratio[same & partial] - 1).max() < 0.01
    assert np.median(np.abs(ratio[same & partial] - 1)) < 5e-4
