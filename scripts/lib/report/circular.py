"""Photometry as the text of a GCN circular: plain ASCII, lines below 80 letters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib.core.text import card_text
from lib.photometry.forced import LIMIT_SIGMA

LONGEST = 79
"""Letters of a line."""

HEAD = f"{'T_mid (UTC)':<20} {'exp. [s]':>8}  {'filter':<9} {'magnitude':<18} system"


@dataclass(frozen=True)
class CircularRow:
    """One measurement.

    Parameters
    ----------
    mid : str
        Middle of the exposures, UTC, ISO, to the second.
    exposure : float or None
        Sum of the exposures [s].
    filter : str
    magnitude, error, limit : float or None
        The error includes that of the zero point. The limit is one of `LIMIT_SIGMA`.
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
        """The measurement as a line; empty where there is no number."""
        if self.magnitude is not None:
            # A hundredth is the least error that is stated.
            value = f"{self.magnitude:.2f} +/- {max(self.error or 0.0, 0.01):.2f}"
        elif self.limit is not None:
            value = f"> {self.limit:.2f} ({LIMIT_SIGMA:g} sigma)"
        else:
            return ""
        exposure = "" if self.exposure is None else f"{self.exposure:.0f}"
        text = f"{self.mid[:19]:<20} {exposure:>8}  {self.filter[:9]:<9} {value:<18} {self.system}"
        return card_text(text, LONGEST)


def circular_text(
    name: str,
    place: tuple[float, float, float | None] | None,
    rows: Sequence[CircularRow],
    catalogues: Iterable[str],
) -> str:
    """Return the text of a circular on one object; empty where no row has a number.

    Parameters
    ----------
    name : str
    place : tuple, or None
        ra, dec [deg, ICRS] and the error per axis [arcsec], None where that is not known; None for
        an object that moves.
    rows : sequence of CircularRow
    catalogues : iterable of str
        Of the zero points.
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
