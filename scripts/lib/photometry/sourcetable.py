"""The source table of a coadd."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import sep
from astropy.io import fits

from lib.core.stats import excess_scatter
from lib.photometry.apertures import aperture_fluxes
from lib.photometry.coaddpsf import psf_measurement
from lib.photometry.columnmeanings import describe_columns
from lib.photometry.fieldvariation import WIDE_RADIUS
from lib.photometry.flags import FLAG_NEIGHBOUR, FLAG_PARTIAL, FLAG_SATURATED
from lib.photometry.image import MeasurementImage
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.neighbours import deblended_errors, neighbour_errors
from lib.photometry.pointflux import ApertureSums, core_fluxes, point_fluxes
from lib.photometry.starfield import STELLAR_LOCUS, StarField
from lib.photometry.underlying import UnderlyingLight
from lib.photometry.windowed import position_errors
from lib.photometry.zeropoint import Zeropoint

COUNTS = "ct"
"""Unit of electrons: FITS has none, and astropy would warn about each column."""

KRON_FACTOR = 2.5
"""Size of automatic apertures [Kron radii]."""

KRON_LEAST = 3.5
"""Minimum extent of an automatic aperture [semi-axes of the source]."""

KRON_REGION = 6.0
"""Extent of the ellipse in which Kron radii are measured [semi-axes]."""

KRON_SLOPE = 0.15
"""d ln(flux) / d ln(radius) at 2.5 Kron radii, for a star (Moffat, beta = 3); 0.17 for a disc."""

AXES_SLOPE = 0.1
"""The same at 3.5 semi-axes: 0.09 for a star, 0.15 for a disc."""

AXES_NOISE = 0.45
"""Scatter of ln(semi-axis) between repeated measurements, times the square root of S/N: 0.3 for
discs to 0.55 for stars."""


SCATTER_SNR = 50.0
"""Minimum S/N of the stars whose scatter beyond their noise is measured."""

MIN_SCATTER_STARS, MAX_SCATTER_STARS = 8, 60
"""Minimum number of these stars, and maximum, the brightest first."""

ApertureError = Callable[[np.ndarray, float], np.ndarray]
"""Takes the fluxes of all sources and a radius [pixel]; returns their errors in that aperture."""


def kron_photometry(
    coadd: MeasuredCoadd, excess: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measure the sources of a coadd in automatic apertures.

    The aperture is the ellipse of a source's second moments, scaled to 2.5 Kron radii but at least
    3.5 semi-axes (Kron 1980; Bertin & Arnouts 1996). Without this minimum, the noise of faint
    sources would determine the size of their apertures. The errors include the noise in an empty
    aperture of the same area, the photon noise of the source, and the change of flux as noise
    changes the Kron radius and the semi-axes.

    Parameters
    ----------
    coadd : MeasuredCoadd
        The coadd and its sources.
    excess : ndarray, shape (n,)
        Ratio of the local noise at each source, from `lib.photometry.skystructure.local_excess`.

    Returns
    -------
    flux, error : ndarray, shape (n,)
        Fluxes and their errors, in units of the coadd; NaN for sources that only fits of the
        point-spread function show, which have no pixels of their own.
    reach : ndarray, shape (n,)
        Semi-major axes of the apertures [pixel]; NaN for these.
    flags : ndarray of int32, shape (n,)
        Flags 16 and 128 of sep.
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
    # The isophote of a bright source varies less: (slope scatter flux)^2.
    error = np.sqrt(error**2 + (AXES_SLOPE * AXES_NOISE) ** 2 * light * error)
    reach = stretch * a
    has_pixels = np.bincount(field.segments.ravel(), minlength=x.size + 1)[1:] > 0
    for values in (flux, error, reach):
        values[~has_pixels] = np.nan
    return flux, error, reach, ((flag & 16) | (kron_flag & 128)).astype(np.int32)


def kron_variance_factor(stretch: np.ndarray) -> np.ndarray:
    """Return the variance of a Kron flux over that in an aperture of fixed size.

    The noise of a pixel at radius r changes the Kron radius r1 = sum(r I) / sum(I) by (r - r1) /
    sum(I) of it, and the flux changes along the growth curve. The pixel therefore counts with (r <
    R) + g (r - r1), where R = 2.5 r1 and g = `KRON_SLOPE` / r1, out to `KRON_REGION`.

    Parameters
    ----------
    stretch : ndarray, shape (n,)
        R, in semi-axes of the source.

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


