"""Where on the sky the frames of a target lie."""

import numpy as np

from lib.core.sphere import deproject

MJD_J2000 = 51544.5


def frame_centre(facts):
    """Return the position of a frame's centre as its header has it.

    Parameters
    ----------
    facts : dict
        Night-log facts: `wcs`, `shape`, `ra`, `dec`.

    Returns
    -------
    tuple of float, or None
        Right ascension and declination in degrees; None where no pointing is known.
    """
    wcs = facts.get("wcs")
    if not wcs:
        if facts.get("ra") is None or facts.get("dec") is None:
            return None
        return facts["ra"], facts["dec"]
    ny, nx = facts["shape"]
    dx, dy = (nx + 1) / 2 - wcs["CRPIX1"], (ny + 1) / 2 - wcs["CRPIX2"]
    xi = 3600 * (wcs["CD1_1"] * dx + wcs["CD1_2"] * dy)
    eta = 3600 * (wcs["CD2_1"] * dx + wcs["CD2_2"] * dy)
    ra, dec = deproject([[xi, eta]], wcs["CRVAL1"], wcs["CRVAL2"])
    return float(ra[0]), float(dec[0])


def field_of(frames, wide_radius=0.0):
    """Return the circle that holds all frames, wherever they really point, and the epoch.

    Parameters
    ----------
    frames : list of dict
        Night-log facts.
    wide_radius : float
        How far off their pointings the frames are looked for when all else fails [deg].

    Returns
    -------
    dict
        `ra`, `dec`, `radius` and `wide` (with `wide_radius` for the error of the pointings) in
        degrees (None where no pointing is known), `epoch` as a Julian year.
    """
    epoch = float(2000 + (np.median([one["mjd"] for one in frames]) - MJD_J2000) / 365.25)
    known = [(frame_centre(one), one) for one in frames]
    known = [(centre, one) for centre, one in known if centre]
    if not known:
        return {"ra": None, "dec": None, "radius": None, "wide": None, "epoch": round(epoch, 3)}
    ra, dec = np.radians(np.array([centre for centre, _ in known])).T
    vectors = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]).T
    # The middle of the extremes: one frame of a wrong pointing among many must still be inside.
    middle = (vectors.max(axis=0) + vectors.min(axis=0)) / 2
    middle /= np.linalg.norm(middle)
    reach = wide = 0.0
    for vector, (_, one) in zip(vectors, known, strict=True):
        apart = 2 * np.degrees(np.arcsin(min(1.0, np.linalg.norm(vector - middle) / 2)))
        diagonal = np.hypot(*one["shape"]) * (one["pixscale"] or 0.0) / 3600 / 2
        error = one.get("poserr") or 0.0
        reach = max(reach, apart + diagonal + error)
        wide = max(wide, apart + diagonal + max(error, wide_radius))
    return {
        "ra": round(float(np.degrees(np.arctan2(middle[1], middle[0])) % 360), 5),
        "dec": round(float(np.degrees(np.arcsin(middle[2]))), 5),
        "radius": round(float(reach), 4),
        "wide": round(float(wide), 4),
        "epoch": round(epoch, 3),
    }
