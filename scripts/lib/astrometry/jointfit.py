"""Least-squares maps to the sky: of one frame alone, and of all frames and stars together."""

from copy import copy
from dataclasses import dataclass

import numpy as np

from lib.astrometry.matching import fit_mapping, nearest_pairs, same_orientation
from lib.astrometry.pixelmaps import polynomial, remembering, tpv_terms
from lib.astrometry.starlists import merged_stars, on_one_plane, pair_on_plane
from lib.core.sphere import deproject, project
from lib.core.stats import mad_std

MOST_LINKS = 200
"""Brightest stars without known position that tie the frames of a group to each other."""


# --- One frame ----------------------------------------------------------------------------


def fit_alone(exposure, reference, degree, *, tolerance=None, accuracy=0.01):
    """Fit a polynomial map of one frame alone to the reference, robustly.

    Parameters
    ----------
    exposure : Exposure
        With a `sky` good to a pixel.
    reference : Reference
    degree : int
        Of the polynomial in the plane of the present map.
    tolerance : float, optional
        Distance within which stars are identified [arcsec].
    accuracy : float
        Error floor of a position [pixel].

    Returns
    -------
    callable
        Map to the sky; the present one where fewer than three stars are identified.
    """
    base_sky = exposure.sky
    scale = exposure.scale
    half = max(exposure.shape) * scale / 2
    stars, known, centre = on_one_plane(exposure, reference)
    i, j, residual = pair_on_plane(stars, known, tolerance or 2.0 * scale)
    if len(i) < 3:
        return base_sky
    terms = tpv_terms(degree)
    if len(i) < max(6, 2 * len(terms)):
        # Too few for a polynomial: shift, or similarity.
        mapping = fit_mapping(stars[i], known[j], "similarity" if len(i) >= 5 else "shift")
        coefficients = np.zeros((len(terms), 2))
        coefficients[0] = mapping.offset
        coefficients[1:3] = (mapping.matrix - np.eye(2)).T * half
    else:
        weight = 1 / np.sqrt(
            (exposure.error[i] * scale) ** 2 + reference.error[j] ** 2 + (accuracy * scale) ** 2
        )
        base = polynomial(*(stars[i].T / half), terms)
        good = np.ones(len(i), bool)
        for _ in range(8):
            coefficients = np.linalg.lstsq(
                base[good] * weight[good, None], -residual[good] * weight[good, None], rcond=None
            )[0]
            pull = (residual + base @ coefficients) * weight[:, None]
            spread = max(mad_std(pull[good]), 1e-6)
            now = np.all(np.abs(pull) < 3.5 * spread, axis=1)
            if now.sum() < 2 * len(terms) or np.array_equal(now, good):
                break
            good = now

    @remembering
    def sky(x, y):
        p = project(*base_sky(x, y), *centre)
        return deproject(p + polynomial(*(p.T / half), terms) @ coefficients, *centre)

    return sky


# --- All frames together ------------------------------------------------------------------


def gather(exposures, reference, merge=0.7):
    """Collect the measurements of all stars, known or not, on all frames.

    Parameters
    ----------
    exposures : list of Exposure
    reference : Reference
    merge : float
        Stars nearer than this are the same [pixel].

    Returns
    -------
    frame, star, source : ndarray of int
        Indices of each measurement; `star` in the list of its frame.
    positions : ndarray, shape (sources, 2)
        First guess [arcsec] on the tangent plane about `centre`: first those of the reference.
    centre : tuple of float
    """
    from scipy.spatial import cKDTree

    centre = exposures[0].centre()
    scale = exposures[0].scale
    known = project(reference.ra, reference.dec, *centre)
    merged = merged_stars(exposures, merge)
    merged = merged[merged.seen > 1]
    merged = merged[np.argsort(merged.magnitude, kind="stable")]
    other = project(merged.ra, merged.dec, *centre)
    if len(other) and len(known):
        other = other[cKDTree(known).query(other)[0] > 3 * scale]
    positions = np.concatenate([known, other[:MOST_LINKS]])
    tree = cKDTree(positions)
    parts = []
    for k, exposure in enumerate(exposures):
        points = project(*exposure.sky(exposure.x, exposure.y), *centre)
        i, j, distance = nearest_pairs(tree, points, 2 * scale)
        near = (j < len(known)) | (distance < merge * scale)
        parts.append(np.stack([np.full(near.sum(), k), i[near], j[near]]))
    return *np.concatenate(parts, axis=1).astype(int), positions, centre


