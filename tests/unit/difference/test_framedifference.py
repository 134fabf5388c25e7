"""Sources that fade from frame to frame, in the frames of a coadd less its template."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import framediff
import numpy as np
import pytest
import starfields
from astropy.io import fits
from astropy.table import Table
from epochpair import NEW

from lib.core.settings import DifferenceSettings, LightcurveSettings, StackSettings
from lib.difference.framedifference import FrameInputs, make_frame_difference
from lib.difference.products import DifferenceInputs, make_difference
from lib.frame.damage import damage_of_fits
from lib.night.positions import Position
from lib.stack.coaddition import StackInputs, StackProducts, make_stack
from lib.stack.lightcurves import make_tables, read_stack

SETTINGS = DifferenceSettings(method="zogy", frames=True)
NUMBER = 30
FADING = 0.5
"""[mag] From each frame to the next."""


class Inputs(SimpleNamespace):
    """Inputs of a job as Snakemake has them."""

    def get(self, name):
        return getattr(self, name, None)


def fading_sources(rng, reference):
    """Return ra, dec and first magnitude of sources away from stars and from each other."""
    places = [NEW[:2]]
    east = np.cos(np.radians(starfields.DEC))
    while len(places) <= NUMBER:
        one = (
            starfields.RA + rng.uniform(-0.017, 0.017) / east,
            starfields.DEC + rng.uniform(-0.017, 0.017),
        )
        there = np.vstack([np.column_stack([reference["ra"], reference["dec"]]), places])
        if np.hypot((there[:, 0] - one[0]) * east, there[:, 1] - one[1]).min() * 3600 > 8:
            places.append(one)
    ra, dec = np.array(places[1:]).T
    return {"ra": ra, "dec": dec, "mag": rng.uniform(19.8, 21.5, NUMBER), "colour": np.ones(NUMBER)}


@pytest.fixture(scope="module")
def made(epochs, tmp_path_factory):
    """The folder of a stack with fading sources, its frames' differences, and the sources."""
    early, late = epochs
    folder = tmp_path_factory.mktemp("fading")
    (folder / "qa/stack").mkdir(parents=True)
    rng = np.random.default_rng(8)
    reference = Table.read(late.product("reference.ecsv"), format="ascii.ecsv")
    sources = fading_sources(rng, reference)
    frames = []
    for number, path in enumerate(late.frames):
        frames.append(str(folder / Path(path).name))
        shutil.copy(path, frames[-1])
        with fits.open(frames[-1], mode="update") as hdus:
            now = sources | {"mag": sources["mag"] + FADING * number}
            quiet = hdus[0].header.copy()
            quiet["RDNOISE"] = 0.0
            hdus[0].data += starfields.make_image(rng, quiet, now, fwhm=4.0, sky=0.0)
    coadd = [folder / f"coaddT.r{end}.fits" for end in ("", ".weight", ".cat")]
    quality = folder / "qa/stack/T.r.json"
    make_stack(
        StackInputs(frames, refcat=late.product("reference.ecsv")),
        StackProducts(*coadd, quality), StackSettings(),
    )  # fmt: skip
    given = DifferenceInputs(*coadd, early.product("coadd.fits"))
    make_difference(given, folder / "diffT.r.fits", folder / "diffT.r.weight.fits", SETTINGS)
    differences = []
    for path in frames:
        differences.append(folder / f"d{Path(path).name}")
        framediff.main(SimpleNamespace(
            input=Inputs(frame=path, coadd=coadd[0], weight=coadd[1], cat=coadd[2], quality=quality,
                         diff=folder / "diffT.r.fits"),
            output=SimpleNamespace(diff=differences[-1]),
            params=SimpleNamespace(
                given=SimpleNamespace(template=given.template, why=""), target_radec=None,
                settings=vars(SETTINGS), version=3,
            ),
        ))  # fmt: skip
    return folder, frames, differences, sources


