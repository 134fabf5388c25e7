"""The source table of a coadd."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import sep
from astropy.io import fits

from lib.core.stats import excess_scatter
from lib.photometry.apertures import aperture_fluxes, squares_about
from lib.photometry.columnmeanings import describe_columns
from lib.photometry.fieldvariation import WIDE
from lib.photometry.flags import FLAG_NEIGHBOUR, FLAG_PARTIAL
from lib.photometry.image import MeasurementImage
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.neighbours import deblended_errors, neighbour_errors
from lib.photometry.pointflux import ApertureSums, core_fluxes, point_fluxes
from lib.photometry.skystructure import local_excess
from lib.photometry.starfield import STELLAR_LOCUS, StarField
from lib.photometry.zeropoint import Zeropoint

COUNTS = "ct"
"""Electrons: FITS has no such unit, and astropy would warn of each column."""

KRON_FACTOR = 2.5
"""Size of automatic apertures [Kron radii]."""

KRON_LEAST = 3.5
"""Least reach of an automatic aperture, in semi-axes of the source."""

KRON_REGION = 6.0
"""Size of the ellipse in which Kron radii are measured [semi-axes]."""

KRON_SLOPE = 0.15
"""d ln(flux) / d ln(radius) at 2.5 Kron radii: of a star (Moffat, beta 3); 0.17 of a disc."""

AXES_SLOPE = 0.1
"""The same at 3.5 semi-axes: 0.09 of a star, 0.15 of a disc."""

AXES_NOISE = 0.45
"""Scatter of ln(semi-axis) of repeats, times the root of S/N: 0.3 of discs to 0.55 of stars."""

WINDOW = 2.0 / 2.3548
"""Standard deviation of the window of positions, in half-light radii of stars."""


UNEVEN_SNR = 50.0
"""Least S/N of the stars that tell by how much more than their noise stars differ in apertures."""

MIN_UNEVEN_STARS, MAX_UNEVEN_STARS = 8, 60
"""Fewer do not tell, the brightest so many are enough."""

ApertureError = Callable[[np.ndarray, float], np.ndarray]
"""Errors of fluxes of all sources in apertures of a radius [pixel]."""


def kron_photometry(
    coadd: MeasuredCoadd, excess: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measure the sources of a coadd in automatic apertures.

    The ellipse of a source's second moments, stretched to 2.5 Kron radii and to 3.5 semi-axes at
    least (Kron 1980; Bertin & Arnouts 1996). Without that least reach the noise of faint sources
    decides how large their apertures are. The errors hold the noise of an empty aperture of that
    area, that of the source's photons, and what the flux changes as noise moves the Kron radius
    and the semi-axes.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With sources.
    excess : ndarray, shape (n,)
        Excess of the noise at each source, see `lib.photometry.skystructure.local_excess`.

    Returns
    -------
    flux, error : ndarray, shape (n,)
    reach : ndarray, shape (n,)
        Semi-major axes of the apertures [pixel].
    flags : ndarray of int32, shape (n,)
        16 and 128 of sep.
    """
    field = coadd.field
    assert field is not None
    source = field.sources
    x, y = source["x"].astype(float), source["y"].astype(float)
    a, b = np.maximum(source["a"], 0.5), np.maximum(source["b"], 0.5)
    ellipse = x, y, a, b, np.clip(source["theta"], -np.pi / 2, np.pi / 2)
    own = {"seg_id": np.arange(1, x.size + 1), "segmap": field.segments}
    radius, kron_flag = sep.kron_radius(coadd.image, *ellipse, KRON_REGION, **own)
    known = np.isfinite(radius) & (radius > 0)
    stretch = np.maximum(np.where(known, KRON_FACTOR * radius, 0), KRON_LEAST)
    flux, _, flag = sep.sum_ellipse(coadd.image, *ellipse, stretch, subpix=5, **own)
    variance, _, _ = sep.sum_ellipse(coadd.variance, *ellipse, stretch, subpix=5)
    ratio = excess * coadd.noise.ratio(stretch * np.sqrt(a * b))
    free = stretch > KRON_LEAST
    variance *= ratio**2 * np.where(free, kron_variance_factor(stretch), 1.0)
    light = np.maximum(flux, 0)
    error = np.sqrt(np.maximum(variance, 0) + light / coadd.gain)
    # The isophote moves the less the brighter the source: (slope scatter flux)^2.
    error = np.sqrt(error**2 + (AXES_SLOPE * AXES_NOISE) ** 2 * light * error)
    return flux, error, stretch * a, ((flag & 16) | (kron_flag & 128)).astype(np.int32)


