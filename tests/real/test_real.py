"""Whole reductions of frames taken at real telescopes."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from running import reduce
from scipy.spatial import cKDTree

from lib.photometry.flags import FLAG_NEIGHBOUR
from lib.photometry.forced import forced_fluxes, unite_sources
from lib.stack.jointtable import SAME_SOURCE_RADIUS, read_coadd


def rows_of(imdir):
    return Table.read(imdir / "frames.ecsv", format="ascii.ecsv")


def robust_rms(values):
    return 1.4826 * np.median(np.abs(values - np.median(values)))


@pytest.fixture(scope="module")
def efosc2(real_data, passing_folder):
    with passing_folder("efosc2") as night:
        done = reduce(night, datadir=real_data("efosc2_g"), imdir="imredux", refcat="none")
        assert done.returncode == 0, done.stderr[-3000:]
        yield night / "imredux"


@pytest.fixture(scope="module")
def cafos(real_data, passing_folder):
    with passing_folder("cafos") as night:
        folder = real_data("cafos_ngc2420_BV")
        reference = sdss_reference(folder / "sdss_dr18_ngc2420.csv")
        reference.write(night / "sdss.ecsv", format="ascii.ecsv")
        done = reduce(night, datadir=folder, imdir="imredux", refcat="sdss.ecsv")
        assert done.returncode == 0, done.stderr[-3000:]
        yield night / "imredux"


@pytest.fixture(scope="module")
def arcsat(real_data, passing_folder):
    with passing_folder("arcsat") as night:
        done = reduce(night, datadir=real_data("arcsat_xo1b_z"), imdir="imredux", refcat="none")
        assert done.returncode == 0, done.stderr[-3000:]
        yield night / "imredux"


def johnson(g, r):
    """Return B and V (AB) of stars: Johnson magnitudes by Jester et al. 2005 (AJ 130, 873), to AB
    by Blanton & Roweis 2007 (AJ 133, 734)."""
    return g + 0.39 * (g - r) + 0.21 - 0.09, g - 0.59 * (g - r) - 0.01 + 0.02


def sdss_reference(path):
    """Turn the SDSS table into a reference table with B and V (AB).

    Full moon, so that only stars of 13 to 17.6 mag serve.
    """
    sdss = Table.read(path)
    g, r = np.asarray(sdss["g_psf"]), np.asarray(sdss["r_psf"])
    b, v = johnson(g, r)
    table = Table({"ra": sdss["ra"], "dec": sdss["dec"], "g": g, "r": r, "B": b, "V": v})
    for band in "grBV":
        table[f"{band}_err"] = 0.02
    return table[(v > 13.02) & (v < 17.62)]


def test_efosc2_stacks_both_targets_without_reference(efosc2):
    for target in ("Q1010-0100", "J123410-332638"):
        header = fits.getheader(efosc2 / f"coadd{target}.g782.fits")
        assert header["QCSTAT"] == "OK"
        assert header["NSTACK"] == 3
        assert header["ASTRCAT"] == "NONE"
        # Two nights of 0.6 to 1.2 arcsec seeing; a failed alignment would double it.
        assert header["SEEPIX"] * 0.2408 < 1.3


def test_efosc2_spectra_are_listed_as_ignored(efosc2):
    rows = rows_of(efosc2)
    spectra = [row for row in rows if "SPECTRUM" in str(row["reason"])]
    assert len(rows) == 16 and len(spectra) == 2
    assert all(row["status"] == "IGNORED" for row in spectra)


def test_efosc2_frames_are_aligned_to_a_tenth_of_a_pixel(efosc2):
    frames = sorted(efosc2.glob("azsfp20220128T08*.fits"))
    places = []
    for path in frames:
        places.append(star_positions(path))
    first = places[0]
    tree = cKDTree(first)
    for other in places[1:]:
        distance, index = tree.query(other, distance_upper_bound=1.0)
        pairs = distance < 1.0
        assert pairs.sum() >= 20
        offset = other[pairs] - first[index[pairs]]
        # Star by star: the centroids of these are good to 0.05 pixels.
        assert max(robust_rms(offset[:, 0]), robust_rms(offset[:, 1])) < 0.1 * 0.2408
        # In each half of the frame: neither shifted nor turned nor stretched.
        for axis in (0, 1):
            side = first[index[pairs]][:, axis] > np.median(first[index[pairs]][:, axis])
            for half in (side, ~side):
                assert np.abs(np.median(offset[half], axis=0)).max() < 0.1 * 0.2408


def star_positions(path):
    """Return tangential positions [arcsec] of a frame's stars of S/N > 30, by own barycentres."""
    import sep

    with fits.open(path) as hdus:
        image = np.ascontiguousarray(hdus[0].data, np.float32)
        unusable = hdus["MASK"].data & 15 > 0
        wcs = WCS(hdus[0].header)
    noise = robust_rms(image[~unusable])
    objects = sep.extract(image, 3.0, err=noise, mask=unusable)
    light, error, _ = sep.sum_circle(image, objects["x"], objects["y"], 6.0, err=noise, gain=1.0)
    objects = objects[(objects["flag"] == 0) & (objects["a"] < 4) & (light > 30 * error)]
    x, y, flag = sep.winpos(image, objects["x"], objects["y"], 1.5, mask=unusable)
    ra, dec = wcs.all_pix2world(x[flag == 0], y[flag == 0], 0)
    ra0, dec0 = 188.536, -33.443
    return np.c_[(ra - ra0) * np.cos(np.radians(dec0)), dec - dec0] * 3600


