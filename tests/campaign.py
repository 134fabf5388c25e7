"""A campaign of six nights, simulated and reduced: what comes out against what was put in.

    python tests/campaign.py [--exposures 10] [--folder DIR]

Six nights in two filters, of different seeing and extinction; the third without flats, the fifth
with the camera at another temperature. In the field are an afterglow that fades as t^-1.2, a
variable with a period, an object that moves, and stars. Prints, and asserts: chi^2 of the constant
stars about their means, over all nights and within each; the slope of the afterglow; the period;
the light and place of what moves; the depth of all nights against that of each in quadrature.
"""

import argparse
import shutil
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parent / "workflow")]

import simulate
from workbench import TARGET, Place

FILTERS = {"SDSS-R": "r", "SDSS-I": "i"}

NIGHTS = {
    "20220127": {"start": "2022-01-28T04:54:24"},
    "20220128": {"start": "2022-01-29T03:10:00", "seeing": 1.6, "extinction": 0.1},
    "20220129": {"start": "2022-01-30T08:20:00", "hostile": {"noflat": tuple(FILTERS)}},
    "20220131": {"start": "2022-02-01T05:30:00", "seeing": 1.1, "extinction": 0.3},
    "20220201": {"start": "2022-02-02T09:50:00", "temperature": -100.0},
    "20220204": {"start": "2022-02-05T06:40:00", "seeing": 1.4, "extinction": 0.05},
}
"""What is not as usual in each, by the date of its evening."""

CENTRE = (150.1, 20.3)
DELAY, BRIGHTEST, DECAY = 7200.0, 17.0, 1.2
"""[s] from the burst to the first frame; magnitude then in i; exponent."""

VARIABLE = simulate.Extra(150.1075, 20.2935, 18.0, amplitude=0.3, period=0.37)
MOVING_NIGHT = "20220131"
MOVER = simulate.Extra(
    150.093, 20.306, 20.3, epoch=NIGHTS[MOVING_NIGHT]["start"], east=60.0, north=-25.0
)
OFF = (0.8, -0.5)
"""[arcsec] Where it is from its ephemeris, to the east and north."""

BLEND_RADIUS = 3.3
"""[arcsec]"""

BY = "{by: [night, all]}"


def simulate_campaign(folder, exposures=10, stars=80, nights=NIGHTS, size=512, seed=1, every=2):
    """Write the raw frames of the nights, the reference and the table of positions.

    Returns
    -------
    Place
    names : list of str
        Constant stars in the table of positions; those called b... have a neighbour.
    """
    place = Place(Path(folder))
    place.raw.mkdir(parents=True)
    first = datetime.fromisoformat(NIGHTS["20220127"]["start"])
    for visit, (name, options) in enumerate(nights.items()):
        delay = DELAY + (datetime.fromisoformat(options["start"]) - first).total_seconds()
        afterglow = simulate.Afterglow(
            BRIGHTEST + 2.5 * DECAY * np.log10(delay / DELAY), delay, DECAY, absorbed=0.0
        )
        usual = {"instrument": "lmi", "size": size, "exposures": exposures, "stars": stars}
        # No stars below the limit of a night: they would add to the noise of the deeper stack.
        usual |= {"faint_limit": 21.5, "calibrations": 7, "detector_truth": False}
        night = simulate.Night(
            **usual | {"seed": seed, "visit": visit, "filters": tuple(FILTERS)} | options,
            afterglow=afterglow, extras=(VARIABLE, MOVER),
        )  # fmt: skip
        simulate.simulate_night(place.path / name, night)
        (place.path / name / "raw").rename(place.raw / name)
    home = place.path / next(iter(nights))
    shutil.copy(home / "reference.ecsv", place.path)
    return place, write_targets(place.path / "targets.csv", home, size, every)


