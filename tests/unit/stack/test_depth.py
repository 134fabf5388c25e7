"""lib.stack.depth: weight maps and limits against empty apertures and injected stars."""

import depth
import numpy as np
import pytest
import simulate
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter
from stackruns import (
    star_free,
)
from starfields import (
    BETA,
)

from lib.core.settings import StackSettings
from lib.photometry.psf import moffat_alpha
from lib.stack.depth import larger_apertures, limiting_flux, measure_coadd


@pytest.mark.parametrize("combine", ["median", "weighted", "clipped"])
def test_weight_map_is_the_noise_of_empty_apertures(night, coadds, combine):
    _, stars, _, _ = night
    out, header, _ = coadds[combine]
    image, weight = fits.getdata(out["coadd"]), fits.getdata(out["weight"])
    radius = header["SEEPIX"]
    x, y = star_free(header, image.shape, stars)
    reach = int(radius) + 1
    offset = np.arange(-reach, reach + 1)
    disc = np.hypot(*np.meshgrid(offset, offset)) < radius
    rows, columns = y.astype(int)[:, None, None] + offset[:, None], x.astype(int)[:, None, None]
    columns = columns + offset[None, None, :]
    sums = (image[rows, columns] * disc).sum(axis=(1, 2))
    with np.errstate(divide="ignore"):
        variance = ((1 / weight)[rows, columns] * disc).sum(axis=(1, 2))
    pull = (sums - np.median(sums)) / np.sqrt(variance)
    pull = pull[np.isfinite(pull) & (np.abs(pull) < 5)]
    assert np.std(pull) == pytest.approx(1.0, abs=0.05)
    assert header["CORRNAP"] > 500 and 0.95 < header["CORRFAC"] < 1.5


def test_depth_of_median_and_of_the_optimal_mean(coadds):
    limits = {name: header["LIMFLUX"] for name, (_, header, _) in coadds.items()}
    # The median of five Gaussian values has 1.434 times the variance of their mean.
    assert limits["median"] / limits["weighted"] == pytest.approx(1.1976, rel=0.05)
    assert limits["clipped"] / limits["weighted"] == pytest.approx(1.0, rel=0.03)
    _, header, qa = coadds["weighted"]
    # Optimal: sky 400 and read noise 8 in five frames, over the pixels of the aperture.
    radius = header["LIMRAD"] / header["PIXSCALE"]
    scale = np.mean([frame["scale"] for frame in qa["frames"].values()])
    sigma = np.sqrt((400 + 64) / 5 * np.pi * radius**2) * scale
    alpha = moffat_alpha(header["SEEPIX"], BETA)
    fraction = 1 - (1 + (radius / alpha) ** 2) ** (1 - BETA)
    assert limits["weighted"] < 1.05 * 5 * sigma / fraction
    assert limits["weighted"] > 0.85 * 5 * sigma / fraction


