"""A master sky, and what it is for each frame: made of the frames that look elsewhere."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.frame.file import Frame, read_frame, write_frame

TABLE = "POINTINGS"


@dataclass
class MasterSky(Frame):
    """A sky, and the skies without the frames of each group.

    A star too faint to be masked is part of the mean sky, by one frame's share; a frame would lose
    that part of it. So each has the sky of the frames that point elsewhere.

    Parameters
    ----------
    group : dict of str to int
        Group of each frame.
    without : dict of int to ndarray of float32, shape (ny, nx)
        Sky of all frames but those of the group.
    """

    group: dict = field(default_factory=dict)
    without: dict = field(default_factory=dict)

    def of(self, name: str) -> Frame:
        """Return the sky of a frame: the whole one where no other is known."""
        image = self.without.get(self.group.get(name), self.image)
        return Frame(image, self.mask, self.header)


def write_sky(path: str | Path, sky: MasterSky) -> None:
    """Write a `MasterSky`: the skies without a group as extensions, and a table of the groups."""
    extensions = []
    if sky.without:
        names = list(sky.group)
        width = max(len(name) for name in names)
        columns = [
            fits.Column("FRAME", f"{width}A", array=np.array(names)),
            fits.Column("GROUP", "I", array=np.array([sky.group[name] for name in names])),
        ]
        extensions.append(fits.BinTableHDU.from_columns(columns, name=TABLE))
        for number, image in sky.without.items():
            # In the byte order of the file: astropy would change it and back, six times.
            extensions.append(fits.ImageHDU(np.asarray(image, ">f4"), name=f"WITHOUT{number}"))
    write_frame(path, sky, extensions)


def read_sky(path: str | Path, name: str) -> Frame:
    """Return the sky of a frame.

    Parameters
    ----------
    path : path-like
        Of `write_sky`, or a ready-made sky without groups.
    name : str
        Of the frame, as its header FRAME has it.

    Returns
    -------
    lib.frame.file.Frame
    """
    extension: int | str = 0
    with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
        if TABLE in hdus:
            table = hdus[TABLE].data
            groups = table["GROUP"][table["FRAME"] == name]
            if groups.size:
                extension = f"WITHOUT{groups[0]}"
    return read_frame(path, extension)
