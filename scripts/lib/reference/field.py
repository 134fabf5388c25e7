"""The part of the sky that a target's frames cover."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Circle:
    """A circle on the sky.

    Parameters
    ----------
    ra, dec, radius : float
        [deg]
    """

    ra: float
    dec: float
    radius: float


@dataclass(frozen=True)
class Field:
    """The circle that holds a target's frames, and when they were observed.

    Parameters
    ----------
    ra, dec : float or None
        Centre [deg]; None where no pointing is known.
    radius : float or None
        Radius that covers all frames and the errors of their pointings [deg].
    wide : float, optional
        The same for the search that is made when nothing is found there [deg].
    epoch : float, optional
        Julian year of observation, to which positions are moved.
    """

    ra: float | None
    dec: float | None
    radius: float | None
    wide: float | None = None
    epoch: float | None = None

    @property
    def circle(self) -> Circle | None:
        """The circle; None where no pointing is known."""
        if self.ra is None or self.dec is None or self.radius is None:
            return None
        return Circle(self.ra, self.dec, self.radius)
