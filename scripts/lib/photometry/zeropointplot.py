"""Plot of the residuals of a zero point."""

from pathlib import Path

import numpy as np

from lib.core.figures import new_figure, save_figure
from lib.photometry.coaddzeropoint import ZeropointStars
from lib.photometry.zeropoint import Zeropoint


def plot_zeropoint(
    path: str | Path, title: str, zeropoint: Zeropoint, stars: ZeropointStars,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    """Plot the residuals of the zero point against magnitude, colour and position.

    Parameters
    ----------
    path : path-like
        PNG file to write.
    title : str
        Title of the plot.
    zeropoint : Zeropoint
        Zero point with its residuals.
    stars : ZeropointStars
        The stars that it was fitted to.
    shape : tuple of int
        Shape of the coadd (ny, nx).
    """
    margins = (0.1, 0.09, 0.93, 0.92)
    figure, axes = new_figure((9, 6.5), margins, 2, 2, wspace=0.28, hspace=0.26)
    axes = axes.ravel()
    if zeropoint.known:
        title += f"   ABSZPT {zeropoint.value:.3f} ± {zeropoint.error:.3f}"
        used, residual = zeropoint.used, zeropoint.residual
        span = max(4 * zeropoint.scatter, 0.05)
        for axis, values, label in (
            (axes[0], stars.magnitude, "reference magnitude"),
            (axes[1], stars.colour, zeropoint.colour or "colour"),
            (axes[2], stars.x, "x [pixel]"),
        ):  # fmt: skip
            shown = np.isfinite(values)
            for kept, colour, name in ((True, "C0", "used"), (False, "C3", "left out")):
                chosen = shown & (used == kept)
                axis.plot(
                    values[chosen], np.clip(residual[chosen], -span, span), ".", color=colour,
                    label=f"{name} ({int(chosen.sum())})",
                )  # fmt: skip
            axis.axhline(0, color="0.5", lw=0.8)
            axis.set(xlabel=label, ylabel="reference - fit [mag]", ylim=(-1.1 * span, 1.1 * span))
        axes[0].legend()
        drawn = axes[3].scatter(
            stars.x[used], stars.y[used], c=residual[used], s=14, cmap="coolwarm",
            vmin=-span, vmax=span,
        )  # fmt: skip
        axes[3].set(xlabel="x [pixel]", ylabel="y [pixel]", xlim=(0, shape[1]), ylim=(0, shape[0]))
        figure.colorbar(drawn, ax=axes[3], label="mag")
    else:
        axes[0].text(0.02, 0.5, f"no zero point\n{zeropoint.reason}", wrap=True)
        for axis in axes:
            axis.set_axis_off()
    figure.suptitle(title)
    save_figure(figure, path)
