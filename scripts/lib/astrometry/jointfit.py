"""Least-squares maps to the sky: of one frame alone, and of all frames and stars together."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.mapping import fit_mapping, nearest_pairs, same_orientation
from lib.astrometry.pixelmaps import PixelMap, Term, cached_map, polynomial, tpv_terms
from lib.astrometry.starlists import Reference, match_on_plane, merged_stars, project_together
from lib.core.sphere import deproject, project
from lib.core.stats import mad_std

MAX_TIE_STARS = 200
"""Brightest stars without known position that tie the frames of a stack to each other."""

ACCURACY = 0.01
"""Error floor of a position [pixel]."""


# --- One frame ----------------------------------------------------------------------------


def fit_alone(
    frame: AstrometryFrame,
    reference: Reference,
    degree: int,
    *,
    tolerance: float | None = None,
    accuracy: float = ACCURACY,
) -> PixelMap:
    """Fit a polynomial map of one frame alone to the reference, robustly.

    Parameters
    ----------
    frame : AstrometryFrame
        Frame whose map is accurate to a pixel.
    reference : Reference
    degree : int
        Degree of the polynomial in the plane of the present map.
    tolerance : float, optional
        Distance within which stars are identified [arcsec]; 2 pixels if not given.
    accuracy : float
        Error floor of a position [pixel].

    Returns
    -------
    callable
        Map to the sky; the present one where fewer than three stars are identified.
    """
    present = frame.pixel_to_world
    scale = frame.scale
    half = max(frame.shape) * scale / 2
    stars, known, centre = project_together(frame, reference)
    i, j, residual = match_on_plane(stars, known, tolerance or 2.0 * scale)
    if len(i) < 3:
        return present
    terms = tpv_terms(degree)
    if len(i) < max(6, 2 * len(terms)):
        # Too few for a polynomial: shift, or similarity.
        mapping = fit_mapping(stars[i], known[j], "similarity" if len(i) >= 5 else "shift")
        coefficients = np.zeros((len(terms), 2))
        coefficients[0] = mapping.offset
        coefficients[1:3] = (mapping.matrix - np.eye(2)).T * half
    else:
        error = np.sqrt(
            (frame.error[i] * scale) ** 2 + reference.error[j] ** 2 + (accuracy * scale) ** 2
        )
        u, v = stars[i].T / half
        base = polynomial(u, v, terms)
        coefficients = fit_polynomial(base, -residual, 1 / error)

    @cached_map
    def pixel_to_world(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        p = project(*present(x, y), *centre)
        u, v = p.T / half
        return deproject(p + polynomial(u, v, terms) @ coefficients, *centre)

    return pixel_to_world


def fit_polynomial(base: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit both axes by weighted least squares, rejecting points 3.5 sigma off in either.

    Parameters
    ----------
    base : ndarray, shape (n, terms)
    target : ndarray, shape (n, 2)
    weight : ndarray, shape (n,)
        Inverse errors.

    Returns
    -------
    ndarray, shape (terms, 2)
    """
    good = np.ones(len(base), bool)
    for _ in range(8):
        coefficients = np.linalg.lstsq(
            base[good] * weight[good, None], target[good] * weight[good, None], rcond=None
        )[0]
        pull = (base @ coefficients - target) * weight[:, None]
        spread = max(mad_std(pull[good]), 1e-6)
        now = np.all(np.abs(pull) < 3.5 * spread, axis=1)
        if now.sum() < 2 * base.shape[1] or np.array_equal(now, good):
            break
        good = now
    return coefficients


# --- All frames together ------------------------------------------------------------------


@dataclass(frozen=True)
class Measurements:
    """The star, frame and source of each measurement, one element per measurement.

    Parameters
    ----------
    frame, star, source : ndarray of int
        Indices; `star` in the list of its frame.
    start : ndarray, shape (sources, 2)
        First guess [arcsec] of the sources' positions: first those of the reference, then stars
        that several frames share.
    known : int
        Number of sources that are reference stars.
    centre : tuple of float
        Tangent point [deg].
    """

    frame: np.ndarray
    star: np.ndarray
    source: np.ndarray
    start: np.ndarray
    known: int
    centre: tuple[float, float]

    def agrees_with(self, other: "Measurements", fraction: float = 0.01) -> bool:
        """Tell whether both identify the same known stars but for a `fraction` of them."""
        pairs = []
        for one in (self, other):
            mine = one.source < self.known
            columns = (a[mine].tolist() for a in (one.frame, one.star, one.source))
            pairs.append(set(zip(*columns, strict=True)))
        return len(pairs[0] ^ pairs[1]) <= fraction * len(pairs[0])