@dataclass(frozen=True)
class Unknowns:
    """Where each unknown of the joint fit stands among all of them.

    Per axis the position of every source and three linear terms a frame, then the shared
    polynomial of both axes of the detector.

    Parameters
    ----------
    sources, frames, terms : int
        How many there are of each.
    """

    sources: int
    frames: int
    terms: int

    @property
    def per_axis(self):
        return self.sources + 3 * self.frames

    @property
    def total(self):
        return 2 * self.per_axis + 2 * self.terms

    def position(self, axis, source):
        return axis * self.per_axis + source

    def linear(self, axis, frame, term):
        return axis * self.per_axis + self.sources + 3 * frame + term

    def shared(self, axis, term):
        return 2 * self.per_axis + axis * self.terms + term


class Equations:
    """Rows of a sparse linear system, written block by block."""

    def __init__(self):
        self.rows, self.columns, self.values, self.right = [], [], [], []
        self.count = 0

    def add(self, right):
        """Begin a block with these right sides and return the numbers of its rows."""
        self.right.append(np.ravel(right))
        first, self.count = self.count, self.count + np.size(right)
        return np.arange(first, self.count)

    def put(self, rows, columns, values):
        """Enter coefficients."""
        for held, new in zip(
            (self.rows, self.columns, self.values),
            np.broadcast_arrays(rows, columns, values),
            strict=True,
        ):
            held.append(new.ravel())

    def system(self, unknowns):
        """Return the matrix, shape (rows, unknowns), and the right side."""
        from scipy.sparse import coo_matrix

        entries = (np.concatenate(v) for v in (self.values, self.rows, self.columns))
        value, row, column = entries
        design = coo_matrix((value, (row, column)), shape=(self.count, unknowns))
        return design.tocsr(), np.concatenate(self.right)


class Detector:
    """The polynomials of one frame in the joint fit, and the map that their coefficients make.

    Parameters
    ----------
    exposure : Exposure
    terms : list
        Of the shared polynomial, without the constant.
    centre : tuple of float
        Tangent point of the fit [deg].
    """

    def __init__(self, exposure, terms, centre):
        self.sky, self.middle = exposure.sky, exposure.middle
        self.half = max(exposure.shape) / 2
        self.matrix = exposure.local_matrix()
        self.scale = exposure.scale
        self.terms, self.centre = terms, centre

    def bases(self, x, y):
        """Linear terms of the frame, shape (n, 3), and shared terms, shape (n, terms)."""
        u = (np.asarray(x) - self.middle[0]) / self.half
        v = (np.asarray(y) - self.middle[1]) / self.half
        return np.stack([np.ones_like(u), u, v], axis=1), polynomial(u, v, self.terms)

    def map(self, own, shared):
        """Map to the sky with coefficients `own`, shape (3, 2), and `shared`, shape (terms, 2)."""
        # The detector's distortion in pixels, turned onto the sky as the frame is.
        turned = shared @ self.matrix.T

        @remembering
        def sky(x, y):
            linear, common = self.bases(x, y)
            points = project(*self.sky(x, y), *self.centre)
            return deproject(points + linear @ own + common @ turned, *self.centre)

        return sky


