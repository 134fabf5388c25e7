"""How deep a stack is: stars put into its frames and found again in the coadd, or not.

    python tests/depth.py                                      a simulated field
    python tests/depth.py --cameras                            frames as those of each camera
    python tests/depth.py FRAMES... --refcat TABLE [--flat FLAT...]   frames of your own (azsfp*)

Stacks the frames, puts stars of magnitudes about the LIMMAG of that coadd at empty places of the
frames, each with the point-spread function, scale and photon noise of its frame, stacks again, and
prints how many are found by magnitude. Two questions are asked: is the source in the catalogue,
and has the flux in an aperture of 0.75 FWHM radius a signal-to-noise ratio of five, which half of
the stars at LIMMAG should have. `--cameras` prints a line for each camera shipped instead, and
what its stack itself states as COMPMAG.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from starfields import SCALE, SIZE, ZP, make_stars, write_night, write_reference

from lib.core.settings import StackSettings
from lib.core.stats import mad_std
from lib.core.wcs import celestial_wcs
from lib.frame.file import read_frame, write_frame
from lib.photometry.backgroundmesh import background_without, spread_mesh
from lib.photometry.psf import moffat_alpha
from lib.photometry.sources import detect_sources
from lib.stack.coaddition import StackInputs, StackProducts, make_stack

CAMERAS = {
    "alfosc": (0.214, 4.3, 1.0, 1),
    "arcsat": (0.67, 16.1, 1.8, 1),
    "cafos": (0.53, 14.2, 1.5, 1),
    "coatli": (0.23, 10.0, 1.4, 1),
    "cpapir": (0.89, 20.0, 1.6, 20),
    "dao": (0.61, 6.0, 2.2, 1),
    "ddrago": (0.381, 6.5, 1.2, 1),
    "efosc2": (0.241, 11.3, 1.0, 1),
    "flamingos2": (0.181, 11.7, 0.7, 20),
    "gmos": (0.146, 3.5, 0.8, 1),
    "ioo": (0.30, 8.0, 1.0, 1),
    "keplercam": (0.67, 7.0, 1.7, 1),
    "lmi": (0.24, 6.0, 1.2, 1),
    "megaprime": (0.187, 5.0, 0.8, 1),
    "nickel": (0.37, 9.6, 2.0, 1),
    "niri": (0.117, 35.0, 0.6, 20),
    "ratir C0, C1": (0.317, 10.0, 1.4, 1),
    "ratir C2, C3": (0.298, 15.0, 1.4, 20),
    "rimas": (0.19, 15.0, 0.9, 20),
    "sinistro": (0.389, 8.0, 1.8, 1),
    "wircam": (0.303, 30.0, 0.7, 20),
}
"""["/pixel], [electron], ["]: scale as binned in use, read noise, usual seeing; sky in units of a
dark one in r."""

DARK_SKY = 20.9  # magnitudes a square arcsecond


def stack_frames(folder, frames, settings, refcat, flats=()):
    """Stack frames; return the header of the coadd, its source table and quality numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    out = [folder / name for name in ("c.fits", "c.weight.fits", "c.cat.fits", "c.json")]
    inputs = StackInputs(frames, flats=flats, refcat=refcat)
    make_stack(inputs, StackProducts(*out), settings)
    header = fits.getheader(out[0])
    if header["QCSTAT"] != "OK":
        raise SystemExit(f"the stack is rejected: {header['QCREASON']}")
    return header, fits.getdata(out[2], "SOURCES"), json.loads(out[3].read_text())


def empty_places(header, table, weight, rng, number, spacing):
    """Return places of a coadd far from its sources and from each other.

    Parameters
    ----------
    header : astropy.io.fits.Header
    table : ndarray
        Its source table.
    weight : ndarray, shape (ny, nx)
    rng : numpy.random.Generator
    number : int
        At most so many.
    spacing : float
        Least distance [pixel].

    Returns
    -------
    x, y : ndarray
        0-based pixel coordinates.
    """
    from scipy.spatial import cKDTree

    ny, nx = weight.shape
    tries = rng.uniform(spacing, (nx - spacing, ny - spacing), (60 * number, 2))
    deep = weight > 0.7 * np.median(weight[weight > 0])
    tries = tries[deep[tries[:, 1].astype(int), tries[:, 0].astype(int)]]
    sources = np.column_stack([table["X"] - 1, table["Y"] - 1])
    if len(sources):
        # Brighter sources have wider wings.
        reach = spacing * (1 + 0.3 * np.log10(1 + table["FLUX_POINT"].clip(0) / header["LIMFLUX"]))
        distance, nearest = cKDTree(sources).query(tries)
        tries = tries[distance > reach[nearest]]
    chosen = []
    for place in tries:
        if all(np.hypot(*(place - other)) > spacing for other in chosen):
            chosen.append(place)
        if len(chosen) == number:
            break
    return np.array(chosen).reshape(-1, 2).T


