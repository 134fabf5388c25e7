"""The stack of a target that the others are tied to: its stars, and how far its headers were off.

Filters of one target share the telescope's pointing, and most of their stars. What one stack has
found of both places the frames of another that shows few stars, and gives all filters one frame of
coordinates where there is no reference.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.astrometry.fewstars import PointingCorrection
from lib.astrometry.firstsolution import followed_by_linear
from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.matching import Match, NoMatch, PlaneStars, SearchRange, match_stars
from lib.astrometry.starlists import Reference, merged_stars
from lib.core.settings import AstrometrySettings
from lib.core.sphere import project

ANCHOR_STARS = 300
"""The brightest stars of a stack that others are tied to."""


@dataclass(frozen=True)
class Anchor:
    """The solution of a stack as used by other stacks.

    Parameters
    ----------
    stars : Reference
        Merged stars of its frames, with instrumental magnitudes.
    corrections : list of PointingCorrection
    camera : str
        Corrections hold for the frames of this camera.
    catalogue : str
        Catalogue it was solved against; 'NONE' where its frames are only aligned with each other.
    """

    stars: Reference
    corrections: list[PointingCorrection]
    camera: str
    catalogue: str

    def corrections_for(self, frames: Sequence[AstrometryFrame]) -> list[PointingCorrection]:
        """Return the corrections where the frames are of the same camera."""
        return self.corrections if frames and camera_of(frames[0]) == self.camera else []

    @classmethod
    def of(
        cls, frames: Sequence[AstrometryFrame], headers: Mapping[str, Any], catalogue: str
    ) -> "Anchor":
        """Return that of solved frames; `headers` has middle and matrix of each before."""
        merged = merged_stars(frames)
        bright = np.argsort(merged.magnitude, kind="stable")[:ANCHOR_STARS]
        stars = Reference(
            *(getattr(merged, key)[bright] for key in ("ra", "dec", "error", "magnitude"))
        )
        corrections = [PointingCorrection.of(one, *headers[one.name]) for one in frames]
        return cls(stars, corrections, camera_of(frames[0]), catalogue)

    def as_json(self) -> dict[str, Any]:
        """Return its part of the file of a solution."""
        stars = {
            key: getattr(self.stars, key).tolist() for key in ("ra", "dec", "error", "magnitude")
        }
        pointings = [
            {"mjd": one.mjd, "offset": one.offset.tolist(), "turn": one.turn.tolist()}
            for one in self.corrections
        ]
        return {"stars": stars, "pointings": pointings, "camera": self.camera}


def camera_of(frame: AstrometryFrame) -> str:
    """Return which camera a frame is of, as its header names it."""
    return f"{frame.header.get('INSTFILE', '')} {frame.header.get('CAMERA', '')}"


def read_anchor(path: str | Path) -> Anchor | None:
    """Return the anchor in the file of a solution; None where nothing was solved."""
    content = json.loads(Path(path).read_text())
    found = content.get("anchor")
    if not found or not found["stars"]["ra"]:
        return None
    stars = Reference(
        *(np.array(found["stars"][key]) for key in ("ra", "dec", "error", "magnitude"))
    )
    corrections = [
        PointingCorrection(one["mjd"], np.array(one["offset"]), np.array(one["turn"]))
        for one in found["pointings"]
    ]
    return Anchor(stars, corrections, found["camera"], content["catalogue"])


def tie_to_anchor(
    frames: Sequence[AstrometryFrame], anchor: Anchor, settings: AstrometrySettings
) -> Match | None:
    """Move aligned frames onto the coordinates of another stack, all by one map.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Aligned with each other; their maps are changed.
    anchor : Anchor
    settings : AstrometrySettings

    Returns
    -------
    Match or None
        None where their stars are not found: the frames stay as they are.
    """
    merged = merged_stars(frames)
    first = frames[0]
    centre, scale = first.centre(), first.scale
    search = SearchRange(
        size=float(np.sqrt(np.prod(first.shape)) * scale), tolerance=first.tolerance * scale,
        radius=max(frame.radius for frame in frames), first_radius=max(10 * scale, 5.0),
        asterisms=False,
    )  # fmt: skip
    try:
        match = match_stars(
            PlaneStars(project(merged.ra, merged.dec, *centre), merged.magnitude),
            PlaneStars(
                project(anchor.stars.ra, anchor.stars.dec, *centre), anchor.stars.magnitude
            ),
            search, settings,
        )  # fmt: skip
    except NoMatch:
        return None
    for frame in frames:
        frame.pixel_to_world = followed_by_linear(frame.pixel_to_world, match.mapping, centre)
    return match