@dataclass(frozen=True)
class SourceFluxes:
    """Fluxes and errors of the sources of a coadd in apertures of one kind.

    Parameters
    ----------
    flux, error : ndarray, shape (n,)
        Fluxes and errors in units of the coadd.
    """

    flux: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class SourceMeasurements:
    """Measurements of n sources for the source table; lengths are in pixels.

    Parameters
    ----------
    sky : ndarray, shape (n, 2)
        ra, dec [deg].
    position_error : ndarray, shape (n,)
        Errors of the positions, averaged over both axes.
    point, auto, psf : SourceFluxes
        Total fluxes of point sources, fluxes in automatic apertures, and fluxes fitted with the
        point-spread function.
    psf_chi2 : ndarray, shape (n,)
        Reduced chi-square of these fits.
    apertures : list of SourceFluxes
        Fluxes in circular apertures.
    kron_reach : ndarray, shape (n,)
        Semi-major axes of the automatic apertures.
    flags : ndarray of int32, shape (n,)
        Flags of sep and of `lib.photometry.flags`.
    """

    sky: np.ndarray
    position_error: np.ndarray
    point: SourceFluxes
    auto: SourceFluxes
    psf: SourceFluxes
    psf_chi2: np.ndarray
    apertures: list[SourceFluxes]
    kron_reach: np.ndarray
    flags: np.ndarray

    def with_flat_error(self, part: float) -> "SourceMeasurements":
        """Return the measurements with a relative flat-field error added to those of all fluxes."""
        if not part:
            return self
        point, auto, psf, *apertures = (
            SourceFluxes(one.flux, np.hypot(one.error, part * one.flux))
            for one in (self.point, self.auto, self.psf, *self.apertures)
        )
        return replace(self, point=point, auto=auto, psf=psf, apertures=apertures)

    @classmethod
    def none(cls, n_apertures: int) -> "SourceMeasurements":
        """Return an empty set of measurements."""
        none = np.empty(0)
        fluxes = SourceFluxes(none, none)
        circular = [fluxes] * n_apertures
        flags = np.empty(0, np.int32)
        return cls(np.empty((0, 2)), none, fluxes, fluxes, fluxes, none, circular, none, flags)