def inject(image, x, y, flux, fwhm, beta, gain, rng):
    """Add Moffat stars with photon noise to an image, in place.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    x, y, flux : ndarray, shape (n,)
        Pixels; total fluxes.
    fwhm, beta : float
    gain : float
        Electrons per unit.
    rng : numpy.random.Generator
    """
    alpha = moffat_alpha(fwhm, beta)
    half = int(np.ceil(8 * fwhm))
    sub = (np.arange(3) - 1) / 3
    ny, nx = image.shape
    for xs, ys, light in zip(x, y, flux, strict=True):
        x0, x1 = max(0, round(xs) - half), min(nx, round(xs) + half + 1)
        y0, y1 = max(0, round(ys) - half), min(ny, round(ys) + half + 1)
        if x0 >= x1 or y0 >= y1:
            continue
        u = (np.arange(x0, x1)[:, None] + sub - xs)[None, None]
        v = (np.arange(y0, y1)[:, None] + sub - ys)[:, :, None, None]
        density = (beta - 1) / (np.pi * alpha**2) * (1 + (u**2 + v**2) / alpha**2) ** -beta
        star = light * density.mean(axis=(1, 3))
        image[y0:y1, x0:x1] += rng.poisson(star * gain) / gain


def half_found(magnitude, found):
    """Return the magnitude at which half of the stars are found, by a probit fit."""
    from scipy.optimize import minimize
    from scipy.stats import norm

    def cost(p):
        chance = norm.cdf((p[0] - magnitude) / np.exp(p[1])).clip(1e-6, 1 - 1e-6)
        return -np.sum(np.where(found, np.log(chance), np.log(1 - chance)))

    start = (np.median(magnitude), np.log(0.2))
    return float(minimize(cost, start, method="Nelder-Mead").x[0])


def measure_depth(frames, folder, *, refcat, flats=(), settings=None, rounds=1, number=150, seed=1):
    """Put stars into frames and look for them in the coadd.

    Returns
    -------
    dict
        limmag, compmag, magnitude (of the injected stars), listed, significant (bool), and at which
        magnitude half of the stars are: m50_listed, m50_significant.
    """
    settings = settings or StackSettings()
    rng = np.random.default_rng(seed)
    header, table, quality = stack_frames(folder / "plain", frames, settings, refcat, flats)
    if "LIMMAG" not in header:
        raise SystemExit("the stack has no LIMMAG: no zero point, or no empty place")
    weight = fits.getdata(folder / "plain" / "c.weight.fits")
    wcs = celestial_wcs(header)
    found = {"magnitude": [], "listed": [], "significant": []}
    for turn in range(rounds):
        x, y = empty_places(header, table, weight, rng, number, 5 * header["SEEPIX"])
        magnitude = header["LIMMAG"] + rng.uniform(-1.2, 0.8, x.size)
        ra, dec = wcs.all_pix2world(x, y, 0)
        copies = []
        for path in frames:
            frame = read_frame(path)
            seen = quality["frames"].get(str(frame.header.get("FRAME", Path(path).stem)), {})
            copies.append(folder / f"round{turn}" / Path(path).name)
            copies[-1].parent.mkdir(exist_ok=True)
            if frame.image is not None and seen.get("used"):
                flux = 10 ** (-0.4 * (magnitude - header["ABSZPT"])) / seen["scale"]
                u, v = celestial_wcs(frame.header).all_world2pix(ra, dec, 0)
                inject(
                    frame.image, u, v, flux, seen["fwhm"], max(1.5, seen["wings"][1]),
                    float(frame.header.get("GAIN", 1.0)), rng,
                )  # fmt: skip
            write_frame(copies[-1], frame)
        new, cat, _ = stack_frames(folder / f"round{turn}", copies, settings, refcat, flats)
        for copy in copies:
            copy.unlink()
        # The limit of the coadd without the stars: at those not seen apertures are not empty.
        limit = header["LIMFLUX"] * 10 ** (-0.4 * (header["ABSZPT"] - new["ABSZPT"]))
        listed, significant = look_for(folder / f"round{turn}", new, cat, ra, dec, limit)
        for key, values in zip(found, (magnitude, listed, significant), strict=True):
            found[key].append(values)
    result = {key: np.concatenate(values) for key, values in found.items()}
    for key in ("listed", "significant"):
        result[f"m50_{key}"] = half_found(result["magnitude"], result[key])
    stated = {"limmag": header["LIMMAG"], "compmag": header.get("COMPMAG", np.nan)}
    return {**stated, "zeropoint": header["ABSZPT"], **result}