@pytest.mark.parametrize("band", ["B", "V"])
def test_cafos_positions_and_zero_point_against_sdss(cafos, band):
    path = cafos / f"coaddNCG2420_{band}.Johnson{band}.fits"
    header = fits.getheader(path)
    assert header["QCSTAT"] == "OK"
    assert header["ABSZPNST"] >= 20
    assert 0 < header["ABSZPERR"] < 0.03
    assert header["ABSZPTSC"] <= 0.06

    sources = Table.read(path.with_suffix("").with_suffix(f".Johnson{band}.cat.fits"), hdu=1)
    stars = sources[(sources["FLAGS"] & 256 == 0) & (sources["MAGERR_POINT"] < 0.1)]
    reference = sdss_reference_of(cafos)
    scale = np.cos(np.radians(21.575))
    tree = cKDTree(np.c_[reference["ra"] * scale, reference["dec"]] * 3600)
    distance, index = tree.query(np.c_[stars["RA"] * scale, stars["DEC"]] * 3600)
    pairs = distance < 1.5
    assert pairs.sum() >= 30
    matched = reference[index[pairs]]
    offset = np.c_[
        (stars["RA"][pairs] - matched["ra"]) * scale, stars["DEC"][pairs] - matched["dec"]
    ]
    assert np.hypot(*(offset.T * 3600)).mean() < 0.5
    for axis in offset.T * 3600:
        assert robust_rms(axis) <= 0.3
        assert abs(np.median(axis)) < 0.1


def measure_at(imdir, band, ra, dec):
    """Return AB magnitudes at positions of the CAFOS coadd, their errors, and flags.

    With the sources of the coadd, so that the light of neighbours is theirs.
    """
    path = imdir / f"coaddNCG2420_{band}.Johnson{band}.fits"
    weight, cat = (path.with_name(f"{path.stem}.{end}.fits") for end in ("weight", "cat"))
    coadd = read_coadd(path, weight, cat)
    rows = fits.getdata(cat, "SOURCES")
    wanted = np.column_stack([ra, dec])
    sky, found = unite_sources(
        [wanted, np.column_stack([rows["RA"], rows["DEC"]])],
        [np.full(len(wanted), np.inf), rows["SNR"]], SAME_SOURCE_RADIUS * coadd.header["SEEING"],
    )  # fmt: skip
    place = [np.flatnonzero((sky == one).all(axis=1))[0] for one in wanted]
    assert found[place, 0].all()
    flux, error, flags = (values[place] for values in forced_fluxes(coadd, sky))
    with np.errstate(invalid="ignore"):
        magnitude = coadd.header["ABSZPT"] - 2.5 * np.log10(flux)
    return magnitude, 1.0857 * error / flux, flags