def measure_sources(
    coadd: MeasuredCoadd, field: StarField, radii: list[float], crowded: bool = False
) -> SourceMeasurements:
    """Measure positions and fluxes, in apertures of all kinds, of the sources of a coadd.

    Parameters
    ----------
    coadd : MeasuredCoadd
        The coadd.
    field : StarField
        The sources of the coadd.
    radii : list of float
        Radii of the circular apertures [pixel].
    crowded : bool
        Whether the field is crowded: `POINT` then uses the inner aperture alone.

    Returns
    -------
    SourceMeasurements
    """
    x, y = field.sources["x"].astype(float), field.sources["y"].astype(float)
    ny, nx = coadd.variance.shape
    row, column = np.clip(y.round(), 0, ny - 1), np.clip(x.round(), 0, nx - 1)
    pixel = coadd.variance[row.astype(int), column.astype(int)]
    star_size = field.profile.half_light
    # In a crowd the sky between the stars is fitted with them.
    under = UnderlyingLight.none(x.size) if crowded else coadd.under
    variance = pixel * coadd.noise.ratio(2 * star_size) ** 2
    position_error = position_errors(
        coadd.image, x, y, star_size, variance, coadd.gain, under.gradient_error
    )
    lost = np.isfinite(field.place_error)
    position_error[lost] = field.place_error[lost]
    image = MeasurementImage(coadd.image, np.sqrt(coadd.variance).astype(np.float32), gain=0.0)
    excess, inner_excess = (
        coadd.local_excess(x, y, radius, under) for radius in (field.aperture, field.core.radius)
    )

    def aperture_error(flux: np.ndarray, radius: float) -> np.ndarray:
        more = inner_excess if radius == field.core.radius else excess
        ratio = more * coadd.noise.ratio(radius)
        empty, _, _ = sep.sum_circle(coadd.variance, x, y, radius, subpix=5)
        return np.sqrt(np.maximum(empty, 0) * ratio**2 + np.maximum(flux, 0) / coadd.gain)

    aperture = field.star_aperture()
    inner = aperture.inner()
    error = deblended_errors(x, y, aperture_error(field.core_flux, inner.radius), inner)
    core = under.taken_from(ApertureSums(field.core_flux, error, inner.fraction), inner.radius)
    error = np.hypot(
        aperture_error(field.flux, aperture.radius),
        neighbour_errors(x, y, np.sqrt(core.variance), aperture),
    )
    wide = under.taken_from(ApertureSums(field.flux, error, aperture.fraction), aperture.radius)
    if crowded:
        flux, error = core_fluxes(core, field.core.scatter)
    else:
        flux, error = point_fluxes(wide, core, field.core.scatter)
    scatter = StarScatter.measure(image, field, aperture_error)
    # In a crowd what is beyond the aperture is the light of neighbours.
    part = field.lost_error if crowded else np.hypot(field.lost_error, scatter.wide)
    # What a plateau holds is no flux.
    flux = np.where(np.isfinite(field.lost_error), flux, np.nan)
    point = SourceFluxes(flux, np.hypot(error, part * flux))
    auto, auto_error, reach, kron_flags = kron_photometry(coadd, excess)
    held = _partial_error(coadd, field, float(np.nanmedian(reach)))
    auto_error = np.hypot(auto_error, held * auto)
    auto_error = np.hypot(auto_error, scatter.total(auto, auto_error) * auto)
    circular = []
    for radius in radii:
        flux = aperture_fluxes(image, x, y, [radius])[0][:, 0]
        error = aperture_error(flux, radius)
        part = np.hypot(scatter.total(flux, error), _partial_error(coadd, field, radius))
        circular.append(SourceFluxes(flux, np.hypot(error, part * flux)))
    psf = psf_measurement(coadd, field, under, crowded)
    return SourceMeasurements(
        coadd.source_positions(), position_error, point, SourceFluxes(auto, auto_error),
        SourceFluxes(psf.flux, psf.error), psf.chi2, circular, reach, field.flags | kron_flags,
    )  # fmt: skip


@dataclass(frozen=True)
class StarScatter:
    """Scatter, beyond their noise, of the fluxes of stars between apertures.

    It is due to pixel phase, to residuals of resampling and repaired pixels, and to the variation
    of the profile over the field, and exceeds the photon noise of bright stars.

    Parameters
    ----------
    rows : ndarray of int
        Rows of bright, isolated stars.
    flux, error : ndarray, shape (n,)
        Fluxes and errors of all sources in the aperture of the photometry.
    wide : float
        Relative scatter in that aperture against one of 3 FWHM.
    """

    rows: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    wide: float

    @classmethod
    def measure(
        cls, image: MeasurementImage, field: StarField, error_of: ApertureError
    ) -> "StarScatter":
        """Measure the scatter of the stars of a field in the aperture of its photometry."""
        error = error_of(field.flux, field.aperture)
        good = field.stars & ((field.flags & (FLAG_NEIGHBOUR | FLAG_PARTIAL)) == 0)
        rows = np.flatnonzero(good & (field.flux > SCATTER_SNR * error))
        rows = rows[np.argsort(-field.flux[rows], kind="stable")[:MAX_SCATTER_STARS]]
        if rows.size < MIN_SCATTER_STARS:
            rows = rows[:0]
        scatter = cls(rows, field.flux, error, 0.0)
        radius = WIDE_RADIUS * field.fwhm
        alone = rows[field.isolation[rows] > radius + field.fwhm]
        if alone.size < MIN_SCATTER_STARS:
            return scatter
        x, y = field.sources["x"][alone], field.sources["y"][alone]
        outer = np.ones(len(field.sources))
        outer[alone] = aperture_fluxes(image, x, y, [radius])[0][:, 0]
        own = replace(scatter, rows=alone)
        return replace(scatter, wide=own.beyond(outer, error_of(outer, radius)))

    def total(self, flux: np.ndarray, error: np.ndarray) -> float:
        """Return the relative scatter, beyond noise, of fluxes in an aperture; see `beyond`."""
        return float(np.hypot(self.wide, self.beyond(flux, error)))

    def beyond(self, flux: np.ndarray, error: np.ndarray) -> float:
        """Return the relative scatter, beyond noise, of fluxes against those of the photometry.

        Parameters
        ----------
        flux, error : ndarray, shape (n,)
            Fluxes and errors in an aperture of the same centres. The noise of the smaller aperture
            is common to both.
        """
        rows = self.rows[flux[self.rows] > 0]
        if rows.size < MIN_SCATTER_STARS:
            return 0.0
        one, other = flux[rows], self.flux[rows]
        first, second = error[rows], self.error[rows]
        noise = (first / one) ** 2 + (second / other) ** 2
        noise -= 2 * np.minimum(first, second) ** 2 / (one * other)
        return excess_scatter(np.log(one / other), noise)


