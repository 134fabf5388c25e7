"""Templates from surveys: the pixels, their header and the cache, against a loopback hips2fits."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hips_server import HipsServer

from lib.core.settings import ReferenceSettings
from lib.reference import cutouts
from lib.reference.cutouts import CutoutError, cutout_settings, survey_cutout
from lib.reference.vizier import ReferenceUnavailable

CENTRE = (150.123, 2.345)
SIZE, SCALE = 0.03, 0.6


def stars():
    """Return twelve stars well apart: ra, dec [deg], flux [nanomaggy]."""
    rng = np.random.default_rng(3)
    east, north = np.meshgrid(np.linspace(-40, 40, 4), np.linspace(-35, 35, 3))
    ra = CENTRE[0] + (east.ravel() + rng.uniform(-1, 1, 12)) / 3600 / np.cos(np.radians(CENTRE[1]))
    dec = CENTRE[1] + (north.ravel() + rng.uniform(-1, 1, 12)) / 3600
    return np.column_stack([ra, dec, 10 ** rng.uniform(1, 3, 12)])


def serving(survey, **how):
    pixel = cutouts.IMAGE_SURVEYS[survey].pixel
    return HipsServer(stars(), pixel, **how)


def ask(servers, cache, survey="legacy", band="r", **how):
    given = {"centre": CENTRE, "size": SIZE, "scale": SCALE} | how
    addresses = tuple(one if isinstance(one, str) else one.address for one in servers)
    settings = ReferenceSettings(cutout_servers=addresses, timeout=given.pop("timeout", 10.0))
    return survey_cutout(survey, band, cache=cache, settings=settings, **given)


def fluxes(path):
    """Return the sum of pixels within 4 arcsec of each star of the sky."""
    image, header = fits.getdata(path), fits.getheader(path)
    wcs = WCS(header)
    scale = header["CDELT2"] * 3600
    yy, xx = np.indices(image.shape)
    truth = stars()
    x, y = wcs.wcs_world2pix(truth[:, 0], truth[:, 1], 0)
    return np.array(
        [image[np.hypot(xx - a, yy - b) * scale < 4.0].sum() for a, b in zip(x, y, strict=True)]
    )


def test_fluxes_and_places_are_those_of_the_survey(tmp_path):
    with serving("legacy") as server:
        path = ask([server], tmp_path)
    header = fits.getheader(path)
    assert np.allclose(fluxes(path), stars()[:, 2], rtol=0.01)
    assert header["MAGZERO"] == 22.5 and header["BUNIT"] == "nanomaggy"
    assert header["SURVEY"] == "DESI Legacy Surveys DR10" and header["FILTER"] == "r"
    assert header["HIPSID"] == "CDS/P/DESI-Legacy-Surveys/DR10/r"
    assert header["DATE-END"] == "2021-08-30" and header["COVERAGE"] == 1.0
    asked = server.requests[0]
    assert asked["path"] == "/hips-image-services/hips2fits" and asked["format"] == "fits"
    assert header["OVERSAMP"] == 2  # 0.6 arcsec of 0.262
    corner = WCS(header).calc_footprint(axes=header["NAXIS1"] and (header["NAXIS1"],) * 2)
    reach = np.abs(corner - CENTRE).min(axis=0) * [np.cos(np.radians(CENTRE[1])), 1]
    assert (reach > SIZE / 2).all()


def test_asinh_magnitudes_of_panstarrs_become_fluxes(tmp_path):
    with serving("ps1", asinh=True) as server:
        path = ask([server], tmp_path, "ps1", "R")
    header = fits.getheader(path)
    relative = fluxes(path) / stars()[:, 2]
    assert np.ptp(relative) < 0.01 * relative.mean()
    assert "MAGZERO" not in header and "sky cells" in header["ZPREASON"]
    assert header["FILTER"] == "r" and header["HIPSID"] == "CDS/P/PanSTARRS/DR1/r"


def test_g_of_panstarrs_is_linear(tmp_path):
    with serving("ps1") as server:
        path = ask([server], tmp_path, "ps1", "g")
    assert np.allclose(fluxes(path), stars()[:, 2], rtol=0.01)


def test_edge_of_the_survey_is_blank(tmp_path):
    with serving("legacy", south=CENTRE[1]) as server:
        path = ask([server], tmp_path)
    image = fits.getdata(path)
    assert np.isnan(image[:50]).all() and np.isfinite(image[-50:]).all()
    assert 0.3 < fits.getheader(path)["COVERAGE"] < 0.7


def test_what_was_had_is_not_asked_for_again(tmp_path):
    with serving("legacy") as server:
        path = ask([server], tmp_path)
        assert ask([server], tmp_path) == path
        near = (CENTRE[0] + 0.002, CENTRE[1] - 0.002)
        assert ask([server], tmp_path, centre=near) == path
        assert ask([], tmp_path) == path
        assert len(server.requests) == 1
        assert ask([server], tmp_path, band="g") != path
        assert ask([server], tmp_path, scale=0.5) != path
        assert ask([server], tmp_path, centre=(CENTRE[0] + 0.05, CENTRE[1])) != path
    assert len(server.requests) == 4


def test_damaged_file_of_the_cache_is_replaced(tmp_path, caplog):
    with serving("legacy") as server:
        path = ask([server], tmp_path)
        content = bytearray(path.read_bytes())
        content[20_000] ^= 1
        path.write_bytes(content)
        assert ask([server], tmp_path) == path and len(server.requests) == 2
        assert "damaged, asked for again" in caplog.text
        path.write_bytes(path.read_bytes()[:5000])
        assert ask([server], tmp_path) == path and len(server.requests) == 3
    assert np.allclose(fluxes(path), stars()[:, 2], rtol=0.01)


FAULTS = {
    "json": r"HTTP 400 Bad Request \(Bad request: No HiPS CDS/P/DESI-Legacy-Surveys/DR10/r\)",
    "html": "not a FITS file but b'<html><body>The service",
    "404": "HTTP 404 Not Found",
    "empty": "an answer without content",
    "truncated": r"breaks off after \d+ bytes",
    "cut": "no answer",
    "trickle": "timed out",
    "endless": "more than 5 MB",
    "other": r"an image of \(\d+, \d+\) pixels, not",
    "shifted": "an image of another part of the sky",
    "blank": "no image of 150.1200 [+]2.3500",
    "garbage": "unreadable FITS file",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_server_is_told_and_the_mirror_asked(fault, tmp_path, caplog):
    with serving("legacy", fault=fault) as bad, serving("legacy") as good:
        with pytest.raises(ReferenceUnavailable, match=FAULTS[fault]) as caught:
            ask([bad], tmp_path, timeout=0.7)
        assert str(caught.value).isprintable() and not list(tmp_path.iterdir())
        path = ask([bad, good], tmp_path, timeout=2.0)
    assert np.allclose(fluxes(path), stars()[:, 2], rtol=0.01)
    assert bad.address in caplog.text


def test_dead_server_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ReferenceUnavailable) as caught:
        ask(["http://127.0.0.1:9"], tmp_path)
    assert str(caught.value) == (
        "http://127.0.0.1:9: CDS/P/DESI-Legacy-Surveys/DR10/r: no answer (Connection refused)"
    )


def test_nothing_is_asked_for_offline(tmp_path):
    with serving("legacy") as server:
        online = ReferenceSettings(cutout_servers=(server.address,))
        offline = cutout_settings("offline", online)
        with pytest.raises(ReferenceUnavailable, match="no server may be asked"):
            survey_cutout("legacy", "r", CENTRE, SIZE, SCALE, tmp_path, settings=offline)
        assert server.requests == []
    assert cutout_settings("online", online) is online


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"survey": "des"}, "no survey 'des': write one of ps1, legacy, skymapper"),
        ({"band": "J"}, "DESI Legacy Surveys DR10 has no image near band 'J': it has g, r, i, z"),
        ({"survey": "ps1", "centre": (10.0, -45.0)}, "reaches from declination -31 to [+]90"),
        ({"centre": (10.0, -95.0)}, "no position on the sky"),
        ({"size": 3.0}, "larger than 1 deg"),
        ({"scale": 0.0}, "no size of a template"),
        ({"size": 0.9, "scale": 0.1}, "x .* pixels is too large"),
        ({"survey": "ps1", "size": 0.9, "scale": 3.0, "band": "y"}, None),
    ],
)
def test_wishes_that_cannot_be_met(how, words, tmp_path):
    if words is None:  # coarse pixels of magnitudes are asked for finer, in bounds
        images = cutouts.IMAGE_SURVEYS["ps1"]
        box = cutouts.Box(*CENTRE, 0.9, 3.0)
        finer = cutouts.oversampling(images, "y", box)
        assert 3.0 / finer <= 1.0 and (box.pixels * finer) ** 2 <= cutouts.MAX_PIXELS
        with pytest.raises(CutoutError, match="take a smaller field"):
            cutouts.oversampling(images, "y", replace(box, size=1.0, scale=1.5))
        return
    with pytest.raises(CutoutError, match=words):
        ask([], tmp_path, **how)


def test_the_request_is_astroquerys(tmp_path, monkeypatch):
    from astroquery.hips2fits import hips2fitsClass

    asked, payload = [], hips2fitsClass._args_to_payload

    def counted(client, **how):
        asked.append((client.server, how["hips"], how["wcs"].pixel_shape))
        return payload(client, **how)

    monkeypatch.setattr(hips2fitsClass, "_args_to_payload", counted)
    with serving("legacy") as server:
        ask([server], tmp_path)
    ((address, hips, shape),) = asked
    assert address == f"{server.address}/hips-image-services/hips2fits"
    assert hips == "CDS/P/DESI-Legacy-Surveys/DR10/r" and shape[0] == shape[1]