def write_targets(path, home, size, every=2):
    """Write the table of positions: every so manieth star, the variable, and what moves."""
    sky = Table.read(home / "truth/stars.ecsv")
    half = (size / 2 * 0.24 - 14) / 3600  # scale and dither of the frames
    cosdec = np.cos(np.radians(CENTRE[1]))
    inside = np.abs((sky["ra"] - CENTRE[0]) * cosdec) < half
    inside &= np.abs(sky["dec"] - CENTRE[1]) < half
    begin = datetime.fromisoformat(MOVER.epoch)
    way = [MOVER.at(begin + timedelta(minutes=k))[:2] for k in range(0, 31, 2)]
    for ra, dec in (CENTRE, (VARIABLE.ra, VARIABLE.dec), *way):
        inside &= np.hypot((sky["ra"] - ra) * cosdec, sky["dec"] - dec) > 6 / 3600
    chosen = sky[inside & (sky["r"] < 20.5)]
    chosen.sort("r")
    chosen = chosen[::every]
    names = [f"{'b' if is_blend(sky, row) else 's'}{row['id']}" for row in chosen]
    lines = ["name,time,ra,dec,rate_ra,rate_dec"]
    lines += [
        f"{name},,{row['ra']:.7f},{row['dec']:.7f},,"
        for name, row in zip(names, chosen, strict=True)
    ]
    lines += [f"variable,,{VARIABLE.ra},{VARIABLE.dec},,"]
    ra, dec = simulate.tan_deproject(
        np.array([-OFF[0] / 3600]), np.array([-OFF[1] / 3600]), MOVER.ra, MOVER.dec
    )
    lines += [f"2022 AB,{MOVER.epoch},{ra[0]:.8f},{dec[0]:.8f},{MOVER.east},{MOVER.north}"]
    path.write_text("\n".join(lines) + "\n")
    return names


def is_blend(sky, star):
    """Return whether a star has a neighbour of a hundredth of its light within twice the seeing.

    What the aperture holds of that goes with the seeing, be it subtracted or not resolved: such a
    star is not constant to any aperture.
    """
    cosdec = np.cos(np.radians(CENTRE[1]))
    apart = np.hypot((sky["ra"] - star["ra"]) * cosdec, sky["dec"] - star["dec"]) * 3600
    near = (apart < BLEND_RADIUS) & (sky["id"] != star["id"])
    return any(np.any(sky[band][near] < star[band] + 5) for band in FILTERS.values())


def reduce(place, *words, cores=2):
    """Run the workflow on all nights."""
    given = {"datadir": "raw/2*", "targets": "targets.csv", "stack": BY}
    done = place.snakemake(*words, cores=cores, timeout=3600, **given)
    if done.code:
        raise SystemExit(done.out)
    return done


def total_error(rows):
    """Return the errors by which fluxes differ from frame to frame.

    With those of the frames' scales, without that of the neighbours' light, which all share.
    """
    own = np.sqrt(np.maximum(rows["FLUXERR"] ** 2 - np.nan_to_num(rows["NEIGHERR"]) ** 2, 0))
    return np.hypot(own, rows["ZPERR"] / 1.0857 * rows["FLUX"])


def night_of(rows):
    """Return the night of each row: no night of these begins before noon UTC - 7 h."""
    return np.floor(np.asarray(rows["MJD"]) - 19 / 24).astype(int)


def constancy(table, names):
    """Return chi^2 and degrees of freedom of constant stars over all nights, and in each.

    Returns
    -------
    dict
        Number of the night, or 'all' -> [chi^2, degrees of freedom].
    """
    found = {}
    frames = table[(table["KIND"] == "frame") & np.isfinite(table["FLUX"])]
    frames = frames[(frames["FLAGS"] & (256 | 1024 | 2048)) == 0]
    for name in names:
        for filt in FILTERS:
            rows = frames[(frames["NAME"] == name) & (frames["FILTER"] == filt)]
            nights = night_of(rows)
            for key in ("all", *np.unique(nights).tolist()):
                part = rows if key == "all" else rows[nights == key]
                if len(part) < 4:
                    continue
                error = total_error(part)
                mean = np.average(part["FLUX"], weights=error**-2.0)
                one = found.setdefault(key, np.zeros(2))
                one += [np.sum(((part["FLUX"] - mean) / error) ** 2), len(part) - 1]
    return found