def kron_variance_factor(stretch: np.ndarray) -> np.ndarray:
    """Return the variance of an automatic flux over that of its aperture held fast.

    The Kron radius r1 = sum(r I) / sum(I) feels the noise of each pixel by (r - r1) / sum(I), and
    the flux follows it along the growth curve: a pixel at r counts (r < R) + g (r - r1), with
    R = 2.5 r1 and g = `KRON_SLOPE` / r1, out to `KRON_REGION`.

    Parameters
    ----------
    stretch : ndarray, shape (n,)
        R, in semi-axes.

    Returns
    -------
    ndarray, shape (n,)
    """
    r1 = stretch / KRON_FACTOR
    inner, outer = np.minimum(stretch, KRON_REGION), KRON_REGION
    g = KRON_SLOPE / r1
    # Integrals of r, (r - r1) r and (r - r1)^2 r.
    fixed = stretch**2 / 2
    both = inner**3 / 3 - r1 * inner**2 / 2
    moved = outer**4 / 4 - 2 * r1 * outer**3 / 3 + r1**2 * outer**2 / 2
    return 1 + (2 * g * both + g**2 * moved) / fixed


def position_errors(
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    locus: float,
    variance: np.ndarray,
    gain: float,
) -> np.ndarray:
    """Return the errors of windowed positions, mean of both axes.

    A position is where the sum of W(x - x0) (x - x0) I vanishes, with a Gaussian W as wide as a
    star. Noise moves it by its own such sum, over the slope of that of the source (compare
    ERRX2WIN in the manual of source-extractor).

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Without background.
    x, y : ndarray, shape (n,)
        [pixel].
    locus : float
        Half-light radius of stars [pixel].
    variance : ndarray, shape (n,)
        Sky variance of a pixel at each source, correlated noise included.
    gain : float
        Electrons per unit.

    Returns
    -------
    ndarray, shape (n,)
        [pixel]; infinite where no light is left that tells the place.
    """
    window = WINDOW * locus
    half = int(np.ceil(4 * window))
    grid = np.arange(-half, half + 1)
    row, column = y.round().astype(int), x.round().astype(int)
    light = np.nan_to_num(image[squares_about(column, row, half, image.shape)])
    dy2, dx2 = ((grid + (whole - one)[:, None]) ** 2 for whole, one in ((row, y), (column, x)))
    r2 = dy2[:, :, None] + dx2[:, None, :]
    weight = np.exp(-r2 / (2 * window**2))
    # Mean of both axes: half of r^2 for x^2.
    slope = np.sum(weight * light * (1 - r2 / (2 * window**2)), axis=(1, 2))
    photons = np.sum(weight**2 * r2 / 2 * np.maximum(light, 0), axis=(1, 2)) / gain
    empty = variance * np.pi * window**4 / 2
    with np.errstate(divide="ignore"):
        return np.sqrt(photons + empty) / np.maximum(slope, 0)


