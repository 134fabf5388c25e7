"""A pair of stacks of one field, made once: a source is new, one has faded, a star varies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import starfields
from astropy.io import fits

from lib.core.settings import StackSettings
from lib.stack.coaddition import StackInputs, StackProducts, make_stack

NEW = (starfields.RA + 0.003, starfields.DEC + 0.004, 20.6)
FADED = (starfields.RA - 0.006, starfields.DEC - 0.005, 20.4)
VARIABLE = 3
"""Star that is half as bright in the second epoch, counted from the brightest."""


@dataclass
class Epoch:
    """The products of one stack, and its frames."""

    folder: Path
    frames: list

    def product(self, name):
        return str(self.folder / name)


def stack_epoch(folder, rng, stars, later=0, **variation):
    folder.mkdir()
    number = len(variation["fwhm"])
    frames = starfields.write_night(folder, rng, stars, number, **variation)
    for path in frames:
        with fits.open(path, mode="update") as hdus:
            header = hdus[0].header
            header["MJD-OBS"] += later
            header["DATE-OBS"] = header["DATE-OBS"].replace("2022", str(2022 + later // 365))
    # The last one is none that a catalogue has.
    reference = starfields.write_reference(folder / "reference.ecsv", rng, stars, rows=slice(0, -1))
    names = ("coadd.fits", "coadd.weight.fits", "coadd.cat.fits", "quality.json")
    products = StackProducts(*(folder / name for name in names))
    make_stack(StackInputs(frames, refcat=reference), products, StackSettings())
    return Epoch(folder, [str(path) for path in frames])


def with_star(stars, star):
    return {
        key: np.append(values, one)
        for (key, values), one in zip(stars.items(), (*star, 0.7), strict=True)
    }


def make_epochs(folder):
    """Return the earlier and the later stack of a field."""
    rng = np.random.default_rng(2)
    stars = starfields.make_stars(rng, 70)
    order = np.argsort(stars["mag"])
    stars = {key: values[order] for key, values in stars.items()}
    early = stack_epoch(folder / "early", rng, with_star(stars, FADED), fwhm=[3.0] * 3)
    stars["mag"][VARIABLE] += 0.75
    late = stack_epoch(folder / "late", rng, with_star(stars, NEW), later=365, fwhm=[4.0] * 3)
    return early, late
