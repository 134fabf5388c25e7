"""How many new and faded sources are found in difference images, and how many of those found are.

    python tests/transients.py [--fields 6] [--size 700] [--method auto]

Simulates pairs of images of one field, of different and of elongated seeing, with new sources on
empty sky, on galaxies and near stars and with faded ones, at S/N 5, 7.5 and 10 of the best that
any method can reach (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27, equation 12), subtracts, looks for
candidates and prints completeness and purity by S/N and by the place.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from differencepairs import (
    Scene,
    Seeing,
    add_points,
    empty_places,
    galaxy_places,
    light_of,
    make_scene,
    observe,
    places_near_stars,
)

from lib.core.settings import DifferenceSettings
from lib.difference.candidates import Candidates, DifferenceMaps, look_for_candidates
from lib.difference.planes import Plane
from lib.difference.stars import shared_stars
from lib.difference.subtraction import Subtraction, subtract
from lib.photometry.backgroundmesh import grow
from lib.photometry.sources import detect_sources

CASES = {
    "sharper template": (Seeing(3.0), Seeing(4.2)),
    "sharper new image": (Seeing(4.2), Seeing(3.0)),
    "elongated": (Seeing(3.2), Seeing(3.6, ellipticity=0.25, angle=0.6)),
    "changing": (Seeing(3.0, gradient=-0.08), Seeing(3.8, 0.1, 1.2, gradient=0.12)),
}
"""Seeing of the template and of the new image."""

LEVELS = (5.0, 7.5, 10.0)
KINDS = ("sky", "galaxy", "star", "faded")
SKY = (400.0, 200.0)
"""[electrons] Of the new image and of the template."""


@dataclass
class Trial:
    """A pair of images with changes, what was subtracted and what was found."""

    subtraction: Subtraction
    candidates: Candidates
    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    kind: np.ndarray
    selected: np.ndarray
    new: np.ndarray
    template: np.ndarray

    @property
    def matched(self):
        """For each change the candidate that it is, -1 for none, and which candidates are real."""
        apart = np.hypot(self.x[:, None] - self.candidates.peaks.x,
                         self.y[:, None] - self.candidates.peaks.y)  # fmt: skip
        sign = np.where(self.kind == "faded", -1, 1)[:, None]
        good = (apart < 2.5) & self.selected & (np.sign(self.candidates.peaks.significance) == sign)
        return np.where(good.any(axis=1), good.argmax(axis=1), -1), good.any(axis=0)


def best_error(x, y, seeings, sky, light, size):
    """Return the least error of the flux of a source that any method can have."""
    half = 16
    stamps = [one.stamp(0, 0, half, x / size) for one in seeings]
    old, new = (np.abs(np.fft.fft2(one / one.sum())) ** 2 for one in stamps)
    noise = [s + max(0, one[round(y), round(x)]) for s, one in zip(sky, light, strict=True)]
    return 1 / np.sqrt(np.mean(new * old / (noise[0] * old + noise[1] * new)) + 0.0)


def run_trial(seed, case, size=700, each=8, settings=None, density=3.2e-4):
    """Return a trial; `each` is the number of changes of each kind."""
    settings = settings or DifferenceSettings()
    rng = np.random.default_rng(seed)
    scene = make_scene(rng, size, int(density * size**2), int(1e-4 * size**2))
    before, after = CASES[case]
    wide = max(before.fwhm, after.fwhm)
    light = [light_of(scene, after), light_of(scene, before)]
    places = {
        "sky": empty_places(scene, rng, each, 5 * wide),
        "galaxy": galaxy_places(scene, rng, each),
        "star": places_near_stars(scene, rng, each, 2.5 * wide),
        "faded": empty_places(scene, rng, each, 5 * wide),
    }
    everything = np.concatenate(list(places.values()))
    kind = np.repeat(list(places), [len(one) for one in places.values()])
    inside = (everything.min(axis=1) > 30) & (everything.max(axis=1) < size - 31)
    (x, y), kind = everything[inside].T, kind[inside]
    snr = np.array(LEVELS)[np.arange(len(x)) % len(LEVELS)]
    flux = snr * [
        best_error(one, two, (before, after), SKY, light, size)
        for one, two in zip(x, y, strict=True)
    ]
    faded = kind == "faded"
    add_points(light[0], x[~faded], y[~faded], flux[~faded], after)
    add_points(light[1], x[faded], y[faded], flux[faded], before)
    images = [observe(one, sky, rng) for one, sky in zip(light, SKY, strict=True)]
    empty = np.zeros((size, size), bool)
    coadd, template = (
        Plane(image, np.full(image.shape, sky, np.float32), empty, seeing.fwhm, 1.0)
        for image, sky, seeing in zip(images, SKY, (after, before), strict=True)
    )
    table = star_table(scene, after, np.column_stack([x, y, flux])[~faded])
    stars = shared_stars(coadd, template, table, 6.0, after.growth)
    template = template.scaled(stars.scale)
    occupied = grow(_sources(coadd) | _sources(template), 3)
    subtraction = subtract(coadd, template, stars, occupied, settings)
    found = look_for_candidates(DifferenceMaps.of(subtraction.difference), settings.threshold)
    selected = found.score >= settings.score
    return Trial(subtraction, found, x, y, snr, kind, selected, *images)


def _sources(plane):
    return detect_sources(plane.image, np.sqrt(plane.variance), None, 1.5)[1] > 0


def star_table(scene: Scene, seeing, changes):
    """Return what the source table of the new image would have of its stars."""
    stars = np.concatenate([scene.stars, changes])
    table = np.zeros(len(stars), dtype=[
        ("X", "f8"), ("Y", "f8"), ("STAR", "?"), ("FLAGS", "i4"), ("SNR", "f8"),
        ("FLUX_POINT", "f8"),
    ])  # fmt: skip
    table["X"], table["Y"], table["STAR"] = stars[:, 0] + 1, stars[:, 1] + 1, True
    table["FLUX_POINT"] = stars[:, 2]
    table["SNR"] = stars[:, 2] / np.sqrt(stars[:, 2] + SKY[0] * np.pi * seeing.fwhm**2)
    return table


def report(trials, method):
    """Print completeness by S/N and kind, and purity."""
    print(f"\n{method}: {len(trials)} pairs")
    snr = np.concatenate([one.snr for one in trials])
    kind = np.concatenate([one.kind for one in trials])
    found = np.concatenate([one.matched[0] >= 0 for one in trials])
    print("  S/N    " + "".join(f"{name:>9s}" for name in (*KINDS, "all")))
    for level in LEVELS:
        words = []
        for name in (*KINDS, "all"):
            here = (snr == level) & ((kind == name) | (name == "all"))
            words.append(f"{found[here].mean():9.2f}" if here.any() else "        -")
        print(f"  {level:5.1f}  " + "".join(words))
    significance = np.concatenate([np.abs(one.candidates.peaks.significance) for one in trials])
    selected = np.concatenate([one.selected for one in trials])
    real = np.concatenate([one.matched[1] for one in trials])
    for least in (5.0, 6.0, 7.5):
        here = selected & (significance >= least)
        print(f"  found with S/N >= {least:g}: {here.sum()}, of them real {real[here].mean():.2f}")
    methods = [one.subtraction.method for one in trials]
    print("  methods taken:", {name: methods.count(name) for name in set(methods)})


def main():
    """Print the curves of all cases."""
    parser = argparse.ArgumentParser(description="Completeness and purity of candidates.")
    parser.add_argument("--fields", type=int, default=6, help="pairs of each case")
    parser.add_argument("--size", type=int, default=700)
    parser.add_argument("--method", default="auto")
    options = parser.parse_args()
    settings = DifferenceSettings(method=options.method)
    everything = []
    for case in CASES:
        trials = [
            run_trial(seed, case, options.size, settings=settings) for seed in range(options.fields)
        ]
        report(trials, case)
        everything += trials
    report(everything, "all")


if __name__ == "__main__":
    main()
