"""Errors that the unresolved stars of a crowded image add to those of its sources."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits

from lib.photometry.locallight import LocalLight
from lib.photometry.pointflux import confusion_error
from lib.photometry.sourcetable import SourceFluxes, SourceMeasurements
from lib.photometry.starfield import StarField


@dataclass(frozen=True)
class Confusion:
    """Errors that unresolved neighbours add to sources, as a function of flux and place.

    Parameters
    ----------
    flux : ndarray, shape (k,)
        Fluxes, ascending, over the light about the stars from `LocalLight.at`.
    point, auto, psf : ndarray, shape (k,)
        Added errors of POINT, AUTO and PSF fluxes, relative to the flux; of PSF NaN where there is
        no model.
    apertures : list of ndarray, shape (k,)
        Added errors in each circular aperture, relative to the flux.
    position : ndarray, shape (k,)
        Added error of positions, per axis [pixel].
    bias : ndarray, shape (k,)
        Median excess of PSF fluxes, without a model of POINT fluxes, relative to the flux.
    light : LocalLight
        How crowded the coadd is from place to place.
    """

    flux: np.ndarray
    point: np.ndarray
    auto: np.ndarray
    psf: np.ndarray
    apertures: list[np.ndarray]
    position: np.ndarray
    bias: np.ndarray
    light: LocalLight

    def beyond(
        self, relative: np.ndarray, flux: np.ndarray, x: np.ndarray, y: np.ndarray
    ) -> np.ndarray:
        """Return what is added to the errors of fluxes at places [pixel].

        `relative` is `point`, `psf`, or whichever the fluxes are.
        """
        return confusion_error(self.flux, relative, flux, self.light.at(x, y))

    def bias_at(self, flux: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        """Return the mean relative bias of stars of given fluxes and places [pixel]."""
        flux = flux / self.light.at(x, y)
        inside = np.clip(flux[flux > 0], self.flux[0], self.flux[-1])
        return float(np.mean(np.interp(np.log(inside), np.log(self.flux), self.bias)))

    def widen(self, measured: SourceMeasurements, field: StarField) -> SourceMeasurements:
        """Return measurements of the sources of a field with confusion in their errors."""
        x, y = field.sources["x"], field.sources["y"]

        def more(fluxes: SourceFluxes, relative: np.ndarray) -> SourceFluxes:
            beyond = self.beyond(relative, measured.point.flux, x, y)
            return SourceFluxes(fluxes.flux, np.hypot(fluxes.error, beyond))

        flux = np.clip(measured.point.flux / self.light.at(x, y), self.flux[0], None)
        shift = np.interp(np.log(flux), np.log(self.flux), self.position)
        return replace(
            measured, position_error=np.hypot(measured.position_error, shift),
            point=more(measured.point, self.point), auto=more(measured.auto, self.auto),
            psf=more(measured.psf, self.psf),
            apertures=[
                more(one, relative)
                for one, relative in zip(measured.apertures, self.apertures, strict=True)
            ],
        )  # fmt: skip

    def hdus(self) -> list[Any]:
        """Return a table of the added errors, ``CONFUSION``, and a map of the light, ``CROWDING``.

        Both serve forced photometry.
        """
        columns = [fits.Column("FLUX", "D", "electron", array=self.flux)]
        columns += [
            fits.Column(name, "D", unit, array=values)
            for name, unit, values in (
                ("POINT", None, self.point), ("PSF", None, self.psf), ("AUTO", None, self.auto),
                *((f"APER{k}", None, one) for k, one in enumerate(self.apertures, start=1)),
                ("POSITION", "pixel", self.position), ("BIAS", None, self.bias),
            )
        ]  # fmt: skip
        table = fits.BinTableHDU.from_columns(columns, name="CONFUSION")
        return [table, self.light.hdu()]

    @classmethod
    def from_hdus(cls, table: fits.BinTableHDU, light: fits.ImageHDU) -> "Confusion":
        """Return what `hdus` has made extensions of."""
        values = {name: table.data[name].astype(float) for name in table.columns.names}
        apertures = [one for name, one in values.items() if name.startswith("APER")]
        return cls(
            values["FLUX"], values["POINT"], values["AUTO"], values["PSF"], apertures,
            values["POSITION"], values["BIAS"], LocalLight.from_hdu(light),
        )  # fmt: skip
