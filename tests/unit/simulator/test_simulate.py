"""The simulator against arithmetic that it does not do itself: it is the truth of other tests."""

import numpy as np
import pytest
import simulate
from astropy.io import fits
from astropy.table import Table
from simulate import PSF, Night, Optics

RATIR_C3 = simulate.ratir_cameras()[3].optics


@pytest.fixture(scope="module")
def lmi(tmp_path_factory):
    """A small LMI night with some of everything."""
    outdir = tmp_path_factory.mktemp("lmi")
    night = Night(
        instrument="lmi",
        exposures=3,
        stars=25,
        seed=5,
        size=256,
        calibrations=3,
        filters=("SDSS-R",),
        cosmic_scale=20,
        scenes=True,
        reference_wrong=0.05,
        hostile={"truncated": [3]},
    )
    simulate.simulate_night(outdir, night)
    return outdir


@pytest.mark.parametrize(
    "optics", [RATIR_C3, Optics(0.24, 0.24, 0.5, 256, 256, (0.3, 0, 0)), Optics(0.3, 0.3, 30, 9, 9)]
)
def test_projection_agrees_with_wcslib(optics):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 2048, (2, 300))
    crval = (359.99, -41.0)
    header = fits.Header(list(optics.cards(crval, 0.1, 0.001).items()))
    ra, dec = simulate.true_wcs({"wcs": dict(header)}, cropped=False).wcs_pix2world(x, y, 0)
    my_ra, my_dec = optics.pixel_to_sky(x, y, crval, 0.1, 0.001)
    # one micro-arcsecond
    assert np.abs((my_ra - ra + 180) % 360 - 180).max() * 3.6e9 < 1
    assert np.abs(my_dec - dec).max() * 3.6e9 < 1
    back = optics.sky_to_pixel(ra, dec, crval, 0.1, 0.001)
    np.testing.assert_allclose(back, (x, y), atol=1e-6)


def test_pixel_area_is_the_jacobian_of_the_projection():
    area = RATIR_C3.pixel_area((2048, 2048))
    for x, y in ((924, 982), (100, 150), (1900, 1950)):
        ra, dec = RATIR_C3.pixel_to_sky([x, x + 1, x], [y, y, y + 1], (10.0, 0.0))
        xi, eta = simulate.tan_project(ra, dec, 10.0, 0.0)
        cell = (xi[1] - xi[0]) * (eta[2] - eta[0]) - (eta[1] - eta[0]) * (xi[2] - xi[0])
        expected = abs(cell) * 3600**2 / (0.2983 * 0.2945)
        assert area[y, x] == pytest.approx(expected, rel=1e-3)


# below 1.7 px, moments themselves are off by the sampling, however exact the pixels
@pytest.mark.parametrize("fwhm", [1.7, 2.1, 4.0])
def test_rendered_star_has_its_flux_and_centroid(fwhm):
    # beta 6: wings so steep that plain moments are good to the tolerances
    x, y = 40.37, 39.81
    image = simulate.render_sources((81, 81), [x], [y], [1e5], PSF(fwhm, 6.0), noise=1e-3)
    assert image.sum() == pytest.approx(1e5, rel=2e-4)
    yy, xx = np.mgrid[0:81, 0:81]
    # 1 mas of 0.3 arcsec pixels is 3e-3 px
    assert (image * xx).sum() / image.sum() == pytest.approx(x, abs=5e-4)
    assert (image * yy).sum() / image.sum() == pytest.approx(y, abs=5e-4)


def test_trail_is_centred_and_long():
    psf = PSF(4.0, 6.0, trail=20.0, trail_angle=0.0)
    image = simulate.render_sources((81, 121), [60.2], [40.0], [1e5], psf, noise=1e-3)
    x = np.arange(121)
    profile = image.sum(axis=0) / image.sum()
    mean = (profile * x).sum()
    assert mean == pytest.approx(60.2, abs=1e-3)
    # a uniform motion adds length^2 / 12 to the variance
    alone = simulate.render_sources((81, 121), [60.2], [40.0], [1e5], PSF(4.0, 6.0), noise=1e-3)
    alone = alone.sum(axis=0) / alone.sum()
    added = (profile * (x - mean) ** 2).sum() - (alone * (x - mean) ** 2).sum()
    assert added == pytest.approx(20**2 / 12, rel=0.02)


