"""A night log of a few frames, and their products, for the tests of this room."""

import json

import numpy as np
from astropy.io import fits
from framefacts import made_facts

from lib.frame.file import COSMIC, Frame, write_frame
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