def decay(table):
    """Return the exponent of the afterglow, and its error, by its fluxes in all frames."""
    from scipy.optimize import curve_fit

    rows = table[(table["KIND"] == "frame") & np.isfinite(table["FLUX"])]
    rows = rows[(rows["FLAGS"] & (256 | 1024 | 2048)) == 0]
    burst = datetime.fromisoformat(NIGHTS["20220127"]["start"]) - timedelta(seconds=DELAY)
    start = 51544.5 + (burst - datetime(2000, 1, 1, 12)).total_seconds() / 86400
    time = (np.asarray(rows["MJD"]) - start) * 86400 / DELAY
    red = np.asarray(rows["FILTER"]) == "SDSS-R"

    def model(t, r, i, slope):
        return np.where(red, r, i) * t**-slope

    level = np.median(np.asarray(rows["FLUX"])[time < 2])
    best, covariance = curve_fit(
        model, time, rows["FLUX"], (level, level, 1.0), total_error(rows), absolute_sigma=True
    )
    return float(best[2]), float(np.sqrt(covariance[2, 2]))


def period(table):
    """Return the period of the variable [d], its amplitude, and what the sine leaves.

    Least squares of a sine, and of a mean magnitude in each filter, at each of many frequencies.
    """
    rows = table[(table["NAME"] == "variable") & (table["KIND"] == "frame")]
    rows = rows[np.isfinite(rows["MAG"])]
    value, time = np.array(rows["MAG"], float), np.array(rows["MJD"], float)
    error = np.hypot(np.array(rows["MAGERR"], float), np.array(rows["ZPERR"], float))
    means = [np.asarray(rows["FILTER"] == filt, float) for filt in FILTERS]

    def fit(frequency):
        phase = 2 * np.pi * frequency * (time - time[0])
        design = np.column_stack([*means, np.sin(phase), np.cos(phase)]) / error[:, None]
        best, *_ = np.linalg.lstsq(design, value / error, rcond=None)
        return np.mean((value / error - design @ best) ** 2), best

    step = 0.05 / np.ptp(time)
    best = min(np.arange(0.8, 12, step), key=lambda one: fit(one)[0])
    best = min(np.linspace(best - step, best + step, 101), key=lambda one: fit(one)[0])
    rest, (*_, sine, cosine) = fit(best)
    return float(1 / best), float(np.hypot(sine, cosine)), float(np.sqrt(rest))


def depths(products, nights):
    """Return the depth of all nights against that of each, by filter.

    One image of nights of different seeing is less deep than these are, each in apertures of its
    own: stars are taken for Gaussian, apertures for 0.75 FWHM in radius.

    Returns
    -------
    dict of str to tuple of float
        Filter -> limit of all nights less those of the nights in quadrature [mag], what the seeing
        makes of it, and its error: that of standard deviations in so many empty apertures.
    """
    found = {}
    for filt in FILTERS:
        stem = f"coadd{TARGET}.{filt}"
        names = [*(f"n{name}" for name in nights), "all"]
        headers = [fits.getheader(products / f"{stem}.{name}.fits") for name in names]
        limit, width, count = (
            np.array([header[key] for header in headers], float)
            for key in ("LIMMAG", "SEEING", "LIMNAP")
        )
        *power, _ = 10 ** (0.8 * limit)
        own, share = np.array(power), np.array(power) / np.sum(power)
        # Weights of pixels in the stack, and the light of each night in its aperture.
        weight = own * width[:-1] ** 2
        light = 1 - np.exp(-4 * np.log(2) * (0.75 * width[-1] / width[:-1]) ** 2)
        alone = 1 - np.exp(-4 * np.log(2) * 0.75**2)
        mixed = np.average(light, weights=weight) / alone
        expected = 1.25 * np.log10(mixed**2 * weight.sum() / width[-1] ** 2 / own.sum())
        variance = 1.0857**2 / (2 * count)
        error = np.sqrt(variance[-1] + np.sum(share**2 * variance[:-1]))
        found[filt] = limit[-1] - 1.25 * np.log10(own.sum()), expected, error
    return found