@dataclass(frozen=True)
class SourceFluxes:
    """Fluxes of the sources of a coadd in apertures of one kind, with their errors.

    Parameters
    ----------
    flux, error : ndarray, shape (n,)
        In units of the coadd.
    """

    flux: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class SourceMeasurements:
    """What the source table holds of each of n sources, lengths in pixels.

    Parameters
    ----------
    sky : ndarray, shape (n, 2)
        ra, dec [deg].
    position_error : ndarray, shape (n,)
        Mean of both axes.
    point, auto : SourceFluxes
        Total fluxes of point sources; those in automatic apertures.
    apertures : list of SourceFluxes
        In circular apertures.
    kron_reach : ndarray, shape (n,)
        Semi-major axes of the automatic apertures.
    flags : ndarray of int32, shape (n,)
    """

    sky: np.ndarray
    position_error: np.ndarray
    point: SourceFluxes
    auto: SourceFluxes
    apertures: list[SourceFluxes]
    kron_reach: np.ndarray
    flags: np.ndarray

    def with_flat_error(self, part: float) -> "SourceMeasurements":
        """Return the measurements with an error of so large a part of each flux in theirs."""
        if not part:
            return self
        point, auto, *apertures = (
            SourceFluxes(one.flux, np.hypot(one.error, part * one.flux))
            for one in (self.point, self.auto, *self.apertures)
        )
        return replace(self, point=point, auto=auto, apertures=apertures)

    @classmethod
    def none(cls, n_apertures: int) -> "SourceMeasurements":
        """Return the measurements of no source."""
        none = np.empty(0)
        fluxes = SourceFluxes(none, none)
        circular = [fluxes] * n_apertures
        flags = np.empty(0, np.int32)
        return cls(np.empty((0, 2)), none, fluxes, fluxes, circular, none, flags)


def measure_sources(
    coadd: MeasuredCoadd, field: StarField, radii: list[float], crowded: bool = False
) -> SourceMeasurements:
    """Measure the sources of a coadd: positions, and fluxes in apertures of all kinds.

    Parameters
    ----------
    coadd : MeasuredCoadd
    field : StarField
        Its sources.
    radii : list of float
        Radii of the circular apertures [pixel].
    crowded : bool
        Whether stars run into each other everywhere: `POINT` is that of the inner aperture then.

    Returns
    -------
    SourceMeasurements
    """
    x, y = field.sources["x"].astype(float), field.sources["y"].astype(float)
    pixel = coadd.variance[y.round().astype(int), x.round().astype(int)]
    star_size = field.profile.half_light
    position_error = position_errors(
        coadd.image, x, y, star_size, pixel * coadd.noise.ratio(2 * star_size) ** 2, coadd.gain
    )
    image = MeasurementImage(coadd.image, np.sqrt(coadd.variance).astype(np.float32), gain=0.0)
    excess, inner_excess = (
        local_excess(
            coadd.image, coadd.variance, coadd.occupied, x, y, radius, coadd.noise.ratio(radius)
        )
        for radius in (field.aperture, field.core.radius)
    )

    def aperture_error(flux: np.ndarray, radius: float) -> np.ndarray:
        more = inner_excess if radius == field.core.radius else excess
        ratio = more * coadd.noise.ratio(radius)
        empty, _, _ = sep.sum_circle(coadd.variance, x, y, radius, subpix=5)
        return np.sqrt(np.maximum(empty, 0) * ratio**2 + np.maximum(flux, 0) / coadd.gain)

    aperture = field.star_aperture()
    inner = aperture.inner()
    error = deblended_errors(x, y, aperture_error(field.core_flux, inner.radius), inner)
    core = ApertureSums(field.core_flux, error, inner.fraction)
    error = np.hypot(
        aperture_error(field.flux, aperture.radius),
        neighbour_errors(x, y, np.sqrt(core.variance), aperture),
    )
    wide = ApertureSums(field.flux, error, aperture.fraction)
    if crowded:
        flux, error = core_fluxes(core, field.core.scatter)
    else:
        flux, error = point_fluxes(wide, core, field.core.scatter)
    uneven = UnevenLight.measure(image, field, aperture_error)
    point = SourceFluxes(flux, np.hypot(error, np.hypot(field.lost_error, uneven.wide) * flux))
    auto, auto_error, reach, kron_flags = kron_photometry(coadd, excess)
    held = _partial_error(coadd, field, float(np.median(reach)))
    auto_error = np.hypot(auto_error, held * auto)
    auto_error = np.hypot(auto_error, np.hypot(uneven.wide, uneven.beyond(auto, auto_error)) * auto)
    circular = []
    for radius in radii:
        flux = aperture_fluxes(image, x, y, [radius])[0][:, 0]
        error = aperture_error(flux, radius)
        part = np.hypot(uneven.wide, uneven.beyond(flux, error))
        part = np.hypot(part, _partial_error(coadd, field, radius))
        circular.append(SourceFluxes(flux, np.hypot(error, part * flux)))
    return SourceMeasurements(
        coadd.source_positions(), position_error,
        point,
        SourceFluxes(auto, auto_error), circular, reach, field.flags | kron_flags,
    )  # fmt: skip


