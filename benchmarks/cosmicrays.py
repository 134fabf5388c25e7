"""Measure the search for cosmic rays against astroscrappy; the table goes to docs/crclean.md.

    python benchmarks/cosmicrays.py [--quick]        (a part of `make bench`)

Simulated frames of which every charge is known: three detectors, several fields each, stars of S/N
12 to 1300, thirty times the usual rays. CPU seconds are those of frames with the usual rays.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from cosmicframes import DETECTORS, altered_cores, expose  # noqa: E402

from lib.calibration.cosmicrays import crclean_frame, repair  # noqa: E402
from lib.core.settings import CrcleanSettings  # noqa: E402
from lib.frame.file import COSMIC, Frame  # noqa: E402

PAGE = ROOT / "docs" / "crclean.md"
WIDTHS = (1.5, 2.5, 4.0, 6.0)
"""[px] FWHM of the stars."""


def search(method):
    """Return the function that flags the cosmic rays of a frame by one of autoproc's methods."""

    def flag(frame, fwhm):
        copy = Frame(frame.image, frame.mask, frame.header.copy())
        return crclean_frame(copy, CrcleanSettings(method=method)).mask & COSMIC > 0

    return flag


def scrappy(**options):
    """Return the function that flags cosmic rays by astroscrappy alone.

    It is given the true sky and noise.
    """

    def flag(frame, fwhm):
        from astroscrappy import detect_cosmics

        sky = np.float32(frame.header["SKYSUB"])
        found, _ = detect_cosmics(
            frame.image + sky,
            gain=1.0,
            readnoise=frame.header["RDNOISE"],
            satlevel=1e6,
            **options,
        )
        return found

    return flag


METHODS = {
    "own search (`psf`)": search("psf"),
    "`auto`": search("auto"),
    "`lacosmic`: astroscrappy, bounded": search("lacosmic"),
    "astroscrappy, its defaults": scrappy(),
    "astroscrappy, 5.5 σ": scrappy(sigclip=5.5, sigfrac=0.55, objlim=3.0),
}


@dataclass
class Counts:
    """Pixels and stars counted over several frames.

    Parameters
    ----------
    hit5, hit10 : int
        Pixels with the charge of a ray above 5 and 10 standard deviations.
    found5, found10 : int
        Flagged ones of them.
    flagged, false : int
        Flagged pixels, and those of them in which a ray left less than an electron.
    stars, altered : int
        See `cosmicframes.altered_cores`.
    """

    hit5: int = 0
    hit10: int = 0
    found5: int = 0
    found10: int = 0
    flagged: int = 0
    false: int = 0
    stars: int = 0
    altered: int = 0

    def add(self, flags, frame, truth, fwhm):
        """Count one frame."""
        for sigma in (5, 10):
            bright = truth.cosmic > sigma * truth.noise
            for name, pixels in ((f"hit{sigma}", bright), (f"found{sigma}", bright & flags)):
                setattr(self, name, getattr(self, name) + np.count_nonzero(pixels))
        self.flagged += np.count_nonzero(flags)
        self.false += np.count_nonzero(flags & (truth.cosmic < 1))
        after = repair(frame.image, flags, np.zeros(flags.shape, bool))
        stars, altered = altered_cores(frame.image, after, truth, fwhm)
        self.stars += stars
        self.altered += altered


def seconds_per_megapixel(flag, fwhm, size, repeats):
    """Return the least CPU seconds that a frame with the usual rays takes, for a megapixel."""
    stars = int(100 * size**2 / 400**2)
    frame, _ = expose(fwhm, *DETECTORS[1], stars=stars, rays=1, shape=(size, size))
    used = []
    for _ in range(repeats):
        start = time.process_time()
        flag(frame, fwhm)
        used.append(time.process_time() - start)
    return min(used) / (size**2 / 1e6)


def measure(fwhm, fields, size):
    """Return name -> (Counts, CPU seconds a megapixel) at one width of the stars."""
    counts = {name: Counts() for name in METHODS}
    for kind, detector in enumerate(DETECTORS):
        for field in range(fields):
            frame, truth = expose(fwhm, *detector, seed=100 * kind + field)
            for name, flag in METHODS.items():
                counts[name].add(flag(frame, fwhm), frame, truth, fwhm)
    return {
        name: (counts[name], seconds_per_megapixel(flag, fwhm, size, 3))
        for name, flag in METHODS.items()
    }


def table(measured):
    """Return the table in Markdown."""
    lines = [
        "| FWHM | | found, > 10 σ | > 5 σ | false | cores | CPU s/Mpx |",
        "|---|---|---|---|---|---|---|",
    ]
    for fwhm, methods in measured.items():
        for name, (count, seconds) in methods.items():
            lines.append(
                f"| {fwhm} px | {name} | {count.found10 / count.hit10:.3f} "
                f"| {count.found5 / count.hit5:.3f} | {count.false / max(count.flagged, 1):.3f} "
                f"| {count.altered} of {count.stars} | {seconds:.2g} |"
            )
    return "\n".join(lines)


def write_page(text):
    """Put the table between its marks in the page."""
    page = PAGE.read_text()
    begin, end = "<!-- measured -->", "<!-- end of measured -->"
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few fields; writes no page")
    options = parser.parse_args()
    fields, size = (1, 400) if options.quick else (6, 1024)
    text = table({fwhm: measure(fwhm, fields, size) for fwhm in WIDTHS})
    print(text)
    if not options.quick:
        write_page(text)


if __name__ == "__main__":
    main()
