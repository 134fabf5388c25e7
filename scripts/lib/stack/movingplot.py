"""Plot of a stack that follows a moving object, beside the ordinary one."""

from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.figures import new_figure, save_figure
from lib.core.stats import mad_std
from lib.photometry.measuredcoadd import MeasuredCoadd

HALF = 20.0
"""[FWHM] Half side of the panels."""


def plot_followed(
    path: str | Path, title: str, coadd: MeasuredCoadd, still: MeasuredCoadd, header: fits.Header
) -> None:
    """Plot the surroundings of a moving object in the ordinary coadd and in the one following it.

    Parameters
    ----------
    path : path-like
        PNG file to write.
    title : str
        Title of the plot.
    coadd : MeasuredCoadd
        The coadd that follows the object.
    still : MeasuredCoadd
        The ordinary coadd of the same frames.
    header : astropy.io.fits.Header
        Header of `coadd`.
    """
    figure, axes = new_figure((9, 4.6), (0.02, 0.04, 0.98, 0.86), 1, 2, wspace=0.04)
    fwhm = coadd.field.fwhm if coadd.field is not None else 3.0
    half = int(HALF * fwhm)
    for axis, one, words in (
        (axes[0, 0], still, "frames as they are"), (axes[0, 1], coadd, "frames shifted"),
    ):  # fmt: skip
        x, y = (float(v) for v in one.wcs.all_world2pix(header["MOVRA"], header["MOVDEC"], 0))
        part = np.full((2 * half + 1, 2 * half + 1), np.nan)
        row, column = round(y) - half, round(x) - half
        rows, columns = (
            slice(max(0, first), min(first + 2 * half + 1, size))
            for first, size in zip((row, column), one.image.shape, strict=True)
        )
        if rows.start < rows.stop and columns.start < columns.stop:
            inside = np.where(one.covered[rows, columns], one.image[rows, columns], np.nan)
            part[rows.start - row : rows.stop - row, columns.start - column :][
                :, : columns.stop - columns.start
            ] = inside
        noise = mad_std(one.image[one.covered]) or 1.0
        axis.imshow(part, cmap="gray_r", origin="lower", vmin=-2 * noise, vmax=8 * noise)
        circle = np.linspace(0, 2 * np.pi, 60)
        radius = 3 * fwhm
        axis.plot(x - column + radius * np.cos(circle), y - row + radius * np.sin(circle), "C1")
        axis.set_title(words, fontsize=9)
        axis.set_axis_off()
    figure.suptitle(f"{title}   {header['MOVNAME']}, {header['MOVRATE']:.1f} arcsec/h")
    save_figure(figure, path)
