"""The point-spread function of a single frame, and fluxes at given positions by fits of it."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.photometry.coaddpsf import CORE_LOST, STAR_SNR, WINGS_ERROR, tie
from lib.photometry.psf import StarAperture
from lib.photometry.psfbuild import PsfImage, PsfStars, build_psf
from lib.photometry.psffit import PsfFluxes
from lib.photometry.psfmodel import PsfModel

LEAST_STARS = 5
"""Minimum number of stars of S/N 30: fewer do not tell how uncertain a model is."""

MOST_STARS = 20
"""The brightest so many of all parts of the frame are used."""

MOST_TIED = 40
"""The brightest so many stars are fitted to tell the scale of the fits."""

ROUNDS = 3
"""Iterations of a fit with fixed positions: the photon noise is known after the first."""

QUICK = 2
"""Rounds of the model that is tried first, a Moffat profile that changes linearly over the frame;
a table is measured where that leaves more than `QUICK_ERROR` of the light of stars."""

QUICK_ERROR = 0.01

SAME = 0.3
"""[FWHM] Positions nearer than this are one object, each measured without the other: together
neither would be told."""

NEAR = 8.0
"""[FWHM] Stars within this are fitted with a position, where it is measured by itself, too."""


@dataclass(frozen=True)
class FrameStars:
    """Point sources of a frame.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        [pixel].
    total, error : ndarray, shape (n,)
        Total fluxes by apertures, to which those of fits are brought, and their errors; NaN where
        there are none.
    rows : ndarray of int
        Stars that tell the point-spread function: alone, with all their pixels.
    number : int
        The first so many are positions to measure, the others their neighbours.
    """

    x: np.ndarray
    y: np.ndarray
    total: np.ndarray
    error: np.ndarray
    rows: np.ndarray
    number: int


def frame_psf_fluxes(
    image: PsfImage, stars: FrameStars, aperture: StarAperture, fwhm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Measure point sources of a frame by fits of the point-spread function of its stars.

    Parameters
    ----------
    image : PsfImage
    stars : FrameStars
        All that share light, fitted together where they are given.
    aperture : StarAperture
        With the profile of a star.
    fwhm : float
        [pixel].

    Returns
    -------
    flux, error : ndarray, shape (n,)
        NaN without enough stars, and where too few pixels have a weight.
    """
    flux, error = np.full((2, stars.x.size), np.nan)
    rows = stars.rows[stars.total[stars.rows] > STAR_SNR * stars.error[stars.rows]]
    rows = rows[np.argsort(-stars.total[rows], kind="stable")]
    layer = _layers(stars, rows, SAME * fwhm)
    rows = rows[layer[rows] == 0]
    if rows.size < LEAST_STARS:
        return flux, error
    best: tuple[PsfModel, float, float] | None = None
    for rounds in (QUICK, None):
        first = np.flatnonzero(layer == 0)
        own = np.searchsorted(first, rows)
        psf = build_psf(
            image, PsfStars(stars.x[first], stars.y[first], own), fwhm, aperture.wings, 1.0,
            rounds=rounds, most=MOST_STARS,
        )  # fmt: skip
        if psf is None:
            break
        fitted = image.fit(psf, stars.x[first], stars.y[first], free=False, rounds=ROUNDS)
        scale, model_error = tie(image, fitted, psf.fwhm, own, stars.total[first])
        if model_error is None or (best is not None and best[2] < model_error):
            break
        best = psf, scale, model_error
        flux[first], error[first] = _scaled(fitted, scale, model_error)
        if model_error < QUICK_ERROR:
            break
    if best is None:
        return flux, error
    psf, scale, model_error = best
    for number in range(1, int(layer.max()) + 1):
        some = np.flatnonzero(layer == number)
        apart, _ = cKDTree(np.column_stack([stars.x[some], stars.y[some]])).query(
            np.column_stack([stars.x, stars.y])
        )
        beside = (layer == 0) & (apart >= SAME * fwhm) & (apart < NEAR * fwhm)
        use = np.append(some, np.flatnonzero(beside))
        fitted = image.fit(psf, stars.x[use], stars.y[use], free=False, rounds=ROUNDS)
        by_fit = _scaled(fitted, scale, model_error)
        flux[some], error[some] = (values[: some.size] for values in by_fit)
    return flux, error


def _layers(stars: FrameStars, rows: np.ndarray, radius: float) -> np.ndarray:
    """Return the number of the fit in which each is measured, 0 where it may be in the first.

    In one fit no two positions are nearer than `radius`: they would share one object's light. Stars
    that tell the point-spread function come first.
    """
    layer = np.zeros(stars.x.size, int)
    at = np.column_stack([stars.x, stars.y])[: stars.number]
    first = np.isin(np.arange(stars.number), rows)
    near: dict[int, list[int]] = {}
    for one, other in sorted(cKDTree(at).query_pairs(radius)):
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
    placed: set[int] = set()
    for one in sorted(near, key=lambda one: (not first[one], one)):
        taken = {int(layer[other]) for other in near[one] if other in placed}
        layer[one] = next(k for k in range(len(near[one]) + 1) if k not in taken)
        placed.add(one)
    return layer


def _scaled(fitted: PsfFluxes, scale: float, model_error: float) -> tuple[np.ndarray, np.ndarray]:
    """Return fitted fluxes on the scale of apertures, and their errors with that of the model."""
    flux = scale * fitted.flux
    # Where a core is lost the wings have told.
    own = np.where(fitted.seen < CORE_LOST, np.hypot(model_error, WINGS_ERROR), model_error)
    return flux, np.hypot(scale * fitted.error, own * flux)