def test_noise_is_photon_and_read_noise():
    frame, detector, _ = simulate.simulate_frame(
        (300, 300), stars=0, sky=400.0, cosmic_scale=0, gain=2.0, read_noise=10.0, bias=0.0
    )
    electrons = frame.raw * detector.gain
    # rounding to DN adds gain^2 / 12
    expected = 400 + 10.0**2 + 2.0**2 / 12
    assert electrons.mean() == pytest.approx(400, abs=5 * np.sqrt(expected / 9e4))
    assert electrons.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / 9e4))


def test_bleeding_keeps_the_charge():
    electrons = np.full((50, 3), 10.0, np.float32)
    electrons[25, 1] = 1000
    well = np.full((50, 3), 100.0, np.float32)
    out = simulate.bleed(electrons.copy(), well)
    assert out.sum() == pytest.approx(electrons.sum(), rel=1e-6)
    assert out.max() <= 100
    assert (out[:, 1] > 10).sum() >= 11
    np.testing.assert_array_equal(out[:, [0, 2]], electrons[:, [0, 2]])


def test_cosmic_rays_come_at_their_rate():
    rng = np.random.default_rng(1)
    seen = [
        (simulate.cosmic_rays((200, 200), 60, rng, rate=0.03, scale=5) > 0).any() for _ in range(60)
    ]
    # 0.26 mm wide: 0.61 events expected, at least one in 46 % of the frames
    assert 0.46 == pytest.approx(np.mean(seen), abs=3.5 * np.sqrt(0.25 / 60))


def test_night_tells_the_truth(lmi):
    truth = simulate.load_truth(lmi)
    assert len(truth["frames"]) == 3
    for name, entry in truth["frames"].items():
        pixels = simulate.load_pixels(truth, name)
        stars = pixels["stars"]
        ra, dec = simulate.true_wcs(entry).wcs_pix2world(stars["x"], stars["y"], 0)
        catalogue = truth["stars"][np.searchsorted(truth["stars"]["id"], stars["id"])]
        assert np.abs(ra - catalogue["ra"]).max() * 3.6e6 < 0.01
        assert np.abs(dec - catalogue["dec"]).max() * 3.6e6 < 0.01
        magnitude = entry["zero_point"] - 2.5 * np.log10(stars["flux"])
        np.testing.assert_allclose(magnitude, catalogue[entry["band"]], atol=1e-9)
        if entry["truncated"]:
            continue
        raw = fits.getdata(lmi / "raw" / entry["file"]).astype(float)
        flat = pixels["flat"]
        expected = pixels["scene"] * pixels["response"] + pixels["sky"] * flat
        residual = (raw - pixels["bias"]) * entry["gain"] - expected - pixels["cosmic"]
        pull = residual / np.sqrt(expected + entry["read_noise"] ** 2 + entry["gain"] ** 2 / 12)
        good = (pixels["bad"] == 0) & ~pixels["saturated"] & (pixels["cosmic"] == 0)
        assert pull[good].std() == pytest.approx(1, abs=0.02)
        assert abs(pull[good].mean()) < 5 / np.sqrt(good.sum()) + 0.01


def test_reference_table_has_its_errors(lmi):
    truth = simulate.load_truth(lmi)
    reference = Table.read(lmi / "reference.ecsv")
    entries = Table.read(lmi / "truth" / "reference.ecsv")
    stars = truth["stars"][np.searchsorted(truth["stars"]["id"], entries["id"])]
    right = ~entries["wrong"]
    years = truth["epoch"] - reference["epoch"]
    dec = reference["dec"] + years * reference["pmdec"] / 3.6e6
    error = reference["dec_err"] * np.hypot(1, 0.1 * years)
    pull = ((dec - stars["dec"]) * 3.6e6 / error)[right]
    n = right.sum()
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * n))
    pull = ((reference["r"] - stars["r"]) / reference["r_err"])[right]
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * n))
    assert entries["wrong"].any()