def fit_jointly(exposures, reference, degree):
    """Fit all frames and all stars together (`joint_maps`), and again on what is identified then.

    Returns
    -------
    list of callable
        Map of each frame to the sky.
    """
    found = gather(exposures, reference)
    maps = joint_maps(exposures, reference, degree, found)
    for _ in range(2 if degree > 1 else 0):
        # Stars that the distortion had moved out of reach are identified now.
        again = [copy(exposure) for exposure in exposures]
        for exposure, sky in zip(again, maps, strict=True):
            exposure.sky = sky
        before, found = found, gather(again, reference)
        if identified_alike(before, found, len(reference)):
            break
        maps = joint_maps(again, reference, degree, found)
    return maps


def identified_alike(one, other, known, part=0.01):
    """Tell whether two identifications (`gather`) agree but for a `part` of the known stars."""
    pairs = []
    for frame, star, source, *_ in (one, other):
        mine = source < known
        pairs.append(set(zip(*(a[mine].tolist() for a in (frame, star, source)), strict=True)))
    return len(pairs[0] ^ pairs[1]) <= part * len(pairs[0])


def joint_maps(exposures, reference, degree, found, *, freedom=5e-4, accuracy=0.01):
    """Fit all frames and all stars together, robustly.

    Unknown are the position of each star, three linear terms per axis for each frame and a
    polynomial of the detector shared by all. A reference star adds its catalogued position as
    a measurement, so that its error counts once and not once a frame. The linear terms of a frame
    are held near those of the others as far as its own stars say nothing.

    Parameters
    ----------
    exposures : list of Exposure
        With a `sky` good to a pixel.
    reference : Reference
    degree : int
        Of the shared polynomial.
    found : tuple
        Of `gather`.
    freedom : float
        Expected spread of scale and rotation [rad] between frames (refraction, flexure).
    accuracy : float
        Error floor of a position [pixel]; raised to what the bright stars show.

    Returns
    -------
    list of callable
        Map of each frame to the sky.
    """
    frame, star, source, start, centre = found
    # Shared linear terms too: those of a frame are only its difference from the group.
    terms = tpv_terms(degree)[1:]
    detectors = [Detector(e, terms, centre) for e in exposures]
    unknowns = Unknowns(len(start), len(exposures), len(terms))

    n = len(frame)
    observed, error, snr = np.empty((n, 2)), np.empty(n), np.empty(n)
    linear, shared = np.empty((n, 3)), np.empty((n, len(terms)))
    for k, (exposure, detector) in enumerate(zip(exposures, detectors, strict=True)):
        at = frame == k
        i = star[at]
        x, y = exposure.x[i], exposure.y[i]
        observed[at] = project(*exposure.sky(x, y), *centre)
        linear[at], shared[at] = detector.bases(x, y)
        error[at] = exposure.error[i] * detector.scale
        snr[at] = (exposure.stars["FLUX_AUTO"] / exposure.stars["FLUXERR_AUTO"])[i]

    equations = Equations()
    matrix = np.array([d.matrix for d in detectors])[frame]
    for axis in (0, 1):
        rows = equations.add(-observed[:, axis])
        equations.put(rows, unknowns.position(axis, source), -1.0)
        for t in range(3):
            equations.put(rows, unknowns.linear(axis, frame, t), linear[:, t])
        for t in range(len(terms)):
            for a in (0, 1):
                equations.put(rows, unknowns.shared(a, t), matrix[:, axis, a] * shared[:, t])
    known = np.arange(len(reference))
    for axis in (0, 1):
        rows = equations.add(start[known, axis])
        equations.put(rows, unknowns.position(axis, known), 1.0)
    prior_error = hold_loosely(equations, unknowns, detectors, freedom)

    solution = solve_robustly(
        *equations.system(unknowns.total),
        error=error,
        known_error=reference.error,
        prior_error=prior_error,
        bright=snr > max(30.0, np.percentile(snr, 60)),
        floor=accuracy * detectors[0].scale,
    )
    axes = np.arange(2)
    both = solution[unknowns.shared(axes, np.arange(len(terms))[:, None])]
    return [
        detector.map(solution[unknowns.linear(axes, k, np.arange(3)[:, None])], both)
        for k, detector in enumerate(detectors)
    ]