def associate(
    frames: Sequence[AstrometryFrame], reference: Reference, merge: float = 0.7
) -> Measurements:
    """Collect the measurements of all stars, known or not, on all frames.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
    reference : Reference
    merge : float
        Stars nearer than this are the same [pixel].

    Returns
    -------
    Measurements
    """
    from scipy.spatial import cKDTree

    centre = frames[0].centre()
    scale = frames[0].scale
    known = project(reference.ra, reference.dec, *centre)
    merged = merged_stars(frames, merge).repeated
    merged = merged[np.argsort(merged.magnitude, kind="stable")]
    other = project(merged.ra, merged.dec, *centre)
    if len(other) and len(known):
        other = other[cKDTree(known).query(other)[0] > 3 * scale]
    start = np.concatenate([known, other[:MAX_TIE_STARS]])
    tree = cKDTree(start)
    parts = []
    for k, frame in enumerate(frames):
        points = project(*frame.pixel_to_world(frame.x, frame.y), *centre)
        i, j, distance = nearest_pairs(tree, points, 2 * scale)
        near = (j < len(known)) | (distance < merge * scale)
        parts.append(np.stack([np.full(near.sum(), k), i[near], j[near]]))
    index, star, source = np.concatenate(parts, axis=1).astype(int)
    return Measurements(index, star, source, start, len(known), centre)


@dataclass(frozen=True)
class Unknowns:
    """Position of each unknown of the joint fit among all of them.

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
    def per_axis(self) -> int:
        """Positions and linear terms of one axis."""
        return self.sources + 3 * self.frames

    @property
    def total(self) -> int:
        """All of them."""
        return 2 * self.per_axis + 2 * self.terms

    def position(self, axis: Any, source: Any) -> Any:
        """Return the index of a source's position."""
        return axis * self.per_axis + source

    def linear(self, axis: Any, frame: Any, term: Any) -> Any:
        """Return the index of a linear term of a frame."""
        return axis * self.per_axis + self.sources + 3 * frame + term

    def shared(self, axis: Any, term: Any) -> Any:
        """Return the index of a term of the shared polynomial."""
        return 2 * self.per_axis + axis * self.terms + term


class Equations:
    """Rows of a sparse linear system, written block by block."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.columns: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.right: list[np.ndarray] = []
        self.count = 0

    def add(self, right: np.ndarray) -> np.ndarray:
        """Begin a block with these right sides and return the numbers of its rows."""
        self.right.append(np.ravel(right))
        first, self.count = self.count, self.count + np.size(right)
        return np.arange(first, self.count)

    def put(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Enter coefficients."""
        for held, new in zip(
            (self.rows, self.columns, self.values),
            np.broadcast_arrays(rows, columns, values),
            strict=True,
        ):
            held.append(new.ravel())

    def system(self, unknowns: int) -> tuple[Any, np.ndarray]:
        """Return the matrix, shape (rows, unknowns), and the right side."""
        from scipy.sparse import coo_matrix

        entries = (np.concatenate(v) for v in (self.values, self.rows, self.columns))
        value, row, column = entries
        design = coo_matrix((value, (row, column)), shape=(self.count, unknowns))
        return design.tocsr(), np.concatenate(self.right)