def test_limiting_magnitude_is_that_of_an_injected_star(night, coadds):
    _, stars, _, _ = night
    out, header, _ = coadds["weighted"]
    image = fits.getdata(out["coadd"]).astype("f4")
    flux = 10 ** (-0.4 * (header["LIMMAG"] - header["ABSZPT"]))
    x, y = star_free(header, image.shape, stars)
    radius = header["LIMRAD"] / header["PIXSCALE"]
    rows, columns = np.indices(image.shape)
    alpha = moffat_alpha(header["SEEPIX"], BETA)
    sums = []
    rng = np.random.default_rng(3)
    for i in rng.choice(x.size, 300, replace=False):
        cut = (slice(int(y[i]) - 12, int(y[i]) + 13), slice(int(x[i]) - 12, int(x[i]) + 13))
        r2 = (columns[cut] - x[i]) ** 2 + (rows[cut] - y[i]) ** 2
        star = flux * (BETA - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -BETA
        weight = np.clip(radius + 0.5 - np.sqrt(r2), 0, 1)
        sums.append(((image[cut] + star) * weight).sum())
    sums = np.array(sums)
    spread = 1.4826 * np.median(np.abs(sums - np.median(sums)))
    # Signal-to-noise five; the noise of this test from 300 places is good to some 7 %.
    assert np.median(sums) / spread == pytest.approx(5.0, rel=0.2)


def test_half_of_the_stars_put_into_frames_are_found_at_the_limiting_magnitude(night, tmp_path):
    _, _, paths, reference = night
    found = depth.measure_depth(
        paths, tmp_path, refcat=reference, settings=StackSettings(combine="weighted"), number=150
    )
    assert found["magnitude"].size > 100
    # The noise of LIMMAG is 0.22 mag for one star, of which a hundred are near enough to count;
    # 0.1 for the limit itself, from apertures of another part of the image.
    assert found["m50_significant"] == pytest.approx(found["limmag"], abs=0.15)
    bright = found["magnitude"] < found["limmag"] - 0.8
    assert found["listed"][bright].mean() > 0.95
    faint = found["magnitude"] > found["limmag"] + 0.6
    assert found["significant"][faint].mean() < 0.1


# Parts --------------------------------------------------------------------------------------


def measure(image, weight, **changes):
    settings = StackSettings(**changes)
    return measure_coadd(
        image, weight, wcs=WCS(naxis=2), scale=0.4, gain=1e9, saturate=1e9, settings=settings
    )


def test_noise_that_pixels_share_is_calibrated_away():
    """White noise smoothed by a Gaussian of 0.8 pixel, around stars."""
    rng = np.random.default_rng(12)
    noise = gaussian_filter(rng.normal(0, 10, (500, 500)), 0.8)
    x, y = (axis.ravel() for axis in np.meshgrid(*[np.arange(50.0, 470, 70)] * 2))
    light = simulate.render_sources(noise.shape, x, y, np.full(x.size, 2e4), simulate.PSF(3.5), 1.0)
    image = (light + noise + 100.0).astype(np.float32)
    coadd = measure(image, np.full(image.shape, 1 / noise.var(), np.float32))
    assert coadd.noise.apertures > 500
    # The sum over a disc is that of the white noise over the disc smoothed.
    reach = np.arange(-20.0, 21)
    disc = (np.hypot(reach, reach[:, None]) < coadd.noise.radius).astype(float)
    expected = 100 * (gaussian_filter(disc, 0.8) ** 2).sum() / disc.sum()
    assert expected > 4 * noise.var()
    assert coadd.noise.correlation == pytest.approx(expected / noise.var(), rel=0.1)
    assert np.median(coadd.variance) == pytest.approx(expected, rel=0.1)
    assert coadd.noise.weight_factor * coadd.variance[0, 0] == pytest.approx(noise.var(), rel=1e-3)
    assert coadd.noise.ratio(coadd.noise.radius) == pytest.approx(1.0, abs=0.2)
    assert len(coadd.source_positions()) >= 36
    limit = limiting_flux(coadd)
    assert limit.radius == pytest.approx(0.75 * coadd.field.fwhm) and limit.apertures > 500
    disc = (np.hypot(reach, reach[:, None]) < limit.radius).astype(float)
    sigma = 10 * np.sqrt((gaussian_filter(disc, 0.8) ** 2).sum())
    fraction = float(coadd.field.growth.fraction(limit.radius))
    assert 0.5 < fraction < 0.8
    assert limit.flux == pytest.approx(5 * sigma / fraction, rel=0.1)


def test_coadd_without_sources_has_noise_and_no_limit():
    rng = np.random.default_rng(13)
    image = rng.normal(50, 3, (300, 300)).astype(np.float32)
    weight = np.full(image.shape, 1 / 9, np.float32)
    weight[:, :40] = 0
    image[:, :40] = 1e5
    coadd = measure(image, weight, catalogue_sigma=30.0)
    assert coadd.field is None and len(coadd.source_positions()) == 0
    assert (coadd.image[:, :40] == 0).all() and (coadd.variance[:, :40] == 0).all()
    assert np.array_equal(coadd.occupied, ~coadd.covered)
    assert np.median(coadd.variance[:, 40:]) == pytest.approx(9, rel=0.15)
    assert abs(np.median(coadd.image[:, 40:])) < 0.1
    assert np.isnan(limiting_flux(coadd).flux)


@pytest.mark.parametrize(
    ("power", "told"), [(0.0, 0.0), (0.4, 0.4), (1.0, 1.0), (1.6, 1.0), (-0.3, 0.0)]
)
def test_noise_of_apertures_without_room_follows_the_smaller_ones(power, told):
    radii = np.array([1.0, 2.0, 3.0, 4.0, 8.0])
    ratios = radii**power / 2**power
    ratios[3:] = np.nan
    found = larger_apertures(radii, ratios)
    np.testing.assert_allclose(found[:3], ratios[:3])
    np.testing.assert_allclose(found[3:], ratios[2] * (radii[3:] / 3) ** np.clip(power, 0, 1))
    assert (larger_apertures(radii, np.full(5, np.nan)) == 1).all()
