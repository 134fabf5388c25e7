"""The region of sky that the frames of a target cover."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.core.sphere import deproject
from lib.night.facts import FrameFacts

MJD_J2000 = 51544.5


@dataclass(frozen=True)
class Field:
    """The circle that contains the frames of a target; None where no pointing is known.

    Parameters
    ----------
    ra, dec, radius : float
        Centre and radius [deg].
    wide : float
        Radius that contains the frames even if their pointings are wrong [deg].
    epoch : float
        Epoch [Julian year].
    """

    ra: float | None
    dec: float | None
    radius: float | None
    wide: float | None
    epoch: float


def frame_centre(facts: FrameFacts) -> tuple[float, float] | None:
    """Return the position of a frame's centre [deg] from its header.

    None where no pointing is known.
    """
    if facts.wcs:
        return image_centre(facts.wcs, facts.shape)
    if facts.ra is None or facts.dec is None:
        return None
    return facts.ra, facts.dec


def image_centre(wcs: Mapping[str, Any], shape: Sequence[int]) -> tuple[float, float]:
    """Return the position of the centre of an image [deg] from its WCS cards.

    Parameters
    ----------
    wcs : mapping
        CRPIX, CRVAL and CD; distortion is neglected.
    shape : sequence of int
        Rows and columns.
    """
    ny, nx = shape
    dx, dy = (nx + 1) / 2 - wcs["CRPIX1"], (ny + 1) / 2 - wcs["CRPIX2"]
    xi = 3600 * (wcs["CD1_1"] * dx + wcs["CD1_2"] * dy)
    eta = 3600 * (wcs["CD2_1"] * dx + wcs["CD2_2"] * dy)
    ra, dec = deproject([[xi, eta]], wcs["CRVAL1"], wcs["CRVAL2"])
    return float(ra[0]), float(dec[0])


OTHER_FIELD = 1.0
"""[deg] A position given for the target that is so much further off than the frames reach is that
of another field than their headers tell; `lib.night.targets.target_position` has the same."""

UNKNOWN_REACH = 0.5
"""[deg] Half a diagonal of frames whose scale is not known."""


def field_of(
    frames: Sequence[FrameFacts],
    wide_radius: float = 0.0,
    given: tuple[float, float] | None = None,
) -> Field:
    """Return the circle that contains all frames, allowing for pointing errors, and the epoch.

    Parameters
    ----------
    frames : list of FrameFacts
        Frames of one target.
    wide_radius : float
        Maximum pointing error for the last search of the astrometry [deg].
    given : tuple of float, optional
        Configured ra, dec of the target [deg]. The field is there where no header has a pointing,
        or all of them point to another field.

    Returns
    -------
    Field
    """
    epoch = float(2000 + (np.median([one.mjd for one in frames]) - MJD_J2000) / 365.25)
    placed = [(frame_centre(one), one) for one in frames]
    known = [(centre, one) for centre, one in placed if centre is not None]
    if not known:
        return _field_at(given, frames, wide_radius, epoch)
    ra, dec = np.radians(np.array([centre for centre, _ in known])).T
    vectors = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]).T
    # The midpoint of the extremes, so that even a single mispointed frame is inside.
    middle = (vectors.max(axis=0) + vectors.min(axis=0)) / 2
    middle /= np.linalg.norm(middle)
    reach = wide = 0.0
    for vector, (_, one) in zip(vectors, known, strict=True):
        apart = 2 * np.degrees(np.arcsin(min(1.0, float(np.linalg.norm(vector - middle)) / 2)))
        diagonal = math.hypot(*one.shape) * (one.pixscale or 0.0) / 3600 / 2
        error = one.poserr or 0.0
        reach = max(reach, apart + diagonal + error)
        wide = max(wide, apart + diagonal + max(error, wide_radius))
    if given is not None:
        a, d = np.radians(given)
        place = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
        if np.degrees(np.arccos(np.clip((vectors @ place).max(), -1, 1))) > OTHER_FIELD + wide:
            return _field_at(given, frames, wide_radius, epoch)
    return Field(
        ra=round(float(np.degrees(np.arctan2(middle[1], middle[0])) % 360), 5),
        dec=round(float(np.degrees(np.arcsin(middle[2]))), 5),
        radius=round(float(reach), 4),
        wide=round(float(wide), 4),
        epoch=round(epoch, 3),
    )


def _field_at(
    given: tuple[float, float] | None, frames: Sequence[FrameFacts], wide_radius: float,
    epoch: float,
) -> Field:  # fmt: skip
    """Return the circle about a given position, if any, that holds frames which point there.

    Frames of a field are some way from each other: as far as they are looked for.
    """
    reach = max(
        math.hypot(*one.shape) * one.pixscale / 7200 if one.pixscale else UNKNOWN_REACH
        for one in frames
    )
    reach = round(reach + wide_radius, 4)
    if given is None:
        return Field(None, None, reach, reach, round(epoch, 3))
    return Field(round(given[0], 5), round(given[1], 5), reach, reach, round(epoch, 3))