class FrameModel:
    """The polynomials of one frame in the joint fit, and the map that their coefficients make.

    Parameters
    ----------
    frame : AstrometryFrame
    terms : list
        Terms of the shared polynomial, without the constant.
    centre : tuple of float
        Tangent point of the fit [deg].
    """

    def __init__(
        self, frame: AstrometryFrame, terms: list[Term], centre: tuple[float, float]
    ) -> None:
        self.present, self.middle = frame.pixel_to_world, frame.middle
        self.half = max(frame.shape) / 2
        self.matrix = frame.local_matrix()
        self.scale = frame.scale
        self.terms, self.centre = terms, centre

    def bases(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the linear terms of the frame, shape (n, 3), and shared terms, (n, terms)."""
        u = (np.asarray(x) - self.middle[0]) / self.half
        v = (np.asarray(y) - self.middle[1]) / self.half
        return np.stack([np.ones_like(u), u, v], axis=1), polynomial(u, v, self.terms)

    def map(self, own: np.ndarray, shared: np.ndarray) -> PixelMap:
        """Return the map with coefficients `own`, shape (3, 2), and `shared`, (terms, 2)."""
        # The detector's distortion in pixels, turned onto the sky as the frame is.
        turned = shared @ self.matrix.T

        @cached_map
        def pixel_to_world(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
            linear, common = self.bases(x, y)
            points = project(*self.present(x, y), *self.centre)
            return deproject(points + linear @ own + common @ turned, *self.centre)

        return pixel_to_world


def fit_jointly(
    frames: Sequence[AstrometryFrame], reference: Reference, degree: int
) -> list[PixelMap]:
    """Fit all frames and stars together (`joint_maps`), then again with all identifications.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Frames whose maps are accurate to a pixel.
    reference : Reference
    degree : int
        Degree of the distortion that the frames share.

    Returns
    -------
    list of callable
        Map of each frame to the sky.
    """
    found = associate(frames, reference)
    maps = joint_maps(frames, reference, degree, found)
    for _ in range(2 if degree > 1 else 0):
        # Stars that the distortion had moved out of reach are identified now.
        again = [copy(frame) for frame in frames]
        for frame, pixel_to_world in zip(again, maps, strict=True):
            frame.pixel_to_world = pixel_to_world
        before, found = found, associate(again, reference)
        if before.agrees_with(found):
            break
        maps = joint_maps(again, reference, degree, found)
    return maps


@dataclass(frozen=True)
class Errors:
    """Errors of the equations of the joint fit.

    Parameters
    ----------
    measured : ndarray, shape (n,)
        Errors of the measurements, per axis [arcsec].
    known : ndarray
        Errors of the reference positions, per axis [arcsec].
    prior : ndarray
        Errors of the priors.
    bright : ndarray of bool, shape (n,)
        Measurements whose scatter shows the error that is common to all.
    floor : float
        First guess and lower bound of that error [arcsec].
    """

    measured: np.ndarray
    known: np.ndarray
    prior: np.ndarray
    bright: np.ndarray
    floor: float


def joint_maps(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    degree: int,
    found: Measurements,
    *,
    freedom: float = 5e-4,
    accuracy: float = ACCURACY,
) -> list[PixelMap]:
    """Fit all frames and all stars together, robustly.

    Unknown are the position of each star, three linear terms per axis for each frame and a
    polynomial of the detector shared by all. A reference star adds its catalogued position as
    a measurement, so that its error counts once and not once a frame. The linear terms of a frame
    are held near those of the others as far as its own stars do not constrain them.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Frames whose maps are accurate to a pixel.
    reference : Reference
    degree : int
        Degree of the shared polynomial.
    found : Measurements
    freedom : float
        Expected spread of scale and rotation [rad] between frames (refraction, flexure).
    accuracy : float
        Error floor of a position [pixel]; raised to what the bright stars show.

    Returns
    -------
    list of callable
        Map of each frame to the sky.
    """
    # Shared linear terms too: those of a frame are only its difference from the group.
    terms = tpv_terms(degree)[1:]
    models = [FrameModel(frame, terms, found.centre) for frame in frames]
    unknowns = Unknowns(len(found.start), len(frames), len(terms))
    equations = Equations()
    error, snr = add_measurements(equations, unknowns, frames, models, found)
    known = np.arange(len(reference))
    for axis in (0, 1):
        rows = equations.add(found.start[known, axis])
        equations.put(rows, unknowns.position(axis, known), 1.0)
    errors = Errors(
        error,
        reference.error,
        prior=add_priors(equations, unknowns, models, freedom),
        bright=snr > max(30.0, np.percentile(snr, 60)),
        floor=accuracy * models[0].scale,
    )
    solution = solve_robustly(*equations.system(unknowns.total), errors)
    axes = np.arange(2)
    shared = solution[unknowns.shared(axes, np.arange(len(terms))[:, None])]
    return [
        model.map(solution[unknowns.linear(axes, k, np.arange(3)[:, None])], shared)
        for k, model in enumerate(models)
    ]


def add_measurements(
    equations: Equations,
    unknowns: Unknowns,
    frames: Sequence[AstrometryFrame],
    models: Sequence[FrameModel],
    found: Measurements,
) -> tuple[np.ndarray, np.ndarray]:
    """Add two equations for each measurement: its position is that of its source.

    Returns
    -------
    error : ndarray
        Error of each measurement, per axis [arcsec].
    snr : ndarray
        Signal-to-noise ratio of each measurement.
    """
    n = len(found.frame)
    observed, error, snr = np.empty((n, 2)), np.empty(n), np.empty(n)
    linear, shared = np.empty((n, 3)), np.empty((n, unknowns.terms))
    for k, (frame, model) in enumerate(zip(frames, models, strict=True)):
        at = found.frame == k
        i = found.star[at]
        x, y = frame.x[i], frame.y[i]
        observed[at] = project(*frame.pixel_to_world(x, y), *found.centre)
        linear[at], shared[at] = model.bases(x, y)
        error[at] = frame.error[i] * model.scale
        snr[at] = frame.snr[i]
    matrix = np.array([model.matrix for model in models])[found.frame]
    for axis in (0, 1):
        rows = equations.add(-observed[:, axis])
        equations.put(rows, unknowns.position(axis, found.source), -1.0)
        for t in range(3):
            equations.put(rows, unknowns.linear(axis, found.frame, t), linear[:, t])
        for t in range(unknowns.terms):
            for a in (0, 1):
                equations.put(rows, unknowns.shared(a, t), matrix[:, axis, a] * shared[:, t])
    return error, snr


def add_priors(
    equations: Equations, unknowns: Unknowns, models: Sequence[FrameModel], freedom: float
) -> np.ndarray:
    """Add the priors of the terms.

    Shift and shared terms are almost free; scale and rotation of a frame are near the median of
    the frames.

    Returns
    -------
    ndarray
        Error of each of the equations added.
    """
    matrices = np.array([model.matrix for model in models])
    typical = np.median(matrices, axis=0)
    wanted, error = np.zeros((2, len(models), 2, 3))
    for k, model in enumerate(models):
        alike = same_orientation(typical, model.matrix, 0.5, 0.005)
        if alike:
            # The correction at the edge of the frame that makes its matrix the typical one.
            wanted[k, :, 1:] = (typical - model.matrix) * model.half
        size = model.half * model.scale
        error[k, :, 0] = 5 * models[0].scale
        error[k, :, 1:] = (freedom if alike else 10 * freedom) * size
    indices: Any = np.indices(wanted.shape)
    frame, axis, term = indices
    equations.put(equations.add(wanted), unknowns.linear(axis, frame, term).ravel(), 1.0)
    indices = np.indices((2, unknowns.terms))
    axis, term = indices
    equations.put(equations.add(np.zeros(axis.size)), unknowns.shared(axis, term).ravel(), 1.0)
    return np.r_[error.ravel(), np.full(axis.size, 5.0)]


def solve_robustly(
    design: Any, right: np.ndarray, errors: Errors, *, clip: float = 4.0, rounds: int = 10
) -> np.ndarray:
    """Solve the weighted least-squares problem with outlier rejection.

    Parameters
    ----------
    design : sparse matrix
        Measurements of the first axis, then of the second; known positions likewise; priors.
    right : ndarray
    errors : Errors
    clip : float
        Rejection threshold, in units of the scatter.
    rounds : int
        Maximum number of iterations.

    Returns
    -------
    ndarray
        The unknowns.
    """
    from scipy.sparse import csc_array, csr_array, eye_array
    from scipy.sparse.linalg import splu

    n, known, floor = len(errors.measured), len(errors.known), errors.floor
    measured, transposed = design[: 2 * (n + known)], design.T.tocsr()
    # A source whose measurements are all left out is held where it was.
    hold = 1e-9 * eye_array(design.shape[1], format="csr")
    good, good_known = np.ones(n, bool), np.ones(known, bool)
    for _ in range(rounds):
        sigma = np.hypot(errors.measured, floor)
        weight = np.concatenate(
            [
                np.tile(np.where(good, 1 / sigma**2, 0.0), 2),
                np.tile(np.where(good_known, 1 / errors.known**2, 0.0), 2),
                1 / errors.prior**2,
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
        pull, pull_known = residual / sigma, off / errors.known
        now = np.all(np.abs(pull) < clip * max(mad_std(pull[:, good]), 1.0), axis=0)
        now_known = np.all(np.abs(pull_known) < clip * max(mad_std(pull_known), 1.0), axis=0)
        trusted = good & errors.bright
        if np.count_nonzero(trusted) > 10:
            floor = max(errors.floor, min(mad_std(residual[:, trusted]), 2 * floor))
        if np.array_equal(now, good) and np.array_equal(now_known, good_known):
            break
        good, good_known = now, now_known
    return solution
