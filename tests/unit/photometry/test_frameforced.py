"""lib.photometry.frameforced: given positions of a single frame, seen or not, truth known."""

import numpy as np
import pytest
from starfields import BETA, DEC, RA, SIZE, ZP, make_header, make_image

from lib.core.wcs import celestial_wcs
from lib.frame.file import BAD, SOURCE, Frame
from lib.photometry.flags import FLAG_NEIGHBOUR, FLAG_OUTSIDE, FLAG_WEIGHT
from lib.photometry.frameforced import measure_frame
from lib.photometry.psf import CoreAperture, StarAperture, Wings, moffat_alpha

FWHM = 3.5
ALPHA = moffat_alpha(FWHM, BETA)


def pixel_fraction(radius):
    """Return the part of a star's light within a radius, as pixels of the simulation hold it."""
    fine = 15
    offset = (np.arange(3) - 1) / 3
    grid = np.arange(-25, 26)
    part = (np.arange(fine) + 0.5) / fine - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    light = np.zeros(x.shape)
    for dy in offset:
        for dx in offset:
            r2 = (x + dx) ** 2 + (y + dy) ** 2
            light += (BETA - 1) / (np.pi * ALPHA**2) * (1 + r2 / ALPHA**2) ** -BETA / 9
    inside = np.zeros(x.shape)
    for dy in part:
        for dx in part:
            inside += ((x + dx) ** 2 + (y + dy) ** 2 < radius**2) / fine**2
    return float((light * inside).sum())


def true_aperture():
    """Return the apertures of 1.5 and 0.75 FWHM of the stars of the simulation."""
    wide, core = 1.5 * FWHM, 0.75 * FWHM
    inner = CoreAperture(core, pixel_fraction(core), 0.003)
    return StarAperture(wide, pixel_fraction(wide), Wings(ALPHA, BETA, 1.0), inner)


def lattice(rng, number=14):
    """Return positions some way apart, each a little off its place, of stars and of nothing."""
    places = np.stack(np.meshgrid(*[np.linspace(16, SIZE - 17, number)] * 2), -1).reshape(-1, 2)
    return places + rng.uniform(-2, 2, places.shape)


def scene(rng, number=14, faint=0.5):
    header = make_header(angle=0.0)
    places = lattice(rng, number)
    ra, dec = celestial_wcs(header).all_pix2world(*places.T, 0)
    magnitude = rng.uniform(17.5, 21.5, len(ra))
    magnitude[rng.random(len(ra)) < faint] = 40.0
    stars = {"ra": ra, "dec": dec, "mag": magnitude, "colour": np.full(len(ra), 0.7)}
    return header, stars


def source_mask(header, stars):
    """Return a mask with a disc of 9 pixels about each star marked as source."""
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    rows, columns = np.indices(mask.shape)
    for one in np.flatnonzero(stars["mag"] < 30):
        mask[np.hypot(columns - x[one], rows - y[one]) < 9] |= SOURCE
    return mask


def true_flux(stars, header):
    return 10 ** (-0.4 * (stars["mag"] - ZP)) * header["EXPTIME"]


def measured(rng, header, stars, positions, mask=None, image=None, psf_stars=None, **options):
    image = make_image(rng, header, stars, fwhm=FWHM, **options) if image is None else image
    mask = np.zeros(image.shape, np.uint8) if mask is None else mask
    known = np.column_stack([stars["ra"], stars["dec"]])
    fluxes = true_flux(stars, header)
    seen = fluxes > 100
    rows = None if psf_stars is None else (psf_stars, FWHM)
    return measure_frame(Frame(image, mask, header), positions, known[seen], fluxes[seen],
                         true_aperture(), stars=rows)  # fmt: skip


@pytest.mark.parametrize("marked", [False, True])
def test_fluxes_and_errors_of_stars_and_of_nothing_are_true(marked):
    """784 positions, most of them empty: pulls of mean 0, chi^2 of its degrees of freedom.

    With the sources marked in the mask, as the sky step leaves them, and without.
    """
    rng = np.random.default_rng(23)
    pulls, empty = [], []
    for _ in range(4):
        header, stars = scene(rng, faint=0.9)
        mask = source_mask(header, stars) if marked else None
        found = measured(rng, header, stars, np.column_stack([stars["ra"], stars["dec"]]), mask)
        good = found.flags == 0
        pulls.append(((found.flux - true_flux(stars, header)) / found.error)[good])
        empty.append(stars["mag"][good] > 30)
    pulls, empty = np.concatenate(pulls), np.concatenate(empty)
    assert empty.sum() > 650 and (~empty).sum() > 50
    for some in (pulls[empty], pulls[~empty]):
        assert abs(some.mean()) < 4 / np.sqrt(len(some))
        assert abs(np.mean(some**2) - 1) < 3.5 * np.sqrt(2 / len(some))