@dataclass(frozen=True)
class UnevenLight:
    """By how much stars of one profile differ in apertures, beyond their noise.

    Pixels sample each star at another place, resampling and repaired pixels leave something, and
    the profile varies over the field: bright stars differ by more than photons tell.

    Parameters
    ----------
    rows : ndarray of int
        Bright stars that are alone, in the table of sources.
    flux, error : ndarray, shape (n,)
        Of all sources in the aperture of the photometry.
    wide : float
        Relative scatter in that aperture, against one of 3 FWHM.
    """

    rows: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    wide: float

    @classmethod
    def measure(
        cls, image: MeasurementImage, field: StarField, error_of: ApertureError
    ) -> "UnevenLight":
        """Measure the scatter of stars in the aperture of the photometry of a field."""
        error = error_of(field.flux, field.aperture)
        good = field.stars & ((field.flags & (FLAG_NEIGHBOUR | FLAG_PARTIAL)) == 0)
        rows = np.flatnonzero(good & (field.flux > UNEVEN_SNR * error))
        rows = rows[np.argsort(-field.flux[rows], kind="stable")[:MAX_UNEVEN_STARS]]
        if rows.size < MIN_UNEVEN_STARS:
            rows = rows[:0]
        uneven = cls(rows, field.flux, error, 0.0)
        radius = WIDE * field.fwhm
        alone = rows[field.isolation[rows] > radius + field.fwhm]
        if alone.size < MIN_UNEVEN_STARS:
            return uneven
        x, y = field.sources["x"][alone], field.sources["y"][alone]
        outer = np.ones(len(field.sources))
        outer[alone] = aperture_fluxes(image, x, y, [radius])[0][:, 0]
        own = replace(uneven, rows=alone)
        return replace(uneven, wide=own.beyond(outer, error_of(outer, radius)))

    def beyond(self, flux: np.ndarray, error: np.ndarray) -> float:
        """Return the relative scatter of fluxes against those of the photometry, beyond noise.

        Parameters
        ----------
        flux, error : ndarray, shape (n,)
            In an aperture about the same centres: the smaller one's noise is in both.
        """
        rows = self.rows[flux[self.rows] > 0]
        if rows.size < MIN_UNEVEN_STARS:
            return 0.0
        one, other = flux[rows], self.flux[rows]
        first, second = error[rows], self.error[rows]
        noise = (first / one) ** 2 + (second / other) ** 2
        noise -= 2 * np.minimum(first, second) ** 2 / (one * other)
        return excess_scatter(np.log(one / other), noise)


