"""Stacks of simulated frames, and what tests ask of them."""

import json

import numpy as np
from astropy.io import fits
from starfields import (
    SIZE,
    ZP,
)

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs
from lib.stack.coaddition import StackInputs, StackProducts, make_stack


def run(folder, paths, settings=None, plot_path=None, threads=1, **inputs):
    out = {key: folder / f"coaddtruth.r{end}" for key, end in (
        ("coadd", ".fits"), ("weight", ".weight.fits"), ("cat", ".cat.fits"))}  # fmt: skip
    qa = folder / "truth.r.json"
    make_stack(
        StackInputs(paths, **inputs), StackProducts(*out.values(), qa, plot_path),
        StackSettings(**(settings or {})), threads=threads,
    )  # fmt: skip
    return out, json.loads(qa.read_text())


def true_zeropoint(qa, exptime=60.0):
    """Return the zero point of a coadd whose frames had the transparency of the truth."""
    scales = [frame["scale"] for frame in qa["frames"].values() if frame["used"]]
    return ZP + 2.5 * np.log10(exptime * np.mean(scales))


def star_free(header, shape, stars, seed=1):
    """Return centres far from any star, inside the part that all frames cover."""
    rng = np.random.default_rng(seed)
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    tries = rng.integers(45, np.array(shape[::-1]) - 45, (20000, 2)).astype(float)
    # Where the wings of a star are below a tenth of the noise of a pixel, about 1.
    clear = 12 + 4.5 * (20.5 - stars["mag"])
    near = np.hypot(tries[:, :1] - x, tries[:, 1:] - y) > clear
    return tries[near.all(axis=1)][:4000].T


def far_from_stars(header, stars, rng, number, spacing=25):
    """Return pixels of a frame that no star is near."""
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    tries = rng.uniform(40, SIZE - 40, (4000, 2))
    near = np.hypot(tries[:, :1] - x, tries[:, 1:] - y).min(axis=1) < spacing
    return tries[~near][:number].T


def add_to_frame(path, light):
    with fits.open(path, mode="update") as hdus:
        hdus[0].data = (hdus[0].data + light).astype(np.float32)


def weighted(folder, paths, outliers):
    folder.mkdir()
    out, qa = run(folder, paths, settings={"combine": "weighted", "outliers": outliers})
    return out, fits.getdata(out["coadd"]).astype(float), qa


def custom_catalogue(path, stars, factor=1.0):
    lines = ["# the first line is skipped\n"]
    for ra, dec, mag in zip(stars["ra"], stars["dec"], stars["mag"], strict=True):
        values = ["nan"] * 13
        values[2] = f"{mag + 0.5:.4f}"  # half a magnitude from the reference: tells which served
        lines.append(" ".join([f"{ra * factor:.7f}", f"{dec:.7f}", *values, *["0.01"] * 13, "0\n"]))
    path.write_text("".join(lines))
    return path


def flagged(folder, paths, **options):
    out, _ = run(folder, paths, **options)
    header = fits.getheader(out["coadd"])
    assert header["QCSTAT"] == "OK" and "NO_ZEROPOINT" in header["QCFLAG"]
    assert "ABSZPT" not in header and "LIMMAG" not in header and header["LIMFLUX"] > 0
    assert header["ABSZPNST"] == 0
    table = fits.getdata(out["cat"], "SOURCES")
    assert np.isnan(table["MAG_AUTO"]).all() and (table["FLUX_AUTO"] > 0).any()
    return header
