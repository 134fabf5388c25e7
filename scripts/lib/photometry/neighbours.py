"""Neighbours: stars are modelled, and measured with the light of the others subtracted."""

import numpy as np
import sep

from lib.core.stats import MAD_TO_SIGMA, regular_sample, sigma_clipped_median
from lib.photometry.apertures import discs_about, squares_about, tile_sums
from lib.photometry.image import MeasurementImage
from lib.photometry.psf import StarAperture, Wings
from lib.photometry.sources import Detections, detect_sources, neighbour_distance

BLOCK_PIXELS = 10**5
"""Pixels of models processed at once, so that they stay in the processor's cache."""

MODEL_FAINTEST = 0.02
"""Models are cut off where they are fainter [noise of a pixel]."""

MODEL_REACH = 40
"""Maximum extent of the models [radius of the aperture]."""

MODELLED_SNR = 5.0
"""Sources with a lower signal-to-noise ratio are not modelled."""

LEAST_SEPARATION = 1 / 3
"""Closer stars cannot be separated [radius of the aperture]."""

LEAST_CORE = 0.8
"""Minimum distance of hidden sources from a star [FWHM]: its core is not modelled well."""

HIDDEN_REACH = 3.0
"""Maximum distance of hidden sources from a star [FWHM]."""

MODEL_ERROR = 0.1
"""Relative error of the model of a star in the search for hidden sources: the scatter between
stars."""

FAINT_DISTANCE = 0.75
"""Faint sources are not searched for closer to the isophotes of others [FWHM]."""

FAINT_THRESHOLD = 4.3
"""Detection threshold of faint sources [noise of the filtered image]."""

COMMON_STARS = (4, 50)
"""Minimum and maximum number of stars of which the common residual is the median."""

COMMON_SNR = 30.0
"""Minimum signal-to-noise ratio of these stars, within the squares about them."""

COMMON_SIGMA = 3.0
"""Significance of the pixels of the common residual."""

HIDDEN_THRESHOLD = 5.0
"""Detection threshold of hidden sources [noise of a pixel, errors of the models included]."""


