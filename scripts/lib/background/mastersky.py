"""A master sky, and its versions for each frame: made from the frames that point elsewhere."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.frame.file import Frame, read_frame, write_frame

TABLE = "POINTINGS"

LIGHT = "LIGHT"


@dataclass
class MasterSky(Frame):
    """A sky, and the skies without the frames of each group.

    A star too faint to be masked contributes to the mean sky, and would lose that part of its
    light. Each frame therefore has the sky of the frames that point elsewhere.

    Parameters
    ----------
    group : dict of str to int
        Group of each frame.
    without : dict of int to ndarray of float32, shape (ny, nx)
        Sky of all frames but those of the group.
    light : dict of str to ndarray of float32, shape (rows, columns)
        Light of the target in each frame on a mesh, as a fraction of SKYCTS, where there is some.
    own_light : ndarray of float32, optional
        Light in the frame for which the sky was read.
    """

    group: dict = field(default_factory=dict)
    without: dict = field(default_factory=dict)
    light: dict = field(default_factory=dict)
    own_light: np.ndarray | None = None

    def of(self, name: str) -> "MasterSky":
        """Return the sky of a frame: the whole one where no other is known."""
        image = self.without.get(self.group.get(name), self.image)
        return MasterSky(image, self.mask, self.header, own_light=self.light.get(name))


def write_sky(path: str | Path, sky: MasterSky) -> None:
    """Write a `MasterSky`: the skies without a group as extensions, and a table of the groups."""
    extensions = []
    if sky.without or sky.light:
        names = list(sky.group)
        width = max(len(name) for name in names)
        columns = [
            fits.Column("FRAME", f"{width}A", array=np.array(names)),
            fits.Column("GROUP", "I", array=np.array([sky.group[name] for name in names])),
        ]
        extensions.append(fits.BinTableHDU.from_columns(columns, name=TABLE))
        for number, image in sky.without.items():
            # In the byte order of the file: astropy would swap the bytes six times.
            extensions.append(fits.ImageHDU(np.asarray(image, ">f4"), name=f"WITHOUT{number}"))
        if sky.light:
            cube = np.array([sky.light[name] for name in names], ">f4")
            extensions.append(fits.ImageHDU(cube, name=LIGHT))
    write_frame(path, sky, extensions)


def read_sky(path: str | Path, name: str) -> MasterSky:
    """Return the sky of a frame.

    Parameters
    ----------
    path : path-like
        File written by `write_sky`, or a ready-made sky without groups.
    name : str
        Name of the frame, header FRAME.

    Returns
    -------
    MasterSky
        With `own_light`.
    """
    extension: int | str = 0
    light = None
    with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
        if TABLE in hdus:
            table = hdus[TABLE].data
            row = np.flatnonzero(table["FRAME"] == name)
            if row.size and (found := f"WITHOUT{table['GROUP'][row[0]]}") in hdus:
                extension = found
            if row.size and LIGHT in hdus:
                light = np.asarray(hdus[LIGHT].data[row[0]], np.float32)
    frame = read_frame(path, extension)
    return MasterSky(frame.image, frame.mask, frame.header, own_light=light)
