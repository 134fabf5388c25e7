"""Joint solution of frames by SCAMP, which is told which stars are which and does not match."""

import tempfile
from pathlib import Path

import numpy as np

from lib.astrometry.detection import CATALOGUE_COLUMNS, run_again_if_killed
from lib.astrometry.pixelmaps import remembering, sky_from_tpv, tan_cards
from lib.astrometry.starlists import epoch_of
from lib.core.programs import ProgramFailed, find_program
from lib.core.sphere import project
from lib.frame.fitsbytes import read_head, write_ldac


class Straightened:
    """A frame with the distortion that its present map knows already taken out.

    SCAMP sees pixels u of an ideal TAN frame, so it need not find again the distortion that the
    instrument is known for, and a low degree is enough for what is left.

    Parameters
    ----------
    exposure : Exposure
    """

    def __init__(self, exposure):
        self.sky = exposure.sky
        self.middle = exposure.middle
        self.centre = exposure.centre()
        self.matrix = exposure.local_matrix()
        self.inverse = np.linalg.inv(self.matrix)

    def __call__(self, x, y):
        """Return straightened pixel coordinates of pixels, two arrays."""
        p = project(*self.sky(x, y), *self.centre)
        return tuple((p @ self.inverse.T + self.middle).T)

    def followed_by(self, sky):
        """Return the map of pixels that `sky`, a map of straightened pixels, makes."""
        return remembering(lambda x, y: sky(*self(x, y)))

    def cards(self):
        """TAN cards of the straightened frame."""
        cards = tan_cards(self.centre, self.middle, self.matrix / 3600.0)
        return cards | {"RADESYS": "ICRS", "EQUINOX": 2000.0}


def write_stars(path, exposure, straight):
    """Write the stars of an exposure, straightened, as the catalogue that SCAMP reads."""
    cards = {
        "SIMPLE": True,
        "BITPIX": -32,
        "NAXIS": 2,
        "NAXIS1": exposure.shape[1],
        "NAXIS2": exposure.shape[0],
        "EXPTIME": float(exposure.header.get("EXPTIME", 1.0)),
        "FILTER": "one",
        "MJD-OBS": exposure.mjd,
    }
    u, v = straight(exposure.x, exposure.y)
    columns = {"XWIN_IMAGE": u, "YWIN_IMAGE": v}
    columns |= {name: exposure.stars[name] for name in CATALOGUE_COLUMNS[2:10]}
    columns["FLAGS"] = np.zeros(len(u), np.int16)
    write_ldac(path, cards | straight.cards(), columns)


def write_reference(path, reference, epoch):
    """Write a reference as the catalogue that SCAMP reads; `epoch` as a Julian year."""
    finite = np.isfinite(reference.magnitude)
    faint = reference.magnitude[finite].max() if finite.any() else 20.0
    columns = {
        "X_WORLD": reference.ra,
        "Y_WORLD": reference.dec,
        "ERRA_WORLD": reference.error / 3600.0,
        "ERRB_WORLD": reference.error / 3600.0,
        "ERRTHETA_WORLD": np.zeros(len(reference)),
        "MAG": np.where(finite, reference.magnitude, faint),
        "MAGERR": np.full(len(reference), 0.05),
        "OBSDATE": np.full(len(reference), epoch),
    }
    write_ldac(path, {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}, columns)


def run_scamp(exposures, reference, degree, options, *, crossid, passes="joint", quiet=False):
    """Solve frames jointly with SCAMP.

    Parameters
    ----------
    exposures : list of Exposure
        With a `sky` good to a pixel.
    reference : Reference
    degree : int
        Of the distortion shared by the frames.
    options : dict
        Configuration of the step: match_resolution, min_snr, timeout.
    crossid : float
        Radius of identification [arcsec].
    passes : {'loose', 'joint'}
        'loose' solves each exposure for itself.
    quiet : bool
        Whether SCAMP's own report is left out of the log.

    Returns
    -------
    list of callable
        Map of each frame to the sky.

    Raises
    ------
    ProgramFailed
        On a time-out, crash or output that is missing or makes no sense.
    """
    settings = {
        "ASTREF_CATALOG": "FILE",
        "ASTREFCAT_NAME": "reference.ldac",
        "MATCH": "N",
        "MATCH_RESOL": options["match_resolution"],
        "CROSSID_RADIUS": crossid,
        "ASTRINSTRU_KEY": "FILTER",
        "STABILITY_TYPE": "INSTRUMENT" if passes == "joint" else "EXPOSURE",
        "PROJECTION_TYPE": "TPV" if degree > 1 else "SAME",
        "DISTORT_DEGREES": degree,
        "SN_THRESHOLDS": f"{options['min_snr']},50.0",
        "FWHM_THRESHOLDS": "0.0,1000.0",
        "ELLIPTICITY_MAX": 0.9,
        "SOLVE_PHOTOM": "N",
        "PHOTINSTRU_KEY": "FILTER",
        "CHECKPLOT_TYPE": "NONE",
        "CHECKPLOT_DEV": "NULL",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET" if quiet else "NORMAL",
        # Several add up in the order in which they happen to be at work: another result each time.
        "NTHREADS": 1,
    }
    names = [f"{k:05d}.ldac" for k in range(len(exposures))]
    argv = [find_program("scamp"), *names, "-c", "empty.scamp"]
    for key, value in settings.items():
        argv += [f"-{key}", value]
    straight = [Straightened(e) for e in exposures]
    with tempfile.TemporaryDirectory(prefix="autoproc-scamp-") as folder:
        folder = Path(folder)
        (folder / "empty.scamp").write_text("# all settings are on the command line\n")
        for name, exposure, ideal in zip(names, exposures, straight, strict=True):
            write_stars(folder / name, exposure, ideal)
        write_reference(folder / "reference.ldac", reference, epoch_of(exposures))
        run_again_if_killed(argv, timeout=options["timeout"], cwd=folder)
        maps = []
        for name, ideal in zip(names, straight, strict=True):
            try:
                inner = sky_from_tpv(read_head(folder / name.replace(".ldac", ".head")))
            except (OSError, ValueError) as why:
                raise ProgramFailed("scamp", str(why)) from why
            maps.append(ideal.followed_by(inner))
    return maps