class StarModels:
    """An image with its stars subtracted, each modelled by the wings of the growth curve.

    Outside 0.8 FWHM, where it is fitted, the model is accurate to the noise; in the core it need
    not be, because the model of a star is added back where that star is measured.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted image with the stars.
    x, y, flux : ndarray, shape (n,)
        Positions [pixel] and total fluxes; those of flux 0 are not modelled.
    wings : Wings
        Profile of a star.
    noise : float
        Standard deviation of a pixel: models are cut off below a fiftieth of it.
    radius : float
        Minimum extent of the models [pixel].

    Attributes
    ----------
    residual : ndarray of float32, shape (ny, nx)
        The image without the models.
    half : ndarray of int, shape (n,)
        Half the side of the cutout of each model [pixel].
    """

    def __init__(
        self, image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, wings: Wings,
        noise: float, radius: float,
    ) -> None:  # fmt: skip
        self.size, self.wings = image.shape, wings
        self.x, self.y, self.flux = np.asarray(x, float), np.asarray(y, float), flux
        self.column, self.row = np.rint(self.x).astype(int), np.rint(self.y).astype(int)
        with np.errstate(divide="ignore"):
            reach = wings.reach(MODEL_FAINTEST * noise / flux)
        self.half = np.ceil(np.clip(reach, radius + 2, MODEL_REACH * radius)).astype(int)
        self.residual = image.copy()
        self._add(self.residual, np.flatnonzero(flux > 0), -1)

    def light(self, index: np.ndarray, half: int) -> np.ndarray:
        """Return the models of stars in squares about their central pixels.

        Parameters
        ----------
        index : ndarray of int, shape (n,)
            Rows of the stars.
        half : int
            The squares have 2 half + 1 pixels to a side.

        Returns
        -------
        ndarray of float32, shape (n, 2 half + 1, 2 half + 1)
            0 beyond the cutoff of a model and outside the image.
        """
        offset = np.arange(-half, half + 1)
        parts = []
        for place, centre, size in (
            (self.y, self.row, self.size[0]), (self.x, self.column, self.size[1])
        ):  # fmt: skip
            pixel = centre[index][:, None] + offset
            ends = (np.abs(offset) <= self.half[index][:, None]) & (pixel >= 0) & (pixel < size)
            parts.append(((pixel - place[index][:, None]).astype(np.float32), ends))
        (dy, rows), (dx, columns) = parts
        light = self.wings.density(dx[:, None, :], dy[:, :, None])
        light *= self.flux[index].astype(np.float32)[:, None, None]
        light *= rows[:, :, None] & columns[:, None, :]
        return light

    def _add(self, image: np.ndarray, index: np.ndarray, sign: int = 1) -> None:
        """Add the models of stars to an image, in place, many of one size at a time."""
        for half in np.unique(self.half[index]):
            members = index[self.half[index] == half]
            offset = np.arange(-half, half + 1, dtype=np.float32)
            for some in np.array_split(members, 1 + members.size * offset.size**2 // BLOCK_PIXELS):
                dy, dx = (
                    (centre[some] - place[some]).astype(np.float32)[:, None] + offset
                    for centre, place in ((self.row, self.y), (self.column, self.x))
                )
                stamps = self.wings.density(dx[:, None, :], dy[:, :, None])
                stamps *= (sign * self.flux[some]).astype(np.float32)[:, None, None]
                for i, stamp in zip(some, stamps, strict=True):
                    corner = (self.row[i] - half, self.column[i] - half)
                    add_stamp(image, (0, 0), corner, stamp)

    def apertures(self, radius: float, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the aperture sum of each star with the others subtracted, shape (n,).

        With `rows`, of these stars only.
        """
        rows = np.arange(self.x.size) if rows is None else rows
        sums, _, _ = sep.sum_circle(self.residual, self.x[rows], self.y[rows], radius, subpix=5)
        modelled = self.flux[rows] > 0
        index = rows[modelled]
        if index.size:
            half = int(np.ceil(radius)) + 1
            sums[modelled] += tile_sums(
                self.light(index, half), self.x[index] - self.column[index],
                self.y[index] - self.row[index], radius,
            )[0]  # fmt: skip
        return sums

    def put_back(self, chosen: np.ndarray) -> None:
        """Add the models of selected stars, a mask of shape (n,), to the residual, in place."""
        self._add(self.residual, np.flatnonzero(chosen & (self.flux > 0)))

    def image(self, chosen: np.ndarray) -> np.ndarray:
        """Return an image of the models of selected stars, given as a mask of shape (n,)."""
        image = np.zeros(self.size, np.float32)
        self._add(image, np.flatnonzero(chosen & (self.flux > 0)))
        return image


def model_stars(
    image: np.ndarray, noise: float, x: np.ndarray, y: np.ndarray, sums: np.ndarray,
    error: np.ndarray, aperture: StarAperture, reach: float | None = None,
) -> StarModels:  # fmt: skip
    """Return models of the detected stars, from aperture sums that include their neighbours' light.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float
        Standard deviation of a pixel.
    x, y : ndarray, shape (n,)
        [pixel].
    sums, error : ndarray, shape (n,)
        Aperture sums and their errors. Stars with S/N < 5 are not modelled.
    aperture : StarAperture
        Aperture of the sums, and the profile of a star.
    reach : float, optional
        Minimum extent of the models [pixel]; the radius of the aperture if not given.

    Returns
    -------
    StarModels
    """
    seen = np.flatnonzero(sums > MODELLED_SNR * error)
    flux = np.zeros(len(sums))
    flux[seen] = deblended_fluxes(sums[seen], x[seen], y[seen], aperture)
    # Of close pairs, noise may leave nothing for one star.
    flux = np.clip(flux, 0, None)
    return StarModels(image, x, y, flux, aperture.wings, noise, reach or aperture.radius)


def deblended_fluxes(
    sums: np.ndarray, x: np.ndarray, y: np.ndarray, aperture: StarAperture
) -> np.ndarray:
    """Solve for the total fluxes of stars with overlapping apertures.

    Parameters
    ----------
    sums : ndarray, shape (n,)
        Sums in circular apertures.
    x, y : ndarray, shape (n,)
        Positions [pixel].
    aperture : StarAperture
        Aperture of the sums, and the profile of a star.

    Returns
    -------
    ndarray, shape (n,)
        Total fluxes. Stars closer than a third of the radius cannot be separated: each gets the
        light of both.
    """
    from scipy.sparse import coo_array, eye_array
    from scipy.sparse.linalg import spsolve
    from scipy.spatial import cKDTree

    n, radius = len(sums), aperture.radius
    pairs = np.empty((0, 2), int)
    if n > 1:
        pairs = cKDTree(np.column_stack([x, y])).query_pairs(4 * radius, output_type="ndarray")
    if len(pairs) == 0:
        return sums / aperture.fraction
    apart = np.hypot(*(axis[pairs[:, 0]] - axis[pairs[:, 1]] for axis in (x, y)))
    separable = apart > LEAST_SEPARATION * radius
    part = np.interp(apart[separable], *aperture.wings.aperture_share(radius))
    row, column = np.concatenate([pairs[separable], pairs[separable][:, ::-1]]).T
    shared = coo_array((np.tile(part, 2), (row, column)), shape=(n, n))
    matrix = aperture.fraction * eye_array(n) + shared
    return spsolve(matrix.tocsc(), sums)


def deblended_errors(
    x: np.ndarray, y: np.ndarray, error: np.ndarray, aperture: StarAperture
) -> np.ndarray:
    """Return the errors of aperture sums after the neighbours' light was solved for.

    Overlapping stars have the fluxes M^-1 s, with the aperture sums s (see `deblended_fluxes`): the
    closer two are, the more noise is passed between them. The noise of overlapping apertures is
    correlated by the fraction of the area they share.

    Parameters
    ----------
    x, y, error : ndarray, shape (n,)
        Positions [pixel] and errors of the sums.
    aperture : StarAperture
        Aperture of the sums, and the profile of a star.

    Returns
    -------
    ndarray, shape (n,)
    ndarray, shape (n,)
        Errors of the sums.
    """
    from scipy.spatial import cKDTree

    blended = error.copy()
    if len(x) < 2:
        return blended
    points = np.column_stack([x, y])
    radius = aperture.radius
    share = aperture.wings.aperture_share(radius)
    tree = cKDTree(points)
    distance, index = tree.query(points, k=min(len(x), 9), distance_upper_bound=2 * radius)
    for i in np.flatnonzero(np.isfinite(distance).sum(axis=1) > 1):
        members = index[i][np.isfinite(distance[i])]
        apart = np.hypot(*(points[members][:, None] - points[members]).T)
        # As in the solution, those closer than a third of the radius are not separated.
        light = np.where(apart > LEAST_SEPARATION * radius, np.interp(apart, *share), 0.0)
        np.fill_diagonal(light, aperture.fraction)
        half = np.minimum(apart / (2 * radius), 1)
        overlap = 2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half**2))
        weight = aperture.fraction * np.linalg.pinv(light)[0]
        noise = weight * error[members]
        blended[i] = max(error[i], np.sqrt(max(0.0, noise @ overlap @ noise)))
    return blended


def neighbour_errors(
    x: np.ndarray, y: np.ndarray, flux_error: np.ndarray, aperture: StarAperture
) -> np.ndarray:
    """Return the errors of aperture sums due to the errors of the neighbours' fluxes.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions [pixel].
    flux_error : ndarray, shape (n,)
        Errors of the total fluxes.
    aperture : StarAperture
        Aperture of the sums, and the profile of a star.

    Returns
    -------
    ndarray, shape (n,)
        Errors of the sums.
    """
    from scipy.spatial import cKDTree

    variance = np.zeros(len(x))
    if len(x) > 1:
        pairs = cKDTree(np.column_stack([x, y])).query_pairs(
            3 * aperture.radius, output_type="ndarray"
        )
        apart = np.hypot(*(axis[pairs[:, 0]] - axis[pairs[:, 1]] for axis in (x, y)))
        part = np.interp(apart, *aperture.wings.aperture_share(aperture.radius))
        for one, other in (pairs.T, pairs.T[::-1]):
            np.add.at(variance, one, (part * flux_error[other]) ** 2)
    return np.sqrt(variance)


def hidden_sources(
    models: StarModels, image: MeasurementImage, point: np.ndarray, segments: np.ndarray,
    fwhm: float, min_area: int = 5, model_error: float = MODEL_ERROR,
) -> Detections:  # fmt: skip
    """Detect neighbours of stars that the detection did not separate from them.

    The image with its stars subtracted is searched between 0.8 and 3 FWHM from each star.

    Parameters
    ----------
    models : StarModels
        Models of the stars.
    image : MeasurementImage
        Image with the stars.
    point : ndarray of bool, shape (n,)
        Unsaturated point sources: the wings do not describe the others.
    segments : ndarray of int32, shape (ny, nx)
        Segmentation map of the known sources.
    fwhm : float
        [pixel].
    min_area : int
        Minimum number of connected pixels, as for `detect_sources`.
    model_error : float
        Relative error of the models of stars.

    Returns
    -------
    Detections
        The hidden sources, numbered from 1.
    """
    light = models.image(point)
    variance = image.noise**2 + light / image.gain + (model_error * light) ** 2
    error = np.sqrt(variance).astype(np.float32)
    reach = int(np.ceil(HIDDEN_REACH * fwhm))
    modelled = models.flux > 0
    core, search = (
        discs_about(models.x[some], models.y[some], radius, models.size)
        for some, radius in ((modelled, LEAST_CORE * fwhm), (modelled & point, reach))
    )
    other = np.append(False, ~point)[segments]
    left = models.residual - common_residual(models, point, reach, image.typical_noise)
    # The core of a neighbour may lie at the inner rim: count its pixels, not those of a star.
    residual = np.where(search & ~core & ~other, left, 0).astype(np.float32)
    return detect_sources(residual, error, None, HIDDEN_THRESHOLD, min_area)


def common_residual(
    models: StarModels, point: np.ndarray, reach: int, noise: float
) -> np.ndarray | float:
    """Return what the models leave of all stars alike, where their profile is not round.

    Coma, guiding and diffraction are in the same place about each star, neighbours are not: the
    median of the residuals of bright stars that are alone, over their fluxes, has none.

    Parameters
    ----------
    models : StarModels
        Models of the stars.
    point : ndarray of bool, shape (n,)
        Point sources.
    reach : int
        Half the side of the squares about the stars [pixel].
    noise : float
        Standard deviation of a pixel.

    Returns
    -------
    ndarray of float32, shape (ny, nx), or 0.0 for too few stars
    """
    side = 2 * reach + 1
    bright = np.flatnonzero(point & (models.flux > COMMON_SNR * noise * side))
    alone = neighbour_distance(models.x, models.y, models.flux) > reach
    bright = bright[alone[bright]]
    ny, nx = models.size
    inside = (np.minimum(models.column, nx - 1 - models.column)[bright] >= reach) & (
        np.minimum(models.row, ny - 1 - models.row)[bright] >= reach
    )
    bright = bright[inside][np.argsort(-models.flux[bright[inside]])][: COMMON_STARS[1]]
    if bright.size < COMMON_STARS[0]:
        return 0.0
    stamps = models.residual[
        squares_about(models.column[bright], models.row[bright], reach, (ny, nx))
    ]
    stamps = stamps / models.flux[bright, None, None]
    # Of the sky under the stars nothing is common.
    rim = np.concatenate([stamps[:, :: side - 1].reshape(bright.size, -1), stamps[:, :, 0]], axis=1)
    stamps -= np.median(rim, axis=1)[:, None, None]
    pattern = np.median(stamps, axis=0).astype(np.float32)
    error = 1.25 * MAD_TO_SIGMA * np.median(np.abs(stamps - pattern), axis=0) / np.sqrt(bright.size)
    pattern[np.abs(pattern) < COMMON_SIGMA * error] = 0
    common = np.zeros(models.size, np.float32)
    for i in np.flatnonzero(point & (models.flux > 0)):
        corner = (models.row[i] - reach, models.column[i] - reach)
        add_stamp(common, (0, 0), corner, np.float32(models.flux[i]) * pattern)
    return common


def faint_sources(
    residual: np.ndarray, image: MeasurementImage, segments: np.ndarray, fwhm: float
) -> Detections:
    """Detect point sources below the isophotal threshold with a matched filter.

    The image with its stars subtracted is smoothed with a Gaussian of the seeing and divided by the
    noise of the smoothed image. The neighbourhood of known sources is excluded because of the
    residuals of their models.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Image with its stars subtracted.
    image : MeasurementImage
        Image with the stars.
    segments : ndarray of int32, shape (ny, nx)
        Segmentation map of the known sources.
    fwhm : float
        [pixel].

    Returns
    -------
    Detections
        The faint sources, numbered from 1.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter

    with np.errstate(divide="ignore", invalid="ignore"):
        pull = residual / np.asarray(image.noise, np.float32)
    near = maximum_filter(segments > 0, size=2 * round(FAINT_DISTANCE * fwhm) + 1)
    # Pixels outside the frames have no noise and must not count.
    closed = near | ~np.isfinite(pull)
    if image.bad is not None:
        closed |= image.bad
    np.copyto(pull, 0, where=closed)
    filtered = gaussian_filter(pull, fwhm / 2.3548, truncate=3.0)
    noise = sigma_clipped_median(regular_sample(filtered)[~regular_sample(closed)])[1]
    if not noise > 0:
        noise = np.inf
    np.copyto(filtered, 0, where=closed)
    sources, theirs = detect_sources(filtered, noise, None, FAINT_THRESHOLD, 1, smooth=False)
    # In the units of the image, and with the width of a star.
    width = fwhm / 2.3548
    sources["flux"] = sources["peak"] * image.typical_noise * 4 * np.pi * width**2
    sources["peak"] = image.data[sources["ypeak"], sources["xpeak"]]
    sources["a"] = sources["b"] = width
    return Detections(sources, theirs)


def add_stamp(
    image: np.ndarray, origin: tuple[int, int], corner: tuple[int, int], stamp: np.ndarray
) -> None:
    """Add a small image to part of another, in place.

    Parameters
    ----------
    image : ndarray, shape (my, mx)
    origin : tuple of int
        Row and column of the first pixel of `image`.
    corner : tuple of int
        Row and column of the first pixel of `stamp`, in the same frame.
    stamp : ndarray, shape (ky, kx)
    """
    row, column = corner[0] - origin[0], corner[1] - origin[1]
    y0, x0 = max(0, row), max(0, column)
    y1 = min(image.shape[0], row + stamp.shape[0])
    x1 = min(image.shape[1], column + stamp.shape[1])
    if y1 > y0 and x1 > x0:
        image[y0:y1, x0:x1] += stamp[y0 - row : y1 - row, x0 - column : x1 - column]
