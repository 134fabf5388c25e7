"""Templates of other grids, and of the images of a survey that lie in a folder."""

from types import SimpleNamespace

import numpy as np
import pytest
import template as rule_template
from astropy.io import fits
from astropy.wcs import WCS
from differencepairs import Seeing, add_points

from lib.difference.template import TemplateFile, place_on_grid, read_template
from lib.frame.file import FrameRejected


def gnomonic(size, scale, angle=0.0, centre=(150.0, 20.0)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = centre, (size / 2, size / 2)
    turn = np.radians(angle)
    wcs.wcs.cd = scale / 3600 * np.array(
        [[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )  # fmt: skip
    wcs.pixel_shape = (size, size)
    return wcs


@pytest.mark.parametrize("scale, angle", [(0.4, 30.0), (0.25, -5.0), (0.7, 170.0)])
def test_positions_fluxes_and_noise_outlive_the_grid(scale, angle):
    """Stars of a template with finer, coarser or turned pixels."""
    rng = np.random.default_rng(3)
    size = int(200 * 0.4 / scale) + 60
    theirs, grid = gnomonic(size, scale, angle), gnomonic(200, 0.4)
    sky = np.array(
        [[150 + dx / 3600, 20 + dy / 3600] for dx, dy in ((-20, -15), (12, 18), (5, -8))]
    )
    image = rng.normal(0, 5, (size, size))
    add_points(image, *theirs.all_world2pix(sky, 0).T, np.full(3, 2e4), Seeing(1.6 / scale))
    weight = np.full(image.shape, 1 / 25, np.float32)
    source = TemplateFile(image.astype(np.float32), weight, theirs, fits.Header())
    placed = place_on_grid(source, grid, 4.0, "t")
    plane = placed.plane
    x, y = grid.all_world2pix(sky, 0).T
    for xs, ys in zip(x, y, strict=True):
        part = plane.image[round(ys) - 25 : round(ys) + 26, round(xs) - 25 : round(xs) + 26]
        v, u = np.indices(part.shape) - 25
        # Beyond this radius of six FWHM is half a per cent; the sky of so many pixels adds as much.
        assert part.sum() == pytest.approx(2e4, rel=0.03)
        core = np.hypot(u, v) < 6
        light = part[core].sum()
        at = (part * u)[core].sum() / light, (part * v)[core].sum() / light
        np.testing.assert_allclose(at, (xs - round(xs), ys - round(ys)), atol=0.1)
    # Noise of an area of sky stays what it was, however it is cut into pixels.
    assert np.median(plane.variance) == pytest.approx(25 * (0.4 / scale) ** 2, rel=0.15)


def test_a_field_elsewhere_is_refused(tmp_path):
    header = gnomonic(100, 0.4, centre=(151.0, 20.0)).to_header()
    fits.writeto(tmp_path / "t.fits", np.zeros((100, 100), np.float32), header)
    with pytest.raises(FrameRejected, match="TEMPLATE_ELSEWHERE"):
        read_template(tmp_path / "t.fits", gnomonic(100, 0.4))


def job_of(folder, coadd, output, survey="ps1"):
    given = SimpleNamespace(cache=folder / "cache", folder=folder / "images", refcat="offline")
    params = SimpleNamespace(survey=survey, servers=(), timeout=1.0, given=given)
    return SimpleNamespace(
        input=SimpleNamespace(coadd=coadd), output=[output], params=params
    )  # fmt: skip


def test_image_of_a_survey_from_a_folder(tmp_path):
    grid = gnomonic(200, 0.4)
    header = grid.to_header()
    header["BAND"], header["PIXSCALE"] = "r", 0.4
    fits.writeto(tmp_path / "coadd.fits", np.zeros((200, 200), np.float32), header)
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(1).normal(0, 1, (500, 500)).astype(np.float32)
    fits.writeto(tmp_path / "images/stk.r.unconv.fits", image, gnomonic(500, 0.25).to_header())
    job = job_of(tmp_path, tmp_path / "coadd.fits", tmp_path / "template.fits")
    rule_template.main(job)
    source = read_template(tmp_path / "template.fits", grid)
    assert source.measured_noise and source.header["SURVEY"]
    assert np.median(source.weight[source.weight > 0]) == pytest.approx(1, abs=0.1)
    # A band that it has not is a header that says so, which the subtraction passes on.
    fits.setval(tmp_path / "coadd.fits", "BAND", value="J")
    rule_template.main(job)
    with pytest.raises(FrameRejected, match="NO_TEMPLATE: .*J"):
        read_template(tmp_path / "template.fits", grid)


def test_servers_that_do_not_answer_cost_the_difference_alone(tmp_path, capsys, monkeypatch):
    """A header with the reason, so that stacks and light curves are made; and a word on it."""
    monkeypatch.setattr(rule_template, "PAUSE", 0.0)
    header = gnomonic(200, 0.4).to_header()
    header["BAND"], header["PIXSCALE"] = "r", 0.4
    fits.writeto(tmp_path / "coadd.fits", np.zeros((200, 200), np.float32), header)
    job = job_of(tmp_path, tmp_path / "coadd.fits", tmp_path / "template.fits")
    job.params.given.refcat, job.params.servers = "online", ("http://127.0.0.1:9",)
    rule_template.main(job)
    said = capsys.readouterr().err
    assert said.startswith("autoproc: no image of ps1 could be had: ")
    assert "'--forcerun template' asks again" in said
    with pytest.raises(FrameRejected, match="NO_TEMPLATE: .*no answer"):
        read_template(tmp_path / "template.fits", gnomonic(200, 0.4))
