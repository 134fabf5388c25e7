"""Photometry as text for a GCN circular: plain ASCII, lines of less than 80 characters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib.core.text import card_text
from lib.photometry.forced import LIMIT_SIGMA

LONGEST = 79
"""Maximum length of a line [characters]."""

HEAD = f"{'T_mid (UTC)':<20} {'exposure':>8}  {'filter':<9} {'magnitude':<18} system"


@dataclass(frozen=True)
class CircularRow:
    """One measurement.

    Parameters
    ----------
    mid : str
        Mid-time of the exposures, UTC, ISO 8601, to the second.
    exposure : float or None
        Sum of the exposures [s].
    filter : str
        Name of the filter.
    magnitude, error, limit : float or None
        Magnitude, its error including that of the zero point, and the limit at `LIMIT_SIGMA` [mag].
    system : str
        AB or Vega.
    """

    mid: str
    exposure: float | None
    filter: str
    magnitude: float | None
    error: float | None
    limit: float | None
    system: str

    @property
    def line(self) -> str:
        """The measurement as a line of text; '' without magnitude and limit."""
        if self.magnitude is not None:
            # The smallest error stated is 0.01.
            value = f"{self.magnitude:.2f} +/- {max(self.error or 0.0, 0.01):.2f}"
        elif self.limit is not None:
            value = f"> {self.limit:.2f} ({LIMIT_SIGMA:g} sigma)"
        else:
            return ""
        exposure = "" if self.exposure is None else f"{self.exposure:.0f} s"
        text = f"{self.mid[:19]:<20} {exposure:>8}  {self.filter[:9]:<9} {value:<18} {self.system}"
        return card_text(text, LONGEST)


def circular_text(
    name: str,
    place: tuple[float, float, float | None] | None,
    rows: Sequence[CircularRow],
    catalogues: Iterable[str],
) -> str:
    """Return the text of a circular about one object; '' where no row has a value.

    Parameters
    ----------
    name : str
        Name of the object.
    place : tuple, or None
        ra, dec [deg, ICRS] and the error per axis [arcsec], or None where unknown; None for a
        moving object.
    rows : sequence of CircularRow
        Measurements.
    catalogues : iterable of str
        Catalogues of the zero points.
    """
    lines = [row.line for row in rows if row.line]
    if not lines:
        return ""
    tied = sorted({one for one in catalogues if one not in ("", "NONE")})
    foot = [card_text(f"Calibrated against {', '.join(tied)}.", LONGEST)] if tied else []
    return "\n".join([
        card_text(name, LONGEST), *(_place_lines(*place) if place else []), "", HEAD, *lines, "",
        *foot, "Not corrected for Galactic extinction.",
    ])  # fmt: skip


def _place_lines(ra: float, dec: float, error: float | None) -> list[str]:
    from astropy.coordinates import Angle

    hours = Angle(ra, "deg").to_string("hourangle", sep=":", precision=3, pad=True)
    degrees = Angle(dec, "deg").to_string(sep=":", precision=2, pad=True, alwayssign=True)
    lines = [f"RA, Dec (J2000): {hours} {degrees} = {ra:.6f} {dec:+.6f} deg"]
    if error is not None:
        lines.append(f"Error of the position: {max(error, 0.01):.2f} arcsec per axis.")
    return lines