def test_a_star_that_an_object_passes_is_not_taken_for_it():
    """What moves is not in the list of sources: all that is there is taken away, and told."""
    rng = np.random.default_rng(25)
    header, stars = scene(rng, faint=0.0)
    stars["mag"][:] = rng.uniform(18, 21, len(stars["mag"]))
    wcs = celestial_wcs(header)
    x, y = wcs.all_world2pix(stars["ra"], stars["dec"], 0)
    away = rng.uniform(0.1, 0.6, len(x)) * FWHM
    place = np.column_stack(wcs.all_pix2world(x + away, y, 0))
    objects = {"ra": place[:, 0], "dec": place[:, 1], "mag": np.full(len(x), 20.0),
               "colour": stars["colour"]}  # fmt: skip
    both = {key: np.append(stars[key], objects[key]) for key in stars}
    frame = Frame(
        make_image(rng, header, both, fwhm=FWHM), np.zeros((SIZE, SIZE), np.uint8), header
    )
    known = np.column_stack([stars["ra"], stars["dec"]])
    found = measure_frame(frame, place, known, true_flux(stars, header), true_aperture(),
                          moving=np.ones(len(x), bool))  # fmt: skip
    pull = (found.flux - true_flux(objects, header)) / found.error
    # Errors hold a tenth of the light of the stars, which is known here.
    assert np.all(found.flags & FLAG_NEIGHBOUR) and np.abs(np.median(pull)) < 0.3
    assert np.abs(pull).max() < 4
    still = measure_frame(frame, place, known, true_flux(stars, header), true_aperture())
    assert np.median(still.flux / true_flux(objects, header)) > 1.5


def test_errors_of_bright_stars_are_those_of_their_photons():
    rng = np.random.default_rng(29)
    header, stars = scene(rng, faint=0.0)
    stars["mag"][:] = 16.0
    found = measured(rng, header, stars, np.column_stack([stars["ra"], stars["dec"]]))
    flux = true_flux(stars, header)[0]
    assert np.median(found.error) == pytest.approx(np.sqrt(flux / 0.9), rel=0.25)
    assert np.std(found.flux) < 1.3 * np.median(found.error)
    # The noise of the sky alone, which bins weigh with, knows nothing of the star.
    assert np.median(found.sky_error) < 0.75 * np.median(found.error)


def test_a_bright_neighbour_is_taken_away():
    rng = np.random.default_rng(31)
    header = make_header(angle=0.0)
    x, y = np.array([200.0, 200.0 + 2.2 * FWHM]), np.array([200.0, 200.0])
    ra, dec = celestial_wcs(header).all_pix2world(x, y, 0)
    stars = {"ra": ra, "dec": dec, "mag": np.array([19.0, 16.0]), "colour": np.full(2, 0.7)}
    found = measured(rng, header, stars, np.array([[ra[0], dec[0]]]))
    assert found.flags[0] & FLAG_NEIGHBOUR
    assert abs(found.flux[0] - true_flux(stars, header)[0]) < 3.5 * found.error[0]
    # Most of that error is the neighbour's light; in frames alike the flux scatters by the rest.
    again = [measured(rng, header, stars, np.array([[ra[0], dec[0]]])) for _ in range(12)]
    own = np.sqrt(found.error[0] ** 2 - found.neighbour_error[0] ** 2)
    scatter = np.std([one.flux[0] for one in again], ddof=1)
    assert own < 0.6 * found.error[0] and 0.5 * own < scatter < 1.6 * own


def test_bad_pixels_are_no_light_and_are_told():
    """A hot pixel beside the core is replaced: the flux stays within its error."""
    rng = np.random.default_rng(37)
    header, stars = scene(rng, number=8, faint=0.0)
    stars["mag"][:] = 18.0
    image = make_image(rng, header, stars, fwhm=FWHM)
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    mask = np.zeros(image.shape, np.uint8)
    row, column = np.rint(y).astype(int) + 2, np.rint(x).astype(int) + 2
    image[row, column], mask[row, column] = 1e5, BAD
    positions = np.column_stack([stars["ra"], stars["dec"]])
    found = measured(rng, header, stars, positions, mask, image)
    assert np.all(found.flags & FLAG_WEIGHT)
    pull = (found.flux - true_flux(stars, header)) / found.error
    assert np.abs(pull).max() < 4


def test_positions_off_the_frame_and_at_its_edge_have_no_flux():
    """Nor has what is on the other side of the sky, where projections come back."""
    rng = np.random.default_rng(41)
    header, stars = scene(rng, number=4)
    wcs = celestial_wcs(header)
    edge = wcs.all_pix2world(2.0, 200.0, 0)
    positions = np.array([
        [RA, DEC], [edge[0], edge[1]], [RA + 0.5, DEC], [RA - 180, -DEC], [10.0, 10.0],
        [np.nan, np.nan],
    ])  # fmt: skip
    found = measured(rng, header, stars, positions.astype(float))
    assert np.isfinite(found.flux).tolist() == [True] + [False] * 5
    assert np.all(found.flags[1:] & FLAG_OUTSIDE)


