"""Residuals of the stars of frames from a reference: statistics and plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.pixelmaps import PixelMap
from lib.astrometry.starlists import Reference, match_by_position
from lib.core.figures import new_figure, save_figure
from lib.core.stats import mad_std


@dataclass(frozen=True)
class Residuals:
    """Positions of identified stars against the reference; one element a measurement.

    Parameters
    ----------
    frame, star, reference : ndarray of int
        Indices of the frame, of the star on it, and of the reference star.
    dx, dy : ndarray
        Frame minus reference, to the east and north [arcsec].
    x, y : ndarray
        Pixel coordinates.
    error : ndarray
        Expected, per axis [arcsec].
    """

    frame: np.ndarray
    star: np.ndarray
    reference: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def of_frame(self, index: int) -> "Residuals":
        """Return those of one frame."""
        here = self.frame == index
        return Residuals(*(getattr(self, name)[here] for name in self.__dataclass_fields__))

    def rms(self) -> tuple[float, float]:
        """Return the weighted rms of each axis [arcsec]; NaN without stars."""
        return weighted_rms(self.dx, self.error), weighted_rms(self.dy, self.error)

    def rms_of_both(self) -> float:
        """Return the weighted rms per axis, of both axes together [arcsec]."""
        return weighted_rms(np.r_[self.dx, self.dy], np.r_[self.error, self.error])

    def median(self) -> tuple[float, float]:
        """Return the median of each axis [arcsec]; NaN without stars."""
        if not len(self):
            return float("nan"), float("nan")
        return float(np.median(self.dx)), float(np.median(self.dy))


def residuals(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    maps: Sequence[PixelMap] | None = None,
    keep: np.ndarray | None = None,
    tolerance: float | None = None,
) -> Residuals:
    """Compare the stars of frames with the reference.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
    reference : Reference
    maps : sequence of callable, optional
        Maps of the frames instead of their own.
    keep : ndarray of bool, optional
        Reference stars that count.
    tolerance : float, optional
        Distance within which stars are identified [arcsec]; 2 pixels if not given.

    Returns
    -------
    Residuals
    """
    parts = []
    for k, frame in enumerate(frames):
        scale = frame.scale
        i, j, residual = match_by_position(
            frame, reference, tolerance or 2.0 * scale, maps[k] if maps else None
        )
        if keep is not None:
            i, j, residual = i[keep[j]], j[keep[j]], residual[keep[j]]
        error = np.hypot(np.hypot(frame.error[i], 0.01) * scale, reference.error[j])
        index = np.full(len(i), k)
        parts.append(np.column_stack([index, i, j, residual, frame.x[i], frame.y[i], error]))
    table = np.concatenate(parts) if parts else np.zeros((0, 8))
    return Residuals(*table[:, :3].T.astype(int), *table[:, 3:].T)


def weighted_rms(residual: np.ndarray, error: np.ndarray, clip: float = 4.0) -> float:
    """Return the rms weighted by 1/error**2, without outliers; in the unit of `residual`."""
    if len(residual) == 0:
        return float("nan")
    pull = residual / error
    good = np.abs(pull - np.median(pull)) < clip * max(mad_std(pull), 1e-9)
    weight = 1 / error[good] ** 2
    return float(np.sqrt(np.sum(weight * residual[good] ** 2) / np.sum(weight)))


def plot_residuals(path: str | Path, reference: Reference, found: Residuals, title: str) -> None:
    """Draw residual vectors over the frame, and residuals against magnitude and position.

    Parameters
    ----------
    path : path-like
        PNG.
    reference : Reference
    found : Residuals
    title : str
    """
    margins = (0.085, 0.07, 0.98, 0.92)
    figure, axes = new_figure((9, 8), margins, 2, 2, wspace=0.25, hspace=0.2)
    figure.suptitle(title)
    dx, dy = found.dx * 1000, found.dy * 1000
    vectors = axes[0, 0]
    if len(dx):
        typical = max(float(np.median(np.hypot(dx, dy))), 0.1)
        q = vectors.quiver(
            found.x,
            found.y,
            dx,
            dy,
            found.frame,
            cmap="turbo",
            angles="xy",
            scale=typical * 25,
            width=0.002,
        )
        vectors.quiverkey(q, 0.75, 1.02, typical, f"{typical:.1f} mas", labelpos="E")
    vectors.set(xlabel="x [pixel]", ylabel="y [pixel]", aspect="equal")
    limit = 5 * max(mad_std(np.r_[dx, dy]), 0.1) if len(dx) else 1.0
    panels = (
        (axes[0, 1], reference.magnitude[found.reference], "reference magnitude"),
        (axes[1, 0], found.x, "x [pixel]"),
        (axes[1, 1], found.y, "y [pixel]"),
    )
    for axis, along, label in panels:
        axis.plot(along, dx, ".", ms=3, alpha=0.5, label="east")
        axis.plot(along, dy, ".", ms=3, alpha=0.5, label="north")
        axis.axhline(0, color="0.5", lw=0.8)
        axis.set(xlabel=label, ylabel="frame - reference [mas]", ylim=(-limit, limit))
    axes[0, 1].legend(loc="upper left")
    save_figure(figure, path, ticks=4)