def test_a_frame_less_the_template_is_complete(made):
    folder, frames, differences, _ = made
    whole = fits.getheader(folder / "diffT.r.fits")
    for path, frame in zip(differences, frames, strict=True):
        assert not damage_of_fits(path)
        own = fits.getheader(frame)
        with fits.open(path) as hdus:
            header = hdus[0].header
            assert header["QCSTAT"] == "OK" and header["DIFSTACK"] == "T.r"
            assert header["DIFMETH"] == whole["DIFMETH"]
            for key in ("FRAME", "MJD-OBS", "DATE-OBS", "EXPTIME", "AIRMASS"):
                assert header[key] == own[key]
            for key in ("NSTACK", "STACK1", "MJD-BEG", "DATE-END", "TOTALEXP"):
                assert key in fits.getheader(folder / "coaddT.r.fits") and key not in header
            # The pixels and the zero point are the coadd's, the noise is its own.
            assert hdus[0].data.shape == fits.getdata(folder / "diffT.r.fits").shape
            assert header["ABSZPT"] == whole["ABSZPT"] and header["CRPIX1"] == whole["CRPIX1"]
            assert header["DIFPULL"] == pytest.approx(1, abs=0.05)
            assert header["DIFLIM5"] < whole["DIFLIM5"] - 0.2
            names = [hdu.name for hdu in hdus[1:]]
            assert names == ["MASK", "SIGNIFICANCE", "FLUXERR", "PSF", "WEIGHT"]
            assert ((hdus["MASK"].data == 0) == (hdus["WEIGHT"].data > 0)).all()


def test_the_light_curve_follows_what_fades(made):
    folder, frames, differences, sources = made
    paths = (*(str(folder / f"coaddT.r{end}.fits") for end in ("", ".weight", ".cat")),
             str(folder / "qa/stack/T.r.json"), frames)  # fmt: skip
    positions = [
        Position(f"s{k}", np.array([ra]), np.array([dec]))
        for k, (ra, dec) in enumerate(zip(sources["ra"], sources["dec"], strict=True))
    ]
    tables = make_tables(
        [read_stack(paths)], [paths], positions, LightcurveSettings(), None,
        [str(folder / "diffT.r.fits"), *map(str, differences)],
    )  # fmt: skip
    pulls = []
    for table, first in zip(tables, sources["mag"], strict=True):
        kinds = np.asarray(table["KIND"], str)
        single = table[kinds == "frame"]
        rows = table[kinds == "difference"]
        assert len(rows) == 4 and (rows["FRAME"] == "T.r").sum() == 1
        rows = rows[rows["FRAME"] != "T.r"]
        assert list(rows["FRAME"]) == list(single["FRAME"])
        assert np.abs(rows["MJD"] - single["MJD"]).max() < 1e-8
        true = 10 ** (0.4 * (starfields.ZP - first - FADING * np.arange(3)))
        pulls.append((rows["FLUX"] - true) / rows["FLUXERR"])
    pulls = np.array(pulls)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pulls.size))
    assert abs(pulls.mean()) < 0.4


def test_what_cannot_be_subtracted_is_a_header_with_the_reason(epochs, made, tmp_path):
    folder, frames, _, _ = made
    early, _ = epochs
    coadd = [folder / f"coaddT.r{end}.fits" for end in ("", ".weight", ".cat")]
    given = DifferenceInputs(*coadd, early.product("coadd.fits"))
    numbers = json.loads((folder / "qa/stack/T.r.json").read_text())
    name = fits.getheader(frames[0])["FRAME"]
    numbers["frames"][name] = {"used": False, "reason": "CLOUD: 0.1 < 0.3"}
    quality = tmp_path / "q.json"
    quality.write_text(json.dumps(numbers))
    left_out = FrameInputs(frames[0], quality, folder / "diffT.r.fits", given)
    refused = tmp_path / "diffT.r.fits"
    bare = fits.getheader(folder / "diffT.r.fits")
    bare["QCSTAT"], bare["QCREASON"] = "REJECTED", "NO_TEMPLATE: none"
    fits.PrimaryHDU(None, bare).writeto(refused)
    without = FrameInputs(frames[0], folder / "qa/stack/T.r.json", refused, given)
    for inputs, reason in (
        (left_out, "NOT_STACKED: CLOUD: 0.1 < 0.3"),
        (without, "NO_DIFFERENCE: of the coadd: NO_TEMPLATE: none"),
    ):
        header = make_frame_difference(inputs, tmp_path / "d.fits", SETTINGS)
        assert header["QCSTAT"] == "REJECTED" and header["QCREASON"] == reason
        assert header["FRAME"] == name
        with fits.open(tmp_path / "d.fits") as hdus:
            assert hdus[0].data is None and len(hdus) == 1
