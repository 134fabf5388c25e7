"""Write the before-and-after pictures of docs/: python tests/pictures.py

A small RATIR night is simulated and taken through the steps; the grey levels and the colours of
the masks are those of the page.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

GAP = 6


def panels(path, *pictures):
    """Write pictures (uint8, first row at the bottom) side by side as a PNG."""
    from PIL import Image

    height = max(picture.shape[0] for picture in pictures)
    row = []
    for picture in pictures:
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        space = ((0, height - picture.shape[0]), (0, GAP), (0, 0))
        row.append(np.pad(picture, space, constant_values=255))
    whole = np.concatenate(row, axis=1)[::-1, :-GAP]
    image = Image.fromarray(np.ascontiguousarray(whole))
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def reduce_night(folder):
    """Simulate a night, take its frames through the steps and yield name, before, after."""
    from simulate import Night, simulate_night

    from lib.background.flatten import flatten_frame
    from lib.background.makesky import sky_from_frames
    from lib.background.subtraction import skysub_frame
    from lib.calibration.bias import make_bias
    from lib.calibration.dark import make_dark
    from lib.calibration.detector import read_raw
    from lib.calibration.flat import make_flat
    from lib.calibration.prepare import prepare_frame
    from lib.frame.file import Frame, write_frame
    from lib.night.nightlog import scan

    night = Night(
        exposures=6, stars=60, seed=7, cameras=("C0", "C3"), cosmic_scale=8.0, galaxies=0.2
    )
    simulate_night(folder, night)
    log = scan(folder / "raw", "ratir")

    def raws(frames):
        return [folder / "raw" / log.frames[frame]["raw"] for frame in frames]

    def make(maker, frames, *more):
        return maker(raws(frames), [log.frames[frame] for frame in frames], *more)

    masters = {name: make(make_bias, frames) for name, frames in log.biases.items()}
    for name, frames in log.darks.items():
        masters[name] = make(make_dark, frames, masters["bias-C0"])
    for name, frames in log.flats.items():
        ccd = log.frames[frames[0]]["camera"] == "C0"
        masters[name] = make(make_flat, frames, masters["bias-C0"] if ccd else None)

    result = {"masters": masters}
    for band, sigma, structure in (("r", 3.0, False), ("H", 3.0, True)):
        frames = [frame for frame in log.science if log.frames[frame]["filter"] == band]
        ccd = band == "r"
        chain, paths = [], []
        for frame, path in zip(frames, raws(frames), strict=True):
            used = (masters["bias-C0"], masters["dark-C0"]) if ccd else ()
            prepared = prepare_frame(path, log.frames[frame], *used)
            before = Frame(prepared.image.copy(), prepared.mask.copy(), prepared.header.copy())
            flattened = flatten_frame(prepared, masters[f"flat_{band}"])
            paths.append(folder / f"fp{frame}.fits")
            write_frame(paths[-1], flattened)
            chain.append([read_raw(path, {0})[0], before, flattened])
        sky = sky_from_frames(paths, sigma=sigma, passes=2, structure=structure)
        raw, prepared, flattened = chain[1]
        copy = Frame(flattened.image, flattened.mask, flattened.header.copy())
        subtracted = skysub_frame(copy, sky, 1)
        result[band] = (raw, prepared, flattened, sky, subtracted)
    return result


def clean_rays():
    """Return a frame full of cosmic rays before and after `crclean`."""
    from astropy.io import fits
    from simulate import simulate_frame

    from lib.calibration.cosmicrays import crclean_frame
    from lib.frame.file import Frame

    exposure, _, _ = simulate_frame(
        (240, 300), stars=60, seed=5, fwhm=4.0, sky=300.0, exptime=80.0, cosmic_scale=120.0,
        read_noise=8.0,
    )  # fmt: skip
    header = fits.Header({"GAIN": 1.0, "RDNOISE": 8.0, "SKYSUB": 300.0, "SATURATE": 1e6})
    before = Frame(exposure.raw.astype(np.float32) - 300, np.zeros((240, 300), np.uint8), header)
    return before, crclean_frame(Frame(before.image, before.mask, header.copy()))


def main():
    """Write docs/*.png."""
    from lib.frame.file import COSMIC
    from lib.report.pictures import block_bits, block_mean, linear_grey, mask_colours, stretch

    docs = ROOT / "docs"
    with tempfile.TemporaryDirectory() as folder:
        made = reduce_night(Path(folder))
    masters = made["masters"]
    raw, prepared, *_ = made["r"]
    panels(
        docs / "prepare.png",
        linear_grey(block_mean(raw.astype(np.float32), 3), 1, 99),
        linear_grey(block_mean(prepared.image, 3), 1, 99),
    )
    before, after = clean_rays()
    panels(
        docs / "crclean.png",
        stretch(before.image),
        mask_colours(after.mask & COSMIC),
        stretch(after.image),
    )
    _, prepared, flattened, sky, subtracted = made["H"]
    small = 6
    panels(
        docs / "masters.png",
        linear_grey(block_mean(masters["bias-C0"].image, 4), 2, 98),
        linear_grey(block_mean(masters["flat_H"].image, small), 2, 98),
        mask_colours(block_bits(masters["flat_H"].mask, small)),
    )
    panels(
        docs / "flatten.png",
        linear_grey(block_mean(prepared.image, 4), 2, 99),
        linear_grey(block_mean(flattened.image, 4), 2, 99),
    )
    panels(
        docs / "sky.png",
        stretch(block_mean(flattened.image, small)),
        linear_grey(block_mean(sky.image, small)),
        stretch(block_mean(subtracted.image, small)),
    )


if __name__ == "__main__":
    main()