def test_fits_of_stars_and_of_nothing_are_true():
    """588 positions: pulls of mean 0, chi^2 of its degrees of freedom, and no more noise."""
    rng = np.random.default_rng(43)
    pulls, empty, gain = [], [], []
    for _ in range(3):
        header, stars = scene(rng, faint=0.7)
        positions = np.column_stack([stars["ra"], stars["dec"]])
        bright = np.flatnonzero(stars["mag"] < 20)
        found = measured(rng, header, stars, positions, psf_stars=bright)
        good = (found.flags == 0) & np.isfinite(found.psf_flux)
        # Of the stars that tell the function the 40 brightest are fitted, and all else.
        assert good.sum() >= (found.flags == 0).sum() - max(0, len(bright) - 40)
        pulls.append(((found.psf_flux - true_flux(stars, header)) / found.psf_error)[good])
        empty.append(stars["mag"][good] > 30)
        gain.append(np.median(found.psf_error[good] / found.error[good]))
    pulls, empty = np.concatenate(pulls), np.concatenate(empty)
    assert empty.sum() > 350 and (~empty).sum() > 100
    for some in (pulls[empty], pulls[~empty]):
        assert abs(some.mean()) < 4 / np.sqrt(len(some))
        assert abs(np.mean(some**2) - 1) < 3.5 * np.sqrt(2 / len(some))
    assert max(gain) < 1.05


def test_a_star_on_a_brighter_one_is_told_by_a_fit_alone():
    """1.3 FWHM from one of ten times its light: true within an error far below its flux."""
    rng = np.random.default_rng(47)
    header, stars = scene(rng, number=8, faint=0.0)
    stars["mag"][:] = rng.uniform(17.5, 18.5, len(stars["mag"]))
    wcs = celestial_wcs(header)
    ra, dec = wcs.all_pix2world([250.0, 250.0 + 1.3 * FWHM], [250.0, 250.0], 0)
    more = {"ra": ra, "dec": dec, "mag": np.array([16.5, 19.0]), "colour": np.full(2, 0.7)}
    x, y = wcs.all_world2pix(stars["ra"], stars["dec"], 0)
    far = np.hypot(x - 250, y - 250) > 30
    stars = {key: np.append(more[key], values[far]) for key, values in stars.items()}
    positions = np.column_stack([stars["ra"], stars["dec"]])[1:]
    truth = true_flux(stars, header)[1]
    found = [
        measured(rng, header, stars, positions, psf_stars=np.arange(1, len(positions)))
        for _ in range(8)
    ]
    fluxes, errors = (np.array([getattr(one, key)[0] for one in found])
                      for key in ("psf_flux", "psf_error"))  # fmt: skip
    assert np.median(errors) < 0.06 * truth
    assert abs(np.mean(fluxes) - truth) < 3.5 * np.median(errors)
    assert 0.4 * np.median(errors) < np.std(fluxes, ddof=1) < 1.7 * np.median(errors)


def test_a_position_given_twice_is_measured_twice():
    """A tenth of a pixel apart: to share the light of one star would tell neither."""
    rng = np.random.default_rng(59)
    header, stars = scene(rng, number=8, faint=0.0)
    stars["mag"][:] = 18.0
    positions = np.column_stack([stars["ra"], stars["dec"]])
    twice = np.vstack([positions, positions[:9] + [0.04 / 3600, 0.0]])
    image = make_image(rng, header, stars, fwhm=FWHM)
    found = measured(rng, header, stars, twice, image=image, psf_stars=np.arange(len(positions)))
    flux, error = found.psf_flux, found.psf_error
    fitted = np.isfinite(flux[:9])
    assert fitted.sum() >= 3 and np.isfinite(flux[len(positions) :]).all()
    assert flux[len(positions) :][fitted] == pytest.approx(flux[:9][fitted], rel=0.01)
    assert error[len(positions) :][fitted] == pytest.approx(error[:9][fitted], rel=0.05)


def test_too_few_stars_make_no_fit():
    rng = np.random.default_rng(53)
    header, stars = scene(rng, number=8, faint=0.0)
    stars["mag"][:] = 18.0
    positions = np.column_stack([stars["ra"], stars["dec"]])
    assert np.isnan(measured(rng, header, stars, positions, psf_stars=np.arange(4)).psf_flux).all()
    assert np.isfinite(measured(rng, header, stars, positions, psf_stars=np.arange(6)).psf_flux[9])