def literature_stars(folder):
    """Return the stars of the independent list, its g and r brought to those of the SDSS.

    The list is brighter by 0.065 in g and 0.022 in r than the SDSS for the eight stars they share,
    as Pan-STARRS magnitudes are (Tonry et al. 2012, ApJ 750, 99). The star beside one 17 times
    as bright (4.7 arcsec), which the list has in the infrared neither, is left out.
    """
    stars = Table.read(folder / "eas342_g_star_photom.csv")
    sdss = Table.read(folder / "sdss_dr18_ngc2420.csv")
    scale = np.cos(np.radians(21.575))
    tree = cKDTree(np.c_[sdss["ra"] * scale, sdss["dec"]] * 3600)
    distance, index = tree.query(np.c_[stars["ra"] * scale, stars["dec"]] * 3600)
    common = distance < 1
    assert common.sum() == 8
    for band in "gr":
        stars[band] += np.median(sdss[f"{band}_psf"][index[common]] - stars[band][common])
    return stars[np.isfinite(np.ma.filled(stars["J mag"].astype(float), np.nan))]


@pytest.mark.parametrize("band", ["B", "V"])
def test_cafos_magnitudes_are_those_of_the_literature(cafos, real_data, band):
    """The independent list has six stars in the coadd, five without an SDSS magnitude.

    All are faint for a full moon, near bright stars, and no frame was dithered.
    """
    stars = literature_stars(real_data("cafos_ngc2420_BV"))
    true = johnson(np.asarray(stars["g"]), np.asarray(stars["r"]))["BV".index(band)]
    magnitude, error, _ = measure_at(cafos, band, stars["ra"], stars["dec"])
    inside = np.isfinite(magnitude)
    assert inside.sum() == 6
    difference, error = (magnitude - true)[inside], error[inside]
    mean_error = np.sum(error**-2.0) ** -0.5
    mean = np.sum(difference / error**2) * mean_error**2
    assert abs(mean) < min(3 * mean_error, 0.1)
    # chi^2 of six differences: 22.5 in one case of a thousand.
    assert np.sum((difference / error) ** 2) < 22.5


@pytest.mark.parametrize("band", ["B", "V"])
def test_cafos_errors_are_the_scatter_of_sdss_stars(cafos, band):
    """Of stars as faint as those of the list."""
    reference = sdss_reference_of(cafos)
    reference = reference[reference[band] > 16.6]
    magnitude, error, flags = measure_at(cafos, band, reference["ra"], reference["dec"])
    usable = np.isfinite(magnitude) & ((flags & ~FLAG_NEIGHBOUR) == 0) & (error < 0.3)
    pull = ((magnitude - reference[band]) / np.hypot(error, 0.02))[usable]
    assert pull.size >= 20
    # 25 pulls tell their scatter to 14 %.
    assert 0.6 < robust_rms(pull) < 1.4
    assert abs(np.median(pull)) < 1.0


def sdss_reference_of(imdir):
    return Table.read(imdir.parent / "sdss.ecsv", format="ascii.ecsv")


def test_arcsat_uses_its_darks_and_survives_a_bad_airmass(arcsat):
    header = fits.getheader(arcsat / "coaddXO1-b.z.fits")
    assert header["QCSTAT"] == "OK" and header["NSTACK"] == 10
    assert 1.0 <= header["AIRMASS"] < 1.3
    frame = fits.getheader(next(arcsat.glob("azsfp20250602T041014*.fits")))
    assert frame["DARKFILE"].startswith("dark-") and frame["DARKSUM"]
    assert fits.getheader(arcsat / "coadd43Bet_Com.z.fits")["NSTACK"] == 1
    # Tracking drifted by 20 arcsec over the series: unaligned stars would be trailed.
    assert header["SEEPIX"] < 4.5


def test_arcsat_sky_is_flat_to_one_percent(arcsat):
    """The +-4 % structure of the sky is gone from the frames."""
    with fits.open(next(arcsat.glob("zsfp20250602T041014*.fits"))) as hdus:
        image, mask, header = hdus[0].data, hdus["MASK"].data, hdus[0].header
        image = np.where(mask & 31, np.nan, image)
    blocks = np.nanmedian(image.reshape(16, image.shape[0] // 16, 16, -1), axis=(1, 3))
    assert np.std(blocks) < 0.01 * header["SKYCTS"] + 3 * header["SKYNOISE"] / 64
