"""Candidates in a difference image: found, their form measured, ranked."""

from dataclasses import dataclass, replace

import numpy as np

from lib.difference.peaks import Forms, Peaks, find_peaks, measure_forms
from lib.difference.quality import Difference
from lib.difference.ranking import qualities, score
from lib.difference.regions import Regions


@dataclass(frozen=True)
class Candidates:
    """Possible changes between two images, most significant first.

    Parameters
    ----------
    peaks : Peaks
    flux, error : ndarray, shape (n,)
        Flux of a point source; negative for objects that have faded.
    forms : Forms
    features : dict of str to ndarray
        Features by the names of `lib.difference.ranking.FEATURES`.
    """

    peaks: Peaks
    flux: np.ndarray
    error: np.ndarray
    forms: Forms
    features: dict[str, np.ndarray]

    @property
    def score(self) -> np.ndarray:
        """Between 0 and 1, shape (n,)."""
        return score(self.features)

    def with_frames(self, alone: np.ndarray) -> "Candidates":
        """Return the candidates with their measures in single frames added.

        Parameters
        ----------
        alone : ndarray, shape (n,)
            From `lib.difference.frames.SeenInFrames`.
        """
        return replace(self, features=features_of(self.peaks, self.forms, alone))

    def __len__(self) -> int:
        return len(self.flux)


def features_of(peaks: Peaks, forms: Forms, alone: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of candidates, see `lib.difference.ranking.qualities`."""
    return qualities(
        peaks.significance, forms.misfit, forms.width, forms.ellipticity, peaks.dipole,
        forms.masked, alone,
    )  # fmt: skip


@dataclass(frozen=True)
class DifferenceMaps:
    """The maps in which candidates are searched, from the file of a difference image.

    Parameters
    ----------
    image, variance : ndarray of float32, shape (ny, nx)
        Variance 0 where there is no difference.
    significance, error : ndarray of float32, shape (ny, nx)
        Significance and flux error of a point source at each pixel; 0 where there is no difference.
    stamps : ndarray, shape (nodes, s, s)
        Images of a point source of flux 1.
    regions : Regions
    fwhm : float
        [pixel].
    """

    image: np.ndarray
    variance: np.ndarray
    significance: np.ndarray
    error: np.ndarray
    stamps: np.ndarray
    regions: Regions
    fwhm: float

    @classmethod
    def of(cls, difference: Difference) -> "DifferenceMaps":
        """Return the maps of a difference image."""
        known = np.isfinite(difference.error)
        return cls(
            difference.image, difference.variance,
            np.where(known, difference.significance, 0).astype(np.float32),
            np.where(known, difference.error, 0).astype(np.float32), difference.stamps,
            difference.regions, difference.fwhm,
        )  # fmt: skip


def look_for_candidates(maps: DifferenceMaps, threshold: float) -> Candidates:
    """Find candidates in a difference image.

    Parameters
    ----------
    maps : DifferenceMaps
    threshold : float
        Minimum significance.

    Returns
    -------
    Candidates
        Candidates, without the measures from single frames.
    """
    peaks = find_peaks(maps.significance, maps.fwhm, threshold)
    column, row = np.rint(peaks.x).astype(int), np.rint(peaks.y).astype(int)
    error = maps.error[row, column].astype(float)
    flux = peaks.significance * error
    apart = maps.regions.nodes[None] - np.column_stack([peaks.x, peaks.y])[:, None]
    node = np.argmin(np.hypot(apart[..., 0], apart[..., 1]), axis=1)
    forms = measure_forms(
        maps.image, maps.variance, maps.stamps[node], peaks.x, peaks.y, flux, maps.fwhm
    )
    features = features_of(peaks, forms, np.full(len(flux), np.nan))
    return Candidates(peaks, flux, error, forms, features)