def test_truncated_file_is_broken(lmi):
    truth = simulate.load_truth(lmi)
    (broken,) = (e["file"] for e in truth["frames"].values() if e["truncated"])
    whole = {e["file"] for e in truth["frames"].values()} - {broken}
    sizes = [(lmi / "raw" / name).stat().st_size for name in whole]
    assert (lmi / "raw" / broken).stat().st_size < 0.6 * min(sizes)


def test_same_seed_same_night(tmp_path):
    night = Night(instrument="lmi", exposures=1, stars=5, size=64, calibrations=1)
    for name in ("one", "two"):
        simulate.simulate_night(tmp_path / name, night)
    files = sorted(p.name for p in (tmp_path / "one" / "raw").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "two" / "raw").iterdir())
    for name in files:
        assert (tmp_path / "one" / "raw" / name).read_bytes() == (
            tmp_path / "two" / "raw" / name
        ).read_bytes()


def test_second_target_joins_the_night(tmp_path):
    first = Night(instrument="lmi", exposures=1, stars=5, size=64, calibrations=1)
    simulate.simulate_night(tmp_path, first)
    second = Night(
        instrument="lmi",
        exposures=1,
        stars=5,
        size=64,
        calibrations=0,
        seed=2,
        detector_seed=1,
        target="other",
        start="2022-01-28T07:00:00",
        ra=200.0,
    )
    simulate.simulate_night(tmp_path, second, add=True)
    truth = simulate.load_truth(tmp_path)
    assert len(truth["frames"]) == 4
    assert len(np.unique(truth["stars"]["id"])) == len(truth["stars"])
    assert len(list((tmp_path / "raw").iterdir())) == len(set(truth["raw"]))


def test_command_line_refuses_unknown_hostility(tmp_path, capsys):
    with pytest.raises(SystemExit):
        simulate.main([str(tmp_path), "--hostile", "rain=1"])
    assert "cloudy" in capsys.readouterr().err


def test_afterglow_fades_by_its_power_law_and_is_absorbed_in_the_blue():
    glow = simulate.Afterglow(18.0, delay=200.0, decay=1.2, slope=0.8, absorbed=0.7)
    assert glow.band_magnitude("i", 0.0, 1e-3) == pytest.approx(18.0, abs=1e-4)
    times = np.linspace(300.0, 900.0, 60001)
    mean = np.trapezoid(((times + 200) / 200) ** -1.2, times) / 600
    assert glow.band_magnitude("i", 300.0, 900.0) == pytest.approx(18 - 2.5 * np.log10(mean))
    # A flux density that goes as the wavelength to 0.8; J is given as Vega.
    colour = glow.band_magnitude("i", 0, 1) - glow.band_magnitude("J", 0, 1)
    assert colour == pytest.approx(2.5 * 0.8 * np.log10(1.25 / 0.76) + 0.91)
    assert glow.band_magnitude("r", 0, 1) == np.inf


def test_afterglow_stands_at_the_target_with_its_light(tmp_path):
    """The same night with and without it differs there alone."""
    night = {
        "instrument": "lmi", "exposures": 1, "stars": 8, "seed": 5, "size": 128, "calibrations": 1,
        "filters": ("SDSS-I",), "scenes": True, "pointing_error": 0.0,
    }  # fmt: skip
    truths, scenes = [], []
    for name, glow in (("dark", None), ("bright", simulate.Afterglow(17.0))):
        simulate.simulate_night(tmp_path / name, Night(**night, afterglow=glow))
        truths.append(simulate.load_truth(tmp_path / name))
        pixels = simulate.load_pixels(truths[-1], next(iter(truths[-1]["frames"])))
        scenes.append(pixels["scene"])
    (entry,) = truths[1]["frames"].values()
    added = scenes[1] - scenes[0]
    flux = 10 ** (-0.4 * (entry["afterglow"] - entry["zero_point"]))
    assert added.sum() == pytest.approx(flux, rel=0.02)
    y, x = np.unravel_index(np.argmax(added), added.shape)
    place = simulate.true_wcs(entry).all_world2pix([[150.1, 20.3]], 0)[0]
    np.testing.assert_allclose((x, y), place, atol=0.6)
    (other,) = truths[0]["frames"].values()
    assert "afterglow" not in other