def check(place, names, nights=NIGHTS):
    """Print what was found, and assert that it is what was put in."""
    target = Table.read(place.products / f"{TARGET}.lightcurve.ecsv", format="ascii.ecsv")
    table = Table.read(place.products / f"{TARGET}.lightcurves.ecsv", format="ascii.ecsv")
    single, blends = ([name for name in names if name[0] == letter] for letter in "sb")
    print(f"{len(single)} constant stars, {np.sum(target['KIND'] == 'frame')} frames")
    constant = constancy(table, single)
    for key, (chi2, freedom) in constant.items():
        sigma = np.sqrt(2 / freedom)
        print(f"  chi2/dof {chi2 / freedom:.3f} +- {sigma:.3f}  night {key}, dof {freedom:.0f}")
    for key, (chi2, freedom) in constancy(table, blends).items():
        print(f"  {len(blends)} blends: {chi2 / freedom:.2f}  night {key}")
    slope, error = decay(target)
    print(f"  afterglow: t^-{slope:.3f} +- {error:.3f}")
    assert abs(slope - DECAY) < 3 * error and error < 0.03
    found, amplitude, rest = period(table)
    print(f"  period {found:.4f} d, amplitude {amplitude:.3f}, left {rest:.2f} sigma")
    depth = depths(place.products, nights)
    for filt, (value, expected, error) in depth.items():
        print(f"  {filt}: depth of all nights less quadrature {value:+.3f} +- {error:.3f} mag, by "
              f"the seeing {expected:+.3f}")  # fmt: skip
    for key, (chi2, freedom) in constant.items():
        # A tenth is what the errors may be wrong by; chi^2 itself scatters by sqrt(2 / dof).
        assert abs(chi2 / freedom - 1) < max(0.1, 3 * np.sqrt(2 / freedom)), key
    for filt, (value, expected, error) in depth.items():
        assert abs(value - expected) < 3 * error, filt
    if len(nights) == len(NIGHTS):
        assert abs(found / VARIABLE.period - 1) < 0.01
        assert abs(amplitude - VARIABLE.amplitude) < 0.02 and rest < 1.5
    if MOVING_NIGHT in nights:
        check_mover(table)


def check_mover(table):
    """Assert that what moves has its light, and is where it is."""
    for row in table[(table["NAME"] == "2022 AB") & (table["KIND"] == "stack")]:
        print(f"  {row['FRAME']}: {row['MAG']:.3f} +- {row['MAGERR']:.3f} (true "
              f"{MOVER.magnitude}), O-C {row['OCEAST']:.3f} {row['OCNORTH']:.3f} +- "
              f"{row['CENERR']:.3f}")  # fmt: skip
        assert abs(row["MAG"] - MOVER.magnitude) < 3 * np.hypot(row["MAGERR"], 0.01)
        off = np.hypot(row["OCEAST"] - OFF[0], row["OCNORTH"] - OFF[1])
        assert off < 4 * np.hypot(row["CENERR"], 0.01)
    frames = table[(table["NAME"] == "2022 AB") & (table["KIND"] == "frame")]
    frames = frames[np.isfinite(frames["MAG"])]
    pull = (frames["MAG"] - MOVER.magnitude) / np.hypot(frames["MAGERR"], 0.01)
    print(f"  and in {len(frames)} frames: pulls of {np.std(pull):.2f}")
    assert len(frames) and np.abs(pull).max() < 4


def main():
    """Simulate, reduce and check a campaign."""
    parser = argparse.ArgumentParser(description="Truth of a campaign of six nights.")
    parser.add_argument("--exposures", type=int, default=10, help="of each filter and night")
    parser.add_argument("--stars", type=int, default=80, help="reference stars on a frame")
    parser.add_argument("--folder", type=Path, help="where to work and leave everything")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=2, help="of how many stars one is measured")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as beside:
        folder = options.folder or Path(beside) / "campaign"
        place, names = simulate_campaign(
            folder, options.exposures, options.stars, seed=options.seed, every=options.every
        )
        reduce(place, cores=options.cores)
        check(place, names)


if __name__ == "__main__":
    main()
