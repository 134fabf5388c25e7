"""A night log of a few frames, and their products, for the tests of this room."""

import json

import numpy as np
from astropy.io import fits
from astropy.table import Table
from framefacts import made_facts

from lib.frame.file import COSMIC, Frame, FrameRejected, reject, write_frame
from lib.night.calibrationmatch import CalibrationMatch
from lib.night.nightlog import LogRow

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=alert(1)>"


SHAPE = (64, 80)


class Night:
    """A night log of a few science frames, as far as this module asks it."""

    def __init__(self, stacks, calibrations=(), ignored=(), notes=None):
        self.frames, self.rows, self.science, self.stacks = {}, [], [], stacks
        self.skies, self.notes = {}, []
        self.stack_of = {one: stack for stack, frames in stacks.items() for one in frames}
        self.missing = notes or {}
        for stack, frames in stacks.items():
            target, filter_name = stack.split(".")
            for frame in frames:
                self.add(frame, "object", target=target, filter=filter_name, object=HOSTILE)
                self.science.append(frame)
        for frame in calibrations:
            self.add(frame, "bias")
        for raw in ignored:
            self.rows.append(LogRow("", raw, "IGNORED", "SPECTRUM: a grism"))

    def add(self, frame, kind, **more):
        usual = {
            "frame": frame, "raw": f"{frame}.fits", "type": kind, "instrument": "generic",
            "target": "", "object": "", "date_obs": f"2022-01-28T05:{len(self.rows):02d}:00.000",
            "airmass": 1.2, "ra": 150.0, "dec": 2.0, "shape": list(SHAPE), "pixscale": 0.3,
        }  # fmt: skip
        self.frames[frame] = facts = made_facts(**(usual | more))
        self.rows.append(LogRow(frame, facts.raw, "OK", "", facts))

    def match(self, frame):
        notes = {"flat": self.missing[frame]} if frame in self.missing else {}
        return CalibrationMatch(bias="bias-C0", notes=notes)

    def calibration_remarks(self):
        return []

    def table_text(self):
        return json.dumps([row.frame or row.raw for row in self.rows])


def names(count, first=0):
    return [f"20220128T05{number:04d}C0o" for number in range(first, first + count)]


def header(frame, **cards):
    made = fits.Header()
    made["QCSTAT"] = "OK"
    made["FRAME"] = frame
    made["OBJECT"] = "object"
    for key, value in cards.items():
        made[key.replace("_", "-")] = value
    return made


def put(imdir, name, frame, seed=1, **cards):
    """Write a frame file of noise with one star."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 5, SHAPE).astype(np.float32)
    image[30:33, 40:43] += 400
    mask = np.zeros(SHAPE, np.uint8)
    mask[10, 10:13] = COSMIC
    write_frame(imdir / name, Frame(image, mask, header(frame, **cards)))


def write_target_tables(imdir, frames):
    """Write the joint table of T1 and its light curve: seen in r, at 18.4."""
    table = Table({
        "NUMBER": [1, 2], "RA": [150.0, 150.0015], "DEC": [2.0, 2.001], "TARGET": [True, False],
        "MATCH": [2, 0], "FLUX_r": [2754.0, 2754.0], "FLUXERR_r": [76.0, 76.0],
        "MAG_r": [18.4, 18.4], "MAGERR_r": [0.03, 0.03], "LIMIT_r": [np.nan, np.nan],
        "FLAGS_r": [0, 0], "DETECTED_r": [False, True],
    })  # fmt: skip
    table.meta = {"target_source": "header", "left_out": {}}
    table.write(imdir / "T1.ecsv", format="ascii.ecsv")
    count = len(frames)
    curve = Table({
        "KIND": ["frame"] * count, "FRAME": frames, "FILTER": ["r"] * count,
        "MJD": 59607 + (5 * 3600 + 60 * np.arange(count) + 5.0) / 86400,
        "MAG": 18.3 + 0.1 * np.arange(count), "MAGERR": [0.04] * count,
        "LIMIT": [np.nan] * count, "FLUX": [100.0] * count, "FLUXERR": [4.0] * count,
        "NFRAMES": [1] * count, "ZPERR": [0.0] * count, "FLAGS": [0] * count,
        "USED": [True] * (count - 1) + [False],
        "REASON": [""] * (count - 1) + ["CLOUDY: 0.02 < 0.1"],
    })  # fmt: skip
    stack = dict(curve[0]) | {"KIND": "stack", "FRAME": "T1.r", "MAG": 18.4, "MAGERR": 0.03}
    curve.add_row(stack | {"MJD": 59607 + (5 * 3600 + 65.0) / 86400, "NFRAMES": count - 1})
    curve.meta = {"scale": {"r": {"common_error": 0.01}}}
    curve.write(imdir / "T1.lightcurve.ecsv", format="ascii.ecsv")


def reduce_small_night(imdir):
    """A reduction of two stacks: 3 frames used, one without stars, one clouded, one unfinished."""
    good = names(4)
    lost = names(2, first=10)
    night = Night(
        {"T1.r": good, "T2.g": lost},
        calibrations=["20220128T040000C0b", "20220128T040100C0b"],
        ignored=["grism.fits"],
        notes={lost[0]: "none of 2 fits; flat_V: filter V, not g; flat_g-C1: camera C1, not C0"},
    )
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

    write_target_tables(imdir, good)
    coadd = header("", NSTACK=3, SEEPIX=4.0, ABSZPT=27.0, ZPSYS="AB", FILTER="r",
                   ABSZPERR=0.01, LIMMAG=21.5, TOTALEXP=30.0,
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