def look_for(folder, header, cat, ra, dec, limit):
    """Tell which stars are in the catalogue, and which have a flux of more than `limit`.

    The second in apertures at the true places.
    """
    import sep

    image = fits.getdata(folder / "c.fits").astype(np.float32)
    covered = fits.getdata(folder / "c.weight.fits") > 0
    noise = mad_std(image[covered])
    segments = detect_sources(image, noise, ~covered, 1.5)[1]
    image = image - spread_mesh(background_without(image, ~covered, segments, 128), image.shape)
    wcs = celestial_wcs(header)
    x, y = wcs.all_world2pix(ra, dec, 0)
    apart = np.hypot(cat["X"][:, None] - 1 - x, cat["Y"][:, None] - 1 - y)
    listed = apart.min(axis=0, initial=np.inf) < 0.75 * header["SEEPIX"]
    radius = header["LIMRAD"] / header["PIXSCALE"]
    flux, _, _ = sep.sum_circle(np.ascontiguousarray(image, np.float32), x, y, radius, subpix=5)
    alpha, beta = header["PSFALPHA"], header["PSFBETA"]
    inside = 1 - header["PSFNORM"] * (1 + (radius / alpha) ** 2) ** (1 - beta)
    return listed, flux / inside > limit


def simulate(
    folder, number=8, seed=1, *, count=60, scale=SCALE, read_noise=8.0, seeing=1.5, sky=400.0
):
    """Write a field of frames of different seeing, transparency and sky; return what to stack.

    Scale ["/pixel]; read noise and sky [electron]; seeing ["].
    """
    rng = np.random.default_rng(seed)
    stars = make_stars(rng, count, half=0.45 * scale * SIZE / 3600)
    fwhm = seeing / scale
    paths = write_night(
        folder, rng, stars, number, scale=scale, read_noise=read_noise,
        fwhm=list(fwhm * rng.uniform(0.8, 1.2, number)),
        transparency=list(rng.uniform(0.6, 1.0, number)),
        sky=list(sky * rng.uniform(0.75, 1.5, number)),
    )  # fmt: skip
    return paths, write_reference(folder / "reference.ecsv", rng, stars)


def measure_cameras(folder, rounds, seed, names=tuple(CAMERAS)):
    """Print the depth of stacks of frames as those of the cameras."""
    print("| camera | FWHM, pixels | `LIMMAG` | S/N > 5 at | in the table at | `COMPMAG` |")
    print("|" + "---|" * 6)
    for name in names:
        scale, read_noise, seeing, bright = CAMERAS[name]
        sky = bright * 60.0 * 10 ** (-0.4 * (DARK_SKY - ZP)) * scale**2
        where = folder / name.partition(" ")[2] / name.partition(" ")[0]
        where.mkdir(parents=True)
        frames, refcat = simulate(
            where, seed=seed, count=30, scale=scale, read_noise=read_noise, seeing=seeing, sky=sky
        )
        found = measure_depth(frames, where / "stacks", refcat=refcat, rounds=rounds, seed=seed)
        words = [f"{seeing / scale:.1f}", f"{found['limmag']:.2f}"]
        for key in ("m50_significant", "m50_listed", "compmag"):
            words.append(f"{found[key] - found['limmag']:+.2f}")
        print(f"| {name} | {' | '.join(words)} |", flush=True)


def report(result, name):
    """Print the completeness by magnitude and the comparison with LIMMAG."""
    magnitude = result["magnitude"]
    print(f"\n{name}: LIMMAG {result['limmag']:.3f}, {magnitude.size} stars")
    print("  magnitude  - LIMMAG   stars   in catalogue   S/N > 5")
    for low in np.arange(-1.2, 0.79, 0.2) + result["limmag"]:
        here = (magnitude >= low) & (magnitude < low + 0.2)
        if here.any():
            print(
                f"  {low + 0.1:9.2f} {low + 0.1 - result['limmag']:9.1f} {here.sum():7d}"
                f" {result['listed'][here].mean():12.2f} {result['significant'][here].mean():11.2f}"
            )
    for key, words in (("listed", "in the catalogue"), ("significant", "with S/N > 5")):
        value = result[f"m50_{key}"]
        print(f"  half are {words} at {value:.2f} (LIMMAG {value - result['limmag']:+.2f})")


def main():
    """Measure the depth of frames given, or of a simulated field in each way of combining."""
    parser = argparse.ArgumentParser(description="Depth of a stack by injected stars.")
    parser.add_argument("frames", nargs="*", help="azsfp frames of one target and filter")
    parser.add_argument("--refcat", help="reference table, as refcat/<object>.ecsv")
    parser.add_argument("--flat", nargs="*", default=[], help="flats of the frames")
    parser.add_argument("--combine", nargs="*", default=["median", "weighted", "clipped"])
    parser.add_argument("--cameras", nargs="*", choices=CAMERAS, help="all, or those named")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        where = Path(where)
        if options.cameras is not None:
            names = options.cameras or tuple(CAMERAS)
            return measure_cameras(where, options.rounds, options.seed, names)
        frames, refcat = options.frames, options.refcat
        if not frames:
            frames, refcat = simulate(where, seed=options.seed)
        for combine in options.combine:
            result = measure_depth(
                frames, where / combine, refcat=refcat, flats=options.flat,
                settings=StackSettings(combine=combine), rounds=options.rounds, seed=options.seed,
            )  # fmt: skip
            report(result, combine)


if __name__ == "__main__":
    main()
