"""Subtraction by the program hotpants, where it is installed."""

import logging
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.programs import ProgramFailed, find_program, run_program
from lib.difference.matched import Matched
from lib.difference.planes import REACHED, Plane
from lib.difference.regions import Regions
from lib.difference.stars import SharedStars

log = logging.getLogger("autoproc")

TIMEOUT = 900.0
"""[s] For the program."""

STAMPS = 10
"""Squares along an axis, at least, in which it looks for stars of its own."""


def run_hotpants(
    sharp: Plane, wide: Plane, stars: SharedStars, regions: Regions, half: int
) -> Matched:
    """Subtract an image convolved by hotpants from another.

    Becker 2015 (ASCL 1504.004), after Alard & Lupton 1998 (ApJ 503, 325).

    Parameters
    ----------
    sharp, wide : Plane
        The image that is convolved, and the one that it is to be like, in the same units.
    stars : SharedStars
        Common stars; those that are not variable are the centres of its substamps.
    regions : Regions
        With several regions, the kernel varies over the image as a quadratic polynomial.
    half : int
        Half side of the kernel [pixel].

    Returns
    -------
    Matched

    Raises
    ------
    lib.core.programs.ProgramMissing, ProgramFailed
    """
    program = find_program("hotpants")
    with tempfile.TemporaryDirectory(prefix="hotpants-") as folder:
        where = Path(folder)
        argv = [program, *_arguments(sharp, wide, stars, regions, half, where)]
        run_program(argv, timeout=TIMEOUT, cwd=where)
        try:
            with fits.open(where / "diff.fits") as hdus:
                image = np.asarray(hdus[0].data, np.float32)
                sums = float(hdus[0].header.get("KSUM00", 1.0))
            noise = np.asarray(fits.getdata(where / "noise.fits"), np.float32)
        except (OSError, ValueError) as error:
            raise ProgramFailed("hotpants", f"no difference image: {error}") from error
    used = np.isfinite(image) & (np.abs(image) < 1e29) & (noise > 0) & (noise < 1e29)
    used &= ~wide.bad
    noise[~used] = 0
    reached = np.where(~used & ~wide.bad & ~sharp.bad, np.uint8(REACHED), np.uint8(0))
    return Matched(
        np.where(used, image, 0).astype(np.float32),
        np.where(used, noise**2, 0).astype(np.float32), reached, np.empty((0, 1, 1)),
        np.full(len(regions.nodes), sums), np.empty((0, 1, 1)),
    )  # fmt: skip


def _arguments(
    sharp: Plane, wide: Plane, stars: SharedStars, regions: Regions, half: int, where: Path
) -> list[str]:
    """Write the input files of the program, and return its arguments."""
    words: list[str] = []
    for key, letter, plane in (("tmplim", "t", sharp), ("inim", "i", wide)):
        good = ~plane.bad
        low, high = float(plane.image[good].min()), float(plane.image[good].max())
        reach = 0.01 * (high - low) + 1e-6
        top = float(plane.full_variance.max())
        noise = np.sqrt(np.where(good, plane.full_variance, top)).astype(np.float32)
        fits.writeto(where / f"{key}.fits", np.where(good, plane.image, 0).astype(np.float32))
        fits.writeto(where / f"{key}.noise.fits", noise)
        fits.writeto(where / f"{key}.mask.fits", plane.bad.astype(np.int16))
        words += [f"-{key}", f"{key}.fits", f"-{letter}l", f"{low - reach:g}"]
        words += [f"-{letter}u", f"{high + reach:g}", f"-{letter}ni", f"{key}.noise.fits"]
        words += [f"-{letter}mi", f"{key}.mask.fits"]
    places = [
        f"{x + 1:.1f} {y + 1:.1f}"
        for x, y in zip(stars.x[stars.constant], stars.y[stars.constant], strict=True)
    ]
    (where / "stars.txt").write_text("\n".join(places) + "\n", encoding="utf-8")
    missing = np.sqrt(max(wide.fwhm**2 - sharp.fwhm**2, 1.0)) / 2.355
    kernel = ["3", "6", f"{0.5 * missing:.2f}", "4", f"{missing:.2f}", "2", f"{2 * missing:.2f}"]
    order = "2" if regions.number > 1 else "0"
    words += ["-outim", "diff.fits", "-oni", "noise.fits", "-c", "t", "-n", "i", "-r", str(half)]
    words += ["-rss", str(int(np.ceil(2.5 * wide.fwhm))), "-ko", order, "-bgo", "0"]
    words += ["-ng", *kernel, "-ssf", "stars.txt", "-nsx", str(STAMPS), "-nsy", str(STAMPS)]
    return [*words, "-hki", "-v", "0"]
