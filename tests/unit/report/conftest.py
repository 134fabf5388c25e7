"""A small reduced night."""

import json

import numpy as np
import pytest
from astropy.io import fits
from smallnight import HOSTILE, SHAPE, Night, header, names, put

from lib.frame.file import Frame, FrameRejected, reject, write_frame


@pytest.fixture
def reduced(tmp_path):
    """A reduction of two stacks: 3 frames used, one without stars, one clouded, one unfinished."""
    good = names(4)
    lost = names(2, first=10)
    night = Night(
        {"T1.r": good, "T2.g": lost},
        calibrations=["20220128T040000C0b", "20220128T040100C0b"],
        ignored=["grism.fits"],
        notes={lost[0]: "none of 2 fits; flat_V: filter V, not g; flat_g-C1: camera C1, not C0"},
    )
    imdir = tmp_path / "imredux"
    for k, frame in enumerate(good):
        put(imdir, f"fp{frame}.fits", frame, seed=k)
        put(imdir, f"azsfp{frame}.fits", frame, seed=k, SKYCTS=300.0, NCOSMIC=3, PIXSCALE=0.3,
            ASTRMS1=12.0, ASTRMS2=9.0, ASTRNST=20, ASTRCAT="GaiaDR3")  # fmt: skip
    why = FrameRejected("NO_FLAT", "none of 2 fits")
    write_frame(imdir / f"azsfp{lost[0]}.fits", reject(header(lost[0]), "flatten", why))
    put(imdir, f"fp{lost[1]}.fits", lost[1])
    for step, frame in (("flatten", lost[1]), ("skysub", lost[1]), ("prepare", good[0])):
        path = imdir / "logs" / step / f"{frame}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"12:00 INFO {HOSTILE}\n", encoding="utf-8")

    coadd = header("", NSTACK=3, SEEPIX=4.0, ABSZPT=27.0, ABSZPERR=0.01, LIMMAG=21.5, TOTALEXP=30.0,
                   CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CRPIX1=40.5,
                   CRPIX2=32.5, CD1_1=-1e-4, CD2_2=1e-4)  # fmt: skip
    image = np.random.default_rng(3).normal(0, 1, SHAPE).astype(np.float32)
    coadd.rename_keyword("CD1-1", "CD1_1")
    coadd.rename_keyword("CD2-2", "CD2_2")
    fits.writeto(imdir / "coaddT1.r.fits", image, coadd)
    fits.writeto(imdir / "coaddT1.r.weight.fits", np.ones(SHAPE, np.float32))
    measured = {
        "used": True, "reason": "", "seeing": 1.2, "fwhm": 4.0, "ellipticity": 0.05, "nstars": 30,
        "noise": 5.0, "zeropoint": 24.0, "zeropoint_absolute": True, "transparency": 0.9,
    }  # fmt: skip
    frames = {frame: dict(measured) for frame in good}
    frames[good[3]] |= {"used": False, "reason": "CLOUDY: 0.02 < 0.1", "step": "stack"}
    (imdir / "qa" / "stack").mkdir(parents=True)
    (imdir / "qa" / "stack" / "T1.r.json").write_text(json.dumps({"frames": frames, "flags": []}))

    bias = header("")
    bias["INPUT1"] = "20220128T040000C0b"
    bias["LEFT1"] = "20220128T040100C0b LEVEL: 900.0 DN apart"
    write_frame(imdir / "bias-C0.fits", Frame(image, np.zeros(SHAPE, np.uint8), bias))
    return night, imdir, good, lost