def frames_of(coadd: MeasuredCoadd, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the number of frames that count in the cores of sources, -1 where not known.

    Rounded mean over the inner aperture of `POINT`: 0 where saturation leaves none a weight.
    """
    field, coverage = coadd.field, coadd.coverage
    if field is None or coverage is None:
        return np.full(len(x), -1, np.int16)
    number = coverage.number.astype(np.float32)
    total, _, _ = sep.sum_circle(number, x, y, field.core.radius, subpix=1)
    pixels, _, _ = sep.sum_circle(np.ones_like(number), x, y, field.core.radius, subpix=1)
    return np.rint(total / np.maximum(pixels, 1)).astype(np.int16)


def _partial_error(coadd: MeasuredCoadd, field: StarField, radius: float) -> np.ndarray | float:
    """Return what an aperture lacks or has too much of sources that some of the frames cover.

    As a part of their flux: apertures of a fixed radius are not corrected for it.
    """
    if coadd.coverage is None:
        return 0.0
    x, y = field.sources["x"], field.sources["y"]
    factor, error = coadd.coverage.correction(x, y, radius, np.flatnonzero(field.stars))
    return np.hypot(np.log(factor), error)


def source_table(
    coadd: MeasuredCoadd,
    zeropoint: Zeropoint,
    apertures: tuple[float, ...],
    zeropoint_sources: np.ndarray | None = None,
    flat_error: float = 0.0,
    measured: SourceMeasurements | None = None,
) -> fits.BinTableHDU:
    """Return the table of all sources of a coadd.

    Parameters
    ----------
    coadd : MeasuredCoadd
    zeropoint : lib.photometry.zeropoint.Zeropoint
    apertures : tuple of float
        Radii of the circular apertures [FWHM].
    zeropoint_sources : ndarray of int, optional
        Rows of the sources used in the zero point.
    flat_error : float
        Error of the flat, as a fraction: part of the errors of all fluxes.
    measured : SourceMeasurements, optional
        Measured here if not given.

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    field, scale = coadd.field, coadd.scale
    radii = [factor * (field.fwhm if field else 1.0) for factor in apertures]
    if field is None:
        measured = SourceMeasurements.none(len(radii))
        source = np.zeros(0, [(key, "f8") for key in ("x", "y", "a", "b", "theta", "peak")])
    else:
        measured = measured or measure_sources(coadd, field, radii)
        measured = measured.with_flat_error(flat_error)
        source = field.sources
    used = np.zeros(len(source), bool)
    if zeropoint_sources is not None:
        used[zeropoint_sources] = True
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(measured.point.error > 0, measured.point.flux / measured.point.error, np.nan)
    columns = [
        _column("NUMBER", np.arange(1, len(source) + 1), kind="J"),
        _column("RA", measured.sky[:, 0], "deg", "D"),
        _column("DEC", measured.sky[:, 1], "deg", "D"),
        _column("POSERR", 1000 * scale * measured.position_error, "mas"),
        _column("X", source["x"] + 1, "pix", "D"),
        _column("Y", source["y"] + 1, "pix", "D"),
        *_flux_columns("POINT", measured.point, zeropoint),
        _column("SNR", snr),
        *_flux_columns("AUTO", measured.auto, zeropoint),
    ]
    for k, fluxes in enumerate(measured.apertures, start=1):
        columns += _flux_columns(f"APER{k}", fluxes, zeropoint)
    columns += [
        _column("KRON_RADIUS", measured.kron_reach * scale, "arcsec"),
        *_shape_columns(source, field, scale),
        _column("FLAGS", measured.flags, kind="J"),
        _column("NFRAMES", frames_of(coadd, source["x"], source["y"]), kind="I"),
        _column("ZP_STAR", used, kind="L"),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="SOURCES")
    describe_columns(table.header)
    _describe_apertures(table.header, field, radii, scale)
    return table


def _shape_columns(source: np.ndarray, field: StarField | None, scale: float) -> list[fits.Column]:
    """Return the columns of the sources' shapes and sizes, and of their peaks."""
    half_light = np.empty(0) if field is None else field.half_light
    size = np.empty(0) if field is None else field.size_ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        ellipticity = 1 - source["b"] / source["a"]
    return [
        _column("A_IMAGE", source["a"], "pix"),
        _column("B_IMAGE", source["b"], "pix"),
        _column("THETA", np.degrees(source["theta"]), "deg"),
        _column("ELLIPTICITY", ellipticity),
        _column("HALF_LIGHT", half_light * scale, "arcsec"),
        _column("SIZE_RATIO", size),
        _column("STAR", np.abs(np.log(np.maximum(size, 1e-3))) < STELLAR_LOCUS, kind="L"),
        _column("PEAK", source["peak"], COUNTS),
    ]


def _describe_apertures(
    header: fits.Header, field: StarField | None, radii: list[float], scale: float
) -> None:
    """Write radii [arcsec] and corrections of the apertures into the header of a source table."""
    for k, radius in enumerate(radii, start=1):
        header[f"APRAD{k}"] = (radius * scale, f"[arcsec] radius of APER{k}")
    if field is not None:
        header["APRADP"] = (field.aperture * scale, "[arcsec] aperture of POINT")
        fraction = float(field.growth.fraction(field.aperture))
        header["APCOR"] = (2.5 * np.log10(fraction), "[mag] correction of POINT to total")
        header["APCORERR"] = (1.0857 * field.growth.error, "[mag] its error")
        header["PSFVAR"] = (
            1.0857 * (field.variation.rms if field.variation else 0.0),
            "[mag] rms by which stars vary over the field; POINT has it taken out",
        )
        header["APRADC"] = (field.core.radius * scale, "[arcsec] inner aperture of POINT")
        header["APCORC"] = (2.5 * np.log10(field.core.fraction), "[mag] correction of that")
        header["APCORCSC"] = (1.0857 * field.core.scatter, "[mag] its scatter among stars")


def _column(name: str, values: np.ndarray, unit: str | None = None, kind: str = "E") -> fits.Column:
    """Return a column of the source table."""
    return fits.Column(name=name, format=kind, unit=unit, array=values)


def _flux_columns(name: str, fluxes: SourceFluxes, zeropoint: Zeropoint) -> list[fits.Column]:
    """Return the columns of fluxes and magnitudes in apertures of one kind."""
    flux, error = fluxes.flux, fluxes.error
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(flux > 0, zeropoint.value - 2.5 * np.log10(flux), np.nan)
        magnitude_error = np.where(flux > 0, 1.0857 * error / flux, np.nan)
    return [
        _column(f"FLUX_{name}", flux, COUNTS),
        _column(f"FLUXERR_{name}", error, COUNTS),
        _column(f"MAG_{name}", magnitude, "mag"),
        _column(f"MAGERR_{name}", magnitude_error, "mag"),
    ]


def map_hdus(coadd: MeasuredCoadd) -> list[fits.ImageHDU | fits.CompImageHDU]:
    """Return what else the sources were measured with, for those who measure again.

    Parameters
    ----------
    coadd : MeasuredCoadd

    Returns
    -------
    list of ImageHDU, CompImageHDU
        ``BACKGROUND``, the meshes of the background; ``OCCUPIED``, shape (ny, nx), 1 for pixels
        that belong to sources, with a rim, and those without weight; ``PARTIAL``, shape
        (4, by, bx), where not all frames cover all: ln of what the apertures of `POINT`, the wide
        and the inner one, hold there over what they hold elsewhere, its error, and the weight
        over that of the best covered place.
    """
    occupied = coadd.occupied.astype(np.uint8)
    # A row a tile, as is usual, takes four times as long to write and to read.
    tile = (min(64, occupied.shape[0]), occupied.shape[1])
    hdus = [
        fits.ImageHDU(coadd.background, name="BACKGROUND"),
        fits.CompImageHDU(occupied, name="OCCUPIED", compression_type="RICE_1", tile_shape=tile),
    ]
    field = coadd.field
    if field is not None and coadd.coverage is not None and coadd.coverage.partial:
        stars = field.sources[field.stars]
        radii = [field.aperture, field.core.radius]
        maps = coadd.coverage.correction_maps(stars["x"], stars["y"], radii)
        hdus.append(fits.CompImageHDU(
            maps, name="PARTIAL", compression_type="GZIP_2", quantize_level=0,
            tile_shape=(1, *maps.shape[1:]),
        ))  # fmt: skip
    return hdus


def significant(
    table: fits.BinTableHDU, least: float, significance: np.ndarray | None = None
) -> fits.BinTableHDU:
    """Return a source table without what is likely noise, renumbered.

    Parameters
    ----------
    table : astropy.io.fits.BinTableHDU
    least : float
        Least S/N of a source. Where it is not known, the source stays.
    significance : ndarray, shape (n,), optional
        S/N, where it is not that of the table.

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    snr = table.data["SNR"] if significance is None else significance
    rows = table.data[~(snr < least)]
    rows["NUMBER"] = np.arange(1, len(rows) + 1)
    return fits.BinTableHDU(rows, table.header, name="SOURCES")