def hold_loosely(equations, unknowns, detectors, freedom):
    """Add what is expected of the terms: shift and shared terms almost free, scale and rotation
    of a frame near the median of the frames.

    Returns
    -------
    ndarray
        Error of each of the equations added.
    """
    matrices = np.array([d.matrix for d in detectors])
    typical = np.median(matrices, axis=0)
    wanted, error = np.zeros((2, len(detectors), 2, 3))
    for k, detector in enumerate(detectors):
        alike = same_orientation(typical, detector.matrix, 0.5, 0.005)
        if alike:
            # The correction at the edge of the frame that makes its matrix the typical one.
            wanted[k, :, 1:] = (typical - detector.matrix) * detector.half
        size = detector.half * detector.scale
        error[k, :, 0] = 5 * detectors[0].scale
        error[k, :, 1:] = (freedom if alike else 10 * freedom) * size
    frame, axis, term = np.indices(wanted.shape)
    equations.put(equations.add(wanted), unknowns.linear(axis, frame, term).ravel(), 1.0)
    axis, term = np.indices((2, unknowns.terms))
    equations.put(equations.add(np.zeros(axis.size)), unknowns.shared(axis, term).ravel(), 1.0)
    return np.r_[error.ravel(), np.full(axis.size, 5.0)]


def solve_robustly(
    design, right, *, error, known_error, prior_error, bright, floor, clip=4.0, rounds=10
):
    """Solve the weighted least-squares problem, leaving out what is far off.

    Parameters
    ----------
    design : sparse matrix
        Measurements of the first axis, then of the second; known positions likewise; priors.
    right : ndarray
    error : ndarray, shape (n,)
        Of the measurements, per axis.
    known_error, prior_error : ndarray
        Of the known positions, per axis; of the priors.
    bright : ndarray of bool, shape (n,)
        Measurements whose scatter tells what error is common to all.
    floor : float
        That error to begin with, and at least.
    clip : float
        What is further from the fit, in units of the scatter, is left out.
    rounds : int
        At most.

    Returns
    -------
    ndarray
        The unknowns.
    """
    from scipy.sparse import csc_array, csr_array, eye_array
    from scipy.sparse.linalg import splu

    measured, transposed = design[: 2 * (len(error) + len(known_error))], design.T.tocsr()
    # A source whose measurements are all left out is held where it was.
    hold = 1e-9 * eye_array(design.shape[1], format="csr")
    n, known = len(error), len(known_error)
    least = floor
    good, good_known = np.ones(n, bool), np.ones(known, bool)
    for _ in range(rounds):
        sigma = np.hypot(error, floor)
        weight = np.concatenate(
            [
                np.tile(np.where(good, 1 / sigma**2, 0.0), 2),
                np.tile(np.where(good_known, 1 / known_error**2, 0.0), 2),
                1 / prior_error**2,
            ]
        )
        values = transposed.data * weight[transposed.indices]
        weighted = csr_array((values, transposed.indices, transposed.indptr), transposed.shape)
        normal = weighted @ design + hold
        # It is symmetric: its rows are its columns.
        normal = csc_array((normal.data, normal.indices, normal.indptr), normal.shape)
        solution = splu(normal).solve(weighted @ right)
        residual = measured @ solution - right[: 2 * (n + known)]
        residual, off = residual[: 2 * n].reshape(2, n), residual[2 * n :].reshape(2, known)
        pull, pull_known = residual / sigma, off / known_error
        now = np.all(np.abs(pull) < clip * max(mad_std(pull[:, good]), 1.0), axis=0)
        now_known = np.all(np.abs(pull_known) < clip * max(mad_std(pull_known), 1.0), axis=0)
        if np.count_nonzero(good & bright) > 10:
            floor = max(least, min(mad_std(residual[:, good & bright]), 2 * floor))
        if np.array_equal(now, good) and np.array_equal(now_known, good_known):
            break
        good, good_known = now, now_known
    return solution