def frames_of(coadd: MeasuredCoadd, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the number of frames contributing to the cores of sources; -1 where unknown.

    The mean over the inner aperture of `POINT`, rounded: 0 where saturation leaves none with
    weight.
    """
    field, coverage = coadd.field, coadd.coverage
    if field is None or coverage is None:
        return np.full(len(x), -1, np.int16)
    number = coverage.number.astype(np.float32)
    total, _, _ = sep.sum_circle(number, x, y, field.core.radius, subpix=1)
    pixels, _, _ = sep.sum_circle(np.ones_like(number), x, y, field.core.radius, subpix=1)
    return np.rint(total / np.maximum(pixels, 1)).astype(np.int16)


def _partial_error(coadd: MeasuredCoadd, field: StarField, radius: float) -> np.ndarray | float:
    """Return the relative error of apertures of sources that only some of the frames cover.

    Apertures of a fixed radius are not corrected for the different seeing of these frames.
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
        The coadd and its sources.
    zeropoint : lib.photometry.zeropoint.Zeropoint
        Zero point of the coadd.
    apertures : tuple of float
        Radii of the circular apertures [FWHM].
    zeropoint_sources : ndarray of int, optional
        Rows of the stars used for the zero point.
    flat_error : float
        Relative error of the flat field, included in the errors of all fluxes.
    measured : SourceMeasurements, optional
        Measurements of the sources, made here if not given.

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
        *_flux_columns("PSF", measured.psf, zeropoint),
        _column("CHI2_PSF", measured.psf_chi2),
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
    """Return the columns of the shapes, sizes and peaks of the sources."""
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
    """Write aperture radii [arcsec] and corrections into the header of a source table."""
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
    """Return the flux and magnitude columns of apertures of one kind."""
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
    """Return extensions with the maps needed for forced photometry on the coadd.

    Parameters
    ----------
    coadd : MeasuredCoadd
        The coadd and its sources.

    Returns
    -------
    list of ImageHDU, CompImageHDU
        ``BACKGROUND``, the background mesh; ``OCCUPIED``, shape (ny, nx), 1 for pixels of sources,
        with a margin, and for those without weight; and, where not all frames cover the whole
        coadd, ``PARTIAL``, shape (4, by, bx): ln of the relative fraction of light in the wide and
        in the inner aperture of `POINT`, its error, and the weight relative to the best covered
        position.
    """
    occupied = coadd.occupied.astype(np.uint8)
    # The usual tiles of one row take four times as long to write and to read.
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
    """Return a source table without insignificant sources, renumbered.

    Parameters
    ----------
    table : astropy.io.fits.BinTableHDU
        Source table.
    least : float
        Minimum S/N; sources of unknown S/N and saturated ones are kept.
    significance : ndarray, shape (n,), optional
        S/N to use instead of that in the table.

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    snr = table.data["SNR"] if significance is None else significance
    rows = table.data[~(snr < least) | (table.data["FLAGS"] & FLAG_SATURATED > 0)]
    rows["NUMBER"] = np.arange(1, len(rows) + 1)
    return fits.BinTableHDU(rows, table.header, name="SOURCES")
